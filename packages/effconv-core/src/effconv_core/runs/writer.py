"""Writing a run's folder: settings, metrics, and what keeps a finished run from being overwritten.

What such a folder may hold stands in `runs/reader.py`, which reads it.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from effconv_core.config import with_present_defaults
from effconv_core.io.atomic import PARTIAL, write_text
from effconv_core.runs.environment import environment
from effconv_core.runs.lock import claim
from effconv_core.runs.owner import (
    Owner,
    check_place,
    clear,
    mark,
    remove_leftovers_of_run,
    written,
)
from effconv_core.runs.reader import read_config
from effconv_core.space.selection import left_alone, searched_layers

REPORT = "report.md"
RESULT = "result.json"  # the last file that a run writes: it is finished
FAILED = "failed.json"


def check_run(folder: Path, settings: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Return whether a run of these settings was interrupted in a folder; nothing is changed.

    Args:
        folder: where the run is kept.
        settings: what decides the run's outcome.
        overwrite: whether a run that is there is to be deleted.

    Raises:
        FileExistsError: if the folder holds something else than a run; or if its run is finished,
            or was made with other settings, and is not to be deleted.
    """
    owner = check_place(folder)
    if overwrite or owner is Owner.NOBODY:
        return False
    remedy = "pass --overwrite to delete it and run again, or another --name"
    before, now = settings_of(folder, settings), same(settings)
    changes = [] if before is None else changed_settings(before, now)
    changed = f"begun with other settings: {'; '.join(changes)}"
    plan = folder / "plan.json"
    if [change.split()[0] for change in changes] == ["train.epochs"] and plan.exists():
        # The rate of each epoch depends on their number, so those that were done are others.
        remedy += f", or train its sizes without another search: effconv train --plan {plan}"
    if (folder / RESULT).exists():
        was = f", was {changed}" if changes else ""
        raise FileExistsError(f"run {folder} is finished, see {folder / RESULT}{was}; {remedy}")
    if before is None:
        # A run that was killed as it began has left no more than parts of files.
        names = (path.name for path in written(folder) if not PARTIAL.fullmatch(path.name))
        if left := sorted(name for name in names if name != FAILED):
            raise FileExistsError(
                f"{folder} holds {left[0]} of a run whose config.json is missing; {remedy}"
            )
        return False
    if before != now:
        raise FileExistsError(f"run {folder} was {changed}; {remedy}")
    return True


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return for each setting that differs its dotted name, its former and its present value.

    Examples:
        >>> changed_settings({"train": {"epochs": 30}}, {"train": {"epochs": 31}})
        ['train.epochs was 30, now 31']
    """
    old, new = dotted(before), dotted(now)
    return [
        f"{name} was {old.get(name, 'not set')}, now {new.get(name, 'not set')}"
        for name in sorted(old.keys() | new.keys())
        if (name in old, old.get(name)) != (name in new, new.get(name))
    ]


def dotted(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested settings as one mapping of dotted names such as `search.epochs`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= dotted(value, f"{before}{name}.")
        else:
            flat[f"{before}{name}"] = value
    return flat


def same(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they come back from a JSON file, where a tuple is a list."""
    return json.loads(json.dumps(settings))


def settings_of(folder: Path, now: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Return the settings that a run was begun with, None where there is no `config.json`.

    Args:
        folder: of the run.
        now: settings that it is compared with; former defaults of a search are then today's.
    """
    try:
        before = same(read_config(folder).settings)
    except FileNotFoundError:
        return None
    search, given = before.get("search"), (now or {}).get("search")
    if isinstance(search, dict) and isinstance(given, Mapping):
        before["search"] = with_present_defaults(search, given)
    return before


def open_run(
    folder: Path,
    settings: Mapping[str, Any],
    data: str,
    network: Mapping[str, Any] | None = None,
    *,
    overwrite: bool,
    inputs: Mapping[str, Any] | None = None,
) -> bool:
    """Make a run's folder, or go on in one that was interrupted; this process must hold it.

    Args:
        folder: where the run is kept.
        settings: what decides the run's outcome; written to `config.json`.
        data: what the data are, written beside the device and the versions.
        network: what `describe` gives, written there too where there is a search.
        overwrite: delete what an earlier run has written there and start again.
        inputs: what the network takes, see `schemas.Inputs`; written there too.

    Returns:
        Whether an interrupted run goes on.

    Raises:
        FileExistsError: as `check_run` does.
    """
    goes_on = check_run(folder, settings, overwrite=overwrite)
    mark(folder)
    if goes_on:
        remove_leftovers_of_run(folder)
        return True
    clear(folder)
    content = {
        "settings": settings,
        "environment": {"data": data, **environment(settings["device"])},
        **({} if network is None else {"network": network}),
        **({} if inputs is None else {"inputs": inputs}),
    }
    write_text(folder / "config.json", json.dumps(content, indent=2) + "\n")
    return False


@contextmanager
def begun(
    folder: Path, settings: Mapping[str, Any], data: str, *, overwrite: bool
) -> Iterator[bool]:
    """Lock the run folder and create or resume the run; yields True when it resumes.

    Raises:
        FileExistsError: as `check_run` does, or if another process holds the folder.
    """
    check_run(folder, settings, overwrite=overwrite)
    mark(folder)
    with claim(folder):
        yield open_run(folder, settings, data, overwrite=overwrite)


def describe(model: nn.Module) -> dict[str, Any]:
    """Return a network's searched layers, their shapes, and the skipped layers, for JSON."""
    return {
        "class": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "layers": {
            name: {
                "channels": [conv.in_channels, conv.out_channels],
                "groups": conv.groups,
                "kernel_size": list(conv.kernel_size),
            }
            for name, conv in searched_layers(model).items()
        },
        "left_alone": left_alone(model),
    }


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write a run's result, after all else that it writes: this marks it as finished.

    Args:
        folder: of the run.
        result: what JSON can hold; `networks` are those that it trained.
    """
    write_text(folder / RESULT, json.dumps(result) + "\n")
