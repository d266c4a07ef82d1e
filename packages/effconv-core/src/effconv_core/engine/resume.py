"""What a search's checkpoint must agree in with the search, and going on from one."""

import os
from dataclasses import asdict, fields
from typing import Any

import torch
from torch import nn

from effconv_core.config import SearchConfig, with_present_defaults
from effconv_core.cost.budget import Budgets
from effconv_core.engine.choice import check_stages
from effconv_core.io.checkpoint import (
    REMEDY,
    check_epoch,
    check_progress,
    put_training_state,
    read_training_state,
)
from effconv_core.method.searchable import SearchableCNN


def restored(model: nn.Module, checkpoint: str | os.PathLike[str]) -> SearchableCNN:
    """Return the searchable network of a search's checkpoint, with its trained kernels.

    Args:
        model: the network that was searched, on the device to use.
        checkpoint: what `search` wrote, of a search of all layers and sizes that its config allows.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a checkpoint of such a search, the search has not trained its
            kernels to the end, or the network is another.
    """
    state = read_training_state(checkpoint)
    check_progress(state.path, state.progress)
    config = state.progress.get("config", {})
    names = {field.name for field in fields(SearchConfig)}
    if not isinstance(config, dict) or not {"k", "kernel_form"} <= config.keys() <= names:
        raise ValueError(
            f"{state.path} is not a checkpoint of a search; pass its search.safetensors"
        )
    searchable = SearchableCNN(model, SearchConfig(**config))
    identity = identity_of(searchable, None)
    for name in ("layers", "allowed", "tie"):
        if state.progress.get(name) != identity[name]:
            raise ValueError(
                f"{state.path} is of a search whose {name} was {state.progress.get(name)}, and of "
                f"this network it is {identity[name]}; pass the network that was searched"
            )
    epochs = searchable.config.epochs_of(state.progress.get("epoch_steps", 1))
    if state.progress["epoch"] < epochs:
        raise ValueError(
            f"{state.path} is of {state.progress['epoch']} of {epochs} epochs; give the command of "
            "the search again, which ends it"
        )
    put_training_state(state, searchable, torch.optim.AdamW(searchable.parameter_groups()))
    return searchable


def identity_of(
    searchable: SearchableCNN, budget: Budgets | None, validation: int | None = None
) -> dict[str, Any]:
    """Return what a checkpoint must agree in with its search, a JSON value.

    Args:
        searchable: the network.
        budget: as for `search`; None leaves it out of account.
        validation: number of batches on which plans are compared, see `checked_validation`.
    """
    return {
        "config": asdict(searchable.config),
        "budget": None if budget is None else _as_json(searchable, budget),
        "layers": searchable.layers,
        "allowed": [[r[0], r[-1], r.step] for r in searchable.space.ranges],
        "tie": searchable.space.variables,
        "validation": validation,
    }


def _as_json(searchable: SearchableCNN, budget: Budgets) -> Any:
    if isinstance(budget, int | float):
        return budget
    return [c.record() for c in searchable.constraints(budget)]


def costs_of_some(searchable: SearchableCNN, budget: Budgets) -> list[list[int]]:
    """Return the costs in each budget of plans from the smallest to the largest."""
    ranges = searchable.space.ranges
    plans = [[r[min(i, len(r) - 1)] for r in ranges] for i in range(max(map(len, ranges)))]
    return [[c.cost(sizes) for sizes in plans] for c in searchable.constraints(budget)]


def resume(
    checkpoint: str | os.PathLike[str],
    searchable: SearchableCNN,
    optimizer: torch.optim.Optimizer,
    identity: dict[str, Any],
) -> dict[str, Any]:
    """Load a checkpoint into a search's network and optimizer; return the progress it holds.

    Raises:
        ValueError: if it is damaged, or belongs to another search than the identity's.
    """
    state = read_training_state(checkpoint)
    check_progress(state.path, state.progress)
    progress = _of_this_version(state.progress, identity)
    for name, value in identity.items():
        if progress.get(name) != value:
            raise ValueError(
                f"{state.path} was written by a search whose {name} was {progress.get(name)}, not "
                f"{value}; search with the same {name}, or delete it to start again"
            )
    config = SearchConfig(**identity["config"])
    epochs = config.epochs_of(progress.get("epoch_steps", config.least_steps or 1))
    check_epoch(state.path, progress, epochs)
    if config.race_steps and progress["epoch"] and "epoch_steps" not in progress:
        raise ValueError(f"{state.path} has no epoch_steps, the number of steps an epoch; {REMEDY}")
    check_stages(state.path, progress.get("choice", {}), searchable.space)
    counts = {f"model.{n}": v for n, v in searchable.state_dict().items() if n.endswith("_state")}
    # Before 0.2.0 nothing was drawn, so files have no counts.
    put_training_state(state._replace(tensors={**counts, **state.tensors}), searchable, optimizer)
    return progress


def _of_this_version(progress: dict[str, Any], identity: dict[str, Any]) -> dict[str, Any]:
    """Return the progress of another version with its implicit settings filled in."""
    before = {**asdict(SearchConfig()), **progress["config"]}
    config = with_present_defaults(before, identity["config"])  # the state has each layer's own b
    if config["race_steps"] != before["race_steps"]:  # its short trainings took other steps
        progress = {name: value for name, value in progress.items() if name != "choice"}
    L = len(progress.get("layers", ()))
    granted = {"allowed": [[1, 2 * identity["config"]["k"] + 1, 1]] * L, "tie": list(range(L))}
    return {**granted, **progress, "config": config}
