"""Reader of run folders: their content, and a sentence for each missing part.

A run folder may hold the following files; at least one of the first three is needed:

- `config.json`: `settings`, anything; `environment`, name to text; `network`, which describes the
  searched network by its `class`, its `parameters`, the searched `layers` (name to `channels`, in
  and out, `groups` and `kernel_size`) and the skipped ones, `left_alone` (name to reason);
  `inputs`, what the network takes, see `schemas.Inputs`.
- `plan.json`: written by `SizePlan.save`.
- `metrics.jsonl`: one row per reading, with `phase` (`search`, `train` for the found CNN,
  `baseline` for the network with its original sizes), `epoch` from 0, `global_step` from 1, and
  where known `loss` and `accuracy` (0 to 1) of the batch, `lr`, the learning rate, in the last row
  of an epoch its `seconds`, the means over its samples, `epoch_loss` and `epoch_accuracy`, and with
  held-out images `val_accuracy`; in a search `parameters` and `soft_sizes`, one for each layer, or
  for each of its axes. The phase `comparison` has one row: the `seconds` from a search's last step
  until its plan was chosen.
- `result.json`: `networks`, a mapping from `learned` and `original` to `parameters` and
  `test_accuracy`, from 0 to 1.
- `test.json`, see `runs/tests.py`.
- `cnn.safetensors`, written by `save`, or during the training `train.safetensors`, written by
  `save_training_state`.
- `effconv-run.json`: says that the folder is a run's, see `runs/owner.py`; reading needs none.
"""

import json
import math
import os
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from effconv_core.config import RENAMED
from effconv_core.io import schemas
from effconv_core.io.read_json import LINES, conform, read_json, read_lines
from effconv_core.io.read_tensors import opened_tensors
from effconv_core.io.schemas import LARGEST_SIZE, LARGEST_VALUE, MOST_AXES, MOST_WEIGHTS
from effconv_core.io.terminal import printable
from effconv_core.plan import SizePlan
from effconv_core.runs.tests import read_tests

__all__ = ["Run", "read_run"]

BEGINNINGS = ("config.json", "plan.json", "metrics.jsonl")
MOST_ROWS = 200_000
COMPARISON = "comparison"
SHOWN = schemas.Reading.__annotations__.keys() | schemas.Moment.__annotations__.keys()
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Run:
    """The content of a run folder; missing parts are empty, and `missing` lists them.

    Args:
        name: name of the folder.
        settings: settings of the run.
        environment: data, device, versions and commit.
        network: description of the searched network, see above.
        rows: metrics rows that have a phase and a step.
        plan: the found plan.
        networks: `learned` and `original` to parameters and test accuracy.
        kernels: layer to the found CNN's weights, `(c_out, c_in / groups, *taps)`.
        kernels_from: the file that they are from.
        tests: `learned` and `original` to how they did on the test, class by class.
        missing: a sentence for each part that is missing or cannot be read.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    plan: SizePlan | None = None
    networks: dict[str, dict[str, Any]] = field(default_factory=dict)
    kernels: dict[str, Tensor] = field(default_factory=dict)
    kernels_from: str = ""
    tests: dict[str, schemas.TestRecord] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def course(self, phase: str, value: str) -> list[tuple[int, float]]:
        """Return (step, value) of the rows of a phase in which the value is a finite number."""
        return [
            (row["global_step"], row[value])
            for row in self.rows
            if row["phase"] == phase and is_number(row.get(value))
        ]

    def search_seconds(self) -> tuple[list[float], float]:
        """Return the seconds of each epoch of the search, and those of the choice of its plan."""
        epochs = [seconds for _, seconds in self.course("search", "seconds")]
        return epochs, sum(seconds for _, seconds in self.course(COMPARISON, "seconds"))


def is_number(value: object) -> bool:
    """Return whether a value is a finite number that float32 can hold, so that sums of it are."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -LARGEST_VALUE <= value <= LARGEST_VALUE


def read_run(folder: str | os.PathLike[str], *, result: Mapping[str, Any] | None = None) -> Run:
    """Read a run's folder, finished or not.

    Args:
        folder: of the run.
        result: what `result.json` is to hold, for the report of a run that is about to finish;
            read from that file when None.

    Raises:
        ValueError: if it is not a run folder.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in BEGINNINGS):
        raise ValueError(
            f"{folder} is not a run folder: it holds none of {', '.join(BEGINNINGS)}; pass one "
            "that a search wrote"
        )
    missing: list[str] = []
    config = _read(read_config, folder, "config.json", missing, "settings and versions")
    results = (
        _read(
            read_result,
            folder,
            "result.json",
            missing,
            "test accuracies",
            "the run is not finished, or an older version wrote it",
        )
        if result is None
        else json.loads(json.dumps(result))
    )
    rows = _read_rows(folder / "metrics.jsonl", missing)
    plan = _read_plan(folder / "plan.json", missing)
    kernels, kernels_from = _read_kernels(folder, plan, missing)
    config = schemas.ConfigFile() if config is None else config
    return Run(
        printable(folder.resolve().name),
        config.settings,
        config.environment,
        _network(config.network, missing),
        rows,
        plan,
        (results or {}).get("networks", {}),
        kernels,
        kernels_from,
        _read(read_tests, folder, "test.json", missing, "classes and mistakes") or {},
        missing,
    )


def read_config(folder: Path) -> schemas.ConfigFile:
    """Read a run's `config.json`; a recipe that was renamed has its present name.

    Raises:
        FileNotFoundError: if there is none.
        OSError: if it cannot be read.
        ValueError: if it is none that a run writes.
    """
    config = read_json(folder / "config.json", schemas.ConfigFile, finite=False)
    former = config.settings.get("recipe")
    if isinstance(former, str) and former in RENAMED:
        config.settings["recipe"] = RENAMED[former]
    return config


def read_result(folder: Path) -> dict[str, Any]:
    """Read a finished run's `result.json`, which holds what its command has written.

    Raises:
        FileNotFoundError: if there is none.
        OSError: if it cannot be read.
        ValueError: if it is none that a run writes.
    """
    path = folder / "result.json"
    content = read_json(path, dict[str, Any], finite=False)
    conform(content, schemas.ResultFile, what=str(path))
    return content


def read_rows(path: Path, *, limit: int = LINES) -> Iterator[dict[str, Any] | ValueError]:
    """Read a run's `metrics.jsonl`: see `read_lines`; a row is what `schemas.Reading` says.

    What else a row holds is left as it is.
    """
    return read_lines(path, dict[str, Any], limit=limit, finite=False, least=schemas.Reading)


def _read(
    read: Callable[[Path], Any],
    folder: Path,
    name: str,
    missing: list[str],
    what: str,
    why: str = "",
) -> Any:
    """Read one of a run's files, or return None and say so."""
    try:
        return read(folder)
    except FileNotFoundError:
        missing.append(f"There is no {name}, so {what} are not known{why and f': {why}'}.")
    except (OSError, ValueError) as error:
        missing.append(f"{name} cannot be read ({_brief(error)}), so {what} are not known.")
    return None


