"""How much memory there is for a set."""

import os
from pathlib import Path

import torch

__all__ = ["available_memory"]

UNKNOWN = 4 << 30
"""Bytes taken for available where the system does not say."""
CGROUP = Path("/sys/fs/cgroup")


def available_memory(device: str | torch.device) -> int:
    """Give the bytes that this process may fill on a device, its part of them on the CPU."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(_free_of_machine(), _free_of_container()) // ranks


def _free_of_machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return UNKNOWN
    kibibytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return UNKNOWN if kibibytes is None else int(kibibytes) << 10


def _free_of_container() -> int:
    """Give what is left of a container's limit, which /proc/meminfo does not know of."""
    try:
        limit, used = (
            (CGROUP / name).read_text(encoding="ascii").strip()
            for name in ("memory.max", "memory.current")
        )
    except OSError:
        return 1 << 62
    return 1 << 62 if limit == "max" else max(int(limit) - int(used), 0)
