"""Analysis and pruning of the mixing weights of a multi-resolution network."""

import copy

import torch
from torch import Tensor, nn

from effconv_models.multi_resolution.network import MultiResolutionNet, chain

__all__ = [
    "best_resolutions",
    "learned_depth",
    "mixing_parameters",
    "mixing_weights",
    "multiply_accumulates",
    "one_resolution",
    "prune",
]


def mixing_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Return the logits of all learned mixing weights, of resolutions and exits.

    These are trained on the second part of the data; all others on the first (Section 3.4).
    """
    names = ("mixing", "exit_mixing")
    return [p for name, p in network.named_parameters() if name.rpartition(".")[2] in names]


def mixing_weights(network: MultiResolutionNet) -> Tensor:
    """Return alpha of each layer and resolution, `(D - 1, R)` without gradients: the paper's grid.

    Resolutions that a layer does not have are 0.
    """
    finest_to_coarsest = 1 + max(max(layer.resolutions) for layer in network.layers)
    grid = network.fc.weight.new_zeros(len(network.layers), finest_to_coarsest)
    for row, layer in zip(grid, network.layers, strict=True):
        row[list(layer.resolutions)] = layer.weights().detach()
    return grid


def best_resolutions(network: MultiResolutionNet) -> list[int]:
    """Return the resolution of the greatest weight of each layer, the finer of two equal ones."""
    return mixing_weights(network).argmax(1).tolist()


def learned_depth(network: MultiResolutionNet) -> int:
    """Return the number of layers up to the heaviest exit, including the classifier."""
    return network.exits[int(network.exit_weights().argmax())] + 2


def prune(network: MultiResolutionNet, threshold: float) -> MultiResolutionNet:
    """Return a copy without the resolutions and exits whose mixing weights are below a threshold.

    Eq. 5 runs over the rest, so that weights still sum to 1. If all of a layer are below the
    threshold, the greatest stays. Layers after the last remaining exit are dropped. The copy is
    for fine-tuning.

    Args:
        network: a trained network; it is not changed.
        threshold: 0.1 and 0.2 in the paper.

    Raises:
        ValueError: if the threshold is not from 0 to 1.

    Examples:
        >>> network = MultiResolutionNet(3, 8, resolutions=3)
        >>> network.layers[0].mixing.data = torch.tensor([0.7, 0.25, 0.05]).log()
        >>> [layer.resolutions for layer in prune(network, 0.1).layers]
        [(0, 1), (0, 1, 2)]
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; mixing weights lie in 0..1, so pass one there")
    pruned = copy.deepcopy(network)
    for layer in pruned.layers:
        layer.keep(_at_least(layer.weights(), threshold))
    if pruned.exit_mixing is not None:
        kept = _at_least(pruned.exit_weights(), threshold)
        pruned.exits = tuple(pruned.exits[position] for position in kept)
        pruned.exit_mixing = nn.Parameter(pruned.exit_mixing.detach()[kept].clone())
        pruned.layers = pruned.layers[: pruned.exits[-1] + 1]
    return pruned


def _at_least(weights: Tensor, threshold: float) -> list[int]:
    kept = [position for position, w in enumerate(weights.tolist()) if w >= threshold]
    return kept or [int(weights.argmax())]


def one_resolution(network: MultiResolutionNet, *, smooth: bool = True) -> nn.Sequential:
    """Return a trainable plain CNN that runs each layer only at its heaviest resolution.

    It is made of `torch.nn` layers, with pooling where the resolution falls, and ends at the
    heaviest exit.

    Args:
        network: a trained network; it is not changed, and its weights are copied.
        smooth: True enlarges and pools between layers of coarse resolutions as Eq. 4 does, so that
            the CNN computes exactly what the network with one-hot mixing weights does, on images
            whose sides are multiples of the coarsest pooling; at the border of others they differ.
            False leaves that out, as in a typical CNN, whose weights then need training.

    Examples:
        >>> network = MultiResolutionNet(4, 8)
        >>> one_resolution(network)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    resolutions = best_resolutions(network)[: learned_depth(network) - 1]
    blocks = [
        layer.block_at(layer.resolutions.index(resolution))
        for layer, resolution in zip(network.layers, resolutions, strict=False)
    ]
    cnn = chain(blocks, resolutions, copy.deepcopy(network.fc), smooth=smooth)
    return cnn.train(network.training)


def multiply_accumulates(network: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Count the products of one image's forward pass, in convolutions and matrix products.

    Half of what `torch.utils.flop_counter.FlopCounterMode` counts: products with padding count,
    pooling, enlarging, normalisation and mixing do not.

    Args:
        network: any network, in either mode; it is not changed.
        image_shape: `(C, H, W)`.

    Examples:
        >>> multiply_accumulates(nn.Conv2d(3, 8, 3, padding=1), (3, 32, 32))  # 32 * 32 * 27 * 8
        221184
    """
    # Imported here, since it imports Triton, which takes longer than the rest of this package.
    from torch.utils.flop_counter import FlopCounterMode

    network = copy.deepcopy(network).eval()
    image = next(network.parameters()).new_zeros(1, *image_shape)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops() // 2
