"""Test the operators on this machine, then time them against what they replace.

`hatch run bench:kernels`, or `python bench.py` where effconv-kernels and pytest are installed. An
operator whose tests do not pass is not timed. All sides of a comparison take turns; medians and
quartiles of every shape are printed, slower ones too, and written as JSON beside this file, after
each comparison again. On a GPU no comparison begins after 8 minutes; it flushes the cache before
each call of an assembly, says its peak memory, and times CUDA graphs beside calls.
"""

import argparse
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import effconv_kernels
import torch
from rivals import assembly_sides, precision_errors, unroll_sides

HERE = Path(__file__).parent
TESTS = {
    "gru_unroll": ["test_gru.py", "triton/test_gru.py", "triton/test_operators.py"],
    "assemble_kernels": ["test_assemble.py", "triton/test_assemble.py", "triton/test_operators.py"],
}


def stages(first: int, widths: list[int], convs: int) -> list[tuple[int, int]]:
    """Return (c_out, c_in) of the 3x3 convolutions of a residual network after its first."""
    channels, c_in = [], first
    for width in widths:
        channels += [(width, c_in)] + [(width, width)] * (convs - 1)
        c_in = width
    return channels


NETWORKS = {
    "ResNet-20": stages(16, [16, 32, 64], 6),
    "ResNet-56": stages(16, [16, 32, 64], 18),
    "WRN-28-10": stages(16, [160, 320, 640], 8),
    "ResNet-18": stages(64, [64, 128, 256, 512], 4),
}
FLUSHED = 2**26
"""This many float32 values are more than the cache of any GPU holds."""
SIZES = {"3": [3], "5": [5], "7": [7], "mixed": [1, 3, 5, 7, 2, 4]}


def passes(operator: str) -> bool:
    """Run an operator's tests; say whether they pass."""
    files = [str(HERE.parent / "tests" / name) for name in TESTS[operator]]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "gpu or not gpu", *files]
    return subprocess.run(command, check=False).returncode == 0


def timed(
    function: Callable[[], object], device: str, flushed: torch.Tensor | None = None
) -> float:
    """Return the seconds of one call, by the GPU's own clock where there is one.

    What is flushed is written before, so that the cache holds nothing else.
    """
    if device == "cpu":
        started = time.perf_counter()
        function()
        return time.perf_counter() - started
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    if flushed is not None:
        flushed.zero_()
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def peak_bytes(function: Callable[[], object]) -> int:
    """Return how much more memory of the GPU is allocated during a call than before it."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    return torch.cuda.max_memory_allocated() - before


def compare(
    sides: dict[str, Callable[[], object]],
    device: str,
    rounds: int,
    seconds: float = math.inf,
    *,
    cold: bool = False,
) -> dict[str, dict[str, float]]:
    """Time all sides in turns, five times or more; give median and quartiles in seconds.

    With `cold`, a GPU's cache is flushed before each call. A GPU's peak memory is that of a call
    which is not captured, since a graph has its memory already.
    """
    for function in sides.values():
        for _ in range(3):
            function()
    peaks = {}
    if device != "cpu":
        peaks = {name: peak_bytes(sides[name]) for name in sides if "CUDA graph" not in name}
    flushed = torch.empty(FLUSHED, device=device) if cold and device != "cpu" else None
    times: dict[str, list[float]] = {name: [] for name in sides}
    started = time.perf_counter()
    for turn in range(rounds):
        if turn >= 5 and time.perf_counter() - started > seconds:
            break
        for name in list(sides) if turn % 2 else list(sides)[::-1]:
            times[name].append(timed(sides[name], device, flushed))
    found = {}
    for name, values in times.items():
        low, median, high = statistics.quantiles(values, n=4)
        found[name] = {"median": median, "p25": low, "p75": high, "rounds": len(values)}
        if name in peaks:
            found[name]["peak_bytes"] = peaks[name]
    return found


def copy_bandwidth(device: str) -> float:
    """Measure bytes read and written a second by a copy of half a GiB."""
    source = torch.empty(2**27, device=device)
    target = torch.empty_like(source)
    found = compare({"copy": lambda: target.copy_(source)}, device, 20)
    return 2 * 4 * 2**27 / found["copy"]["median"]


def assembly_bytes(
    channels: list[tuple[int, int]], sizes: list[int], H: int, itemsize: int
) -> dict[str, int]:
    """Count what an assembly has to read and write at least, by pass.

    The backward pass reads the kernels' gradient and the maps, and writes the maps' gradient.
    """
    maps = sum(c_out * c_in for c_out, c_in in channels)
    taps = sum(size * size for size in sizes)
    values = sum(a * b * size * size for (a, b), size in zip(channels, sizes, strict=True))
    forward = itemsize * (maps * (H + 1) + taps * H + values)
    return {"forward": forward, "forward+backward": 2 * forward + itemsize * maps * (H + 1)}


def environment(device: str) -> dict[str, object]:
    """Name the device, the versions and the commit that a figure is measured with."""
    packages = ["torch"] + ["triton"] * (find_spec("triton") is not None)
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    found = {
        "device": f"{device} ({device_name(device)}, {torch.get_num_threads()} threads)",
        "python": platform.python_version(),
        "effconv-kernels": effconv_kernels.__version__,
        **{package: version(package) for package in packages},
        "commit": commit.stdout.strip() or "unknown",
    }
    if device != "cpu":
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return found


def device_name(device: str) -> str:
    """Name the GPU, or the processor."""
    if device != "cpu":
        return torch.cuda.get_device_name()
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def write(path: Path, result: dict) -> None:
    """Write a result so that an interrupted run leaves the comparisons before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50, help="calls of each side, at most")
    parser.add_argument(
        "--seconds", type=float, default=20, help="of a comparison, past which no round begins"
    )
    parser.add_argument("--hidden-size", type=int, default=64, help="H")
    parser.add_argument("--operators", nargs="+", default=list(TESTS), choices=TESTS)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument(
        "--dtypes", nargs="+", choices=["float32", "bfloat16"], help="both on a GPU, else float32"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help="of tests and comparisons, past which none begins; 8 on a GPU, else no limit",
    )
    parser.add_argument(
        "--batches", nargs="+", type=int, default=[1, 64], help="series of each GRU that share it"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], help="a GPU if there is one")
    parser.add_argument("--out", type=Path, help="file for the result; named by the device if none")
    options, started = parser.parse_args(), time.perf_counter()
    torch.backends.cudnn.allow_tf32 = False  # ours multiplies without it too
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device == "cuda"
    minutes = options.minutes or (8 if on_gpu else math.inf)
    dtypes = options.dtypes or ["float32", "bfloat16"][: 1 + on_gpu]
    name = torch.cuda.get_device_name() if on_gpu else f"{platform.machine()}-cpu"
    path = options.out or HERE / "results" / f"{name.lower().replace(' ', '-')}.json"
    failed = [operator for operator in options.operators if not passes(operator)]
    to_time = [operator for operator in options.operators if operator not in failed]
    result = {
        **environment(device),
        "H": options.hidden_size,
        "rounds": options.rounds,
        "copy_bytes_per_second": copy_bandwidth(device) if to_time else None,
        "not timed, because their tests do not pass": failed,
        "not begun within the minutes": [],
        "timings": [],
    }
    if on_gpu and "assemble_kernels" in to_time:
        errors = precision_errors(NETWORKS["ResNet-20"], [7] * 18, options.hidden_size, device)
        result["largest_errors"] = errors
    write(path, result)
    for case in product(options.networks, options.sizes, to_time, dtypes, options.batches):
        _, _, operator, _, batch = case
        if operator == "assemble_kernels" and batch != options.batches[0]:
            continue  # knows no batch
        if time.perf_counter() - started > 60 * minutes:
            result["not begun within the minutes"].append(case)
            continue
        for row, times in timings(*case, options, device):
            for found in times.values() if "bytes" in row else ():
                rate = row["bytes"] / found["median"]
                found["of_copy_bandwidth"] = rate / result["copy_bytes_per_second"]
            result["timings"].append({**row, "seconds": times})
            report(row, times)
            write(path, result)
    write(path, result)
    print(f"{path} written")
    if failed:
        sys.exit(f"not timed, because their tests do not pass: {', '.join(failed)}")


