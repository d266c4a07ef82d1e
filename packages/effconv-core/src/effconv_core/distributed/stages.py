"""Results of the stages of a long computation, kept in a JSON file so that none is repeated."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch
import torch.distributed as dist

from effconv_core.distributed.failures import together
from effconv_core.io.atomic import check_place, write_text
from effconv_core.io.kinds import check_kind
from effconv_core.io.read_json import LIMIT, conform, decode_json, read_limited

SCHEMA = 1

Remember = Callable[[str, Callable[[], Any]], Any]
"""Returns what a function returned under a name in an earlier run, or calls it and keeps that."""


class StagesFile(TypedDict):
    """What is computed, and the results so far, by the name of the stage."""

    schema: int
    of: dict[str, Any]
    stages: dict[str, Any]


def remembering(
    path: str | os.PathLike[str] | None,
    of: Mapping[str, Any],
    *,
    group: dist.ProcessGroup | None = None,
    device: torch.device | str = "cpu",
) -> Remember:
    """Return a function that keeps the results of stages in a file, and reads those of before.

    Args:
        path: the file, written whole after each stage; None keeps nothing beyond this run.
        of: everything that the results depend on, a JSON value; a file of anything else is refused.
        group: ranks that compute the stages together and have the same results; the first of them
            reads and writes.
        device: of their collectives.

    Raises:
        ValueError: on all ranks, if the file is not of such stages, or is of something else.
        OSError: if it cannot be read or written; of a later write on other ranks `OtherRankError`.
    """
    path = None if path is None else Path(path).absolute()  # also after an os.chdir of a stage
    first = group is None or dist.get_rank(group) == 0
    read: list[Any] = [{}]
    if first and path is not None:
        try:
            read = [_read(path, json.loads(json.dumps(of)))]
        except (OSError, ValueError) as error:
            read = [error]
    if group is not None:
        source = dist.get_global_rank(group, 0)
        dist.broadcast_object_list(read, src=source, group=group, device=torch.device(device))
    if isinstance(read[0], Exception):
        raise read[0]
    done = read[0]

    def remember(name: str, compute: Callable[[], Any]) -> Any:
        if name not in done:
            done[name] = compute()
            with together(group, device):
                if first and path is not None:
                    content = {"schema": SCHEMA, "of": of, "stages": done}
                    write_text(path, json.dumps(content) + "\n")
        return done[name]

    return remember


def _read(path: Path, of: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results of a file, none if it is missing."""
    if not path.exists():
        check_place(path)
        return {}
    content = decode_json(read_limited(path, LIMIT), Any, what=str(path))
    try:
        check_kind(content, "the progress of a command", (SCHEMA,))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    conform(content, StagesFile, what=str(path))
    known = content["of"]
    others = sorted(name for name in {*known, *of} if known.get(name) != of.get(name))
    if others:
        raise ValueError(f"{path} has results of another {', '.join(others)}; pass another name")
    return content["stages"]
