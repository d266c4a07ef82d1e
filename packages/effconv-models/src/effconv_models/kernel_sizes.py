"""The `kernel_sizes` argument of models, and its inverse."""

import re
from collections.abc import Mapping, Sequence

from torch import nn

from effconv_models._validation import check_positive

KernelSizes = int | Sequence[int] | Mapping[str, int]
"""Kernel sizes of a network: one for all layers, one each in forward order, or by layer name."""

DEFAULT_SIZE = 3


def stage_sizes(
    kernel_sizes: KernelSizes, *, stages: int, blocks: int
) -> list[list[tuple[int, int]]]:
    """Return the kernel sizes of `conv1` and `conv2` of each block, stage by stage.

    Args:
        kernel_sizes: one size for all, one per convolution in forward order, or layer name to
            size; layers left out have size 3.
        stages: number of stages of the model, named `layer1`, `layer2` and so on.
        blocks: number of blocks per stage, named `0`, `1` and so on.

    Raises:
        TypeError: if `kernel_sizes` has the wrong type or a size is not an integer.
        ValueError: if a size is below 1, a layer is unknown, or the number of sizes is wrong.
    """
    names = [
        f"layer{stage}.{block}.conv{conv}"
        for stage in range(1, stages + 1)
        for block in range(blocks)
        for conv in (1, 2)
    ]
    sizes = list(sizes_by_name(kernel_sizes, names).values())
    pairs = list(zip(sizes[::2], sizes[1::2], strict=True))
    return [pairs[start : start + blocks] for start in range(0, len(pairs), blocks)]


def sizes_by_name(kernel_sizes: KernelSizes, names: list[str]) -> dict[str, int]:
    """Return the kernel size of each of the named layers; raises as `stage_sizes` does."""
    given = _given_sizes(kernel_sizes, names)
    return {
        name: check_positive(f"kernel size of layer {name!r}", size) for name, size in given.items()
    }


def _given_sizes(kernel_sizes: KernelSizes, names: list[str]) -> dict[str, int]:
    layers = f"{len(names)} layers {names[0]!r} to {names[-1]!r}"
    if isinstance(kernel_sizes, Mapping):
        unknown = [name for name in kernel_sizes if name not in names]
        if unknown:
            raise ValueError(
                f"kernel_sizes names unknown layer(s) {unknown}; this model's sizes are those of "
                f"the {layers}, so pass names that block_kernel_sizes lists"
            )
        return {name: kernel_sizes.get(name, DEFAULT_SIZE) for name in names}
    if isinstance(kernel_sizes, Sequence) and not isinstance(kernel_sizes, str | bytes):
        if len(kernel_sizes) != len(names):
            raise ValueError(
                f"kernel_sizes holds {len(kernel_sizes)} sizes; this model needs one for each of "
                f"the {layers}, so pass {len(names)}, or a mapping of layer name to size"
            )
        return dict(zip(names, kernel_sizes, strict=True))
    if isinstance(kernel_sizes, bool) or not isinstance(kernel_sizes, int):
        raise TypeError(
            f"kernel_sizes is of type {type(kernel_sizes).__name__}; pass an int, a sequence of "
            f"one int for each of the {layers}, or a mapping of layer name to int"
        )
    return dict.fromkeys(names, check_positive("kernel_sizes", kernel_sizes))


def block_kernel_sizes(model: nn.Module) -> dict[str, int]:
    """Return the kernel sizes of the convolutions inside blocks, in forward order.

    These are the layers that `kernel_sizes` of `create_model` sets, named as in
    `model.named_modules()`; the result can be passed there.

    Args:
        model: one of this package's models; the sizes are read from its layers.

    Raises:
        ValueError: if the model has no such layer.

    Examples:
        >>> model = create_model("cifar_resnet20", kernel_sizes={"layer3.2.conv1": 6})
        >>> list(block_kernel_sizes(model).items())[-3:]
        [('layer3.1.conv2', 3), ('layer3.2.conv1', 6), ('layer3.2.conv2', 3)]
    """
    sizes = {
        # A layer with its own padding module holds its convolution last.
        name: list(layer.modules())[-1].kernel_size[0]
        for name, layer in model.named_modules()
        if re.fullmatch(r"layer\d+\.\d+\.conv[12]|layers\.\d+\.block\.conv", name)
    }
    if not sizes:
        raise ValueError(
            f"the {type(model).__name__} has no layer named like 'layer1.0.conv1'; "
            "pass a model of effconv_models"
        )
    return sizes