def timings(
    network: str,
    kind: str,
    operator: str,
    dtype: str,
    batch: int,
    options: argparse.Namespace,
    device: str,
) -> Iterator[tuple[dict, dict]]:
    """Compare all sides of an operator at one network and pattern of sizes, pass by pass."""
    channels, pattern, H = NETWORKS[network], SIZES[kind], options.hidden_size
    sizes = [pattern[layer % len(pattern)] for layer in range(len(channels))]
    kept = getattr(torch, dtype)
    torch._dynamo.reset()
    if operator == "gru_unroll":
        steps = [size * size for size in sizes]
        passes_made = unroll_sides(len(sizes), steps, H, device, batch, kept)
    else:
        passes_made = assembly_sides(channels, sizes, H, device, kept)
    moved = assembly_bytes(channels, sizes, H, kept.itemsize)
    for part, sides in zip(moved, passes_made, strict=True):
        row = {"operator": operator, "network": network, "sizes": kind, "pass": part}
        row |= {"dtype": dtype}
        row |= {"batch": batch} if operator == "gru_unroll" else {"bytes": moved[part]}
        cold = operator == "assemble_kernels"
        yield row, compare(sides, device, options.rounds, options.seconds, cold=cold)


def report(row: dict, times: dict[str, dict[str, float]]) -> None:
    """Print one comparison."""
    ours = times["ours"]["median"]
    batch = [f"batch {row['batch']}"] if "batch" in row else []
    print(
        *(row[key] for key in ("operator", "network", "sizes", "pass", "dtype")), *batch, sep=", "
    )
    for side, found in times.items():
        low, high = 1e6 * found["p25"], 1e6 * found["p75"]
        line = f"  {side:28} {1e6 * found['median']:10.0f} us ({low:.0f} to {high:.0f})"
        line += f"  {found['median'] / ours:6.2f} times ours"
        if "of_copy_bandwidth" in found:
            line += f", {found['of_copy_bandwidth']:.0%} of the bandwidth of a copy"
        if "peak_bytes" in found:
            line += f", {found['peak_bytes'] / 2**20:.0f} MiB"
        print(line)


if __name__ == "__main__":
    main()
