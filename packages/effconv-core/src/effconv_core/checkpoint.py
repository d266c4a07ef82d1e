"""Training state as one safetensors file: no pickle, whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

REMEDY = "delete it to start again, or name another file"


def save_training_state(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
) -> None:
    """Write model, optimizer and progress; an interruption leaves the older file in place.

    Args:
        path: where to write.
        model: any module.
        optimizer: its optimizer.
        progress: anything that JSON can hold.
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
    temporary = path.with_name(path.name + ".partial")
    metadata = {"param_groups": json.dumps(state["param_groups"]), "progress": json.dumps(progress)}
    save_file(contiguous, temporary, metadata=metadata)
    temporary.replace(path)


def read_progress(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Give the progress of a saved state, without loading it.

    Raises:
        ValueError: if the file is damaged.
    """
    return _read(path)[1]


def load_training_state(
    path: str | os.PathLike[str], model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put a saved state into a model and its optimizer, and give the progress.

    Raises:
        ValueError: if the file is damaged or belongs to another model or optimizer.
    """
    groups, progress = _read(path)
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


def _read(path: str | os.PathLike[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Give the optimizer's groups and the progress; opening the file checks that it is whole."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return json.loads(metadata["param_groups"]), json.loads(metadata["progress"])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no readable training state ({error}); {REMEDY}") from None
