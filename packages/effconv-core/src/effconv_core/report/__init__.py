"""The report of runs as one self-contained HTML file; needs `effconv-core[cli]`."""

import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from effconv_core.io.atomic import write_text
from effconv_core.io.terminal import printable
from effconv_core.report.comparison import compare
from effconv_core.report.view import describe, duration, size_words
from effconv_core.runs.owner import Owner, check_place
from effconv_core.runs.reader import Run, read_result, read_run
from effconv_core.runs.writer import RESULT, same, settings_of, write_result
from effconv_core.version import core_version

try:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "effconv_core.report needs jinja2; pip install 'effconv-core[cli]'", name="jinja2"
    ) from None

__all__ = ["report_html", "write_report"]

HTML = "report.html"


def write_report(folders: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str]) -> None:
    """Write the report of one run, or of several with a comparison, whole or not at all.

    Args:
        folders: of runs, see `effconv_core.runs.reader`.
        path: the HTML file; one that is there is replaced.

    Raises:
        ValueError: if there is no folder, one is given twice, or one is not a run's.
    """
    if not folders:
        raise ValueError("there is no run to report; pass the folder of at least one")
    places = [Path(folder).resolve() for folder in folders]
    if len(set(places)) < len(places):
        raise ValueError("the same run is given twice; pass different folders")
    text = report_html([read_run(folder) for folder in folders])
    write_text(path, text)


def finish_run(folder: Path, result: Mapping[str, Any]) -> None:
    """Write the report of a run's folder and then its result, the last file of a run.

    Args:
        folder: of the run.
        result: as for `write_result`.
    """
    write_text(folder / HTML, report_html([read_run(folder, result=result)]))
    write_result(folder, result)


def is_report(path: Path) -> bool:
    """Return whether a file, and no link, is a report that `write_report` has written."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return b'<meta name="generator" content="effconv-core ' in file.read(4096)


def reported(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the result of a finished run whose report was missing, after writing that.

    Earlier releases wrote the report last, so that a kill could leave a finished run without it.

    Args:
        folder: of the run.
        settings: of the command; a run of others is left as it is.

    Returns:
        The result; None where there is no such run.

    Raises:
        FileExistsError: if the folder holds something and is not a run's.
    """
    if check_place(folder) is not Owner.RUN or settings_of(folder, settings) != same(settings):
        return None
    if (folder / HTML).exists() or not (folder / RESULT).exists():
        return None
    write_report([folder], folder / HTML)
    return read_result(folder)


def report_html(runs: Sequence[Run]) -> str:
    """Return the report as HTML without scripts or external addresses."""
    names = [run.name for run in runs]
    titles = [
        name if names.count(name) == 1 else f"{name} ({names[: i + 1].count(name)})"
        for i, name in enumerate(names)
    ]
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        # Markup is text that the templates have made.
        finalize=lambda value: printable(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "percent": lambda share, digits=2: f"{share:.{digits}%}",
        "count": lambda number: f"{number:,.0f}",
        "size": size_words,
        "duration": duration,
    }
    return templates.get_template("report.html").render(
        version=core_version(),
        made=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        sections=[describe(run, title) for run, title in zip(runs, titles, strict=True)],
        comparison=compare(dict(zip(titles, runs, strict=True))) if len(runs) > 1 else None,
    )
