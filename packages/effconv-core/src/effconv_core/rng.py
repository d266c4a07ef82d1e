"""Counter-based random draws that resume exactly after an interruption."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

STRIDE = 1_000_003  # number of draws after which a stream repeats the next one


class Draws(nn.Module):
    """Uniform numbers that depend only on a seed and on the number of earlier draws.

    The count is part of the module's state. It is kept on the host, so that drawing never waits
    for the device, and is the same in each process of a distributed search.

    Args:
        seed: seed of the numbers.
        stream: 0 or 1; the two streams of a seed do not overlap in the first million draws.
    """

    def __init__(self, seed: int, stream: int) -> None:
        super().__init__()
        self.start, self.count = (2 * seed + stream) * STRIDE, 0

    def forward(self, n: int) -> Tensor:
        """Draw the next `(n,)` numbers in [0, 1), on the CPU."""
        generator = torch.Generator().manual_seed((self.start + self.count) % 2**63)
        self.count += 1
        return torch.rand(n, generator=generator, dtype=torch.float32, device="cpu")

    def get_extra_state(self) -> Tensor:
        """Return the count, for `state_dict`."""
        return torch.tensor(self.count, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the count from a `state_dict`.

        Raises:
            ValueError: if it is not a count.
        """
        if state.numel() != 1 or state.is_floating_point() or not state.item() >= 0:
            raise ValueError(
                f"the count of draws is {state.tolist()}; it must be an integer from 0"
            )
        self.count = int(state)


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seed all global generators within the context; their states are restored afterwards.

    Args:
        seed: seed of the numbers; None changes nothing.
        device: its generator is seeded in addition to those of the CPU.
    """
    if seed is None:
        yield
        return
    with kept_generators(device):
        seed_generators(seed, device)
        yield


def random_state(device: torch.device) -> tuple[Any, ...]:
    """Return the state of all global generators: torch's, Python's and NumPy's, for comparison."""
    of_device = torch.cuda.get_rng_state(device).tolist() if device.type == "cuda" else None
    of_numpy = np.random.get_state()  # noqa: NPY002
    numbers = of_numpy[1].tolist(), *of_numpy[2:]
    return torch.get_rng_state().tolist(), of_device, random.getstate(), numbers


@contextmanager
def kept_generators(device: torch.device) -> Iterator[None]:
    """Put all global generators into their state of before at the end of the context.

    Those are torch's of the CPU and of the device, Python's and NumPy's.

    Args:
        device: of the tensors that are computed.
    """
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the global generators of Python, NumPy and torch, of the CPU and the device.

    `torch.manual_seed` would seed those of all GPUs, which `seeded` does not restore.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
