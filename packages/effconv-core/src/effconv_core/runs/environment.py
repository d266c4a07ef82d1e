"""The device, the versions and the commit that a run was made with."""

import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import torch.distributed as dist

PACKAGES = ("effconv-core", "effconv-kernels", "effconv-models", "effconv-data")


def environment(device: str) -> dict[str, str]:
    """Return the device, the versions and the commit of this process, as text by name."""
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
        # Of what is installed in place for development the metadata may be older than the code.
        loaded = sys.modules.get(package.replace("-", "_"))
        with suppress(PackageNotFoundError):
            found[package] = getattr(loaded, "__version__", None) or version(package)
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
        # Not `describe --dirty`: results, which commands write themselves, do not change the code.
        changed = git("diff", "--quiet", "HEAD", "--", ":/*.py", ":/*.toml").returncode
        return f"{name}-dirty" if name and changed else name or "unknown"
    except OSError:  # there is no git
        return "unknown"