def _brief(error: Exception) -> str:
    return printable(str(error)[:500])


def _network(content: dict[str, Any], missing: list[str]) -> dict[str, Any]:
    nothing = {"layers": {}, "left_alone": {}}
    try:
        return {**nothing, **content, **conform(content, schemas.Network, what="network")}
    except ValueError as error:
        missing.append(f"The network in config.json is not known: {_brief(error)}.")
        return nothing


def _read_rows(path: Path, missing: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    unread: list[ValueError] = []
    try:
        for row in read_rows(path):
            if isinstance(row, ValueError):
                unread.append(row)
            elif len(rows) == MOST_ROWS:
                missing.append(f"Of {path.name} the first {MOST_ROWS:,} readings are shown.")
                break
            else:
                # What the report shows, and a search's many numbers without an object for each.
                kept = {name: value for name, value in row.items() if name in SHOWN}
                if "soft_sizes" in kept:
                    kept["soft_sizes"] = array("d", kept["soft_sizes"])
                rows.append(kept)
    except FileNotFoundError:
        missing.append(f"There is no {path.name}, so the course of the run is not known.")
    except (OSError, ValueError) as error:
        missing.append(f"{path.name} cannot be read ({_brief(error)}): the course is not known.")
    if unread:
        count = len(unread) + len(rows)
        missing.append(
            f"{len(unread)} of {count} lines of {path.name} are not readings: left out. The first: "
            f"{_brief(unread[0])}."
        )
    first: dict[str, int] = {}
    for row in rows:
        if "loss" in row and not is_number(row["loss"]):
            first.setdefault(row["phase"], row["global_step"])
    for phase, step in first.items():
        missing.append(f"The loss of phase {printable(phase)} is not finite from step {step} on.")
    return rows


def _read_plan(path: Path, missing: list[str]) -> SizePlan | None:
    try:
        return SizePlan.load(path)
    except FileNotFoundError:
        missing.append(f"There is no {path.name}: a search has not ended, or there is none.")
    except (OSError, ValueError, TypeError) as error:
        missing.append(f"{path.name} cannot be read ({_brief(error)}): the sizes are not known.")
    return None


def _read_kernels(
    folder: Path, plan: SizePlan | None, missing: list[str]
) -> tuple[dict[str, Tensor], str]:
    """Return the kernels of the plan's layers, and the file they are from."""
    if plan is None:
        return {}, ""
    for name, prefix in (("cnn.safetensors", ""), ("train.safetensors", "model.")):
        path = folder / name
        if not path.exists():
            continue
        try:
            with opened_tensors(path) as file:
                keys = set(file.keys())
                found = {layer: _weight_of(prefix + layer, keys) for layer in plan}
                slices = {layer: file.get_slice(key) for layer, key in found.items() if key}
                kernels = {
                    layer: file.get_tensor(found[layer]).float()
                    for layer, part in slices.items()
                    if _is_kernel(part)
                }
        except (OSError, ValueError, TypeError) as error:
            missing.append(f"{name} cannot be read ({_brief(error)}): the kernels are not shown.")
            return {}, ""
        if odd := len(slices) - len(kernels):
            missing.append(f"{name} holds weights of {odd} layers that are not kernels: left out.")
        if lacking := len(plan) - len(slices):
            missing.append(f"{name} lacks the kernels of {lacking} layers.")
        return kernels, name
    missing.append(
        "There are no weights (cnn.safetensors), so the kernels are not shown: the found CNN was "
        "not trained, or its weights were not kept."
    )
    return {}, ""


def _is_kernel(part: Any) -> bool:
    """Return whether a stored tensor can be the kernels of a convolution: floats, with taps."""
    shape = part.get_shape()
    return (
        2 < len(shape) <= 2 + MOST_AXES
        and all(shape)
        and max(shape[2:]) <= LARGEST_SIZE
        and math.prod(shape) <= MOST_WEIGHTS
        and part.get_dtype() in FLOATS
    )


def _weight_of(layer: str, keys: set[str]) -> str | None:
    # An even kernel with a stride is a Sequential of one or two paddings and a convolution.
    places = [f"{layer}.weight", f"{layer}.1.weight", f"{layer}.2.weight"]
    # What parametrizations make the kernel of; the first of weight norm are scales.
    places += [f"{layer}.parametrizations.weight.{name}" for name in ("original1", "original")]
    return next((key for key in places if key in keys), None)
