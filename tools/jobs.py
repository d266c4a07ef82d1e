"""Lists of independent jobs whose results are kept as JSON lines, so that none is done twice."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from effconv_core.io.atomic import append_text, write_text
from effconv_core.io.read_json import in_brief, read_lines
from rich.console import Console

from tools.meter import plain_bar


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file; a last line cut off by an interruption is left out.

    Raises:
        ValueError: if a line holds no row; the sentence names it.
    """
    rows = []
    with suppress(FileNotFoundError):
        for row in read_lines(path, dict[str, Any], finite=False):
            if isinstance(row, ValueError):
                raise row
            rows.append(row)
    return rows


def current_rows(path: Path, key: str, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give the rows of a file, after a look at what they were made with.

    Args:
        path: the file.
        key: which of a row's entries names its settings.
        settings: a dataclass for each name.

    Raises:
        ValueError: if a row was made with other settings than its name has now.
    """
    rows = read_rows(path)
    for row in rows:
        config, name = row.get("config", {}), row.get(key)
        if not isinstance(config, dict) or (config and name not in settings):
            raise ValueError(
                f"{path} holds a row of {in_brief(name)}, and knows {', '.join(settings)}; delete "
                "that row"
            )
        now = asdict(settings[name]) if config else {}
        changed = [
            field for field, value in config.items() if field != "seed" and value != now.get(field)
        ]
        if changed:
            raise ValueError(
                f"{path} holds a row of {row[key]!r} made with another {', '.join(changed)}; "
                "delete the rows of that name to make them anew"
            )
    return rows


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append one row."""
    append_text(path, json.dumps(row) + "\n")


def run_jobs(
    console: Console,
    title: str,
    function: Callable[..., dict[str, Any]],
    jobs: Sequence[tuple[Path, tuple]],
    workers: int,
) -> None:
    """Run jobs in processes, and append the row of each to its file as soon as it is there.

    Args:
        console: where the bar is shown.
        title: of the bar.
        function: gives a job's row; it must be importable.
        jobs: a file and the function's arguments for each.
        workers: processes at a time.

    Raises:
        Exception: the first that a job raised; the rows written before it stay.
    """
    for path in {path for path, _ in jobs}:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A line cut off by an interruption would run into the next one.
        write_text(path, "".join(json.dumps(row) + "\n" for row in read_rows(path)))
    # A forked process cannot use the GPU that its parent has seen.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    with pool, plain_bar(console) as progress:
        task = progress.add_task(title, total=len(jobs))
        paths = {pool.submit(function, *arguments): path for path, arguments in jobs}
        for future in as_completed(paths):
            try:
                append_row(paths[future], future.result())
            except Exception:
                pool.shutdown(cancel_futures=True)
                raise
            progress.advance(task)
