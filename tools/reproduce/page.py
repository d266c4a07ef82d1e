"""`hatch run reproduce:report` writes docs/results.md; `reproduce:check` fails where it differs.

The page is made of the raw results alone, so that no figure in it can be one that nobody measured.
"""

import json
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from tools.jobs import read_rows
from tools.reproduce.rows import SCALES, TABLES, Row, rows_of
from tools.run_folder import write_text

PAGE = Path("docs/results.md")
RESULTS = Path("results/reproduce")
PAPER = json.loads((Path(__file__).parent / "paper_tables.json").read_text())["effconv"]
PAPER_TABLES = {"table1": "table1_mnist", "table2": "table2_cifar10"}
TITLES = {"table1": "Table 1: MNIST", "table2": "Table 2: CIFAR-10"}
SOURCES = {
    "found": "learned, default recipe",
    "paper": "learned, the paper's recipe",
    "original": "3x3 everywhere",
    "uniform": "one size, nearest the budget",
    "reversed": "the learned ones from back to front, at the budget",
    "other seed": "learned with another seed",
}


def main() -> int:
    """Write the page, or with `--check` compare it; the exit status is then 1 where it differs."""
    text = page()
    if "--check" not in sys.argv[1:]:
        write_text(PAGE, text)
        return 0
    if PAGE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{PAGE} is not what the results in {RESULTS} give; run `hatch run reproduce:report`")
    return 1


def page() -> str:
    """Make the page from the results that there are."""
    results = {
        (table, scale): read_rows(RESULTS / f"{table}-{scale}.jsonl")
        for table in TABLES
        for scale in ("paper", "gpu", "cpu")
    }
    parts = ["# The paper's tables, measured", "", answer(results), ""]
    parts += [
        "Accuracies are of the test set, in percent. The paper's figures stand in italics. A row "
        "is one network whose kernel sizes come from where the second column says; everything "
        "else about its training is alike within a table and a scale. This page is made by `hatch "
        "run reproduce:report` from [the raw results](../results/reproduce), and a test compares "
        "the two.",
        "",
    ]
    for (table, scale), rows in results.items():
        if rows:
            parts += section(table, scale, rows)
    parts += not_run(results)
    return "\n".join(parts)


