"""Effective kernel sizes in pixels of the image, for networks of any method."""

from collections.abc import Iterator

from torch import nn

from effconv_models.flexconv.conv import FlexConv
from effconv_models.kernel_sizes import block_kernel_sizes
from effconv_models.multi_resolution.layer import MultiResolution
from effconv_models.njet import NJetConv

__all__ = ["effective_sizes"]


def effective_sizes(model: nn.Module) -> dict[str, float | tuple[int, ...]]:
    """Return the current size of each layer's kernel in pixels, by layer name.

    For a FlexConv or NJetConv it is the kernel's size in pixels of the layer's input: one number
    if all axes are equal, and else a tuple, as in the plans of effconv-core. In a
    multi-resolution network a kernel of size k sees k * 2**r pixels of the image at resolution r;
    for a mixture it is the mean of these sizes, weighted by alpha.

    Args:
        model: a model with FlexConv or NJetConv layers, a `MultiResolutionNet`, or a CNN of
            `pooled_cnn` or `one_resolution`.

    Raises:
        ValueError: if the model is none of these.

    Examples:
        >>> effective_sizes(nn.Sequential(FlexConv(1, 2, 33), FlexConv(2, 2, (33, 9))))
        {'0': 5, '1': (5, 1)}
        >>> from effconv_models import MultiResolutionNet
        >>> effective_sizes(MultiResolutionNet(3, 8, resolutions=2))  # (3 + 6) / 2
        {'layers.0.block.conv': 4.5, 'layers.1.block.conv': 4.5}
    """
    kinds = FlexConv | NJetConv
    cropped = {n: m.effective_size for n, m in model.named_modules() if isinstance(m, kinds)}
    if cropped:
        return {n: size[0] if len(set(size)) == 1 else size for n, size in cropped.items()}
    layers = getattr(model, "layers", None)
    if not isinstance(layers, nn.ModuleList | nn.Sequential):
        raise ValueError(
            f"the {type(model).__name__} has no FlexConv layer, no NJetConv and no resolutions; "
            "pass what with_flexconv or pooled_cnn gave, a FlexNet or a MultiResolutionNet"
        )
    sizes = block_kernel_sizes(model).items()
    return {name: k * scale for (name, k), scale in zip(sizes, _scales(layers), strict=True)}


def _scales(layers: nn.ModuleList | nn.Sequential) -> Iterator[float]:
    """Yield for each layer the mean width of its pixels, in pixels of the image."""
    scale = 1.0
    for layer in layers:
        if isinstance(layer, MultiResolution):
            weights = layer.weights().tolist()
            yield sum(w * 2**r for w, r in zip(weights, layer.resolutions, strict=True))
            continue
        for name, module in layer.named_children():
            if name == "up":
                scale /= module.scale_factor
            elif name == "down":
                scale *= module.kernel_size
        yield scale
