"""One run of a row: search if its sizes are learned, train from scratch, test."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from effconv_core import SearchableCNN, SearchConfig, SizePlan, apply_plan, figures, recipe, search
from effconv_core.engine.train import evaluate, make_optimizer, train
from effconv_core.filling import filling_sentence
from effconv_core.io.atomic import write_tensors
from effconv_core.io.progress_bar import progress_bar
from effconv_core.plan import in_words
from effconv_core.runs.environment import environment
from effconv_core.runs.metrics import Metrics, seconds_per_epoch
from effconv_core.runs.names import name_of
from effconv_core.runs.progress import step_meter
from effconv_core.runs.reader import read_result
from effconv_core.runs.writer import describe, open_run, write_result
from effconv_data import Batches, load
from effconv_models import create_model, effective_sizes
from effconv_models.flexconv.conv import FlexConv
from rich.console import Console
from torch import nn

from tools.presets import as_they_are, data_note
from tools.reproduce.rows import EQUAL_COST, SCALES, TAKEN, Row, Scale, training_of
from tools.studies.small_spaces import random_plan
from tools.support.memory import measure_peak, peak_memory
from tools.support.rows import changed_since
from tools.train.flexnet import parameter_groups

EQUAL = 0.005  # relative difference of cost at which plans are taken for equally large
FEW_STEPS = 4  # of each finalist, where the scale has few of them
KERNELS = "kernels.safetensors"
KERNELS_KEPT = 10  # kernels kept per layer, as many as Figure 2 shows


def run_name(row: Row, seed: int) -> str:
    """Return the name of a run's folder."""
    parts = row.data, row.model, f"{row.budget / 1e6:.2f}M", row.sizes.replace(" ", "-")
    return name_of(*parts, f"seed{seed}")


def made_with(row: Row, seed: int, scale: str) -> dict[str, Any]:
    """Return everything that affects a run's outcome, except the versions."""
    settings = SCALES[scale][row.data]
    config = search_config(row, settings, seed)
    return {
        "row": asdict(row),
        "seed": seed,
        "scale": scale,
        "pictures": settings.pictures,
        "test_pictures": settings.test_pictures,
        "augment": settings.augment,
        "search": None if config is None else asdict(config),
        "train": asdict(training_of(row, settings)),
    }


def check_settings(before: Mapping[str, Any], row: Row, seed: int, scale: str, place: Path) -> None:
    """Check that a run has the current settings; settings added since do not count.

    Raises:
        ValueError: if it has others.
    """
    now = made_with(row, seed, scale)
    for key, value in now.items():
        if key not in before:
            continue
        old, value = before[key], json.loads(json.dumps(value))
        both = isinstance(old, dict) and isinstance(value, dict)
        if changed_since(old, value) if both else value != old:
            raise ValueError(
                f"{place} holds the run {run_name(row, seed)} with other settings ({key}); delete "
                "it to run it again"
            )


def needed_by(row: Row, seed: int) -> list[str]:
    """Return the names of the runs whose plans a control uses, which must finish before it."""
    if row.sizes not in TAKEN:
        return []
    sizes, higher = TAKEN[row.sizes]
    return [run_name(replace(row, sizes=sizes), seed + higher)]


