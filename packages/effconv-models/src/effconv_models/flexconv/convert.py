"""Conversion of other models to FlexConv, and back to plain convolutions."""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from effconv_models.flexconv.conv import FlexConv, FlexConvConfig, flexconvs
from effconv_models.flexconv.flexnet import covering_grid

AXES = {nn.Conv1d: 1, nn.Conv2d: 2}

Choice = str | Iterable[str] | Callable[[str, nn.Module], bool]
"""Selects convolutions: a name pattern such as `"layer?.*.conv2"` (as in `fnmatch`), several,
or a function of name and module."""


def left_alone(model: nn.Module, chosen: Choice | None = None) -> dict[str, str]:
    """Return the convolutions that `with_flexconv` skips, by name, with the reason.

    Args:
        model: any network.
        chosen: as for `with_flexconv`.

    Raises:
        ValueError: as `with_flexconv` does.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1))
        >>> left_alone(net)
        {'0': "is the model's first convolution", '2': 'has one tap'}
    """
    return _choose(model, chosen)[1]


def with_flexconv(
    model: nn.Module,
    example: Tensor | None = None,
    *,
    grid: int | None = None,
    chosen: Choice | None = None,
    config: FlexConvConfig | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Return a copy of a model in which FlexConv layers replace convolutions.

    A layer keeps its output size, stride, groups and bias; its kernel is new, with the norm of the
    one it replaces, so that a model without normalisation keeps its scale. A dilated kernel
    becomes an undilated one.

    Args:
        model: any network; it is not changed.
        example: an input of the usual size, on the model's device, which sets each layer's grid to
            the size of its input. It is passed once, in evaluation mode.
        grid: taps of the uncropped kernel on each axis of all layers, an odd number, instead of an
            example. The cost of large kernels grows with it.
        chosen: selects the convolutions; None selects all that can be replaced and have more than
            one tap, except the model's first and those whose kernel is fixed, which has
            `requires_grad` off. `left_alone` names the others.
        config: settings of the new layers; None takes the paper's. On a grid so small that the
            mask would start with one tap, which has no slope, it starts with three.
        generator: source of the initial values, on the model's device; None uses the global one.

    Raises:
        ValueError: if nothing can be replaced, a pattern matches no convolution, one chosen by its
            whole name cannot be replaced, or both or neither of `example` and `grid` are given.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2))
        >>> flexible = with_flexconv(net, torch.zeros(1, 3, 32, 32))
        >>> flexible[2].grid, flexible(torch.zeros(1, 3, 32, 32)).shape
        ((31, 31), torch.Size([1, 8, 14, 14]))
    """
    if (example is None) == (grid is None):
        raise ValueError(
            "with_flexconv takes an example input or a grid, and one of them; pass "
            "example=torch.zeros(1, 3, 32, 32), say, or grid=33"
        )
    names = list(_choose(model, chosen)[0])
    model = copy.deepcopy(model)
    convs = dict(model.named_modules())
    lengths = {} if example is None else _input_lengths(model, names, example)
    for name in names:
        conv = convs[name]
        size = covering_grid(lengths[name]) if grid is None else grid
        layer = _like(conv, size, _with_slope(config or FlexConvConfig(), size), generator)
        # The same object, so that what else the network reaches it by leads to the new layer.
        conv.__class__, conv.__dict__ = layer.__class__, vars(layer)
    return model


def _with_slope(config: FlexConvConfig, size: int | Sequence[int]) -> FlexConvConfig:
    """Widen the initial mask to the origin's neighbours on a small grid."""
    if config.threshold == 0:
        return config
    taps = size if isinstance(size, int) else min(size)
    reach = math.sqrt(-2 * math.log(config.threshold))
    return replace(config, mask_width=max(config.mask_width, 1.01 * 2 / (taps - 1) / reach))


def to_plain(model: nn.Module) -> nn.Module:
    """Return a copy of a model with plain convolutions that have the current kernels.

    A FlexConv becomes an `nn.Conv1d` or `nn.Conv2d`, after a module of zero padding if its
    window is not symmetric.

    Raises:
        ValueError: if the model has no FlexConv layer.

    Examples:
        >>> to_plain(nn.Sequential(FlexConv(3, 8, 33)))[0].kernel_size
        (5, 5)
    """
    if isinstance(model, FlexConv):
        return model.to_conv().train(model.training)
    model = copy.deepcopy(model)
    for name, layer in flexconvs(model).items():
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer.to_conv().train(layer.training))
    return model


def _like(
    conv: nn.Module,
    grid: int | Sequence[int],
    config: FlexConvConfig | None,
    generator: torch.Generator | None,
) -> FlexConv:
    """Build a FlexConv whose output size is that of a convolution."""
    with conv.weight.device:
        layer = FlexConv(
            conv.in_channels,
            conv.out_channels,
            grid,
            axes=AXES[type(conv)],
            stride=conv.stride,
            groups=conv.groups,
            bias=conv.bias is not None,
            margins=_margins(conv),
            config=config,
            generator=generator,
        ).to(conv.weight.dtype)
    with torch.no_grad():
        gain = conv.weight.norm() / layer.sample().norm()
        layer.network.out_weight.mul_(gain)
        layer.network.out_bias.mul_(gain)
        if conv.bias is not None:
            layer.bias.copy_(conv.bias)
    layer.requires_grad_(conv.weight.requires_grad)
    return layer.train(conv.training)


