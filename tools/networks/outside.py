"""The search of one network of another package, without pretrained weights, on random numbers."""

import json
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from effconv_core import SearchableCNN, left_alone, recipe, search
from effconv_core.engine.search import SearchStep
from effconv_core.layers.inputs import copied, run_on
from effconv_core.runs.environment import environment
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tools.support import compat  # noqa: F401  before torchvision

NETWORKS = Path(__file__).with_name("networks.json")
BATCHES, IMAGES = 2, 2
"""Steps of a search, and images of each."""
CLASSES = 10
LIKE = 1e-3
"""Largest difference of two outputs, relative to the largest output, of one network."""


def networks() -> list[dict[str, Any]]:
    """Return the networks: package, name, shapes of the inputs, and the outcome that is expected.

    A network has `shapes`, one for each argument without the axis of the batch, and by name where
    the arguments are given by name, or `detects`, the shape of the images of a detector that
    computes its losses itself. `values` are arguments other than tensors. Those of torchvision and
    timm are made by name; others by `make`, a function as `module:name`, of `arguments` and
    `options`, or of the `config` of these options, a class of the same module. `classes` are
    options too, each a class as `module:name`.
    """
    return json.loads(NETWORKS.read_text(encoding="utf-8"))


def build(network: dict[str, Any]) -> nn.Module:
    """Build a network from its own package, with random weights drawn from one seed."""
    torch.manual_seed(0)
    classes = {name: _named(path) for name, path in network.get("classes", {}).items()}
    options = {**network.get("options", {}), **classes}
    if "make" in network:
        make = _named(network["make"])
        if "config" in network:
            module = import_module(network["make"].partition(":")[0])
            return make(getattr(module, network["config"])(**options))
        return make(*network.get("arguments", ()), **options)
    options = {"num_classes": CLASSES, **options}
    if options["num_classes"] is None:
        del options["num_classes"]
    if network["package"] == "timm":
        import timm

        return timm.create_model(network["name"], **options)
    from torchvision import models

    return models.get_model(network["name"], weights=None, **options)


def _named(path: str) -> Any:
    module, _, name = path.partition(":")
    return attrgetter(name)(import_module(module))


@torch.no_grad()
def enliven(model: nn.Module) -> None:
    """Draw the scales that begin as constants, so that no branch of the network begins at zero."""
    for name, values in model.named_parameters():
        if values.numel() > 1 and not name.endswith("bias") and values.min() == values.max():
            values.uniform_(0.5, 1.5)


def batches(network: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Return the batches of a search, of random numbers."""
    generator = torch.Generator().manual_seed(1)

    def inputs() -> Any:
        if "detects" in network:
            images = [torch.rand(network["detects"], generator=generator) for _ in range(IMAGES)]
            box = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
            return images, [box] * IMAGES
        shapes = network["shapes"]
        if isinstance(shapes, dict):
            named = {n: torch.randn(IMAGES, *s, generator=generator) for n, s in shapes.items()}
            return {**named, **network.get("values", {})}
        return tuple(torch.randn(IMAGES, *shape, generator=generator) for shape in shapes)

    return [(inputs(), None) for _ in range(BATCHES)]


def mean_square(outputs: Any, _: Any) -> Tensor:
    """Compute a loss of outputs of any kind; of losses, their sum."""
    tensors = [t for t in tree_leaves(outputs) if isinstance(t, Tensor) and t.is_floating_point()]
    return torch.stack([t if t.dim() == 0 else t.square().mean() for t in tensors]).sum()


def difference(wanted: Any, given: Any) -> float:
    """Return the largest difference of two outputs, relative to the largest; 0 for two networks.

    Raises:
        ValueError: if the outputs are of different kinds or shapes.
    """
    pairs = zip(tree_leaves(wanted), tree_leaves(given), strict=True)
    found = [(a.detach(), b.detach()) for a, b in pairs if isinstance(a, Tensor) and a.numel()]
    for a, b in found:
        if a.shape != b.shape:
            raise ValueError(f"outputs have the shapes {tuple(a.shape)} and {tuple(b.shape)}")
    return max(
        (float((a - b).abs().max() / a.abs().max().clamp(1e-12)) for a, b in found), default=0
    )


def check_network(network: dict[str, Any]) -> dict[str, Any]:
    """Search a network for two steps, and compare the CNN of another plan with what was searched.

    Returns:
        The row of results. Its outcome is `searched`, where what was found is the network that was
        searched; `refused`, where a sentence came before the first step; or `failed`.
    """
    torch.set_num_threads(1)
    row = {"package": network["package"], "name": network["name"]}
    row |= {"environment": {**environment("cpu"), network["package"]: version(network["package"])}}
    model = build(network)
    enliven(model)
    steps: list[SearchStep] = []
    try:
        searchable, found = _searched(model, batches(network), steps.append)
        row |= {"difference": found, "layers": len(searchable.layers)}
        row |= {"alone": dict(Counter(searchable.left_alone.values()))}
        row |= {"outcome": "searched" if found <= LIKE else "failed"}
    except (ValueError, TypeError) as error:
        row |= {"outcome": "failed" if steps else "refused", "sentence": str(error)}
        row |= {"layers": 0, "alone": _alone(model)}
    except Exception as error:  # of any kind: that is what the row is to tell of
        row |= {"outcome": "failed", "sentence": f"{type(error).__name__}: {error}"}
        row |= {"layers": 0, "alone": _alone(model)}
    return row


def _alone(model: nn.Module) -> dict[str, int]:
    try:
        return dict(Counter(left_alone(model).values()))
    except ValueError:
        return {}


def _searched(
    model: nn.Module, loader: list[tuple[Any, Any]], on_step: Callable[[SearchStep], None]
) -> tuple[SearchableCNN, float]:
    """Return the network after a search, and how far the CNN of a plan differs from it."""
    config = recipe("bank", k=2, epochs=1, least_steps=0, race_steps=0, finalists=1)
    searchable = SearchableCNN(model, config)
    search(searchable, loader, criterion=mean_square, on_step=on_step)
    ranges = searchable.space.ranges
    sizes = [allowed[min(1 + place % 3, len(allowed) - 1)] for place, allowed in enumerate(ranges)]
    cnn = searchable.warm_start(searchable.space.by_layer(sizes))
    count = sum(parameter.numel() for parameter in cnn.parameters())
    if count != searchable.cost(sizes):
        raise RuntimeError(f"the CNN has {count} parameters, its plan {searchable.cost(sizes)}")
    inputs = loader[0][0]
    # A detector may find nothing in evaluation mode.
    losses = isinstance(inputs, tuple) and isinstance(inputs[0], list)
    for module in (searchable, cnn):
        module.train(losses)
    with torch.no_grad():
        wanted = run_on(lambda *a, **k: searchable.forward_at(sizes, *a, **k), copied(inputs))
        return searchable, difference(wanted, run_on(cnn, copied(inputs)))
