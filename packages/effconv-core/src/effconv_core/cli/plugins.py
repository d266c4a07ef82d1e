"""What other packages bring to the command line, by entry points: models, data and commands.

`effconv.models`: a function that makes a network of a name, with `num_classes` and `in_channels` by
keyword. `effconv.data`: one like `effconv_data.load`. `effconv.commands`: one that takes the words
after the command's own and returns an exit status; its module may have `Command`, the type that
tyro reads for completion. The name of the first two is the word before the colon of MODEL or DATA.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any


def brought(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name; of two of a name, that of the first path."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        found.setdefault(entry.name, entry)
    return found


def loaded(entry: EntryPoint) -> Any:
    """Load what an entry point names; None where its package is gone.

    Raises:
        ModuleNotFoundError: if the package is there and needs something that is not.
    """
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        if error.name != entry.module.partition(".")[0]:
            raise
        return None
