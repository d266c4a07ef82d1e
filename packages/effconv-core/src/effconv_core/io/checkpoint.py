"""Checkpoints: safetensors with JSON in the header, written atomically; the last two are kept."""

import contextlib
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from effconv_core.io import schemas
from effconv_core.io.atomic import check_place, rename_file, write_tensors
from effconv_core.io.extra_state import LARGEST_INT, state_of
from effconv_core.io.read_json import conform, decode_json
from effconv_core.io.read_tensors import opened_tensors
from effconv_core.io.state_checks import check_slots, check_weights, kind_of
from effconv_core.io.terminal import printable

T = TypeVar("T")

SCHEMA = 2
READ = (1, SCHEMA)
REMEDY = "name another file, or, where a stopped run left it, delete it to start again"
LAZY = "of a shape that its first pass makes"
SLOT = re.compile(r"optimizer\.(\d{1,9})\.(.+)")

logger = logging.getLogger("effconv_core")


class DamagedError(ValueError):
    """A file is not an intact training state."""


class LaterError(ValueError):
    """A file is a training state of a later version."""


class TrainingState(NamedTuple):
    """The content of a file of `save_training_state`."""

    path: Path
    """The requested file, also if it was damaged and the one before it was read."""
    tensors: dict[str, torch.Tensor]
    param_groups: list[dict[str, Any]]
    progress: dict[str, Any]
    extra: dict[str, Any]
    """What modules give by `get_extra_state`, where that is not a tensor."""


def check_writable(path: str | os.PathLike[str], model: nn.Module) -> None:
    """Raise where `save_training_state` could not write the state of a model; writes nothing.

    Raises:
        OSError: if there can be no such file, or none beside it for the state before.
        TypeError: if the state holds what is neither a tensor nor a JSON value; see `state_of`.
        ValueError: if the file is missing, and what has the name of the one before is no state.
    """
    path = Path(path)
    before = _previous(path)
    check_place(path)
    check_place(before)
    if before.exists() and not path.exists():
        _read(before)  # which the second save replaces
    state_of(model)


def kept_by(
    path: str | os.PathLike[str] | None,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    on_step: Callable[[Any], None] | None,
) -> Callable[[Any], None] | None:
    """Return an `on_step` that raises in the first step for a state that no file would give back.

    Args:
        path: of the file; None, where there is none, returns `on_step` as it is.
        model: before its first step.
        optimizer: its optimizer.
        on_step: called in each step.

    Raises:
        TypeError: in the first step, if the optimizer keeps what is neither a tensor nor a number.
        ValueError: in the first step, if the network's state has other entries than before, or one
            of another shape or kind.
    """
    if path is None:
        return on_step
    before: dict[str, str] | None = _forms(model)

    def stepped(step: Any) -> None:
        nonlocal before
        if before is not None:
            _check_forms(Path(path), before, _forms(model))
            _slots_and_groups(optimizer)
            before = None
        if on_step is not None:
            on_step(step)

    return stepped


def _forms(model: nn.Module) -> dict[str, str]:
    """Return for each tensor of a network's state in words what a file has to agree in."""
    tensors = state_of(model)[0]
    return {
        n: LAZY if is_lazy(t) else f"{kind_of(t.dtype)} of shape {tuple(t.shape)}"
        for n, t in tensors.items()
    }


def _check_forms(path: Path, before: Mapping[str, str], after: Mapping[str, str]) -> None:
    for name in before.keys() | after.keys():
        was, now = before.get(name, "missing"), after.get(name, "missing")
        if was not in (now, LAZY):
            raise ValueError(
                f"{name!r} of the network's state is {now} after a step, and was {was} before, so "
                f"{path} could not be read again; register it as it stays, or with "
                "persistent=False, or pass no checkpoint"
            )


