"""`hatch run reproduce:report` writes docs/results.md; `reproduce:check` fails where it differs.

The page is made of the raw results alone, so that no figure in it can be one that nobody measured.
The check looks at the other documents too: those that commands make must be what they make, and in
those written by hand whatever states figures must link to raw results.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from effconv_core import figures
from effconv_core.io.atomic import write_text

from tools import cost_page, efficiency_page
from tools.docs.commands import commands_without_code
from tools.docs.sections import without_results
from tools.faults import page as faults_page
from tools.jobs import read_rows
from tools.methods import page as methods_page
from tools.reproduce.answer import Results, answer
from tools.reproduce.pictures import Picture, pictures_of, shown
from tools.reproduce.rows import FIGURES, TABLES, Row, runs_of
from tools.reproduce.run import run_name
from tools.reproduce.tables import TITLES, results_of, section
from tools.versus import page as versus_page

PAGE = Path("docs/results.md")
PICTURES = Path("docs/figures")
RESULTS = Path("results/reproduce")
MADE: dict[Path, Callable[[], str]] = {
    cost_page.PAGE: cost_page.current,
    efficiency_page.PAGE: efficiency_page.current,
    faults_page.PAGE: lambda: faults_page.page(read_rows(faults_page.RESULTS)),
    methods_page.PAGE: methods_page.page,
    versus_page.PAGE: versus_page.page,
}
"""The other pages that are made of raw results alone, and what makes each."""
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
    for path, make in MADE.items():
        if path.read_text(encoding="utf-8") != make():
            problems.append(f"{path} is not what its results give; make it by the command it names")
    for document in documents():
        for heading in without_results(document):
            problems.append(
                f"{document}, section {heading!r}, states figures and links to no file of raw "
                "results that exists; link to it, or take the figures out"
            )
        for command in commands_without_code(document):
            problems.append(
                f"{document} names `hatch run {command}`, which is no command; name one, or write "
                "'of commit `...`' behind it, with a commit that has it"
            )
    print("\n".join(problems))
    return 1 if problems else 0


def documents() -> list[Path]:
    """Give the documents whose figures must have raw results; changelogs tell of the past."""
    return [
        Path("README.md"),
        *sorted(Path("docs").rglob("*.md")),
        *sorted(Path("results").rglob("README.md")),
        *sorted(
            path for kind in ("packages", "examples") for path in Path(kind).glob("*/README.md")
        ),
    ]


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
        "else about its training is alike within a table and a scale, but for the devices that its "
        "row names. This page is made by `hatch "
        "run reproduce:report` from [the raw results](../results/reproduce), and `hatch run "
        "reproduce:check` and a test compare the two.",
        "",
    ]
    pictures: list[Picture] = []
    for name, (data, _) in {**TABLES, **FIGURES}.items():
        for scale in MEASURED:
            found = results_of(name, scale, results[data, scale])
            if found:
                drawn = pictures_of(name, scale, found, RESULTS)
                raw = f"../{RESULTS}/{data}-{scale}.jsonl"
                parts += section(name, scale, found, raw, shown(name, drawn, f"{PICTURES.name}/"))
                pictures += drawn
    parts += not_run(results)
    return "\n".join(parts), pictures


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
    parts += [
        "",
        "Tables 3 and 4 were tried on small drawn sets in the official layouts of STL-10 and "
        "ImageNet-32, by the tests, at scale smoke; that gives no figures. They run on the real "
        "sets where EFFCONV_DATA holds them.",
    ]
    return [*parts, ""]


if __name__ == "__main__":
    raise SystemExit(main())
