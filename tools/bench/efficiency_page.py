"""The efficiency page, made from the raw result alone."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tools.studies.exhaustive import FOLDER as GROUND_TRUTH
from tools.studies.score import truth
from tools.support.rows import read_rows

ROOT = Path(__file__).parents[2]
PAGE = Path("docs/efficiency.md")
RESULTS = Path("results")

AXES = {
    "recipe": ("paper", "default"),
    "depth": (20, 32, 44, 56),
    "width": (1, 2, 4),
    "size": (3, 5, 7, 9, 13),
    "image_size": (16, 32, 64),
    "batch_size": (16, 32, 64, 128, 256),
}
PARTS = {
    "size predictor": "size predictor and budget term",
    "unroll": "GRU unroll",
    "assembly": "kernel assembly (map or crop, mask, layout)",
    "network": "the CNN: convolutions, norms, loss",
    "optimizer": "AdamW over all of them",
}

DEVICES = {"cpu": ("Two CPU cores", " --minutes 7"), "cuda": ("An NVIDIA GPU", " --minutes 8")}
INTRODUCTION = """
`hatch run bench:efficiency` cuts search steps into their parts and times them, whole search steps,
and plain training steps of the same CNN, in turns. One setting moves at a time, the others stay.
Sizes are held; steps of the default recipe draw theirs within two sizes around the held one, and
their kernels come from a bank, so that nothing is unrolled. *Predictors* is size predictor, unroll
and assembly; what the CNN costs it costs in a plain step too. A width above 1 is a Wide-ResNet-16
of so many times the channels.
"""
THROUGHPUT = """
Three settings of `SearchConfig` say how the training steps of a search are run, and none of them
what is searched:

- `precision="bfloat16"` runs the CNN under PyTorch's autocast. Predictors, masks, kernels, losses
  and updates stay in float32; a kernel is cast where a convolution uses it.
- `shapes="padded"` gives every searched layer a kernel of its largest size, with zeros around the
  step's. It is the same convolution, with multiplications by zero. Sizes are rounded, and windows
  and masks made, on the device: a step brings no size to the host, and shapes never change.
- `compile=True` runs these padded steps as one graph through `torch.compile`, on a GPU as CUDA
  graphs.

Exact shapes are not compiled. Inductor takes the shape of a convolution's kernel for a constant,
so each tuple of sizes is a graph of its own, up to PyTorch's limit of 8, behind which steps run
eagerly; and in the default recipe nearly every step draws another tuple. Tests count both: one
graph for all padded steps, and a graph or more for every exact tuple. In the paper's recipe sizes
seldom change, so that a graph for each tuple could be kept there; on a GPU the command below
times such graphs too, as `search, paper, exact, ..., CUDA graphs`, and what the first step of one
takes.

`TrainConfig` of the trainings has `precision` and `compile` too. Pictures lie on the device as
8-bit numbers and are augmented there; what a batch takes is the row `batch`.

Several seeds side by side on one GPU need no setting: the workers of a list of runs share the
GPUs that there are, `hatch run sweep:search cifar10 --seeds 0 1 2 3 --workers 4`. Their kernels
run at the same time where NVIDIA's MPS daemon does (`nvidia-cuda-mps-control -d`), and in turns
elsewhere.

