"""The page that recommends a method, made only from the raw results."""

import itertools
import json
import statistics
from pathlib import Path
from typing import Any

from tools.methods.networks import METHODS
from tools.methods.resolution import OUT as RESOLUTION
from tools.methods.resolution import SETTINGS
from tools.support.markdown import render
from tools.support.rows import read_rows

PAGE = Path("docs/methods.md")
RESULTS = Path("results/methods")
COST = "cost-{kind}.json"
MODELS = "../packages/effconv-models/README.md"
KINDS = ("cuda", "cpu")
DATA = {"cifar10": "CIFAR-10", "stl10": "STL-10", "drawn": "drawn patches of 96x96 pixels"}
PAPERS = {
    32: ("CIFAR-10", 50_000, 127 / 17.77, "FlexNet-16 127 s and EffConv-20 17.77 s an epoch"),
    96: ("STL-10", 5_000, 1800 / 13.2, "FlexNet-16 1,800 s and EffConv-20 13.2 s an epoch"),
}


def accuracy_file(data: str, size: str, kind: str) -> str:
    """Return the name of the file of trained networks."""
    return "-".join(["accuracy", *([] if data == "cifar10" else [data]), size, kind]) + ".jsonl"


def methods_page() -> str:
    """Return the page, made of the results that there are."""
    accuracies, costs, missing = [], [], []
    for (data, title), size, kind in itertools.product(DATA.items(), ("paper", "small"), KINDS):
        path = RESULTS / accuracy_file(data, size, kind)
        if rows := read_rows(path):
            accuracies.append(_accuracies(path, rows, data))
        else:
            missing.append(f"accuracy on {title} at the size `{size}` on {kind}")
    for kind in KINDS:
        path = RESULTS / COST.format(kind=kind)
        if path.exists():
            costs.append(_costs(path, json.loads(path.read_text(encoding="utf-8"))))
        else:
            missing.append(f"cost on {kind}")
    values = {"accuracies": accuracies, "costs": costs, "missing": missing}
    values["resolution"] = _resolution(read_rows(RESOLUTION))
    return render("methods.md.jinja", models=MODELS, **values)


def _accuracies(path: Path, rows: list[dict[str, Any]], data: str) -> dict[str, Any]:
    """Return what the page says of trained networks."""
    cells, sizes = [], []
    for method, title in METHODS.items():
        mine = [row for row in rows if row["method"] == method]
        if not mine:
            continue
        reached = [100 * row["accuracy"] for row in mine]
        spread = f" ± {statistics.stdev(reached):.2f}" if len(reached) > 1 else ""
        epochs = [row["train"]["epochs"] + row.get("search_epochs", 0) for row in mine]
        seconds = [row["train_seconds"] + row.get("search_seconds", 0) for row in mine]
        cells.append(
            (
                title,
                _range(row["parameters"] / 1e3 for row in mine) + " k",
                _range(row["macs"] / 1e6 for row in mine) + " M",
                f"{statistics.mean(reached):.2f}{spread} ({len(mine)})",
                f"{sum(seconds) / sum(epochs):.1f}",
                _range(row["peak_memory_mib"] for row in mine),
            )
        )
    for row in rows:
        learned = list((row.get("sizes") or {}).values()) or row["learned_sizes"]
        if learned:
            words = " ".join(map(_size, learned))
            sizes.append(f"{row['method']:17} seed {row['seed']}  {words}")
    title = DATA[data][0].upper() + DATA[data][1:]
    return {
        **{"path": path, "data": data, "title": title, "first": rows[0]},
        **{"cells": cells, "sizes": sizes},
    }


def _costs(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Return what the page says of time and memory, with the papers' ratios beside."""
    parts = []
    for image_size, (name, pictures, papers, stated) in PAPERS.items():
        rows = {row["method"]: row for row in content["rows"] if row["image_size"] == image_size}
        batch_size = next(iter(rows.values()))["batch_size"]
        cells = []
        for method, row in rows.items():
            for step, told in row["seconds"].items():
                median, low, high = (1000 * told[key] for key in ("median", "p20", "p80"))
                cells.append(
                    (
                        METHODS[method],
                        f"{row['parameters'] / 1e6:.2f} M",
                        f"{row['macs'] / 1e6:.0f} M",
                        step.replace("default", "bank"),  # its former name
                        f"{median:.0f} ({low:.0f} to {high:.0f})",
                        f"{pictures / batch_size * told['median']:.0f}",
                        row["peak_memory_mib"],
                    )
                )
        flexnet = rows["flexnet"]["seconds"]["train"]["median"]
        effconv = {name: told["median"] for name, told in rows["effconv"]["seconds"].items()}
        parts.append(
            {
                **{"image_size": image_size, "batch_size": batch_size, "cells": cells},
                **{"name": name, "pictures": pictures, "papers": papers, "stated": stated},
                "training": flexnet / effconv["train"],
                "search": flexnet / effconv["search, paper recipe"],
            }
        )
    return {"path": path, "environment": content["environment"], "parts": parts}


def _resolution(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return what the page says of images larger than those of the training, None without rows."""
    cells = []
    for name, title in SETTINGS.items():
        mine = [row for row in rows if row["settings"] == name]
        if mine:
            keys = ("accuracy", "accuracy_refined", "accuracy_estimated")
            reached = [_percents(row[key] for row in mine) for key in keys]
            error = max(row["largest_error"] for row in mine)
            cells.append((title, *reached, f"{error:.2f}", len(mine)))
    return {"path": RESOLUTION, "cells": cells, "first": rows[0]} if rows else None


def _percents(values: Any) -> str:
    values = [100 * value for value in values]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def _range(values: Any) -> str:
    values = sorted({f"{value:.0f}" for value in values}, key=float)
    return values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _size(size: Any) -> str:
    return "x".join(map(str, size)) if isinstance(size, list) else str(size)
