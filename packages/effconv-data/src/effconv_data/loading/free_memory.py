"""Available memory for a set."""

import os
from pathlib import Path

import torch

__all__ = ["available_memory", "free_memory"]

UNKNOWN = 4 << 30
"""Bytes assumed to be available if the system does not say."""
CGROUP = Path("/sys/fs/cgroup")
GROUPS = Path("/proc/self/cgroup")
UNLIMITED = 1 << 62


def available_memory(device: str | torch.device) -> int:
    """Return the bytes that this process may use on a device; on the CPU, this rank's part."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    ranks = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return free_memory() // ranks


def free_memory() -> int:
    """Return the bytes of memory that all processes of this machine or container may still fill."""
    return min(_free_of_machine(), _free_of_container())


def _free_of_machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return UNKNOWN
    kibibytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return UNKNOWN if kibibytes is None else int(kibibytes) << 10


def _free_of_container() -> int:
    """Return the free memory below a container's or job's limits, which /proc/meminfo ignores."""
    try:
        lines = GROUPS.read_text(encoding="ascii").splitlines()
    except OSError:
        return UNLIMITED
    free = UNLIMITED
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers == "":
            folder, names = CGROUP, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            folder, names = CGROUP / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        place = folder / path.strip("/")
        # A limit of any group above applies too.
        while place.is_relative_to(folder):
            free = min(free, _left(place, *names))
            place = place.parent
    return free


def _left(group: Path, limit: str, used: str) -> int:
    try:
        texts = [(group / name).read_text(encoding="ascii").strip() for name in (limit, used)]
    except OSError:
        return UNLIMITED
    return UNLIMITED if texts[0] == "max" else max(int(texts[0]) - int(texts[1]), 0)
