"""Test the operators on this machine, then time them against what they replace.

`hatch run bench:kernels`, or `python bench.py` where effconv-kernels and pytest are installed. An
operator whose tests do not pass is not timed. All sides of a comparison take turns; medians and
quartiles of every shape are printed, slower ones too, and written as JSON beside this file, after
each comparison again.
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
from pathlib import Path

import effconv_kernels
import torch
from effconv_kernels import assemble_kernels, gru_unroll
from torch import Tensor, nn

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
SIZES = {"3": [3], "5": [5], "7": [7], "mixed": [1, 3, 5, 7, 2, 4]}


def passes(operator: str) -> bool:
    """Run an operator's tests; say whether they pass."""
    files = [str(HERE.parent / "tests" / name) for name in TESTS[operator]]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "gpu or not gpu", *files]
    return subprocess.run(command, check=False).returncode == 0


def timed(function: Callable[[], object], device: str) -> float:
    """Return the seconds of one call, by the GPU's own clock where there is one."""
    if device == "cpu":
        started = time.perf_counter()
        function()
        return time.perf_counter() - started
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def compare(
    sides: dict[str, Callable[[], object]], device: str, rounds: int, seconds: float = math.inf
) -> dict[str, dict[str, float]]:
    """Time all sides in turns, five times or more; give median and quartiles in seconds."""
    for function in sides.values():
        for _ in range(3):
            function()
    times: dict[str, list[float]] = {name: [] for name in sides}
    started = time.perf_counter()
    for turn in range(rounds):
        if turn >= 5 and time.perf_counter() - started > seconds:
            break
        for name in list(sides) if turn % 2 else list(sides)[::-1]:
            times[name].append(timed(sides[name], device))
    found = {}
    for name, values in times.items():
        low, median, high = statistics.quantiles(values, n=4)
        found[name] = {"median": median, "p25": low, "p75": high, "rounds": len(values)}
    return found


def with_backward(function: Callable[[], object], leaves: list[Tensor]) -> Callable[[], None]:
    """Return a call that also computes the gradients of some leaves."""

    def outputs() -> list[Tensor]:
        found = function()
        return found if isinstance(found, list) else [found]

    upstream = [torch.ones_like(output) for output in outputs()]

    def run() -> None:
        torch.autograd.grad(outputs(), leaves, upstream)

    return run


def without_graph(function: Callable[[], object]) -> Callable[[], None]:
    """Return a call that records nothing for a backward pass."""

    def run() -> None:
        with torch.no_grad():
            function()

    return run


def with_graphs(
    sides: dict[str, Callable[[], object]], names: tuple[str, ...], device: str
) -> dict[str, Callable[[], object]]:
    """Add the CUDA graphs of some sides, where there are such; say which cannot be captured."""
    graphs = {}
    for name in names if device != "cpu" else ():
        try:
            graphs[f"{name}, CUDA graph"] = captured(sides[name])
        except RuntimeError as error:
            print(f"{name} cannot be captured in a CUDA graph: {error}")
    return sides | graphs


