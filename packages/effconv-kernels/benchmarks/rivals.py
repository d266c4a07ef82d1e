"""What is compared: the operators, and what one would write or call in their place."""

from collections.abc import Callable
from functools import partial

import torch
from effconv_kernels import assemble_kernels, gru_unroll
from torch import Tensor, nn


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
    layers: int,
    steps: list[int],
    H: int,
    device: str,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
) -> tuple[dict, dict]:
    """Return what unrolls the same GRUs, forward only and with the backward pass.

    On a GPU the loop is captured instead of compiled, which takes minutes for long ones.
    """
    grus = [nn.GRU(1, H).to(device, dtype) for _ in range(layers)]
    inputs = torch.randn(batch, layers, device=device, dtype=dtype)
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
    }
    if device == "cpu":
        functions["torch.compile"] = torch.compile(loop, dynamic=False), tensors
    forward = {name: without_graph(function) for name, (function, _) in functions.items()}
    both = {name: with_backward(*pair) for name, pair in functions.items()}
    in_graphs = ("ours", "nn.GRU a layer", "batched loop")
    return with_graphs(forward, in_graphs, device), with_graphs(both, in_graphs, device)


def assembly_tensors(
    channels: list[tuple[int, int]], sizes: list[int], H: int, device: str, dtype: torch.dtype
) -> list[Tensor]:
    """Draw the tensors of an assembly: states, maps, biases and soft sizes."""
    rows, taps = sum(c_out * c_in for c_out, c_in in channels), sum(size * size for size in sizes)
    tensors = [torch.randn(*shape, device=device) for shape in ((taps, H), (rows, H), (rows,))]
    tensors.append(torch.tensor([size + 0.2 for size in sizes], device=device))
    return [tensor.to(dtype).requires_grad_() for tensor in tensors]


def assembly_sides(
    channels: list[tuple[int, int]],
    sizes: list[int],
    H: int,
    device: str,
    dtype: torch.dtype = torch.float32,
) -> tuple[dict, dict]:
    """Return what assembles the same kernels, forward only and with the backward pass."""
    tensors = assembly_tensors(channels, sizes, H, device, dtype)

    def ours(precision: str = "ieee") -> list[Tensor]:
        return assemble_kernels(*tensors, sizes=sizes, channels=channels, precision=precision)

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

    functions = {"ours": ours, "eager": eager}
    if device != "cpu":  # elsewhere PyTorch multiplies as it is set to
        functions |= {f"ours, {how}": partial(ours, how) for how in ("tf32x3", "tf32")}
    functions["torch.compile"] = torch.compile(eager, dynamic=False)
    forward = {name: without_graph(function) for name, function in functions.items()}
    both = {name: with_backward(function, tensors) for name, function in functions.items()}
    in_graphs = ("ours", "eager")
    return with_graphs(forward, in_graphs, device), with_graphs(both, in_graphs, device)


def precision_errors(
    channels: list[tuple[int, int]], sizes: list[int], H: int, device: str
) -> dict[str, float]:
    """Return the largest error of an assembly and its gradients by each precision.

    It is against float64, and relative to the largest value of the same tensor.
    """
    tensors = assembly_tensors(channels, sizes, H, device, torch.float32)
    upstream = torch.randn(sum(a * b * n * n for (a, b), n in zip(channels, sizes, strict=True)))

    def run(dtype: torch.dtype, how: str) -> list[Tensor]:
        leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
        kernels = assemble_kernels(*leaves, sizes=sizes, channels=channels, precision=how)
        flat = torch.cat([kernel.flatten() for kernel in kernels])
        grads = torch.autograd.grad(flat, leaves, upstream.to(flat))
        return [found.detach().double() for found in (flat, *grads)]

    exact = run(torch.float64, "ieee")
    return {
        how: max(
            ((ours - right).abs().max() / right.abs().max()).item()
            for ours, right in zip(run(torch.float32, how), exact, strict=True)
        )
        for how in ("ieee", "tf32x3", "tf32")
    }
