"""Cost of a step of each method: time, alternately, and memory, in a separate process."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
import torch.nn.functional as F
from effconv_core import SearchableCNN, recipe
from effconv_models import mixing_parameters
from torch import Tensor, nn

from tools.bench.core import interleave, quantiles
from tools.bench.steps import random_batch, search_step, to_device, training_step
from tools.methods.networks import METHODS, SIZES, Size, at_budget, macs, make, parameters
from tools.support.memory import measure_peak, peak_memory

Step = Callable[[], None]


def network_of(method: str, size: Size, image_size: int, device: str) -> nn.Module:
    """Return the network whose training is timed."""
    network = at_budget(size, 0) if method == "effconv" else make(method, size, image_size, 0)
    return to_device(network, device)


def method_steps(method: str, size: Size, batch_size: int, image_size: int, device: str) -> dict:
    """Return a method's steps by name: `train`, and what else its training takes turns with."""
    batch = random_batch(batch_size, image_size, device)
    network = network_of(method, size, image_size, device)
    groups = [{"params": network.parameters(), "lr": 1e-4}]
    steps = {"train": training_step(network, groups, batch)}
    if method == "effconv":
        model = make(method, size, image_size, 0)
        for name in ("paper", "default"):
            searchable = to_device(SearchableCNN(model, recipe(name)), device)
            steps[f"search, {name} recipe"] = search_step(searchable, batch, size.parameters)
    if method == "multi-resolution":
        steps["mixing"] = _mixing_step(network, *batch)
    return steps


def _mixing_step(network: nn.Module, images: Tensor, labels: Tensor) -> Step:
    mixing = mixing_parameters(network)
    optimizer = torch.optim.Adam(mixing, 1e-4)

    def step() -> None:
        loss = F.cross_entropy(network(images), labels)
        for parameter, gradient in zip(mixing, torch.autograd.grad(loss, mixing), strict=True):
            parameter.grad = gradient
        optimizer.step()

    return step


def peak_of(method: str, size: str, batch_size: int, image_size: int, device: str) -> int | None:
    """Return the peak memory of two steps of each kind, in MiB; call it in a separate process."""
    measure_peak(device)
    for step in method_steps(method, SIZES[size], batch_size, image_size, device).values():
        step()
        step()
    return peak_memory(device)


def time_methods(
    size: str, image_size: int, batch_size: int, rounds: int, device: str, threads: int
) -> list[dict[str, Any]]:
    """Time all methods in turns at one size of the pictures.

    Args:
        size: a name of `SIZES`.
        image_size: height and width in pixels.
        batch_size: images per step.
        rounds: timed steps of each kind, after one warm-up.
        device: where to run.
        threads: threads of the CPU.

    Returns:
        A row for each method.
    """
    torch.set_num_threads(threads)
    steps = {
        (method, name): step
        for method in METHODS
        for name, step in method_steps(method, SIZES[size], batch_size, image_size, device).items()
    }
    times = interleave(steps, rounds, device=device, warmups=1)
    del steps
    rows = []
    for method in METHODS:
        network = network_of(method, SIZES[size], image_size, "cpu")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            peak = pool.submit(peak_of, method, size, batch_size, image_size, device).result()
        rows.append(
            {
                "method": method,
                "size": size,
                "image_size": image_size,
                "batch_size": batch_size,
                "parameters": parameters(network),
                "macs": macs(network, (3, image_size, image_size)),
                "peak_memory_mib": peak,
                "seconds": {
                    name: quantiles(seconds)
                    for (own, name), seconds in times.items()
                    if own == method
                },
            }
        )
    return rows