def answer(results: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    """Say in one paragraph whether learned sizes beat random ones at equal cost."""
    question = "**Are learned sizes better than random ones at equal cost?** "
    sentences = []
    for (table, scale), rows in results.items():
        groups = defaultdict(list)
        for row in rows:
            groups[row["row"]["model"], row["row"]["budget"], row["seed"]].append(row)
        for recipe in ("found", "paper"):
            differences = []
            for group in groups.values():
                kinds = {row["row"]["sizes"]: 100 * row["accuracy"] for row in group}
                drawn = [value for kind, value in kinds.items() if kind.startswith("random")]
                if recipe in kinds and drawn:
                    differences.append((kinds[recipe] - statistics.mean(drawn), drawn))
            if differences:
                sentences.append(
                    f"{TITLES[table]} ({scale}), {SOURCES[recipe]}: {told(differences)}"
                )
    return question + (" ".join(sentences) if sentences else "Not measured yet.")


def told(differences: Sequence[tuple[float, list[float]]]) -> str:
    """Tell the differences to the mean of random plans, each with those plans' accuracies."""
    mean = statistics.mean(difference for difference, _ in differences)
    if len(differences) == 1:
        drawn = differences[0][1]
        return (
            f"{mean:+.2f} points against the mean of {len(drawn)} random plans, which spread by "
            f"{statistics.stdev(drawn):.2f} (standard deviation); one pair, so no interval."
        )
    half = half_width([difference for difference, _ in differences])
    verdict = "yes" if mean > half else "no" if mean < -half else "no difference that counts"
    return (
        f"{verdict}: {mean:+.2f} points (95 % interval {mean - half:+.2f} to {mean + half:+.2f}, "
        f"{len(differences)} pairs of network, budget and seed)."
    )


def half_width(differences: Sequence[float]) -> float:
    """Give half the width of the 95 % interval of the mean of paired differences (Student's t)."""
    spread = statistics.stdev(differences)
    return float(stats.t.ppf(0.975, len(differences) - 1)) * spread / math.sqrt(len(differences))


def section(table: str, scale: str, rows: list[dict[str, Any]]) -> list[str]:
    """Make a table's part of the page at one scale."""
    groups = defaultdict(list)
    for row in rows:
        groups[Row(**row["row"])].append(row)
    first = rows[0]
    parts = [f"## {TITLES[table]}, scale {scale}", "", reduced(first), ""]
    parts += [
        "| network | sizes | parameters | accuracy | seeds | s an epoch, search | training | both "
        "| the paper's |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row, found in groups.items():
        accuracies = [100 * result["accuracy"] for result in found]
        parameters = sorted({result["parameters"] for result in found})
        spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        cells = [
            row.label if row.label != "control" else f"control ({row.model})",
            source(row.sizes),
            " to ".join(f"{value / 1e6:.3f} M" for value in parameters),
            f"{statistics.mean(accuracies):.2f}{spread}",
            ", ".join(str(result["seed"]) for result in found),
            *(
                _mean([result[key] for result in found])
                for key in (
                    "seconds_per_search_epoch",
                    "seconds_per_train_epoch",
                    "seconds_per_epoch",
                )
            ),
            papers_figure(table, row),
        ]
        parts.append("| " + " | ".join(cells) + " |")
    parts += ["", "Sizes, from the first searched layer to the last:", "", "```"]
    width = max(len(source(row.sizes)) for row in groups)
    for row, found in groups.items():
        for result in found:
            sizes = " ".join(map(str, result["sizes"].values()))
            parts.append(
                f"{row.model} {row.budget / 1e6:.2f} M  {source(row.sizes):{width}}  "
                f"seed {result['seed']}  {sizes}"
            )
    commits = sorted({result["environment"]["commit"] for result in rows})
    environment = first["environment"]
    parts += [
        "```",
        "",
        f"`hatch run reproduce:{table} --scale {scale}`, commit {', '.join(commits)}, "
        f"{environment['device']}, torch {environment['torch']}. Data: {environment['data']}."
        + (" Other work ran beside it, which the seconds show." if scale == "cpu" else ""),
        "",
    ]
    return parts


def reduced(result: dict[str, Any]) -> str:
    """Say how a scale differs from the paper's."""
    train = result["train"]
    pictures = (
        "all training pictures"
        if result["pictures"] is None
        else (f"the first {result['pictures']:,} training pictures")
    )
    return (
        f"Trained on {pictures} for {train['epochs']} epochs ({train['optimizer']}, batch "
        f"{train['batch_size']}, rate {train['lr']}, {train['schedule']}); the paper trains for "
        "350. Searched for as long as the recipe says, on the same pictures."
    )


def source(sizes: str) -> str:
    """Say where sizes come from."""
    return SOURCES.get(sizes, f"{sizes}, at the budget")


def papers_figure(table: str, row: Row) -> str:
    """Give what the paper states for a row, if anything."""
    for stated in PAPER[PAPER_TABLES[table]]:
        near = abs((stated["params_m"] or 0) - row.budget / 1e6) < 0.005
        if stated["model"] == row.label and near and row.sizes in ("found", "paper", "original"):
            spread = "" if stated["std"] is None else f" ± {stated['std']}"
            time = stated["seconds_per_epoch"]
            seconds = "" if time is None else f", {time} s an epoch"
            return f"*{stated['accuracy']}{spread}{seconds}*"
    return ""


def not_run(results: dict[tuple[str, str], list[dict[str, Any]]]) -> list[str]:
    """List what nobody ran."""
    parts = ["## Not run", ""]
    for table, (data, _) in TABLES.items():
        for scale in ("paper", "gpu", "cpu"):
            seeds = range(SCALES[scale][data].seeds)
            wanted = {(row, seed) for row in rows_of(table, scale) for seed in seeds}
            wanted -= {(row, seeds[-1]) for row, _ in wanted if row.sizes == "other seed"}
            done = {(Row(**result["row"]), result["seed"]) for result in results[table, scale]}
            missing = len(wanted - done)
            if missing:
                parts.append(f"- {TITLES[table]}, scale {scale}: {missing} of {len(wanted)} runs.")
    return [*parts, "- Tables 3 and 4, Figures 2 and 3 of the paper.", ""]


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.1f}" if known else ""


if __name__ == "__main__":
    raise SystemExit(main())