def _margins(conv: nn.Module) -> list[tuple[int, int]]:
    """Return for each axis the zeros that a single tap in the kernel's middle would need."""
    margins = []
    for axis, (taps, dilation) in enumerate(zip(conv.kernel_size, conv.dilation, strict=True)):
        extent = dilation * (taps - 1)
        if conv.padding == "same":
            before, after = extent // 2, extent - extent // 2
        elif conv.padding == "valid":
            before = after = 0
        else:
            before = after = conv.padding[axis]
        margins.append((before - extent // 2, after - (extent - extent // 2)))
    return margins


def _input_lengths(
    model: nn.Module, names: Sequence[str], example: Tensor
) -> dict[str, tuple[int, ...]]:
    """Return the spatial size of the input of each layer."""
    lengths: dict[str, tuple[int, ...]] = {}
    modules = dict(model.named_modules())

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            lengths[name] = tuple(inputs[0].shape[2:])

        return hook

    handles = [modules[name].register_forward_pre_hook(note(name)) for name in names]
    training = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()(example)
    finally:
        for handle in handles:
            handle.remove()
        for module, was in training.items():
            module.training = was
    unused = [name for name in names if name not in lengths]
    if unused:
        raise ValueError(
            f"the example does not reach {unused}; choose other layers, or pass a grid"
        )
    return lengths


def _choose(model: nn.Module, chosen: Choice | None) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Return the convolutions to replace, and the reasons why others are skipped."""
    convs = {n: m for n, m in model.named_modules() if isinstance(m, _ConvNd)}
    named = set() if chosen is None or callable(chosen) else set(_patterns(chosen))
    wanted, shared = _wanted(convs, chosen), _shared_weights(model)
    picked: dict[str, nn.Module] = {}
    reasons: dict[str, str] = {}
    for place, (name, conv) in enumerate(convs.items()):
        obstacle = _obstacle(name, conv)
        if obstacle is None and id(conv.weight) in shared:
            obstacle = "has its weight in common with another module"
        if wanted is not None and name not in wanted:
            reasons[name] = obstacle or "is not chosen"
        elif obstacle is not None and name in named:
            raise ValueError(f"layer {name!r} is chosen, but it {obstacle}; choose others")
        elif obstacle is not None:
            reasons[name] = obstacle
        elif wanted is None and not conv.weight.requires_grad:
            reasons[name] = "has a fixed kernel, whose requires_grad is off"
        elif wanted is None and place == 0:
            reasons[name] = "is the model's first convolution"
        elif wanted is None and max(conv.kernel_size) == 1:
            reasons[name] = "has one tap"
        else:
            picked[name] = conv
    if not picked:
        kinds = " or ".join(sorted(set(reasons.values())))
        why = f"of its {len(reasons)} convolutions each {kinds}" if reasons else "it has none"
        raise ValueError(
            f"the {type(model).__name__} has no convolution to replace: {why}, so pass another "
            "model or another `chosen`"
        )
    return picked, reasons


def _obstacle(name: str, conv: nn.Module) -> str | None:
    """Return the reason why a convolution cannot be replaced, or None if it can."""
    if not name:
        return "is the whole model"
    if type(conv) not in AXES:
        # A subclass may have its own forward, which would be lost.
        return f"is a {type(conv).__name__}, not one of torch.nn's own Conv1d and Conv2d"
    if "forward" in vars(conv) or "_conv_forward" in vars(conv):
        return "has its own forward, which was set on it, as hooks of other packages do"
    if conv._buffers.get("weight") is not None:
        return "has a fixed kernel, which is a buffer"
    if conv.bias is not None and "bias" not in conv._parameters:
        return "has a bias that is not a parameter"
    if conv._parameters.get("weight") is None:
        return "has a weight that is computed from others, as weight norm does"
    if conv._forward_hooks or conv._forward_pre_hooks or conv._backward_hooks:
        return "has hooks, which another module in its place would lose"
    if conv.padding_mode != "zeros":
        return f"pads by {conv.padding_mode!r}, and FlexConv pads only with zeros"
    return None


def _shared_weights(model: nn.Module) -> set[int]:
    """Return the ids of parameters that a model uses more than once."""
    places = [id(p) for _, p in model.named_parameters(remove_duplicate=False)]
    return {place for place in places if places.count(place) > 1}


def _patterns(chosen: str | Iterable[str]) -> list[str]:
    return [chosen] if isinstance(chosen, str) else list(chosen)


def _wanted(convs: dict[str, nn.Module], chosen: Choice | None) -> set[str] | None:
    """Return the names that a choice matches, None if there is no choice."""
    if chosen is None:
        return None
    if callable(chosen):
        return {name for name, conv in convs.items() if chosen(name, conv)}
    fits: set[str] = set()
    for pattern in _patterns(chosen):
        # A name is taken as it is, also with a bracket or a star in it.
        own = {pattern} & convs.keys() or {n for n in convs if fnmatchcase(n, pattern)}
        if not own:
            raise ValueError(
                f"{pattern!r} in `chosen` fits no convolution; there are {list(convs)}, so pass "
                "a pattern of these names"
            )
        fits |= own
    return fits
