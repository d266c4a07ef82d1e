"""Metrics of a run: rows of JSON lines, and curves for TensorBoard."""

import json
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from effconv_core.io.atomic import append_text, remove_file, write_text
from effconv_core.runs.owner import TENSORBOARD
from effconv_core.runs.reader import read_rows

ROWS_LIMIT = 1 << 30  # bytes of the metrics of a run that goes on


class Metrics:
    """Metrics of a run, as JSON lines and, if it is installed, for TensorBoard.

    When a phase resumes after an interruption, the rows of the epochs that it repeats are dropped.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.jsonl"
        self.begun: set[str] = set()
        self.writer = _tensorboard(folder / TENSORBOARD)

    def log(self, phase: str, epoch: int, global_step: int, **values: Any) -> None:
        """Append one row; numbers become curves `phase/value` in TensorBoard; times are seconds."""
        if phase not in self.begun:
            self.begun.add(phase)
            kept = [r for r in self.rows() if r["phase"] != phase or r.get("epoch", 0) < epoch]
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        row = {"phase": phase, "epoch": epoch, "global_step": global_step, **values}
        append_text(self.path, json.dumps(row) + "\n")
        for name, value in values.items():
            if self.writer is not None and isinstance(value, int | float):
                self.writer.add_scalar(f"{phase}/{name}", value, global_step)

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows written so far; a last line cut off by an interruption is left out.

        Raises:
            ValueError: if a line holds no reading; the message names it.
        """
        rows = []
        with suppress(FileNotFoundError):
            for row in read_rows(self.path, limit=ROWS_LIMIT):
                if isinstance(row, ValueError):
                    raise row
                rows.append(row)
        return rows

    def close(self) -> None:
        """Finish the TensorBoard file."""
        if self.writer is not None:
            self.writer.close()


def _tensorboard(folder: Path) -> Any:
    """Return a TensorBoard writer, None if it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    if folder.is_symlink():
        remove_file(folder)  # it could lead anywhere
    # TensorBoard's own name is one that somebody can guess, and lay a link there.
    return SummaryWriter(str(folder), filename_suffix=f".{secrets.token_hex(8)}")


def seconds_per_epoch(metrics: Metrics, *phases: str) -> float | None:
    """Return the mean time of an epoch over these phases, in seconds; None if there is none."""
    times = [r["seconds"] for r in metrics.rows() if r["phase"] in phases and "seconds" in r]
    return sum(times) / len(times) if times else None