One command times all of this, the ways in turns.
"""
SPEED = "score-speed"


def efficiency_page(path: Path = PAGE, folder: Path = RESULTS) -> str:
    """Return the page that is to lie at a path, made of the results in a folder."""
    links = Path(os.path.relpath(folder, path.parent)).as_posix()
    parts = ["# What a search step costs", "", *INTRODUCTION.strip().splitlines(), ""]
    for device, (name, _) in DEVICES.items():
        result = folder / f"efficiency-{device}.json"
        parts += [f"## {name}", "", f"`hatch run bench:efficiency --device {device}`", ""]
        if result.exists():
            content = json.loads(result.read_text(encoding="utf-8"))
            parts += split(content, f"{links}/{result.name}")
        else:
            parts += ["Not yet measured.", ""]
    steps = {
        device: place.read_text(encoding="utf-8")
        for device in DEVICES
        if (place := folder / f"throughput-{device}.json").exists()
    }
    return "\n".join([*parts, *throughput(folder, links, steps)])


def split(content: dict[str, Any], link: str) -> list[str]:
    """Give the lines on one device: a step in its parts, and how it grows."""
    environment = content["environment"]
    recipes = {row["point"]["recipe"]: row for row in content["rows"] if row["axis"] == "recipe"}
    point = recipes["paper"]["point"]
    seconds = {
        name: {part: told["median"] for part, told in row["seconds"].items()}
        for name, row in recipes.items()
    }
    whole = {name: sum(each[part] for part in PARTS) for name, each in seconds.items()}
    parts = [
        f"A step on ResNet-{point['depth']}, {point['size']}x{point['size']} kernels, batches of "
        f"{point['batch_size']} pictures of {point['image_size']} pixels, cut into its parts, "
        f"forward and backward pass together (medians of {content['pairs']} steps; "
        f"[raw]({link}), with 20th and 80th percentiles):",
        "",
        "| part | " + " | ".join(f"recipe `{name}`, ms | of the step" for name in recipes) + " |",
        "|---" * (1 + 2 * len(recipes)) + "|",
    ]
    for part, title in PARTS.items():
        cells = [
            f"{1000 * each[part]:.2f} | {each[part] / whole[name]:.1%}"
            for name, each in seconds.items()
        ]
        parts.append(f"| {title} | {' | '.join(cells)} |")
    parts.append("")
    for name, each in seconds.items():
        search, plain = each["search"], each["plain"]
        parts.append(
            f"Recipe `{name}`: the cut step takes {1000 * whole[name]:.1f} ms in all, the whole "
            f"one {1000 * search:.1f} ms, a plain training step {1000 * plain:.1f} ms: "
            f"{search / plain:.2f} times."
        )
    parts += ["", f"How the paper's step grows ([raw]({link})):", ""]
    for axis in AXES:
        if axis != "recipe":
            parts += table(axis, [row for row in content["rows"] if row["axis"] == axis])
    parts += [
        f"{content['pairs']} steps of each kind at each point, commit {environment['commit']}, "
        f"{environment['device']}, torch {environment['torch']}. Random pictures.",
        "",
    ]
    return parts


def table(axis: str, rows: list[dict[str, Any]]) -> list[str]:
    """Give the lines of one setting's table."""
    parts = [
        f"| {axis.replace('_', ' ')} | parameters | plain step, ms | search step, ms | ratio "
        "| predictors, ms | optimizer, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        median = {name: 1000 * told["median"] for name, told in row["seconds"].items()}
        predictors = sum(median[part] for part in ("size predictor", "unroll", "assembly"))
        cells = (
            row["point"][axis],
            f"{row['parameters'] / 1e6:.2f} M",
            *(f"{median[kind]:.1f}" for kind in ("plain", "search")),
            f"{median['search'] / median['plain']:.2f}",
            f"{predictors:.1f}",
            f"{median['optimizer']:.1f}",
        )
        parts.append("| " + " | ".join(map(str, cells)) + " |")
    return [*parts, ""]


def throughput(folder: Path, links: str, steps: Mapping[str, str]) -> list[str]:
    """Give the lines on how steps are run, with what was measured of it."""
    parts = ["## Throughput", "", *THROUGHPUT.strip().splitlines(), ""]
    parts += same_plans(folder, links)
    for device, (name, options) in DEVICES.items():
        result = f"throughput-{device}.json"
        command = f"hatch run bench:training{options} --out {folder / result}"
        parts += [f"### {name}", "", "```", command, "```", ""]
        if device in steps:
            parts += measured(json.loads(steps[device]), f"{links}/{result}")
        else:
            parts += ["Not yet measured.", ""]
    return parts


def same_plans(folder: Path, links: str) -> list[str]:
    """Give the lines on the plans of each way to run the default recipe."""
    found: dict[str, list[tuple[bool, float, float]]] = {}
    places = sorted((ROOT / folder / SPEED).glob("*.jsonl"))
    for place in places:
        plans, accuracies = truth(place.stem, ROOT / GROUND_TRUTH)
        means = 100 * accuracies.mean(axis=1)
        rows = read_rows(place)
        usual = {row["seed"]: row["plan"] for row in rows if row["recipe"] == "default"}
        for row in rows:
            theirs = usual[row["seed"]]
            accuracy, other = (float(means[plans.index(p)]) for p in (row["plan"], theirs))
            told = row["plan"] == theirs, accuracy, accuracy - other
            found.setdefault(row["recipe"], []).append(told)
    if not found:
        return []
    names = " and ".join(f"`{place.stem}`" for place in places)
    parts = [
        "### The same plans",
        "",
        "In float64 a padded search is the exact one; a test holds us to that. In float32 and",
        "bfloat16 the rounding of each step grows over a search; how much that alone does tells",
        "the row `nudged`: the usual way, with every initial value one bit larger. Searches of the",
        f"default recipe on {names}, of which every plan was trained, with the same",
        f"seeds ([rows]({links}/{SPEED})):",
        "",
        "| way | searches | with the plan of exact float32 | accuracy of the plans, mean, % "
        "| less that of exact float32, points |",
        "|---|---|---|---|---|",
    ]
    for name, rows in found.items():
        way = name.removeprefix("default, ") if ", " in name else "exact, float32"
        same, reached, gains = zip(*rows, strict=True)
        gain = f"{mean(gains):+.2f} ± {stdev(gains) / len(gains) ** 0.5:.2f}" if any(gains) else ""
        cells = way, len(rows), sum(same), f"{mean(reached):.2f}", gain
        parts.append("| " + " | ".join(map(str, cells)) + " |")
    return [*parts, ""]


def measured(content: dict[str, Any], link: str) -> list[str]:
    """Give the lines of one device's result."""
    settings, environment = content["settings"], content["environment"]
    parts = [
        f"EffConv-20 of {settings['budget'] / 1e6:.2f} M, batches of {settings['batch_size']} of "
        f"CIFAR-10 ({environment['data'].partition(', ')[2]}); the ways in turns, medians of "
        f"{len(content['all_seconds']['batch'])} turns ([raw]({link})).",
        "",
        "| way | step, ms | 20th to 80th percentile | epoch, s | first step, s | graphs |",
        "|---|---|---|---|---|---|",
    ]
    steps = 50_000 // settings["batch_size"]
    for name, told in content["seconds"].items():
        median, low, high = (1000 * told[key] for key in ("median", "p20", "p80"))
        first = content["first_step"].get(name)
        cells = (
            name,
            f"{median:.2f}",
            f"{low:.2f} to {high:.2f}",
            f"{steps * median / 1000:.2f}",
            "" if first is None else f"{first:.1f}",
            content["graphs"].get(name, ""),
        )
        parts.append("| " + " | ".join(map(str, cells)) + " |")
    parts.append("")
    for name, told in content["epochs"].items():
        if name == "training":
            line = (
                f"A training epoch takes {told['seconds']:.2f} s ({told['way']}; target on an "
                "H200: 2 s)."
            )
        else:
            line = (
                f"A search epoch of recipe `{name}` takes {told['seconds']:.2f} s, "
                f"{told['of_training']:.2f} times that ({told['way']}; target: 1.2)."
            )
        parts.append(line)
    for name, by_count in content["side_by_side"].items():
        alone = {1: {"steps_a_second": 1 / content["seconds"][name]["median"]}}
        together = {**alone, **by_count}.items()
        told = ", ".join(f"{n}: {each['steps_a_second']:.0f}" for n, each in together)
        parts.append(f"Steps a second of so many processes side by side, {name}: {told}.")
    if content["left_out"]:
        parts.append(f"Left out for time: {'; '.join(content['left_out'])}.")
    parts += [
        "",
        f"Commit {environment['commit']}, {environment['device']}, torch {environment['torch']}.",
        "",
    ]
    return parts
