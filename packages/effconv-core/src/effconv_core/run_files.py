"""Writing a run's folder: settings, metrics, and what keeps a finished run from being overwritten.

What such a folder may hold stands in `run_folder.py`, which reads it.
"""

import json
import platform
import shutil
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
from effconv_core.io.atomic import append_text, write_text
from effconv_core.runs.lock import CLAIMS, LOCK, claim

REPORT = "report.md"
RESULT = "result.json"  # written last: the run is finished
PACKAGES = ("effconv-core", "effconv-kernels", "effconv-models", "effconv-data")


def check_run(folder: Path, settings: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Tell whether a run of these settings was interrupted in a folder.

    Args:
        folder: where the run is kept.
        settings: what decides the run's outcome.
        overwrite: whether what is there is to be deleted.

    Raises:
        FileExistsError: if the run is finished, or was made with other settings, and is not to be
            deleted; or if what is to be deleted is no run.
    """
    remedy = "pass --overwrite to delete it and run again, or another --name"
    config = folder / "config.json"
    if overwrite:
        if not config.exists() and _contents(folder):
            raise FileExistsError(f"{folder} is no run folder, so it is not deleted; pass --name")
        return False
    if (folder / RESULT).exists():
        raise FileExistsError(f"run {folder} is finished, see {folder / RESULT}; {remedy}")
    if not config.exists():
        return False
    before = json.loads(config.read_text(encoding="utf-8")).get("settings", {})
    now = json.loads(json.dumps(settings))
    if before != now:
        changed = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        raise FileExistsError(f"run {folder} was begun with another {', '.join(changed)}; {remedy}")
    return True


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
        overwrite: delete what is there and start again.

    Returns:
        Whether an interrupted run goes on.

    Raises:
        FileExistsError: as `check_run` does.
    """
    if check_run(folder, settings, overwrite=overwrite):
        return True
    for path in _contents(folder):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
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


def _contents(folder: Path) -> list[Path]:
    """Give what lies in a folder, but for locks on it."""
    return [p for p in folder.iterdir() if p.name not in (CLAIMS, LOCK)] if folder.exists() else []


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write a run's result, which finishes it; `networks` are those that it trained."""
    write_text(folder / RESULT, json.dumps(result) + "\n")


def read_result(folder: Path) -> dict[str, Any]:
    """Read a finished run's result."""
    return json.loads((folder / RESULT).read_text(encoding="utf-8"))


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
        self.writer = _tensorboard(folder / "tensorboard")

    def log(self, phase: str, epoch: int, global_step: int, **values: Any) -> None:
        """Append one row; numbers become curves named `phase/value` in TensorBoard."""
        if phase not in self.begun:
            self.begun.add(phase)
            kept = [r for r in self.rows() if r["phase"] != phase or r["epoch"] < epoch]
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        row = {"phase": phase, "epoch": epoch, "global_step": global_step, **values}
        append_text(self.path, json.dumps(row) + "\n")
        for name, value in values.items():
            if self.writer is not None and isinstance(value, int | float):
                self.writer.add_scalar(f"{phase}/{name}", value, global_step)

    def rows(self) -> list[dict[str, Any]]:
        """Give all rows written so far; a last line cut off by an interruption is left out."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

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
    return SummaryWriter(str(folder))


def seconds_per_epoch(metrics: Metrics, *phases: str) -> float | None:
    """Give the mean time of the epochs of some phases together, None where there is none."""
    times = [r["seconds"] for r in metrics.rows() if r["phase"] in phases and "seconds" in r]
    return sum(times) / len(times) if times else None
