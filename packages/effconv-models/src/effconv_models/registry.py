"""Models by name."""

import difflib
import fnmatch
from collections.abc import Callable, Sequence
from typing import Literal, TypedDict, TypeVar

import torch
from torch import nn

from effconv_models.kernel_sizes import KernelSizes


class ModelOptions(TypedDict, total=False):
    """Keyword arguments of all registered functions; see `create_model`."""

    num_classes: int
    in_channels: int
    kernel_sizes: KernelSizes
    generator: torch.Generator | None


ModelFunction = TypeVar("ModelFunction", bound=Callable[..., nn.Module])

Option = Literal["kernel_sizes", "image_size", "length"]

_models: dict[str, tuple[Callable[..., nn.Module], Option | None]] = {}
"""For each name the function, and the option that it takes beside those of all functions."""


def register_model(
    function: ModelFunction, *, takes: Option | None = "kernel_sizes"
) -> ModelFunction:
    """Register a model for `create_model` under the function's own name.

    Args:
        function: takes `num_classes`, `in_channels`, `generator` and one option more by keyword.
        takes: that option: `"kernel_sizes"`, or of a network that learns its sizes `"image_size"`
            or `"length"`, which becomes the `input_size` of `create_model`; None if there is none.

    Raises:
        ValueError: if the name is taken.
    """
    name = function.__name__
    if name in _models:
        known, new = (f"{f.__module__}.{f.__qualname__}" for f in (_models[name][0], function))
        raise ValueError(
            f"model {name!r} of {new} is already registered by {known}; rename one of the two"
        )
    _models[name] = function, takes
    return function


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the registered models that match a pattern with `*`, `?` and `[...]`.

    Examples:
        >>> list_models("wide_resnet28*")
        ['wide_resnet28_1', 'wide_resnet28_10']
    """
    return sorted(fnmatch.filter(_models, pattern))


def create_model(
    name: str,
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    kernel_sizes: KernelSizes | None = None,
    input_size: int | Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Build a model by name; it maps a batch to logits `(B, num_classes)`.

    The batch is of images `(B, in_channels, H, W)`, or of sequences `(B, in_channels, T)` for the
    `resnet1d` and `flextcn` families.

    Args:
        name: one of `list_models()`.
        num_classes: number of logits.
        in_channels: channels of the images or sequences.
        kernel_sizes: sizes of the convolutions inside blocks, 3 in the published networks; the
            first convolution and 1x1 shortcuts keep theirs. One int for all, a sequence of one int
            for each in forward order, or a mapping of layer name to int, where a missing layer has
            size 3. `block_kernel_sizes(model)` lists the layers. None is 3, or nothing for
            networks that learn their sizes as they train (`flex*`, `ckcnn*`, `njet*`).
        input_size: height and width of the images, or length of the sequences, on which networks of
            FlexConvs lay the grids of their kernels; None takes the paper's, 32 or 784. Other
            networks do without, since their layers do not depend on it.
        generator: source of the initial values, on the model's device; None uses the global one.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if the name is unknown or a number is not allowed.

    Examples:
        >>> model = create_model("cifar_resnet20", kernel_sizes=5)
        >>> model(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    if not isinstance(name, str):
        raise TypeError(f"model name is {name!r}; names are strings, so pass one of list_models()")
    if name not in _models:
        close = difflib.get_close_matches(name, _models)
        choices = f"close ones are {close}" if close else f"there are {list_models()}"
        raise ValueError(f"model {name!r} is unknown; {choices}, so pass one of them")
    function, takes = _models[name]
    own = {}
    if takes == "kernel_sizes":
        own = {"kernel_sizes": 3 if kernel_sizes is None else kernel_sizes}
    elif kernel_sizes is not None:
        raise ValueError(
            f"kernel_sizes is {kernel_sizes!r}, but {name} learns its sizes; leave kernel_sizes out"
        )
    elif takes and input_size is not None:
        own = {takes: input_size}
    return function(num_classes=num_classes, in_channels=in_channels, generator=generator, **own)
