"""Measured rows of a table or figure, beside the paper's figures; made only from raw results."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from effconv_core.config import with_present_defaults

from tools.reproduce.answer import RECIPES
from tools.reproduce.rows import SCALES, Row, name_of, rows_of
from tools.reproduce.run import search_config
from tools.support.markdown import provenance, table

PAPERS = json.loads((Path(__file__).parent / "paper_tables.json").read_text())
"""The figures that the papers state."""
PAPER = PAPERS["effconv"]
DEEPEST = {"model": "EffConv-56", "params_m": 0.66, **PAPER["figure3a_text"]["ResNet-56 at 0.66 M"]}
STATED = {
    "mnist": PAPER["table1_mnist"],
    "cifar10": [*PAPER["table2_cifar10"], *PAPER["figure3b_text"], DEEPEST],
    "stl10": PAPER["table3_stl10"],
    "imagenet32": PAPER["table4_imagenet32"],
}
"""The paper's figures for each data set."""
TITLES = {
    "table1": "Table 1: MNIST",
    "table2": "Table 2: CIFAR-10",
    "table3": "Table 3: STL-10",
    "table4": "Table 4: ImageNet-32",
    "figure2": "Figure 2: the kernels",
    "figure3": "Figure 3: depth and budget",
    "claim-mnist": "Equal cost: MNIST",
    "claim-cifar10": "Equal cost: CIFAR-10",
}
SOURCES = {
    **{kind: f"learned, {recipe}" for kind, recipe in RECIPES.items()},
    "original": "3x3 everywhere",
    "trained": "learned in the training",
    "uniform": "one size, nearest the budget",
    "reversed": "the learned ones from back to front, at the budget",
    "other seed": "learned with another seed",
    "reversed paper": "those of the paper's recipe from back to front, at the budget",
    "other seed paper": "learned by the paper's recipe with another seed",
    "even paper": "as equal as can be, at the cost of the paper's recipe's",
    **{f"random {i} paper": f"random {i}, at the cost of the paper's recipe's" for i in range(4)},
}
HEADINGS = (
    *("network", "sizes", "parameters", "accuracy", "seeds", "s an epoch, search", "training"),
    *("both", "s in all", "MiB", "device", "what was reduced", "the paper's"),
)


