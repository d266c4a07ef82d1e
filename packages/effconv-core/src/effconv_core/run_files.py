"""Writing a run's folder: settings, metrics, and what keeps a finished run from being overwritten.

What such a folder may hold stands in `run_folder.py`, which reads it.
"""

import json
import platform
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from effconv_core.choice import left_alone, searched_layers
from effconv_core.io.atomic import append_text, remove_file, write_text
from effconv_core.run_folder import read_config, read_rows
from effconv_core.run_owner import (
    TENSORBOARD,
    Owner,
    check_place,
    clear,
    mark,
    remove_leftovers_of_run,
    written,
)
from effconv_core.runs.lock import claim

REPORT = "report.md"
RESULT = "result.json"  # the last file that a run writes: it is finished
FAILED = "failed.json"
ROWS_LIMIT = 1 << 30  # bytes of the metrics of a run that goes on
PACKAGES = ("effconv-core", "effconv-kernels", "effconv-models", "effconv-data")


def check_run(folder: Path, settings: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Return whether a run of these settings was interrupted in a folder; nothing is changed.

    Args:
        folder: where the run is kept.
        settings: what decides the run's outcome.
        overwrite: whether a run that is there is to be deleted.

    Raises:
        FileExistsError: if the folder holds something and is no run's; or if its run is finished,
            or was made with other settings, and is not to be deleted.
    """
    owner = check_place(folder)
    if overwrite or owner is Owner.NOBODY:
        return False
    remedy = "pass --overwrite to delete it and run again, or another --name"
    if (folder / RESULT).exists():
        raise FileExistsError(f"run {folder} is finished, see {folder / RESULT}; {remedy}")
    before = settings_of(folder)
    if before is None:
        if left := sorted(path.name for path in written(folder) if path.name != FAILED):
            raise FileExistsError(
                f"{folder} holds {left[0]} of a run whose config.json is missing; {remedy}"
            )
        return False
    now = same(settings)
    if before != now:
        changed = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        raise FileExistsError(f"run {folder} was begun with another {', '.join(changed)}; {remedy}")
    return True


def same(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they come back from a JSON file, where a tuple is a list."""
    return json.loads(json.dumps(settings))


def settings_of(folder: Path) -> dict[str, Any] | None:
    """Return the settings that a run was begun with, None where there is no `config.json`."""
    try:
        return read_config(folder).settings
    except FileNotFoundError:
        return None


def open_run(
    folder: Path,
    settings: Mapping[str, Any],
    data: str,
    network: Mapping[str, Any] | None = None,
    *,
    overwrite: bool,
) -> bool:
    """Make a run's folder, or go on in one that was interrupted; this process must hold it.

    Args:
        folder: where the run is kept.
        settings: what decides the run's outcome; written to `config.json`.
        data: what the data are, written beside the device and the versions.
        network: what `describe` gives, written there too where there is a search.
        overwrite: delete what an earlier run has written there and start again.

    Returns:
        Whether an interrupted run goes on.

    Raises:
        FileExistsError: as `check_run` does.
    """
    goes_on = check_run(folder, settings, overwrite=overwrite)
    mark(folder)
    if goes_on:
        remove_leftovers_of_run(folder)
        return True
    clear(folder)
    content = {
        "settings": settings,
        "environment": {"data": data, **environment(settings["device"])},
        **({} if network is None else {"network": network}),
    }
    write_text(folder / "config.json", json.dumps(content, indent=2) + "\n")
    return False


@contextmanager
def begun(
    folder: Path, settings: Mapping[str, Any], data: str, *, overwrite: bool
) -> Iterator[bool]:
    """Hold a run's folder, made or gone on in as by `open_run`, which says whether it goes on.

    Raises:
        FileExistsError: as `check_run` does, or if another process is at work in the folder.
    """
    check_run(folder, settings, overwrite=overwrite)
    mark(folder)
    with claim(folder):
        yield open_run(folder, settings, data, overwrite=overwrite)


def describe(model: nn.Module) -> dict[str, Any]:
    """Name the layers that a search of a network goes over, their shapes, and those left alone."""
    return {
        "class": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "layers": {
            name: {
                "channels": [conv.in_channels, conv.out_channels],
                "groups": conv.groups,
                "kernel_size": list(conv.kernel_size),
            }
            for name, conv in searched_layers(model).items()
        },
        "left_alone": left_alone(model),
    }


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write a run's result, after all else that it writes: this marks it as finished.

    Args:
        folder: of the run.
        result: what JSON can hold; `networks` are those that it trained.
    """
    write_text(folder / RESULT, json.dumps(result) + "\n")


def environment(device: str) -> dict[str, str]:
    """Name the device, the versions and the commit that a figure was made with."""
    name = platform.processor() or platform.machine()
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    return {
        "device": f"{device} ({name}, {torch.get_num_threads()} threads)",
        **({"ranks": str(dist.get_world_size())} if dist.is_initialized() else {}),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **_versions(),
        "commit": _commit(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _commit() -> str:
    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", *words], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
        )

    try:
        # An installed package may lie within a clone of something else.
        if git("ls-files", "--error-unmatch", Path(__file__).name).returncode:
            return "none, the packages are installed"
        name = git("describe", "--always", "--abbrev=12").stdout.strip()
        # Not `describe --dirty`: results, which a command itself writes, make no other code.
        changed = git("diff", "--quiet", "HEAD", "--", ":/*.py", ":/*.toml").returncode
        return f"{name}-dirty" if name and changed else name or "unknown"
    except OSError:  # there is no git
        return "unknown"


class Metrics:
    """Rows of a run's metrics, as JSON lines and, where it is installed, for TensorBoard.

    When a phase goes on after an interruption, the rows of the epochs that it repeats are dropped.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.jsonl"
        self.begun: set[str] = set()
        self.writer = _tensorboard(folder / TENSORBOARD)

    def log(self, phase: str, epoch: int, global_step: int, **values: Any) -> None:
        """Append one row; numbers become curves named `phase/value` in TensorBoard."""
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
            ValueError: if a line holds no reading; the sentence names it.
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
    """Give what writes for TensorBoard, None where that is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    if folder.is_symlink():
        remove_file(folder)  # it could lead anywhere
    # TensorBoard's own name is one that somebody can guess, and lay a link there.
    return SummaryWriter(str(folder), filename_suffix=f".{secrets.token_hex(8)}")


def seconds_per_epoch(metrics: Metrics, *phases: str) -> float | None:
    """Give the mean time of the epochs of some phases together, None where there is none."""
    times = [r["seconds"] for r in metrics.rows() if r["phase"] in phases and "seconds" in r]
    return sum(times) / len(times) if times else None
