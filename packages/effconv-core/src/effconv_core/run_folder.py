"""Reading the folder of a run: what is there, and in words what is not.

A run's folder may hold, each of them optional but for one of the first three:

- `config.json`: `settings`, anything; `environment`, name to text; `network`, of the network that
  was searched its `class`, its `parameters`, the searched `layers` (name to `channels`, in and out,
  `groups` and `kernel_size`) and those `left_alone` (name to reason).
- `plan.json`: what `SizePlan.save` writes.
- `metrics.jsonl`: a row for each reading, with `phase` (`search`, `train` for the found CNN,
  `baseline` for the network with its original sizes), `epoch` from 0, `global_step` from 1, and
  where it is known `loss` and `accuracy` of the batch, `seconds` of an epoch in its last row, and
  in a search `parameters` and `soft_sizes`, one for each layer, or for each of its axes.
- `result.json`: `networks`, a mapping from `learned` and `original` to `parameters` and
  `test_accuracy`, from 0 to 1.
- `cnn.safetensors`, what `save` writes, or while it is trained `train.safetensors`, what
  `save_training_state` writes.
- `effconv-run.json`: says that the folder is a run's, see `run_owner.py`; reading needs none.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from effconv_core.plan import SizePlan

__all__ = ["Run", "read_run"]

BEGINNINGS = ("config.json", "plan.json", "metrics.jsonl")


@dataclass(frozen=True)
class Run:
    """What a run's folder holds; what is not there is empty, and `missing` says so.

    Args:
        name: of the folder.
        settings: of the run.
        environment: data, device, versions and commit.
        network: of the network that was searched, see above.
        rows: of the metrics, those with a phase and a step.
        plan: what was found.
        networks: `learned` and `original` to parameters and test accuracy.
        kernels: layer to the found CNN's weights, `(c_out, c_in / groups, *taps)`.
        kernels_from: the file that they are from.
        missing: a sentence for each thing that is not there or cannot be read.
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
    missing: list[str] = field(default_factory=list)

    def course(self, phase: str, value: str) -> list[tuple[int, float]]:
        """Give (step, value) of the rows of a phase that have a finite number there."""
        return [
            (row["global_step"], row[value])
            for row in self.rows
            if row["phase"] == phase and is_number(row.get(value))
        ]


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_run(folder: str | os.PathLike[str], *, result: Mapping[str, Any] | None = None) -> Run:
    """Read a run's folder, finished or not.

    Args:
        folder: of the run.
        result: what `result.json` is to hold, for the report of a run that is about to finish;
            read from that file when None.

    Raises:
        ValueError: if it is no run's folder.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in BEGINNINGS):
        raise ValueError(
            f"{folder} is no folder of a run: it holds none of {', '.join(BEGINNINGS)}; pass one "
            "that a search wrote"
        )
    missing: list[str] = []
    config = _read_json(folder / "config.json", missing, "settings and versions are not known")
    results = (
        _read_json(
            folder / "result.json",
            missing,
            "test accuracies are not known: the run is not finished, or an older version wrote it",
        )
        if result is None
        else json.loads(json.dumps(result))
    )
    rows = _read_rows(folder / "metrics.jsonl", missing)
    plan = _read_plan(folder / "plan.json", missing)
    kernels, kernels_from = _read_kernels(folder, plan, missing)
    return Run(
        folder.resolve().name,
        _mapping(config, "settings"),
        _mapping(config, "environment"),
        _network(_mapping(config, "network")),
        rows,
        plan,
        {k: v for k, v in _mapping(results, "networks").items() if isinstance(v, dict)},
        kernels,
        kernels_from,
        missing,
    )


def _mapping(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = content.get(name)
    return value if isinstance(value, dict) else {}


def _network(content: Mapping[str, Any]) -> dict[str, Any]:
    """Give what is as it should be of the description of a network."""
    layers = {
        name: layer
        for name, layer in _mapping(content, "layers").items()
        if isinstance(layer, dict)
        and len(_counts(layer.get("channels"))) == 2
        and _counts([layer.get("groups")])
        and _counts(layer.get("kernel_size"))
    }
    return {**content, "layers": layers, "left_alone": _mapping(content, "left_alone")}


def _counts(values: object) -> list[int]:
    whole = isinstance(values, list) and all(type(n) is int and n > 0 for n in values)
    return values if whole else []


def _read_json(path: Path, missing: list[str], so: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        missing.append(f"There is no {path.name}, so {so}.")
        return {}
    except (OSError, ValueError) as error:
        missing.append(f"{path.name} cannot be read ({error}), so {so}.")
        return {}
    if isinstance(content, dict):
        return content
    missing.append(f"{path.name} holds no mapping, so {so}.")
    return {}


def _read_rows(path: Path, missing: list[str]) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        missing.append(f"There is no {path.name}, so the course of the run is not known.")
        return []
    except (OSError, ValueError) as error:
        missing.append(f"{path.name} cannot be read ({error}), so the run's course is not known.")
        return []
    rows, unread = [], 0
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            # An interruption cuts off the last line, and nothing else.
            unread += line.endswith("\n") and bool(line.strip())
            continue
        if (
            isinstance(row, dict)
            and isinstance(row.get("phase"), str)
            and is_number(row.get("global_step"))
            and is_number(row.get("epoch", 0))
        ):
            rows.append(row)
        else:
            unread += 1
    if unread:
        missing.append(f"{unread} of {len(lines)} lines of {path.name} are no readings: left out.")
    for phase in dict.fromkeys(row["phase"] for row in rows):
        steps = [
            row["global_step"]
            for row in rows
            if row["phase"] == phase and "loss" in row and not is_number(row["loss"])
        ]
        if steps:
            missing.append(f"The loss of phase {phase} is not finite from step {steps[0]} on.")
    return rows


def _read_plan(path: Path, missing: list[str]) -> SizePlan | None:
    try:
        return SizePlan.load(path)
    except FileNotFoundError:
        missing.append(f"There is no {path.name}: the search has not ended.")
    except (OSError, ValueError, TypeError) as error:
        missing.append(f"{path.name} cannot be read ({error}), so the sizes are not known.")
    return None


def _read_kernels(
    folder: Path, plan: SizePlan | None, missing: list[str]
) -> tuple[dict[str, Tensor], str]:
    """Give the kernels of the plan's layers, and the file they are from."""
    if plan is None:
        return {}, ""
    for name, prefix in (("cnn.safetensors", ""), ("train.safetensors", "model.")):
        path = folder / name
        if not path.exists():
            continue
        try:
            with safe_open(path, framework="pt") as file:
                keys = set(file.keys())
                found = {layer: _weight_of(prefix + layer, keys) for layer in plan}
                kernels = {
                    layer: file.get_tensor(key).float() for layer, key in found.items() if key
                }
        except (OSError, SafetensorError) as error:
            missing.append(f"{name} cannot be read ({error}), so the kernels are not shown.")
            return {}, ""
        if len(kernels) < len(plan):
            missing.append(f"{name} lacks the kernels of {len(plan) - len(kernels)} layers.")
        return kernels, name
    missing.append(
        "There are no weights (cnn.safetensors), so the kernels are not shown: the found CNN was "
        "not trained, or its weights were not kept."
    )
    return {}, ""


def _weight_of(layer: str, keys: set[str]) -> str | None:
    # An even kernel with a stride is a Sequential of one or two paddings and a convolution.
    places = (f"{layer}.weight", f"{layer}.1.weight", f"{layer}.2.weight")
    return next((key for key in places if key in keys), None)
