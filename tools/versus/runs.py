"""The runs of the comparison: each returns one row of the raw results."""

import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import optuna
import torch
from effconv_core import SearchableCNN, apply_plan, search
from effconv_core.engine.train import evaluate, train
from effconv_core.runs.environment import environment

from tools.presets import data_note
from tools.studies.baselines import tpe
from tools.studies.small_spaces import Space, random_plan
from tools.versus.autonas import autonas, import_modelopt
from tools.versus.count import Count
from tools.versus.scales import SCALES

Row = dict[str, Any]


def given_plans(scale: str) -> dict[str, dict[str, int]]:
    """Return the plans without a search: 3x3 kernels, and random ones of the same cost."""
    space = SCALES[scale].space("cpu")
    searchable = SearchableCNN(space.network(0))
    generator = torch.Generator().manual_seed(0)
    plans = {"uniform": dict.fromkeys(searchable.layers, space.uniform)}
    for number in range(SCALES[scale].random_plans):
        plans[f"random {number}"] = random_plan(searchable, space.budget, generator)
    return plans


def search_by(scale: str, method: str, seed: int, device: str, allowed: int | None) -> Row:
    """Search once.

    Args:
        scale: a name of `SCALES`.
        method: `EffConv`, `TPE` or `AutoNAS`.
        seed: seed of the search, of the initial values and of the data's order.
        device: where to run.
        allowed: total training steps of TPE.

    Returns:
        The row; if ModelOpt fails it says why, as `failed`, and has no plan.
    """
    space, settings, count = _prepared(scale, seed, device), SCALES[scale], Count()
    row = {"run": "search", "method": method, "seed": seed}
    if method == "AutoNAS":
        try:
            import_modelopt()
            clock = _clock(device)
            plan, made_with = autonas(space, settings.autonas, seed, count)
        except Exception as error:  # another project's behaviour is part of the outcome
            failed = f"{type(error).__name__}: {error}"
            return {**row, "failed": failed, "environment": _environment(device)}
        made_with = {**asdict(settings.autonas), **made_with}
    elif method == "TPE":
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        clock = _clock(device)
        plan = tpe(space, allowed, seed, count.criterion)
        made_with = {"allowed_steps": allowed, "optuna": optuna.__version__}
    else:
        clock, config = _clock(device), settings.config(seed)
        network, batches = space.network(seed), space.batches("train", seed)
        found = search(
            network, batches, budget=space.budget, config=config, criterion=count.criterion
        )
        plan, made_with = found.sizes, asdict(config)
    seconds = clock()
    return {
        **row,
        "plan": plan,
        "parameters": SearchableCNN(space.network(0)).cost(list(plan.values())),
        "budget": space.budget,
        "steps": count.steps,
        "forwards": round(count.forwards, 2),
        "epochs": round(count.equivalent / len(space.batches("train", seed)), 4),
        "seconds": seconds,
        "search": made_with,
        "environment": _environment(device),
    }


def train_found(scale: str, method: str, plan: dict[str, int], seed: int, device: str) -> Row:
    """Train a plan from scratch and test it."""
    space = _prepared(scale, seed, device)
    clock = _clock(device)
    generator = torch.Generator().manual_seed(seed)
    cnn = apply_plan(space.network(seed), plan, generator=generator)
    cnn = cnn.to(memory_format=torch.channels_last)
    train(cnn, space.batches("train", seed), space.train)
    seconds = clock()
    return {
        "run": "training",
        "method": method,
        "seed": seed,
        "plan": plan,
        "parameters": sum(parameter.numel() for parameter in cnn.parameters()),
        "budget": space.budget,
        "accuracy": evaluate(cnn, space.batches("test", seed)),
        "seconds": seconds,
        "environment": _environment(device),
    }


def _prepared(scale: str, seed: int, device: str) -> Space:
    """Build the space and read its images, which does not count as cost."""
    torch.set_num_threads(1)
    # Torch warns once for each even size, which does not matter here.
    warnings.filterwarnings("ignore", message="Using padding='same' with even kernel lengths")
    space = SCALES[scale].space(device)
    space.network(0)
    space.batches("train", seed)
    return space


def _environment(device: str) -> dict[str, str]:
    return {"data": data_note("cifar10"), **environment(device)}


def _clock(device: str) -> Callable[[], float]:
    """Start a clock of processor time, unaffected by other load, or, with a GPU, of wall time."""
    if not device.startswith("cuda"):
        started = time.process_time()
        return lambda: round(time.process_time() - started, 2)
    torch.cuda.synchronize(device)
    started = time.perf_counter()

    def read() -> float:
        torch.cuda.synchronize(device)
        return round(time.perf_counter() - started, 2)

    return read
