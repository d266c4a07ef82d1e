"""Metrics of a run: rows of JSON lines, and curves for a logger."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from effconv_core.io.atomic import append_text, write_text
from effconv_core.runs.loggers import LoggerName, make_logger
from effconv_core.runs.reader import read_rows

ROWS_LIMIT = 1 << 30  # bytes of the metrics of a run that goes on


class Metrics:
    """Metrics of a run, as JSON lines and for a logger.

    When a phase resumes after an interruption, the rows of the epochs that it repeats are dropped.

    Args:
        folder: the run's folder.
        logger: as for `make_logger`.

    Raises:
        ValueError: as `rows` does.
    """

    def __init__(self, folder: Path, logger: LoggerName | None = None) -> None:
        self.path = folder / "metrics.jsonl"
        self.rows()  # raises before anything is trained
        self.begun: set[str] = set()
        self.logger = make_logger(logger, folder)

    def log(self, phase: str, epoch: int, global_step: int, **values: Any) -> None:
        """Append one row; the logger gets its numbers as `phase/value`; times are seconds."""
        if phase not in self.begun:
            self.begun.add(phase)
            kept = [r for r in self.rows() if r["phase"] != phase or r.get("epoch", 0) < epoch]
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        row = {"phase": phase, "epoch": epoch, "global_step": global_step, **values}
        append_text(self.path, json.dumps(row) + "\n")
        if self.logger is not None:
            numbers = {n: float(v) for n, v in values.items() if isinstance(v, int | float)}
            self.logger.log(phase, global_step, numbers)

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows written so far; a last line cut off by an interruption is left out.

        Raises:
            ValueError: if a line holds no reading; the message names it.
        """
        rows = []
        with suppress(FileNotFoundError):
            for row in read_rows(self.path, limit=ROWS_LIMIT):
                if isinstance(row, ValueError):
                    raise ValueError(f"{row}; or delete {self.path}, and the run goes on")
                rows.append(row)
        return rows

    def close(self) -> None:
        """End what the logger writes."""
        if self.logger is not None:
            self.logger.close()


def seconds_per_epoch(metrics: Metrics, *phases: str) -> float | None:
    """Return the mean time of an epoch over these phases, in seconds; None if there is none."""
    times = [r["seconds"] for r in metrics.rows() if r["phase"] in phases and "seconds" in r]
    return sum(times) / len(times) if times else None
