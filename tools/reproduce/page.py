"""`hatch run reproduce:report` writes docs/results.md; `reproduce:check` fails where it differs.

The page is made of the raw results alone, so that no figure in it can be one that nobody measured.
"""

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effconv_core import figures
from effconv_core.run_files import write_text

from tools.jobs import read_rows
from tools.reproduce.answer import RECIPES, Results, answer
from tools.reproduce.pictures import Picture, course_pictures, kernel_pictures
from tools.reproduce.rows import FIGURES, TABLES, Row, name_of, rows_of, runs_of
from tools.reproduce.run import run_name
from tools.reproduce.sections import without_results

PAGE = Path("docs/results.md")
PICTURES = Path("docs/figures")
RESULTS = Path("results/reproduce")
PAPER = json.loads((Path(__file__).parent / "paper_tables.json").read_text())["effconv"]
PAPER_TABLES = {
    "table1": "table1_mnist",
    "table2": "table2_cifar10",
    "table3": "table3_stl10",
    "table4": "table4_imagenet32",
}
TITLES = {
    "table1": "Table 1: MNIST",
    "table2": "Table 2: CIFAR-10",
    "table3": "Table 3: STL-10",
    "table4": "Table 4: ImageNet-32",
    "figure2": "Figure 2: the kernels",
    "figure3": "Figure 3: depth and budget",
}
SOURCES = {
    **{kind: f"learned, {recipe}" for kind, recipe in RECIPES.items()},
    "original": "3x3 everywhere",
    "uniform": "one size, nearest the budget",
    "reversed": "the learned ones from back to front, at the budget",
    "other seed": "learned with another seed",
}
MEASURED = ("paper", "gpu", "cpu")
"""The scales that are reported; smoke is for tests."""


def main() -> int:
    """Write the page, or with `--check` compare it; the exit status is then 1 where it differs."""
    text, pictures = page()
    if "--check" in sys.argv[1:]:
        return check(text, pictures)
    PICTURES.mkdir(parents=True, exist_ok=True)
    for old in {path.name for path in PICTURES.iterdir()} - {name for name, _, _ in pictures}:
        (PICTURES / old).unlink()
    for name, _, draw in pictures:
        if not (PICTURES / name).exists():
            figures.save_figure(draw(), PICTURES / name)
    write_text(PAGE, text)
    return 0


def check(text: str, pictures: Sequence[Picture]) -> int:
    """Print what in the documents no raw result stands behind; give 1 if there is any."""
    problems = []
    if PAGE.read_text(encoding="utf-8") != text:
        problems.append(
            f"{PAGE} is not what the results in {RESULTS} give; run `hatch run reproduce:report`"
        )
    for name, _, _ in pictures:
        if not (PICTURES / name).exists():
            problems.append(f"{PICTURES / name} is missing; run `hatch run reproduce:report`")
    documents = [Path("README.md"), *sorted(Path("docs").rglob("*.md"))]
    for document in documents:
        for heading in without_results(document):
            problems.append(
                f"{document}, section {heading!r}, states figures and links to no file of raw "
                "results that exists; link to it, or take the figures out"
            )
    print("\n".join(problems))
    return 1 if problems else 0


def page() -> tuple[str, list[Picture]]:
    """Make the page and its pictures from the results that there are."""
    sets = dict.fromkeys(data for data, _ in TABLES.values())
    results = {
        (data, scale): read_rows(RESULTS / f"{data}-{scale}.jsonl")
        for data in sets
        for scale in MEASURED
    }
    parts = ["# The paper's tables, measured", "", answer(results), ""]
    parts += [
        "Accuracies are of the test set, in percent. The paper's figures stand in italics. A row "
        "is one network whose kernel sizes come from where the second column says; everything "
        "else about its training is alike within a table and a scale. This page is made by `hatch "
        "run reproduce:report` from [the raw results](../results/reproduce), and `hatch run "
        "reproduce:check` and a test compare the two.",
        "",
    ]
    pictures: list[Picture] = []
    for table, (data, _) in TABLES.items():
        for scale in MEASURED:
            wanted = rows_of(table, scale)
            rows = [row for row in results[data, scale] if Row(**row["row"]) in wanted]
            if rows:
                parts += section(table, scale, sorted(rows, key=lambda row: _place(row, wanted)))
    for scale in MEASURED:
        rows = results["cifar10", scale]
        pictures += kernel_pictures(RESULTS, "cifar10", scale, rows)
        pictures += course_pictures(scale, rows)
    if pictures:
        parts += ["## Figures 2 and 3", ""]
    for name, caption, _ in pictures:
        link = f"![{caption}]({PICTURES.name}/{name})"
        parts += [link, "", f"{caption}. Raw: [results](../results/reproduce).", ""]
    parts += not_run(results)
    return "\n".join(parts), pictures


