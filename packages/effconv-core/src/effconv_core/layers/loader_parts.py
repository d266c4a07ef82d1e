"""What a loader draws from: its samplers, data sets and loaders, and their generators."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

HOLDERS = ("sampler", "batch_sampler", "dataset", "loader", "dataloader")
"""Attributes in which PyTorch and its peers keep what a loader draws from, of any class."""
LOADING = (DataLoader, Dataset, Sampler)
"""Classes of what a loader may draw from, whatever the attribute that holds it."""

Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random
Unseedable = random.SystemRandom  # it has no state; what it draws cannot be drawn again


def set_epoch(loader: Any, epoch: int) -> None:
    """Call `set_epoch` of a loader and of each sampler, data set and loader below it, once each.

    A loader that has a `set_epoch` is called first; it may call others, which then get
    the same number again.

    Args:
        loader: any object; what has no `set_epoch` is left as it is.
        epoch: counted from 0.
    """
    for part in parts_of(loader):
        if callable(call := getattr(part, "set_epoch", None)):
            call(epoch)


def parts_of(loader: Any) -> Iterator[Any]:
    """Yield a loader and each sampler, data set and loader below it, once each; nothing of None."""
    waiting, seen = [loader], []
    while waiting:
        part = waiting.pop(0)
        if part is None or any(part is other for other in seen):
            continue
        seen.append(part)
        yield part
        waiting += [getattr(part, name, None) for name in HOLDERS]
        for held in getattr(part, "__dict__", {}).values():
            several = held if isinstance(held, list | tuple) else [held]  # as of a ConcatDataset
            waiting += several if several and isinstance(several[0], LOADING) else []


def generators_of(*loaders: Any) -> list[Generator]:
    """Return the generators that loaders and their parts hold as attributes."""
    parts = [part for loader in loaders for part in parts_of(loader)]
    held = [getattr(part, "generator", None) for part in parts]
    held += [value for part in parts for value in getattr(part, "__dict__", {}).values()]
    return [own for own in held if isinstance(own, Generator) and not isinstance(own, Unseedable)]


def seed_orders(loader: Any, seed: int) -> None:
    """Seed the generators that a loader and its parts hold."""
    for own in generators_of(loader):
        if isinstance(own, torch.Generator):
            own.manual_seed(seed)
        elif isinstance(own, np.random.Generator):
            own.bit_generator.state = type(own.bit_generator)(seed).state
        elif isinstance(own, np.random.RandomState):
            kind = getattr(np.random, own.get_state(legacy=False)["bit_generator"])
            own.set_state(np.random.RandomState(kind(seed)).get_state(legacy=False))
        else:
            own.seed(seed)


@contextmanager
def kept_orders(*loaders: Any) -> Iterator[None]:
    """Put the generators of loaders and their parts back into their states at the end."""
    states = [(own, _state(own)) for own in generators_of(*loaders)]
    try:
        yield
    finally:
        for own, state in states:
            if isinstance(own, np.random.Generator):
                own.bit_generator.state = state
            elif isinstance(own, random.Random):
                own.setstate(state)
            else:
                own.set_state(state)


def _state(own: Generator) -> Any:
    if isinstance(own, np.random.Generator):
        return own.bit_generator.state
    if isinstance(own, np.random.RandomState):
        return own.get_state(legacy=False)
    return own.getstate() if isinstance(own, random.Random) else own.get_state()
