"""Steps that are timed: of a training, and of a search whose sizes are held."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from effconv_core import SearchableCNN, SearchConfig, SizePlan, recipe
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def random_batch(batch_size: int, image_size: int, device: str) -> tuple[Tensor, Tensor]:
    """Return random pictures `(B, 3, S, S)`, channels last, and labels `(B,)` of ten classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, image_size, image_size, generator=generator)
    labels = torch.arange(batch_size, device=device) % 10
    return images.to(device, memory_format=torch.channels_last), labels


def to_device(network: Network, device: torch.device | str) -> Network:
    """Move a network that is to be trained, and lay it channels last."""
    return network.to(device, memory_format=torch.channels_last).train()


def training_step(
    run: Callable[[Tensor], Tensor],
    groups: Any,
    batch: tuple[Tensor, Tensor],
    penalty: Callable[[], Tensor | float] = lambda: 0.0,
) -> Callable[[], None]:
    """Return a function that takes one whole step with AdamW.

    Args:
        run: the network, or what runs it.
        groups: the optimizer's parameters or groups of them.
        batch: pictures and labels.
        penalty: joins the loss.
    """
    optimizer = torch.optim.AdamW(groups)

    def step() -> None:
        loss = F.cross_entropy(run(batch[0]), batch[1]) + penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def search_step(
    searchable: SearchableCNN,
    batch: tuple[Tensor, Tensor],
    budget: float,
    run: Callable[[Tensor], Tensor] | None = None,
) -> Callable[[], None]:
    """Return a function that takes one whole step of a search; see `training_step`.

    Args:
        searchable: in training mode.
        batch: pictures and labels.
        budget: wanted number of parameters.
        run: runs the network in its place, in several processes.
    """
    groups = searchable.parameter_groups()
    return training_step(run or searchable, groups, batch, lambda: searchable.budget_loss(budget))


def held_at(size: float, name: str, **changes: Any) -> SearchConfig:
    """Return a recipe with soft sizes that start at a size and stay there.

    Args:
        size: of every searched layer; the default recipe's steps draw theirs around it.
        name: of the recipe.
        **changes: further settings.

    Raises:
        ValueError: if no search can start at that size.
    """
    config = recipe(name, size_lr=1e-9, **changes)
    offset = (size - config.k - 1) / config.k
    if not -1 < offset < 1:
        raise ValueError(
            f"size is {size}; a search at k = {config.k} runs from 1 to {config.largest} "
            "and starts at neither end, so pass a size between them"
        )
    return recipe(name, size_lr=1e-9, b=math.atanh(offset), **changes)


def plain_and_search(
    make: Callable[[int], nn.Module],
    size: int,
    config: SearchConfig,
    batch: tuple[Tensor, Tensor],
) -> tuple[dict[str, Callable[[], None]], SearchableCNN]:
    """Return the steps `plain` and `search` of one CNN, and the searchable network.

    Args:
        make: returns the CNN, with the kernel size that it is given.
        size: of the plain network.
        config: of the search, which holds that size.
        batch: pictures and labels of both.
    """
    device = batch[0].device
    plain = to_device(make(size), device)
    searchable = to_device(SearchableCNN(make(3), config), device)
    budget = searchable.cost([size] * len(searchable.layers))
    groups = [{"params": plain.parameters(), "lr": config.cnn_lr}]
    steps = {
        "plain": training_step(plain, groups, batch),
        "search": search_step(searchable, batch, budget),
    }
    return steps, searchable


def check_held(searchable: SearchableCNN, size: int) -> None:
    """Raise RuntimeError if a size did not stay where it was put."""
    if set(searchable.sizes) != {size}:
        raise RuntimeError(f"the sizes left {size}: {searchable.sizes}")


def equal_plan(model: nn.Module, budget: float) -> tuple[SizePlan, float]:
    """Return the plan of a budget whose sizes are as equal as can be, and the soft size of all.

    Args:
        model: the network.
        budget: wanted number of parameters.

    Raises:
        ValueError: if sizes 1 to 7 do not reach the budget.
    """
    searchable = SearchableCNN(model)
    cost, L = searchable.cost, len(searchable.layers)
    least, most = cost([1] * L), cost([7] * L)
    if not least <= budget <= most:
        raise ValueError(
            f"budget is {budget:,.0f}; sizes 1 to 7 of {type(model).__name__} cost "
            f"{least:,.0f} to {most:,.0f} parameters, so pass something between"
        )
    soft_size = math.sqrt((budget - cost.constant) / sum(cost.per_tap))
    sizes = searchable.nearest_sizes([soft_size] * L, budget)
    return searchable.plan_of(sizes, [soft_size] * L, budget), soft_size