def run_row(
    folder: Path, console: Console, *, row: dict[str, Any], seed: int, scale: str, device: str
) -> None:
    """Do one run of a list, or what is left of it, and write its result; see `tools.queue`.

    Args:
        folder: the run's folder.
        console: where progress is shown.
        row: the fields of the `Row` to run.
        seed: seed of the initial values, of the data's order and of the search.
        scale: a name of `SCALES`.
        device: where to run.

    Raises:
        FileExistsError: if the folder holds a run with other settings.
    """
    row = Row(**row)
    settings = SCALES[scale][row.data]
    config, training = search_config(row, settings, seed), training_of(row, settings)
    measure_peak(device)

    def pictures(split: str) -> Batches:
        limit = settings.pictures if split == "train" else settings.test_pictures
        return load(
            row.data,
            split=split,
            batch_size=training.batch_size,
            seed=seed,
            limit=limit,
            device=device,
            augment=None if settings.augment else as_they_are,
        )

    batches = pictures("train")
    model = create_model(
        row.model,
        in_channels=batches.image_shape[0],
        num_classes=batches.num_classes,
        input_size=batches.image_shape[1:],
        generator=torch.Generator().manual_seed(seed),
    ).to(device, memory_format=torch.channels_last)
    made = {**made_with(row, seed, scale), "device": device}
    try:
        network = None if row.sizes == "trained" else describe(model)
        open_run(folder, made, data_note(row.data), network, overwrite=False)
    except FileExistsError as error:  # its remedy is an option that this command lacks
        remedy = f"run it as it was begun, or delete {folder} to begin it again"
        raise FileExistsError(f"{str(error).partition(';')[0]}; {remedy}") from error
    metrics = Metrics(folder)
    before = sum(metric.get("seconds", 0.0) for metric in metrics.rows())
    started = time.perf_counter()
    if row.sizes == "trained":
        plan = None
    elif config is None:
        found = [read_result(folder.parent / name)["sizes"] for name in needed_by(row, seed)]
        plan = given_plan(row, model, *found)
    else:
        with progress_bar(console) as progress:
            found_plan = search(
                model,
                batches,
                budget=row.budget,
                config=config,
                checkpoint=folder / "search.safetensors",
                on_step=step_meter(
                    progress,
                    metrics,
                    "search",
                    epochs=config.epochs,
                    steps_per_epoch=len(batches),
                    budget=row.budget,
                ),
            )
        console.print(filling_sentence(found_plan), soft_wrap=True)
        plan = found_plan.sizes
    cnn = model
    if plan is not None:
        cnn = apply_plan(model, plan, generator=torch.Generator().manual_seed(seed))
        cnn = cnn.to(memory_format=torch.channels_last)
    batches = pictures("train")
    has_masks = any(isinstance(module, FlexConv) for module in cnn.modules())
    options = {}
    if has_masks:
        optimizer = make_optimizer(parameter_groups(cnn), training)
        options = {"optimizer": optimizer, "seed": seed}
    with progress_bar(console) as progress:
        epochs, steps = training.epochs, len(batches)
        meter = step_meter(progress, metrics, "train", epochs=epochs, steps_per_epoch=steps)
        checkpoint = folder / "train.safetensors"
        train(cnn, batches, training, checkpoint=checkpoint, on_step=meter, **options)
    if plan is None:
        plan = {name: _in_words(size) for name, size in effective_sizes(cnn).items()}
    accuracy = evaluate(cnn, pictures("test"))
    metrics.close()
    if config is not None:
        kernels = figures.kernels_of(cnn, plan).items()
        drawn = {name: kernel[:KERNELS_KEPT, :1].contiguous() for name, kernel in kernels}
        write_tensors(folder / KERNELS, drawn)
    result = {
        **made_with(row, seed, scale),
        "sizes": plan,
        **({} if config is None else filling_of(found_plan)),
        "parameters": sum(parameter.numel() for parameter in cnn.parameters()),
        "accuracy": accuracy,
        **({"top5": evaluate(cnn, pictures("test"), top=5)} if row.data == "imagenet32" else {}),
        "seconds_per_search_epoch": seconds_per_epoch(metrics, "search"),
        "seconds_per_train_epoch": seconds_per_epoch(metrics, "train"),
        "seconds_per_epoch": seconds_per_epoch(metrics, "search", "train"),
        "seconds_before": round(before, 1),  # epochs of earlier starts
        "seconds_since_last_start": round(time.perf_counter() - started, 1),
        "peak_memory_mib": peak_memory(device),
        "environment": {"data": data_note(row.data), **environment(device)},
    }
    write_result(folder, result)


def _in_words(size: int | tuple[int, ...]) -> int | str:
    """Return a size for a row: "5x7" where the axes differ."""
    return size if isinstance(size, int) else in_words(size)


def filling_of(plan: SizePlan) -> dict[str, int]:
    """Return what the rounded soft sizes of a plan cost, and how many sizes were filled in."""
    return {"rounded_parameters": plan.budgets[0]["rounded"], "filled_in": plan.filled_in}


def search_config(row: Row, settings: Scale, seed: int) -> SearchConfig | None:
    """Return the settings of a row's search, None if its sizes are not learned."""
    if row.sizes not in ("found", "paper"):
        return None
    changes = {"precision": settings.train.precision}
    if settings.search_epochs is not None:
        changes["epochs"] = settings.search_epochs
    if row.sizes == "paper":
        return recipe("paper", seed=seed, **changes)
    if settings.search_epochs is not None:
        changes["least_steps"] = 0
    if settings.finalists is not None:
        changes |= {"finalists": settings.finalists, "race_steps": FEW_STEPS}
    return recipe("bank", seed=seed, **changes)


def given_plan(
    row: Row, model: nn.Module, found: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Return the sizes of a row that learns none, derived from found ones if it needs them."""
    searchable = SearchableCNN(model)
    layers, cost = searchable.layers, searchable.cost

    def at_budget(wanted: list[int]) -> list[int]:
        return searchable.nearest_sizes(wanted, row.budget)

    if row.sizes == "original":
        sizes = [3] * len(layers)
    elif row.sizes == "uniform":
        off = {size: abs(math.log(cost([size] * len(layers)) / row.budget)) for size in range(1, 8)}
        sizes = [min(off, key=off.get)] * len(layers)
    elif row.sizes in EQUAL_COST:
        return plan_of_equal_cost(row.sizes, model, found)
    elif row.sizes in TAKEN:
        sizes = list(found.values())
        if row.sizes.startswith("reversed"):
            sizes = at_budget(sizes[::-1])
    else:
        generator = torch.Generator().manual_seed(int(row.sizes.removeprefix("random ")))
        return random_plan(searchable, row.budget, generator)
    return dict(zip(layers, sizes, strict=True))


def plan_of_equal_cost(sizes: str, model: nn.Module, found: Mapping[str, int]) -> dict[str, int]:
    """Return even or random sizes of the cost of a plan, within 0.5 %.

    Args:
        sizes: a name of `EQUAL_COST`.
        model: the network.
        found: the plan.
    """
    searchable = SearchableCNN(model, replace(recipe("paper"), tolerance=EQUAL))
    cost = searchable.cost(list(found.values()))
    if sizes != "even paper":
        number = int(sizes.split()[1])
        return random_plan(searchable, cost, torch.Generator().manual_seed(number))
    even = (cost / searchable.cost([1] * len(searchable.layers))) ** 0.5
    plan = searchable.nearest_sizes([even] * len(searchable.layers), cost)
    return dict(zip(searchable.layers, plan, strict=True))