def results_of(name: str, scale: str, results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the results of a table or a figure, in its order."""
    wanted = rows_of(name, scale)
    found = [result for result in results if Row(**result["row"]) in wanted]
    return sorted(found, key=lambda result: (wanted.index(Row(**result["row"])), result["seed"]))


def section(
    name: str, scale: str, results: list[dict[str, Any]], raw: str, pictures: Sequence[str] = ()
) -> list[str]:
    """Return the lines of a table or a figure at one scale.

    Args:
        name: name of the table or figure.
        scale: a name of `SCALES`.
        results: the output of `results_of`, not empty.
        raw: their path, relative to the page.
        pictures: lines above the table.
    """
    groups = defaultdict(list)
    for result in results:
        groups[Row(**result["row"])].append(result)
    parts = [f"## {TITLES[name]}, scale {scale}", "", scale_in_words(name, scale, results[0]), ""]
    rows = (cells(row, found) for row, found in groups.items())
    parts += trained_in_words(results)
    parts += [*repeated(results), *pictures, *table(HEADINGS, rows)]
    parts += ["", "Sizes, from the first searched layer to the last:", "", "```"]
    width = max(len(source(row.sizes)) for row in groups)
    for row, found in groups.items():
        for result in found:
            sizes = " ".join(map(str, result["sizes"].values()))
            parts.append(
                f"{row.model} {row.budget / 1e6:.2f} M  {source(row.sizes):{width}}  "
                f"seed {result['seed']}  {sizes}"
            )
    made = {
        key: ", ".join(sorted({result["environment"][key] for result in results}))
        for key in ("commit", "device", "torch", "data")
    }
    parts += [
        "```",
        "",
        f"`hatch run reproduce:{name} --scale {scale}`, {provenance(made)}. "
        f"Data: {made['data']}. [Raw]({raw})."
        + (" Other work ran beside it, which the seconds show." if scale.startswith("cpu") else ""),
        "",
    ]
    return parts


def trained_in_words(results: Iterable[dict[str, Any]]) -> list[str]:
    """Return a paragraph on the training of networks that learn their sizes in it, if any."""
    settings = sorted(
        {
            f"{r['train']['optimizer']}, rate {r['train']['lr']}"
            for r in results
            if r["row"]["sizes"] == "trained"
        }
    )
    if not settings:
        return []
    return [f"Networks that learn their sizes in the training: {'; '.join(settings)}.", ""]


def quoted(name: str) -> list[dict[str, Any]]:
    """Return the paper's rows of a table that no row here runs."""
    data = rows_of(name, "paper")[0].data
    ours = {name_of(row) for row in rows_of(name, "paper")}
    return [stated for stated in STATED[data] if stated["model"] not in ours]


def repeated(results: Iterable[dict[str, Any]]) -> list[str]:
    """Return lines on the differences between repeated runs of one network, plan and seed."""
    groups = defaultdict(list)
    for result in results:
        plan = tuple(result["sizes"].values())
        groups[result["row"]["model"], plan, result["seed"]].append(100 * result["accuracy"])
    apart = [max(each) - min(each) for each in groups.values() if len(each) > 1]
    if not apart:
        return []
    return [
        f"Rows ran at different times. Where one plan and seed ran more than once ({len(apart)} of "
        f"them), the accuracies differ by up to {max(apart):.2f} points.",
        "",
    ]


def cells(row: Row, found: list[dict[str, Any]]) -> list[str]:
    """Return a row's cells, in the order of `HEADINGS`."""
    accuracies = [100 * result["accuracy"] for result in found]
    parameters = [result["parameters"] for result in found]
    ends = min(parameters), max(parameters)
    spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
    # Of an interrupted run, the epochs of its earlier starts count too.
    in_all = [r["seconds_since_last_start"] + r.get("seconds_before", 0.0) for r in found]
    phases = ("seconds_per_search_epoch", "seconds_per_train_epoch", "seconds_per_epoch")
    return [
        name_of(row),
        source(row.sizes),
        " to ".join(dict.fromkeys(f"{value / 1e6:.3f} M" for value in ends)),
        f"{statistics.mean(accuracies):.2f}{spread}{top5(found)}",
        ", ".join(str(result["seed"]) for result in found),
        *(_mean([result[phase] for result in found]) for phase in phases),
        _mean(in_all),
        _mean([result["peak_memory_mib"] for result in found]),
        ", ".join(sorted({result["environment"]["device"] for result in found})),
        reduced_to(found[0]),
        papers_figure(row),
    ]


def scale_in_words(name: str, scale: str, result: dict[str, Any]) -> str:
    """Return a sentence on the training of a scale's rows, and on which rows it has."""
    train = result["train"]
    pictures = (
        "all training pictures"
        if result["pictures"] is None
        else f"the first {result['pictures']:,} training pictures"
    )
    lower = ", in bfloat16" if train.get("precision") == "bfloat16" else ""
    theirs = SCALES["paper"][result["row"]["data"]].train.epochs
    whole, own = rows_of(name, "paper"), rows_of(name, scale)
    missing = len(whole) - len(set(whole) & set(own))
    return (
        f"Trained on {pictures} for {train['epochs']} epochs ({train['optimizer']}, batch "
        f"{train['batch_size']}, rate {train['lr']}, {train['schedule']}{lower}); the paper trains "
        f"for {theirs}. Searches see the same pictures."
        + (
            f" {missing} of scale paper's {len(whole)} rows are not in this scale."
            if missing
            else ""
        )
    )


def reduced_to(result: dict[str, Any]) -> str:
    """Return what was reduced for a row compared with scale `paper`."""
    row, search = Row(**result["row"]), result["search"]
    whole = SCALES["paper"][row.data]
    of_test = SCALES[result["scale"]][row.data].test_pictures
    numbers = {"training pictures": result["pictures"], "test pictures": of_test}
    parts = [f"{number:,} {what}" for what, number in numbers.items() if number is not None]
    pairs = [("epochs", result["train"]["epochs"], whole.train.epochs)]
    if search is not None:
        theirs = search_config(row, whole, result["seed"])
        pairs.append(("epochs of search", search["epochs"], theirs.epochs))
        pairs.append(("finalists", search["finalists"], theirs.finalists))
        # Rows of before 0.5.0 trained no finalists, and those of before 0.9.0 others.
        steps = with_present_defaults(search, asdict(theirs)).get("race_steps", theirs.race_steps)
        pairs.append(("steps of each finalist", steps, theirs.race_steps))
    parts += [f"{own} of {theirs} {what}" for what, own, theirs in pairs if own < theirs]
    return ", ".join(parts) or "not reduced"


def top5(found: list[dict[str, Any]]) -> str:
    """Return the mean top-5 accuracy as text if it was measured."""
    values = [100 * result["top5"] for result in found if "top5" in result]
    return f" (top-5 {statistics.mean(values):.2f})" if values else ""


def source(sizes: str) -> str:
    """Return a description of the source of the sizes."""
    return SOURCES.get(sizes, f"{sizes}, at the budget")


def papers_figure(row: Row) -> str:
    """Return the paper's figure for a row, if any."""
    for stated in STATED[row.data]:
        near = abs((stated["params_m"] or 0) - row.budget / 1e6) < 0.005
        ours = row.sizes in ("found", "paper", "original", "trained")
        if stated["model"] == name_of(row) and near and ours:
            spread = "" if stated.get("std") is None else f" ± {stated['std']}"
            told = {
                "accuracy": "{}" + spread,
                "top5": "top-5 {}",
                "seconds_per_epoch": "{} s an epoch",
            }
            known = [form.format(stated[key]) for key, form in told.items() if stated.get(key)]
            return f"*{', '.join(known)}*"
    return ""


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.1f}" if known else ""
