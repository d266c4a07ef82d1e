"""A made-up result of what a search step costs."""

from dataclasses import asdict

from tools.bench import efficiency
from tools.bench.efficiency_page import PARTS


def made_up(device):
    """Give a result of every point, as measured on a device."""
    rows = [
        {"axis": axis, "point": asdict(point), "parameters": 740_000, "seconds": _seconds()}
        for axis, point in efficiency.efficiency_points()
    ]
    environment = {"commit": "c0", "device": device, "torch": "2"}
    return {"environment": environment, "pairs": 6, "rows": rows}


def _seconds():
    times = {"plain": 0.2, "search": 0.3, "network": 0.2, "assembly": 0.05}
    return {name: {"median": times.get(name, 0.0)} for name in ("plain", "search", *PARTS)}
