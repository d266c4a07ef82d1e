"""The command `effconv`; its libraries come with `pip install 'effconv-core[cli]'`."""

import sys
from collections.abc import Sequence

__all__ = ["main"]

EXTRA = ("tyro", "rich", "matplotlib", "jinja2")  # packages of the extra that it imports


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give the exit status, see `effconv_core.cli.app.USAGE`.

    Args:
        arguments: the words after `effconv`; those of this process when None.
    """
    try:
        from effconv_core.cli.app import run

        return run(sys.argv[1:] if arguments is None else arguments)
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in EXTRA:
            raise
        needed = f"effconv: the command line needs {name}"
        sys.stderr.write(f"{needed}; pip install 'effconv-core[cli]'\n")
        return 2