def _place(row: dict[str, Any], wanted: list[Row]) -> tuple[int, int]:
    return wanted.index(Row(**row["row"])), row["seed"]


def section(table: str, scale: str, rows: list[dict[str, Any]]) -> list[str]:
    """Make a table's part of the page at one scale."""
    groups = defaultdict(list)
    for row in rows:
        groups[Row(**row["row"])].append(row)
    first = rows[0]
    parts = [f"## {TITLES[table]}, scale {scale}", "", reduced(first), ""]
    parts += [
        "| network | sizes | parameters | accuracy | seeds | s an epoch, search | training | both "
        "| s in all | MiB | the paper's |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row, found in groups.items():
        accuracies = [100 * result["accuracy"] for result in found]
        parameters = sorted({result["parameters"] for result in found})
        spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        cells = [
            name_of(row),
            source(row.sizes),
            " to ".join(f"{value / 1e6:.3f} M" for value in parameters),
            f"{statistics.mean(accuracies):.2f}{spread}{top5(found)}",
            ", ".join(str(result["seed"]) for result in found),
            *(
                _mean([result[key] for result in found])
                for key in (
                    "seconds_per_search_epoch",
                    "seconds_per_train_epoch",
                    "seconds_per_epoch",
                    "seconds_since_last_start",
                    "peak_memory_mib",
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
        f"{environment['device']}, torch {environment['torch']}. Data: {environment['data']}. "
        f"[Raw](../{RESULTS}/{first['row']['data']}-{scale}.jsonl)."
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


def top5(found: list[dict[str, Any]]) -> str:
    """Give the mean top-5 accuracy where it was measured."""
    values = [100 * result["top5"] for result in found if "top5" in result]
    return f" (top-5 {statistics.mean(values):.2f})" if values else ""


def source(sizes: str) -> str:
    """Say where sizes come from."""
    return SOURCES.get(sizes, f"{sizes}, at the budget")


def papers_figure(table: str, row: Row) -> str:
    """Give what the paper states for a row, if anything."""
    for stated in PAPER[PAPER_TABLES[table]]:
        near = abs((stated["params_m"] or 0) - row.budget / 1e6) < 0.005
        ours = row.sizes in ("found", "paper", "original")
        if stated["model"] == name_of(row) and near and ours:
            spread = "" if stated["std"] is None else f" ± {stated['std']}"
            best5 = f", top-5 {stated['top5']}" if "top5" in stated else ""
            time = stated["seconds_per_epoch"]
            seconds = "" if time is None else f", {time} s an epoch"
            return f"*{stated['accuracy']}{spread}{best5}{seconds}*"
    return ""


def not_run(results: Results) -> list[str]:
    """List what nobody ran."""
    parts = ["## Not run", ""]
    for name, (data, _) in {**TABLES, **FIGURES}.items():
        for scale in MEASURED:
            wanted = set(runs_of(name, scale))
            done = {(Row(**row["row"]), row["seed"]) for row in results[data, scale]}
            missing = wanted - done
            if len(missing) == len(wanted):
                parts.append(f"- {TITLES[name]}, scale {scale}: none of {len(wanted)} runs.")
            elif missing:
                ordered = [run for run in runs_of(name, scale) if run in missing]
                kinds = ", ".join(f"`{run_name(row, seed)}`" for row, seed in ordered)
                parts.append(
                    f"- {TITLES[name]}, scale {scale}: {len(missing)} of {len(wanted)} runs: "
                    f"{kinds}."
                )
    return [*parts, ""]


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.1f}" if known else ""


if __name__ == "__main__":
    raise SystemExit(main())
