"""Lists of independent jobs whose results are kept as JSON lines, so that none is done twice."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from effconv_core.io.atomic import write_text
from rich.console import Console

from tools.support.console import plain_bar


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Give the rows of a file; a last line cut off by an interruption is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


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
        now = asdict(settings[row[key]]) if "config" in row else {}
        changed = [
            field
            for field, value in row.get("config", {}).items()
            if field != "seed" and value != now.get(field)
        ]
        if changed:
            raise ValueError(
                f"{path} holds a row of {row[key]!r} made with another {', '.join(changed)}; "
                "delete the rows of that name to make them anew"
            )
    return rows


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append one row."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


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
