"""The page that says which method to take, made of the raw results alone."""

import json
import statistics
from pathlib import Path
from typing import Any

from tools.methods.networks import METHODS
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
    """Name the file of trained networks."""
    return "-".join(["accuracy", *([] if data == "cifar10" else [data]), size, kind]) + ".jsonl"


def methods_page() -> str:
    """Make the page from the results that there are."""
    parts = [
        "# Three ways to learn kernel sizes",
        "",
        "[EffConv](method.md) learns a size for each layer in a few epochs and throws its "
        f"predictors away. [FlexConv]({MODELS}#flexconv) keeps a small network in each layer that "
        "draws the kernel, under a mask that is learned for as long as the network is. "
        f"[Multi-resolution networks]({MODELS}#filter-sizes-learned-as-a-mixture-of-resolutions) "
        "use one small filter at several resolutions and learn how to mix them. This page is made "
        "by `hatch run bench:methods`.",
        "",
        "**Which to take**, from the small runs below, most of one seed: EffConv where the network "
        "is to stay a plain CNN that costs about what it did; its search is the cheapest of the "
        "three. Where what matters is far wider than 3x3 kernels see, FlexConv and the "
        "multi-resolution network found it and were ahead, at many times the multiply-accumulates "
        "and the time.",
        "",
    ]
    missing = []
    for data, title in DATA.items():
        for size in ("paper", "small"):
            for kind in KINDS:
                path = RESULTS / accuracy_file(data, size, kind)
                if rows := read_rows(path):
                    parts += accuracies(path, rows, data)
                else:
                    missing.append(f"accuracy on {title} at the size `{size}` on {kind}")
    for kind in KINDS:
        path = RESULTS / COST.format(kind=kind)
        if path.exists():
            parts += costs(path, json.loads(path.read_text(encoding="utf-8")))
        else:
            missing.append(f"cost on {kind}")
    parts += ["## Not yet measured", ""]
    parts += [f"- {what}" for what in missing]
    return "\n".join([*parts, ""])


def accuracies(path: Path, rows: list[dict[str, Any]], data: str) -> list[str]:
    """Give the table of trained networks."""
    first = rows[0]
    pictures = "all" if first["pictures"] is None else f"{first['pictures']:,}"
    tested = "1,000 others" if data == "drawn" else "the whole test set"
    parts = [
        f"## Trained alike: {path.stem}",
        "",
        f"{DATA[data].capitalize() if data == 'drawn' else DATA[data]}: {pictures} training "
        f"pictures, {first['train']['epochs']} epochs, tested on {tested}, each method with the "
        "optimizer of its own papers. EffConv searches first; a "
        "multi-resolution network trains its filters on four fifths of the pictures and its mixing "
        f"on the rest. Data: {first['environment']['data']}. [Raw](../{path}).",
        "",
        "| method | parameters | multiply-accumulates | accuracy, % | s an epoch | MiB |",
        "|---|---|---|---|---|---|",
    ]
    for method, title in METHODS.items():
        mine = [row for row in rows if row["method"] == method]
        if not mine:
            continue
        reached = [100 * row["accuracy"] for row in mine]
        spread = f" ± {statistics.stdev(reached):.2f}" if len(reached) > 1 else ""
        epochs = [row["train"]["epochs"] + row.get("search_epochs", 0) for row in mine]
        seconds = [row["train_seconds"] + row.get("search_seconds", 0) for row in mine]
        cells = (
            title,
            _range(row["parameters"] / 1e3 for row in mine) + " k",
            _range(row["macs"] / 1e6 for row in mine) + " M",
            f"{statistics.mean(reached):.2f}{spread} ({len(mine)})",
            f"{sum(seconds) / sum(epochs):.1f}",
            _range(row["peak_memory_mib"] for row in mine),
        )
        parts.append("| " + " | ".join(cells) + " |")
    parts += ["", "Learned sizes, in pixels of the image:", "", "```"]
    for row in rows:
        sizes = row.get("sizes") or {}
        told = list(sizes.values()) or row["learned_sizes"]
        if told:
            words = " ".join(map(_size, told))
            parts.append(f"{row['method']:17} seed {row['seed']}  {words}")
    environment = first["environment"]
    return [
        *parts,
        "```",
        "",
        f"`hatch run bench:methods accuracy --data {data} --size {first['size']} --epochs "
        f"{first['train']['epochs']} --pictures {first['pictures']}`, commit "
        f"{environment['commit']}, {environment['device']}, torch {environment['torch']}. Other "
        "work may have run beside it, which the seconds would show; the table below is for times.",
        "",
    ]


def costs(path: Path, content: dict[str, Any]) -> list[str]:
    """Give the tables of time and memory, with the papers' ratios beside."""
    environment, parts = content["environment"], [f"## What a step costs: {path.stem}", ""]
    for image_size, (name, pictures, papers, stated) in PAPERS.items():
        rows = {row["method"]: row for row in content["rows"] if row["image_size"] == image_size}
        batch_size = next(iter(rows.values()))["batch_size"]
        parts += [
            f"Random pictures of {image_size}x{image_size}, batches of {batch_size}; an epoch is "
            f"that of {name}, {pictures:,} pictures, in batches of that size. [Raw](../{path}).",
            "",
            "| method | parameters | multiply-accumulates | step | ms | s an epoch | MiB |",
            "|---|---|---|---|---|---|---|",
        ]
        steps = pictures / batch_size
        for method, row in rows.items():
            for step, told in row["seconds"].items():
                cells = (
                    METHODS[method],
                    f"{row['parameters'] / 1e6:.2f} M",
                    f"{row['macs'] / 1e6:.0f} M",
                    step,
                    f"{1000 * told['median']:.0f} ({1000 * told['p20']:.0f} to "
                    f"{1000 * told['p80']:.0f})",
                    f"{steps * told['median']:.0f}",
                    str(row["peak_memory_mib"]),
                )
                parts.append("| " + " | ".join(cells) + " |")
        flexnet = rows["flexnet"]["seconds"]["train"]["median"]
        effconv = rows["effconv"]["seconds"]
        search = effconv["search, paper recipe"]["median"]
        parts += [
            "",
            f"FlexNet over EffConv: {flexnet / effconv['train']['median']:.1f} times a training "
            f"step, {flexnet / search:.1f} times a step of the paper's search. The paper states "
            f"{papers:.1f} times ({stated}, on its GPU).",
            "",
        ]
    return [
        *parts,
        "Median, and 20th to 80th percentile. A search step is one at the start, where the paper's "
        "recipe has 3x3 kernels. A multi-resolution network also takes a mixing step "
        "for every training step. MiB is the peak of a process of its own, PyTorch included on a "
        f"CPU. `hatch run bench:methods cost`, commit {environment['commit']}, "
        f"{environment['device']}, torch {environment['torch']}.",
        "",
    ]


def _range(values: Any) -> str:
    values = sorted({f"{value:.0f}" for value in values}, key=float)
    return values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _size(size: Any) -> str:
    return "x".join(map(str, size)) if isinstance(size, list) else str(size)