def _slots_and_groups(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], str]:
    """Return what an optimizer keeps of each parameter, and its settings as JSON."""
    state, slots = optimizer.state_dict(), {}
    try:
        for index, values in state["state"].items():
            for slot, value in values.items():
                slots[f"optimizer.{int(index)}.{slot}"] = torch.as_tensor(value)
        return slots, json.dumps(state["param_groups"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"the {type(optimizer).__name__} keeps what no file of states can hold ({error}); let "
            "it keep tensors and numbers of each parameter, and JSON values as the settings of its "
            "groups, or pass no checkpoint"
        ) from None


def save_training_state(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
) -> None:
    """Write model, optimizer and progress; the state before it is kept as `NAME.previous.*`.

    An interruption at any moment leaves the newest file intact: the old one or the new one.

    Args:
        path: the file.
        model: any module.
        optimizer: its optimizer.
        progress: a JSON object.

    Raises:
        OSError: if the file cannot be written; earlier states are then untouched.
        TypeError: if the model's state holds what is neither a tensor nor, as a module may give by
            `get_extra_state`, a JSON value.
        ValueError: if the progress, or what modules give beside tensors, could not be read again.
    """
    path = Path(path)
    weights, extra = state_of(model)
    slots, groups = _slots_and_groups(optimizer)
    tensors = {f"model.{name}": tensor for name, tensor in weights.items()} | slots
    contiguous = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    metadata = {
        "schema": str(SCHEMA),
        "param_groups": groups,
        "progress": json.dumps(progress),
        **({"extra": json.dumps(extra)} if extra else {}),
    }
    for name in ("param_groups", "progress"):
        _part(metadata, name, Any)  # raises for what no reader would take
    metadata["sha256"] = _digest(contiguous, metadata)
    write_tensors(path, contiguous, metadata, previous=_previous(path))


def load_training_state(
    path: str | os.PathLike[str], model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put a saved state into a model and its optimizer, and give the progress.

    Where the file is damaged, the one before it is taken, and the logger `effconv_core` warns of
    it. Files of every released version are read.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if neither is whole, or the state belongs to another model or optimizer, or
            holds what they never have, such as int8 weights; the message names the tensor. Model
            and optimizer are as before then.
    """
    state = read_training_state(path)
    if not isinstance(state.progress, dict):
        raise ValueError(f"{path} holds a progress that is not a mapping; {REMEDY}")
    put_training_state(state, model, optimizer)
    return state.progress


def read_training_state(path: str | os.PathLike[str]) -> TrainingState:
    """Read a saved state, see `load_training_state`."""
    path, why = Path(path), None
    before = _previous(path)
    # The path again, because another rank may have moved the previous state there.
    for candidate in (path, before, path):
        try:
            state = _read(candidate)
        except DamagedError as error:
            why = why or error
            continue
        except FileNotFoundError:
            if why is None:
                raise
            continue
        if why is not None:
            # So that the next save does not drop it and keep the damaged one.
            with contextlib.suppress(FileNotFoundError):
                rename_file(before, path)
            told = str(why).removesuffix(f"; {REMEDY}")
            logger.warning("%s; going on from the state before it", printable(told))
        return state._replace(path=path)
    raise why


def last_state(path: str | os.PathLike[str] | None, epochs: int) -> str:
    """Return a clause that names the last good state, for the error of a stopped search."""
    if path is None or not epochs:
        return "no state was written before it"
    return f"the last good state is {path}, of {epochs} epoch(s)"


def put_training_state(
    state: TrainingState, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Load a state that was read into a model and its optimizer, see `load_training_state`."""
    slots: dict[int, dict[str, torch.Tensor]] = {}
    weights = {}
    for name, tensor in state.tensors.items():
        if slot := SLOT.fullmatch(name):
            slots.setdefault(int(slot[1]), {})[slot[2]] = tensor
        elif name.startswith("model."):
            weights[name.removeprefix("model.")] = tensor
        else:
            raise ValueError(f"{state.path} holds {name!r}, which is not a training's; {REMEDY}")
    for prefix, module in model.named_modules():
        # What earlier releases did not write, by modules that know what it was.
        for name, value in getattr(module, "former_state", dict)().items():
            weights.setdefault(f"{prefix}.{name}".lstrip("."), value)
    check_weights(state.path, weights, model, REMEDY)
    check_slots(state.path, slots, state.param_groups, optimizer, REMEDY)
    own_groups = optimizer.state_dict()["param_groups"]  # a file may lack what a later torch has
    groups = [{**o, **s} for o, s in zip(own_groups, state.param_groups, strict=True)]
    try:
        model.load_state_dict({**state.extra, **weights})
        optimizer.load_state_dict({"state": slots, "param_groups": groups})
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{state.path} does not fit this model ({error}); {REMEDY}") from None
    for parameter, own in optimizer.state.items():
        for slot, value in own.items():
            # Files hold only contiguous tensors; a slot whose layout differs from its parameter's
            # keeps PyTorch from updating all parameters by one kernel.
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                like = {"dtype": value.dtype, "device": value.device}
                own[slot] = torch.empty_like(parameter, **like, requires_grad=False).copy_(value)


def check_progress(path: Path, progress: Any) -> None:
    """Raise unless a progress has the form of what `search` and `train` write.

    Raises:
        ValueError: if an entry is missing or of another kind.
    """
    try:
        conform(progress, schemas.Progress, what="its progress")
    except ValueError as error:
        raise ValueError(
            f"{path} was not written by a search or a training ({error}); {REMEDY}"
        ) from None


def check_epoch(path: Path, progress: Mapping[str, Any], epochs: int) -> None:
    """Raise if a progress of `check_progress` is beyond the end of the search or training.

    Raises:
        ValueError: if more epochs are done than there are, or a plan was found before the last.
    """
    epoch, ended = progress["epoch"], progress.get("plan") is not None
    if epoch > epochs or (ended and epoch < epochs):
        found = " with a plan found" if ended else ""
        raise ValueError(f"{path} is of {epoch} epochs{found}, and there are {epochs}; {REMEDY}")


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _read(path: Path) -> TrainingState:
    try:
        with opened_tensors(path) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        # Schema 1 has no checksum; later schemas keep it, to tell damage from a newer schema.
        if metadata.keys() & {"schema", "sha256"}:
            if metadata.get("sha256") != _digest(tensors, metadata):
                raise ValueError("its content has another sha256 than was written")
            if metadata.get("schema") not in map(str, READ):
                raise LaterError(
                    f"{path} has schema {metadata.get('schema', '')[:40]}; this version reads "
                    f"{' and '.join(map(str, READ))}, so update effconv-core"
                )
        groups = _part(metadata, "param_groups", list[dict[str, Any]])
        conform(groups, schemas.ParameterGroups, what="its param_groups")
        progress = _part(metadata, "progress", Any)
        extra = _part(metadata, "extra", dict[str, Any]) if "extra" in metadata else {}
    except LaterError:
        raise
    except ValueError as error:
        raise DamagedError(f"{path} is not a readable training state ({error}); {REMEDY}") from None
    return TrainingState(path, tensors, groups, progress, extra)


def _part(metadata: Mapping[str, str], name: str, kind: type[T]) -> T:
    """Return a part of a header."""
    if name not in metadata:
        raise ValueError(f"it holds no {name}")
    return decode_json(metadata[name], kind, what=f"its {name}", finite=False, largest=LARGEST_INT)


def _digest(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """Return the sha256 of a file's content, without the checksum itself."""
    digest = hashlib.sha256()
    texts = {name: text for name, text in metadata.items() if name != "sha256"}
    digest.update(json.dumps(texts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
