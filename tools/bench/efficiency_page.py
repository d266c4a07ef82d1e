"""The page of what a search step costs, made only from the raw results."""

import itertools
import json
import os
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from effconv_core.config import RENAMED

from tools.studies.exhaustive import FOLDER as GROUND_TRUTH
from tools.studies.score import truth
from tools.support.markdown import render
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
SPEED = "score-speed"


def efficiency_page(path: Path = PAGE, folder: Path = RESULTS) -> str:
    """Return the page that is to lie at a path, made of the results in a folder."""

    def read(name: str) -> dict[str, Any] | None:
        place = folder / name
        return json.loads(place.read_text(encoding="utf-8")) if place.exists() else None

    return render(
        "efficiency.md.jinja",
        folder=folder,
        links=Path(os.path.relpath(folder, path.parent)).as_posix(),
        devices=[
            (
                device,
                name,
                options,
                _split(read(f"efficiency-{device}.json")),
                _throughput(read(f"throughput-{device}.json")),
            )
            for device, (name, options) in DEVICES.items()
        ],
        same_plans=same_plans(folder),
        spaces=" and ".join(f"`{place.stem}`" for place in _searches(folder)),
    )


def _split(content: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return what the page says of one device: a step in its parts, and how it grows."""
    if content is None:
        return None
    recipes = {row["point"]["recipe"]: row for row in content["rows"] if row["axis"] == "recipe"}
    median = {name: _milliseconds(row) for name, row in recipes.items()}
    whole = {name: sum(each[part] for part in PARTS) for name, each in median.items()}
    cells = {
        part: [
            (f"{each[part]:.2f}", f"{each[part] / whole[name]:.1%}")
            for name, each in median.items()
        ]
        for part in PARTS
    }
    return {
        **content,
        "point": recipes["paper"]["point"],
        "headings": [
            "part",
            *(
                heading
                for name in recipes
                for heading in (f"recipe `{RENAMED.get(name, name)}`, ms", "of the step")
            ),
        ],
        "parts": [(title, *itertools.chain(*cells[part])) for part, title in PARTS.items()],
        "recipes": [
            (RENAMED.get(name, name), whole[name], each["search"], each["plain"])
            for name, each in median.items()
        ],
        "axes": [
            (
                axis.replace("_", " "),
                [_grown(axis, row) for row in content["rows"] if row["axis"] == axis],
            )
            for axis in AXES
            if axis != "recipe"
        ],
    }


def _milliseconds(row: dict[str, Any]) -> dict[str, float]:
    return {name: 1000 * told["median"] for name, told in row["seconds"].items()}


def _grown(axis: str, row: dict[str, Any]) -> tuple:
    """Return the cells of a point along an axis."""
    median = _milliseconds(row)
    predictors = sum(median[part] for part in ("size predictor", "unroll", "assembly"))
    return (
        row["point"][axis],
        f"{row['parameters'] / 1e6:.2f} M",
        *(f"{median[kind]:.1f}" for kind in ("plain", "search")),
        f"{median['search'] / median['plain']:.2f}",
        f"{predictors:.1f}",
        f"{median['optimizer']:.1f}",
    )


def _searches(folder: Path) -> list[Path]:
    return sorted((ROOT / folder / SPEED).glob("*.jsonl"))


def same_plans(folder: Path) -> list[tuple]:
    """Return the cells of each way to run the recipe `bank`: which plans it finds."""
    found: dict[str, list[tuple[bool, float, float]]] = {}
    for place in _searches(folder):
        plans, accuracies = truth(place.stem, ROOT / GROUND_TRUTH)
        means = 100 * accuracies.mean(axis=1)
        rows = read_rows(place)
        usual = {row["seed"]: row["plan"] for row in rows if row["recipe"] == "default"}
        for row in rows:
            theirs = usual[row["seed"]]
            accuracy, other = (float(means[plans.index(p)]) for p in (row["plan"], theirs))
            told = row["plan"] == theirs, accuracy, accuracy - other
            found.setdefault(row["recipe"], []).append(told)
    cells = []
    for name, rows in found.items():
        way = name.removeprefix("default, ") if ", " in name else "exact, float32"
        same, reached, gains = zip(*rows, strict=True)
        gain = f"{mean(gains):+.2f} ± {stdev(gains) / len(gains) ** 0.5:.2f}" if any(gains) else ""
        cells.append((way, len(rows), sum(same), f"{mean(reached):.2f}", gain))
    return cells


def _throughput(content: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return what the page says of the ways to run steps on one device."""
    if content is None:
        return None
    steps, rows, beside = 50_000 // content["settings"]["batch_size"], [], []
    for name, told in content["seconds"].items():
        median, low, high = (1000 * told[key] for key in ("median", "p20", "p80"))
        first = content["first_step"].get(name)
        rows.append(
            (
                name,
                f"{median:.2f}",
                f"{low:.2f} to {high:.2f}",
                f"{steps * median / 1000:.2f}",
                "" if first is None else f"{first:.1f}",
                content["graphs"].get(name, ""),
            )
        )
    for name, by_count in content["side_by_side"].items():
        rates = {1: 1 / content["seconds"][name]["median"]}
        rates |= {number: each["steps_a_second"] for number, each in by_count.items()}
        beside.append((name, ", ".join(f"{number}: {rate:.0f}" for number, rate in rates.items())))
    return {**content, "rows": rows, "beside": beside}
