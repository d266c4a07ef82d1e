"""The peak of memory: of a GPU, or of this process as Linux tells it."""

import ctypes
import gc
from pathlib import Path

import torch

PROCESS = Path("/proc/self")


def measure_peak(device: str) -> None:
    """Count the peak of memory from here on, where the system can."""
    if device.startswith("cuda"):
        torch.cuda.init()  # without it there is nothing to reset where the device has a number
        torch.cuda.reset_peak_memory_stats(device)
    elif (PROCESS / "clear_refs").exists():
        # Memory freed by earlier runs of this process would count as this one's.
        gc.collect()
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):  # glibc's
            libc.malloc_trim(0)
        (PROCESS / "clear_refs").write_text("5")  # see proc(5)


def peak_memory(device: str) -> int | None:
    """Return the most memory used since, in MiB: of the GPU or of this process; None if unknown."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) >> 20
    if not (PROCESS / "status").exists():
        return None
    lines = (PROCESS / "status").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kib) >> 10
