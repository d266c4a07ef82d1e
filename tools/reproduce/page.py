"""The page of the paper's tables, made from the raw results only."""

from collections.abc import Sequence
from pathlib import Path

from effconv_core import figures
from effconv_core.io.atomic import remove_file

from tools.reproduce.answer import Results, answer
from tools.reproduce.pictures import NAMED, Picture, pictures_of, shown
from tools.reproduce.rows import ALL, CLAIMS, TABLES, Row, runs_of
from tools.reproduce.run import run_name
from tools.reproduce.tables import TITLES, quoted, results_of, section
from tools.support.markdown import table
from tools.support.rows import read_rows

PAGE = Path("docs/results.md")
PICTURES = Path("docs/figures")
RESULTS = Path("results/reproduce")
MEASURED = ("paper", "gpu", "cpu")
"""The scales that are reported; smoke is for tests."""
WITH_LOWER = (*MEASURED, "cpu-bfloat16")
"""Those of the claims and of Figure 3; in the tables their rows would stand once more."""


def missing_pictures() -> list[Path]:
    """Return the files of the page's pictures that do not exist."""
    names = [name for name, _, _ in results_page()[1]]
    return [PICTURES / name for name in names if not (PICTURES / name).exists()]


def draw_pictures() -> None:
    """Draw the pictures that the page lacks, and delete those that it no longer shows."""
    pictures = results_page()[1]
    PICTURES.mkdir(parents=True, exist_ok=True)
    for old in {path.name for path in PICTURES.iterdir()} - {name for name, _, _ in pictures}:
        if NAMED.fullmatch(old):  # nothing that somebody else has put there
            remove_file(PICTURES / old)
    for name, _, draw in pictures:
        if not (PICTURES / name).exists():
            figures.save_figure(draw(), PICTURES / name)


def results_page() -> tuple[str, list[Picture]]:
    """Build the page and its pictures from the existing results."""
    sets = dict.fromkeys(data for data, _ in TABLES.values())
    results = {
        (data, scale): read_rows(RESULTS / f"{data}-{scale}.jsonl")
        for data in sets
        for scale in WITH_LOWER
    }
    parts = ["# The paper's tables, measured", "", answer(results), ""]
    parts += [
        "Accuracies are of the test set, in percent. The paper's figures stand in italics. A row "
        "is one network whose kernel sizes come from where the second column says; everything "
        "else about its training is alike within a table and a scale, but for the devices that its "
        "row names. This page is made by `hatch "
        "run reproduce:report` from [the raw results](../results/reproduce), and `hatch run "
        "reproduce:check` and a test compare the two.",
        "",
    ]
    pictures: list[Picture] = []
    for name, (data, _) in ALL.items():
        for scale in scales_of(name):
            found = results_of(name, scale, results[data, scale])
            if found:
                drawn = pictures_of(name, scale, found, RESULTS)
                raw = f"../{RESULTS}/{data}-{scale}.jsonl"
                parts += section(name, scale, found, raw, shown(name, drawn, f"{PICTURES.name}/"))
                pictures += drawn
    parts += [*as_stated(), *not_run(results)]
    return "\n".join(parts), pictures


def scales_of(name: str) -> Sequence[str]:
    """Return the scales at which a table, figure or claim is reported."""
    return WITH_LOWER if name in (*CLAIMS, "figure3") else MEASURED


def as_stated() -> list[str]:
    """Return the table of the paper's rows that have no network here."""
    headings = ("table", "network", "parameters", "accuracy as the paper states it")
    rows = [
        (
            TITLES[name],
            stated["model"],
            "" if stated["params_m"] is None else f"{stated['params_m']:.2f} M",
            f"*{stated['accuracy']}" + (f" ± {stated['std']}*" if stated["std"] else "*"),
        )
        for name in TABLES
        for stated in quoted(name)
    ]
    said = f"[The raw results](../{RESULTS}) have none of these; the figures are the paper's."
    return ["## Rows without a network here", "", said, "", *table(headings, rows), ""]


def not_run(results: Results) -> list[str]:
    """Return the list of rows that were not run."""
    parts = ["## Not run", ""]
    for name, (data, _) in ALL.items():
        for scale in scales_of(name):
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
    parts += [
        "",
        "Tables 3 and 4 were tried on small drawn sets in the official layouts of STL-10 and "
        "ImageNet-32, by the tests, at scale smoke; that gives no figures. They run on the real "
        "sets where EFFCONV_DATA holds them.",
    ]
    return [*parts, ""]
