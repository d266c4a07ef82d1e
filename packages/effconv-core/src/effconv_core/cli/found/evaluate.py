"""The command `effconv evaluate`: accuracy of a run's network, class by class."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.table import Table

from effconv_core.cli.errors import check_device, run_command
from effconv_core.cli.found.network import Found, found_in
from effconv_core.cli.specifiers.data import make_test
from effconv_core.engine.by_class import ByClass, evaluate_by_class, interval
from effconv_core.io.console import PlainConsole, parsed, prints_aside
from effconv_core.io.terminal import write_output
from effconv_core.runs.options import option


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Test the network of a run: accuracy, loss, and each class.

    Nothing is written.
    """

    data: tyro.conf.Positional[option(str, metavar="DATA")] = ""
    """As of `effconv search`; by default the run's own."""
    run: option(Path, metavar="DIR")
    """Folder of the run."""
    split: str = "test"
    """Split of a set."""
    limit: int | None = None
    """Most images that are tested."""
    batch_size: int = 500
    """Batch size."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """`cpu`, `cuda` or `cuda:1`, for example."""
    json: bool = False
    """Print the result as one JSON object, nothing else."""


def evaluate_command(arguments: Sequence[str]) -> int:
    """Run `effconv evaluate`; return the exit status."""
    name, config = "effconv evaluate", (tyro.conf.FlagCreatePairsOff,)
    return run_command(
        name, lambda: _run(parsed(EvaluateOptions, arguments, prog=name, config=config))
    )


def _run(options: EvaluateOptions) -> None:
    check_device(options.device)
    for name in ("limit", "batch_size"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise ValueError(f"{name} is {value}; pass at least 1")
    with prints_aside(options.json):
        found = found_in(options.run, options.device)
        outcome = evaluate_by_class(found.cnn, _test_of(found, options), limit=options.limit)
    if options.json:
        write_output(json.dumps(as_json(found, outcome)) + "\n")
        return
    console = PlainConsole()
    low, high = interval(outcome.accuracy, outcome.samples)
    console.print(
        f"accuracy {outcome.accuracy:.2%} of {outcome.samples:,} images (95 % interval {low:.2%} "
        f"to {high:.2%}), loss {outcome.loss:.4f}",
        soft_wrap=True,
    )
    console.print(_table(found, outcome))


def _test_of(found: Found, options: EvaluateOptions) -> Any:
    """Return the loader of the test, normalised as the images of the run's training were.

    Raises:
        ValueError: if a set's images are of another shape, or its classes are others.
    """
    name, sizes = options.data or found.data, {"batch_size": options.batch_size}
    loader = make_test(name, split=options.split, device=options.device, seed=found.seed, **sizes)
    _check_classes(found, loader)
    shape, ours = getattr(loader, "image_shape", None), tuple(found.inputs.shape)
    if shape is not None and tuple(shape) != ours:
        raise ValueError(
            f"images of {name} are {tuple(shape)} and the run's {ours}; pass a set of that shape"
        )
    normal = {"mean": found.inputs.mean, "std": found.inputs.std}
    theirs = {key: getattr(loader, key, None) for key in normal}
    known = None not in (*normal.values(), *theirs.values())
    if known and any(tuple(normal[key]) != tuple(theirs[key]) for key in normal):
        return make_test(name, split=options.split, device=options.device, **sizes, **normal)
    return loader


def _check_classes(found: Found, loader: Any) -> None:
    """Raise where a set has other classes than the one that the network was trained on."""
    theirs, ours = getattr(loader, "classes", None), found.inputs.classes
    if theirs and ours and list(theirs) != ours:
        pairs = enumerate(zip(theirs, ours, strict=False))
        first = next((i for i, (a, b) in pairs if a != b), min(len(theirs), len(ours)))
        raise ValueError(
            f"the set has {len(theirs)} classes and the run's {len(ours)}, and they differ from "
            f"class {first} on; pass a set of the same classes in the same order"
        )


def as_json(found: Found, outcome: ByClass) -> dict[str, Any]:
    """Return the outcome of a test for JSON; `counts` and the confusion matrix have a row
    for each class; the matrix is empty if they are more than 100."""
    return {
        "accuracy": outcome.accuracy,
        "interval": interval(outcome.accuracy, outcome.samples),
        "loss": outcome.loss,
        "samples": outcome.samples,
        "classes": [found.class_name(label) for label in range(len(outcome.counts))],
        "counts": outcome.counts.tolist(),
        "confusion": outcome.confusion.tolist(),
    }


def _table(found: Found, outcome: ByClass) -> Table:
    table = Table(title="classes")
    table.add_column("class")
    for column in ("images", "correct", "accuracy"):
        table.add_column(column, justify="right")
    table.add_column("most often mistaken for")
    for label, (samples, right) in enumerate(outcome.counts.tolist()):
        if not samples:
            continue
        taken = ""
        if right < samples and len(outcome.confusion):
            wrong = outcome.confusion[label].clone()
            wrong[label] = 0
            most = int(wrong.argmax())
            taken = f"{found.class_name(most)} ({int(wrong[most]):,})"
        share = f"{right / samples:.1%}"
        table.add_row(found.class_name(label), f"{samples:,}", f"{right:,}", share, taken)
    return table
