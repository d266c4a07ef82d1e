"""Lists of independent jobs with results stored as JSON lines, so that none is repeated."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from effconv_core.config import with_present_defaults
from effconv_core.io.atomic import append_text, write_text
from effconv_core.io.read_json import LINES, in_brief, read_limited, read_lines
from rich.console import Console

from tools.support.console import plain_bar


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file; a last line cut off by an interruption is left out.

    Raises:
        ValueError: if a line holds no row; the message names it.
    """
    rows = []
    with suppress(FileNotFoundError):
        for row in read_lines(path, dict[str, Any], finite=False):
            if isinstance(row, ValueError):
                raise row
            rows.append(row)
        if not rows and path.stat().st_size and read_limited(path, LINES)[:1] != b"{":
            raise ValueError(f"{path} holds no row of results; name another file")
    return rows


def current_rows(path: Path, key: str, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a file, after a look at what they were made with.

    Args:
        path: the file.
        key: the entry of a row that names its settings.
        settings: a dataclass for each name.

    Raises:
        ValueError: if the settings of a row's name have changed since.
    """
    rows = read_rows(path)
    for row in rows:
        config, name = row.get("config", {}), row.get(key)
        if not isinstance(config, dict) or (config and name not in settings):
            raise ValueError(
                f"{path} holds a row of {in_brief(name)}, and knows {', '.join(settings)}; delete "
                "that row"
            )
        if not config:
            continue
        before = {field: value for field, value in config.items() if field != "seed"}
        changed = changed_since(before, asdict(settings[name]))
        if changed:
            raise ValueError(
                f"{path} holds a row of {row[key]!r} made with another {', '.join(changed)}; "
                "delete the rows of that name to make them again"
            )
    return rows


def changed_since(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of settings that are others than before; those that came later do not count.

    Args:
        before: as JSON gives them.
        now: the same settings of today; mappings in them are compared entry by entry.
    """

    def known(value: Any, old: Any) -> Any:
        both = isinstance(value, dict) and isinstance(old, dict)
        return {name: known(value.get(name), old[name]) for name in old} if both else value

    now = json.loads(json.dumps(now))
    before = with_present_defaults(before, now)
    return [name for name, old in before.items() if known(now.get(name), old) != old]


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
    """Run jobs in processes; append the row of each to its file as soon as it is done.

    Args:
        console: where the bar is shown.
        title: title of the bar.
        function: returns a job's row; it must be importable.
        jobs: a file and the function's arguments for each.
        workers: number of parallel processes.

    Raises:
        Exception: the first that a job raised; rows written before are kept.
    """
    for path in {path for path, _ in jobs}:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A line cut off by an interruption would merge with the next one.
        write_text(path, "".join(json.dumps(row) + "\n" for row in read_rows(path)))
    # A forked process cannot use the GPU of its parent.
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


def matches(row: Mapping[str, Any], key: Mapping[str, Any]) -> bool:
    """Return whether a row has all entries of a key; those of a mapping are compared one by one."""
    return all(
        matches(row[name], value)
        if isinstance(value, Mapping) and isinstance(row.get(name), Mapping)
        else name in row and row[name] == value
        for name, value in key.items()
    )


def run_grid(
    console: Console,
    title: str,
    function: Callable[..., dict[str, Any]],
    grid: Iterable[tuple[Path, Mapping[str, Any], tuple]],
    workers: int,
) -> None:
    """Run what the files lack of a grid of jobs; see `run_jobs`.

    Args:
        console: where the bar is shown.
        title: title of the bar.
        function: returns a job's row; it must be importable.
        grid: a file, the entries by which a job's row is known there, and the function's arguments
            for each.
        workers: number of parallel processes.
    """
    grid = list(grid)
    rows = {path: read_rows(path) for path in {path for path, _, _ in grid}}
    jobs = [
        (path, arguments)
        for path, key, arguments in grid
        if not any(matches(row, key) for row in rows[path])
    ]
    run_jobs(console, title, function, jobs, workers)
