"""Training state as one safetensors file: no pickle, whole or not at all.

The state before it lies beside it as `NAME.previous`. Each file states the sum of its own bytes, so
that one which was damaged on the disk is noticed; the one before it is then taken.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from effconv_core.files import written_whole

REMEDY = "delete it to start again, or name another file"
UNSIGNED = "0" * 64  # in the place of the sum when it is taken

logger = logging.getLogger("effconv_core")


def save_training_state(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
) -> None:
    """Write model, optimizer and progress; an interruption leaves the older file in place.

    Args:
        path: where to write; what was there is kept as `NAME.previous`.
        model: any module.
        optimizer: its optimizer.
        progress: anything that JSON can hold.

    Raises:
        OSError: if it cannot be written; the older file is then still there.
    """
    path = Path(path)
    state = optimizer.state_dict()
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, slots in state["state"].items():
        for slot, value in slots.items():
            tensors[f"optimizer.{index}.{slot}"] = torch.as_tensor(value)
    contiguous = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    metadata = {
        "param_groups": json.dumps(state["param_groups"]),
        "progress": json.dumps(progress),
        "sha256": UNSIGNED,
    }
    with written_whole(path) as temporary:
        save_file(contiguous, temporary, metadata=metadata)
        _sign(temporary)
        _keep(path)


def read_progress(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Give the progress of a saved state, without loading it.

    A damaged file is replaced by the state before it, with a warning to the log.

    Raises:
        ValueError: if the file is damaged and there is no whole one before it.
    """
    return _read(Path(path))[1]


def load_training_state(
    path: str | os.PathLike[str], model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put a saved state into a model and its optimizer, and give the progress.

    A damaged file is replaced by the state before it, with a warning to the log.

    Raises:
        ValueError: if the file is damaged and there is no whole one before it, or it belongs to
            another model or optimizer.
    """
    groups, progress = _read(Path(path))
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    slots: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, slot = name.split(".", 2)
            slots.setdefault(int(index), {})[slot] = tensor
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    try:
        model.load_state_dict(weights)
        optimizer.load_state_dict({"state": slots, "param_groups": groups})
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} does not fit this model ({error}); {REMEDY}") from None
    return progress


def last_state(path: str | os.PathLike[str] | None, epochs: int) -> str:
    """Say where the state of so many epochs lies, for the sentence of a search that stops."""
    if path is None or not epochs:
        return "no state was written before it"
    return f"the last good state is {path}, of {epochs} epoch(s)"


def _read(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Give the optimizer's groups and the progress of a file or, where it is damaged, of the last.

    That one then takes its place, so that the next state does not push it out for a damaged one.
    """
    previous, problem = _previous(path), None
    # The path again, because another rank may have put the state before it in its place.
    for candidate in (path, previous, path):
        try:
            content = _read_whole(candidate)
        except ValueError as error:
            problem = problem or str(error)
            continue
        except FileNotFoundError:
            if candidate is path:
                raise
            continue
        if problem:
            with contextlib.suppress(FileNotFoundError):
                previous.replace(path)
            logger.warning("%s was damaged (%s), so the state before it is taken", path, problem)
        return content
    raise ValueError(
        f"{path} is no readable training state ({problem}), nor is there one before it; {REMEDY}"
    )


def _read_whole(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Give the groups and the progress of a file whose bytes are as they were written.

    Raises:
        ValueError: if they are not.
    """
    stated, found, _ = _sums(path)
    # Files of versions before 0.3.0 state none.
    if stated is not None and stated != found:
        raise ValueError(f"its sum is {found[:12]} and not {str(stated)[:12]}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return json.loads(metadata["param_groups"]), json.loads(metadata["progress"])
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    except KeyError as error:
        raise ValueError(f"it lacks {error}") from None


def _sums(path: Path) -> tuple[str | None, str, int]:
    """Give the sum that a file states, the one that it has, and where it states it."""
    with path.open("rb") as file:
        length = file.read(8)
        size = int.from_bytes(length, "little")
        if len(length) < 8 or size > path.stat().st_size - 8:
            raise ValueError("it is cut off")
        header = file.read(size)
        metadata = json.loads(header).get("__metadata__") if header.startswith(b"{") else None
        if not isinstance(metadata, dict):
            raise ValueError("its header is none")
        stated = metadata.get("sha256")
        mark = f'"sha256":"{stated}"'.encode()
        unsigned = header.replace(mark, f'"sha256":"{UNSIGNED}"'.encode(), 1)
        digest = hashlib.sha256(length + unsigned)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return stated, digest.hexdigest(), 8 + header.find(mark) + len('"sha256":"')


def _sign(path: Path) -> None:
    """Write into a file the sum of its bytes, in the place that is kept for it."""
    _, digest, place = _sums(path)
    with path.open("rb+") as file:
        file.seek(place)
        file.write(digest.encode())


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")


def _keep(path: Path) -> None:
    """Give what is at a path the name of the state before it as well."""
    spare = path.with_name(path.name + ".spare")
    with contextlib.suppress(FileNotFoundError):
        spare.unlink()
    if not path.exists():  # what is left of a search whose state was deleted is no fallback
        with contextlib.suppress(FileNotFoundError):
            _previous(path).unlink()
        return
    try:
        os.link(path, spare)
    except OSError:  # where the file system has no second names
        shutil.copyfile(path, spare)
    spare.replace(_previous(path))