def captured(function: Callable[[], object]) -> Callable[[], None]:
    """Return a CUDA graph of a call."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compiles, makes tables and chooses algorithms
        for _ in range(3):
            function()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def batched_loop(gates: Tensor, weight: Tensor, bias: Tensor, steps: list[int]) -> Tensor:
    """Unroll all GRUs in a loop that autograd records, as one would write it without a package.

    Gates are `(B, L, 3H)`, the result is `(B, sum T, H)`.
    """
    H, states = weight.shape[-1], []
    gates = gates.transpose(0, 1)
    hidden = weight.new_zeros(*gates.shape[:2], H)
    i_r, i_z, i_n = gates.chunk(3, 2)
    for _ in range(max(steps)):
        recurrent = torch.baddbmm(bias.unsqueeze(1), hidden, weight.transpose(1, 2))
        h_r, h_z, h_n = recurrent.split(H, 2)
        update = torch.sigmoid(i_z + h_z)
        candidate = torch.tanh(i_n + torch.sigmoid(i_r + h_r) * h_n)
        hidden = torch.lerp(candidate, hidden, update)
        states.append(hidden)
    whole = torch.stack(states, 1)
    found = torch.cat([whole[layer, :count] for layer, count in enumerate(steps)])
    return found.transpose(0, 1)


def unroll_sides(
    layers: int, steps: list[int], H: int, device: str, batch: int = 1
) -> tuple[dict, dict]:
    """Return what unrolls the same GRUs, forward only and with the backward pass."""
    grus = [nn.GRU(1, H).to(device) for _ in range(layers)]
    inputs = torch.randn(batch, layers, device=device)
    series = [inputs[:, layer, None].expand(count, batch, 1) for layer, count in enumerate(steps)]

    def stacked(name: str) -> Tensor:
        return torch.stack([getattr(gru, name) for gru in grus]).detach()

    gates = inputs.unsqueeze(-1) * stacked("weight_ih_l0")[..., 0] + stacked("bias_ih_l0")
    tensors = [gates, stacked("weight_hh_l0"), stacked("bias_hh_l0")]
    for tensor in tensors:
        tensor.requires_grad_()
    parameters = [parameter for gru in grus for parameter in gru.parameters()]

    def ours() -> Tensor:
        if batch == 1:  # a batch of one would be moved between layouts
            return gru_unroll(tensors[0][0], *tensors[1:], steps).unsqueeze(0)
        return gru_unroll(*tensors, steps)

    def a_layer() -> Tensor:
        found = torch.cat([gru(x)[0] for gru, x in zip(grus, series, strict=True)])
        return found.transpose(0, 1)

    def loop() -> Tensor:
        return batched_loop(*tensors, steps)

    functions = {
        "ours": (ours, tensors),
        "nn.GRU a layer": (a_layer, parameters),
        "batched loop": (loop, tensors),
        "torch.compile": (torch.compile(loop, dynamic=False), tensors),
    }
    forward = {name: without_graph(function) for name, (function, _) in functions.items()}
    both = {name: with_backward(*pair) for name, pair in functions.items()}
    in_graphs = ("ours", "nn.GRU a layer", "batched loop")
    return with_graphs(forward, in_graphs, device), with_graphs(both, in_graphs, device)


def assembly_sides(
    channels: list[tuple[int, int]], sizes: list[int], H: int, device: str
) -> tuple[dict, dict]:
    """Return what assembles the same kernels, forward only and with the backward pass."""
    rows = sum(c_out * c_in for c_out, c_in in channels)
    soft_sizes = torch.tensor([size + 0.2 for size in sizes], device=device)
    tensors = [
        torch.randn(sum(size * size for size in sizes), H, device=device),
        torch.randn(rows, H, device=device),
        torch.randn(rows, device=device),
        soft_sizes,
    ]
    for tensor in tensors:
        tensor.requires_grad_()

    def ours() -> list[Tensor]:
        return assemble_kernels(*tensors, sizes=sizes, channels=channels)

    def eager() -> list[Tensor]:
        hidden, weight, bias, v = tensors
        kernels, state, row = [], 0, 0
        for layer, ((c_out, c_in), size) in enumerate(zip(channels, sizes, strict=True)):
            taps = torch.arange(1, size + 1, device=device)
            profile = torch.exp(-(((taps - v[layer] / 2) / v[layer]) ** 2))
            part = slice(row, row + c_out * c_in)
            raw = weight[part] @ hidden[state : state + size * size].t() + bias[part, None]
            raw = raw.view(c_out, c_in, size, size)
            kernels.append(raw * torch.outer(profile, profile))
            state, row = state + size * size, row + c_out * c_in
        return kernels

    compiled = torch.compile(eager, dynamic=False)
    functions = {"ours": ours, "eager": eager, "torch.compile": compiled}
    forward = {name: without_graph(function) for name, function in functions.items()}
    both = {name: with_backward(function, tensors) for name, function in functions.items()}
    return forward, both


def copy_bandwidth(device: str) -> float:
    """Measure bytes read and written a second by a copy of half a GiB."""
    source = torch.empty(2**27, device=device)
    target = torch.empty_like(source)
    found = compare({"copy": lambda: target.copy_(source)}, device, 20)
    return 2 * 4 * 2**27 / found["copy"]["median"]


def assembly_bytes(channels: list[tuple[int, int]], sizes: list[int], H: int) -> int:
    """Count what an assembly has to read and write at least, in float32."""
    maps = sum(c_out * c_in for c_out, c_in in channels)
    taps = sum(size * size for size in sizes)
    values = sum(a * b * size * size for (a, b), size in zip(channels, sizes, strict=True))
    return 4 * (maps * (H + 1) + taps * H + values)


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
        "--batches", nargs="+", type=int, default=[1, 64], help="series of each GRU that share it"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], help="a GPU if there is one")
    parser.add_argument("--out", type=Path, help="file for the result; named by the device if none")
    options = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False  # ours multiplies without it too
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}-cpu"
    path = options.out or HERE / "results" / f"{name.lower().replace(' ', '-')}.json"
    failed = [operator for operator in options.operators if not passes(operator)]
    to_time = [operator for operator in options.operators if operator not in failed]
    result = {
        **environment(device),
        "H": options.hidden_size,
        "rounds": options.rounds,
        "copy_bytes_per_second": copy_bandwidth(device) if to_time else None,
        "not timed, because their tests do not pass": failed,
        "timings": [],
    }
    write(path, result)
    for operator in to_time:
        for network in options.networks:
            for kind in options.sizes:
                for row, times in timings(operator, network, kind, options, device):
                    if operator == "assemble_kernels" and row["pass"] == "forward":
                        rate = row["bytes"] / times["ours"]["median"]
                        row["of_copy_bandwidth"] = rate / result["copy_bytes_per_second"]
                    result["timings"].append({**row, "seconds": times})
                    report(row, times)
                    write(path, result)
    print(f"{path} written")
    if failed:
        sys.exit(f"not timed, because their tests do not pass: {', '.join(failed)}")


def timings(
    operator: str, network: str, kind: str, options: argparse.Namespace, device: str
) -> Iterator[tuple[dict, dict]]:
    """Compare all sides of an operator at one network and pattern of sizes, pass by pass."""
    channels, pattern, H = NETWORKS[network], SIZES[kind], options.hidden_size
    sizes = [pattern[layer % len(pattern)] for layer in range(len(channels))]
    for batch in options.batches if operator == "gru_unroll" else [1]:
        torch._dynamo.reset()
        if operator == "gru_unroll":
            steps = [size * size for size in sizes]
            passes_made = unroll_sides(len(sizes), steps, H, device, batch)
        else:
            passes_made = assembly_sides(channels, sizes, H, device)
        for part, sides in zip(("forward", "forward+backward"), passes_made, strict=True):
            row = {"operator": operator, "network": network, "sizes": kind, "pass": part}
            if operator == "gru_unroll":
                row["batch"] = batch
            else:
                row["bytes"] = assembly_bytes(channels, sizes, H)
            yield row, compare(sides, device, options.rounds, options.seconds)


def report(row: dict, times: dict[str, dict[str, float]]) -> None:
    """Print one comparison."""
    ours = times["ours"]["median"]
    batch = [f"batch {row['batch']}"] if "batch" in row else []
    print(*(row[key] for key in ("operator", "network", "sizes", "pass")), *batch, sep=", ")
    for side, found in times.items():
        low, high = 1e6 * found["p25"], 1e6 * found["p75"]
        ratio = f"{found['median'] / ours:6.2f} times ours"
        print(f"  {side:28} {1e6 * found['median']:10.0f} us ({low:.0f} to {high:.0f})  {ratio}")
    if "of_copy_bandwidth" in row:
        print(f"  {row['of_copy_bandwidth']:.0%} of the bandwidth of a copy")


if __name__ == "__main__":
    main()
