"""Layer selection: the searched convolutions of a network, and why others are skipped."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from effconv_core.layers.conv import RESERVED, Conv, PredictedConv, channels_of
from effconv_core.layers.own_forward import CALLS, METHODS, plain_class, size_obstacle
from effconv_core.layers.parametrized import kernel_name, kernel_tensor, parametrization_of
from effconv_core.space.search_space import Layer, SizeSpace

LayerFilter = Callable[[str, Conv], bool] | str | Iterable[str | nn.Module]
"""Selects layers: a function of name and module, a name pattern such as `"layer?.*.conv2"` (as in
`fnmatch`), or a list of patterns, names and modules."""

PARALLEL = {"DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

Ranges = range | Mapping[str, range]
"""Allowed sizes of layers: one range for all, or a range for each name pattern."""


def searched_layers(model: nn.Module, searched: LayerFilter | None = None) -> dict[str, Conv]:
    """Return the convolutions whose sizes a search learns, by name.

    Args:
        model: any network.
        searched: selects the convolutions; None selects all that can be searched and have more
            than one tap, except the model's first and those whose kernel is fixed, which has
            `requires_grad` off.

    Raises:
        ValueError: if there is none, a parameter of the model has no shape yet, or a pattern, name
            or module matches no convolution.
    """
    return choose(model, searched)[0]


def left_alone(model: nn.Module, searched: LayerFilter | None = None) -> dict[str, str]:
    """Return the convolutions that a search skips, by name, each with the reason.

    Args:
        model: any network.
        searched: as for `searched_layers`.

    Raises:
        ValueError: as `searched_layers` does.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1))
        >>> left_alone(net)
        {'0': "is the model's first convolution", '2': 'has one tap'}
    """
    return choose(model, searched)[1]


def choose(
    model: nn.Module, searched: LayerFilter | None = None, *, per_axis: bool = False
) -> tuple[dict[str, Conv], dict[str, str]]:
    """Return the searched layers and the reasons of the skipped ones; see `searched_layers`."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    if lazy := [name for name, tensor in tensors if is_lazy(tensor)]:
        raise ValueError(
            f"{lazy[0]!r} of the {type(model).__name__} has no shape yet; run the model on a batch "
            "first, which gives lazy layers theirs"
        )
    convs = {n: m for n, m in model.named_modules() if isinstance(m, _ConvNd)}
    barred = obstacles(model, per_axis=per_axis)
    wanted = _wanted(model, convs, searched)
    chosen: dict[str, Conv] = {}
    reasons: dict[str, str] = {}
    for place, (name, conv) in enumerate(convs.items()):
        if name in barred:
            reasons[name] = barred[name]
        elif wanted is not None and wanted(name, conv):
            chosen[name] = conv
        elif wanted is not None:
            reasons[name] = "is not chosen by `searched`"
        elif not kernel_tensor(conv).requires_grad:
            reasons[name] = "has a fixed kernel, whose requires_grad is off"
        elif place == 0:
            reasons[name] = "is the model's first convolution"
        elif max(conv.kernel_size) == 1:
            reasons[name] = "has one tap"
        else:
            chosen[name] = conv
    if not chosen:
        kinds = sorted(set(reasons.values()))
        why = "it has no convolution" if not reasons else f"of its {len(reasons)} each {_or(kinds)}"
        raise ValueError(
            f"the {type(model).__name__} has no layer to search: {why}, so pass another model or "
            "another `searched`"
        )
    return chosen, reasons


def _or(kinds: Sequence[str]) -> str:
    return " or ".join(kinds)


def obstacles(model: nn.Module, *, per_axis: bool = True) -> dict[str, str]:
    """Return the convolutions that cannot get another kernel, by name, each with the reason.

    Args:
        model: any network.
        per_axis: whether kernels may be rectangular.

    Raises:
        ValueError: if one belongs to a `SearchableCNN`, or is wrapped for several processes.
    """
    for module in model.modules():
        if kinds := PARALLEL & {kind.__name__ for kind in type(module).__mro__}:
            raise ValueError(
                f"a part of the {type(model).__name__} is wrapped by {kinds.pop()}, whose copies "
                "do not work; pass the network itself, its .module, and to search in several "
                "processes their group to `search`"
            )
    convs = {n: m for n, m in model.named_modules() if isinstance(m, _ConvNd)}
    if name := next((n for n, m in convs.items() if isinstance(m, PredictedConv)), None):
        raise ValueError(
            f"layer {name!r} of the {type(model).__name__} is searched by a SearchableCNN; pass "
            "the network that it was made of, or what its warm_start gives, and to search it "
            "further the SearchableCNN itself to `search`"
        )
    barred = {n: reason for n, m in convs.items() if (reason := _obstacle(m, per_axis=per_axis))}
    for own in ("weight", "bias"):
        for name in _sharing(model, convs, own):
            barred.setdefault(name, f"has its {own} in common with another module")
    return barred


def _obstacle(conv: nn.Module, *, per_axis: bool) -> str | None:
    """Return the reason why a convolution cannot get another kernel, or None if it can."""
    kind = plain_class(type(conv))
    if kind is None or any(getattr(type(conv), m) is not getattr(kind, m) for m in CALLS):
        return f"is a {type(conv).__name__}, not one of torch.nn's own convolutions"
    if any(vars(base).get("__slots__") for base in type(conv).__mro__):
        return f"is a {type(conv).__name__}, whose __slots__ no other layer has"
    if any(method in vars(conv) for method in (*METHODS, *CALLS)):
        return "has its own forward, which was set on it, as hooks of other packages do"
    if conv._buffers.get("weight") is not None:
        return "has a fixed kernel, which is a buffer"
    parts = conv._modules.get("parametrizations")
    if isinstance(parts, nn.ModuleDict) and (
        other := next((n for n in parts if n != "weight"), None)
    ):
        return f"has a {other} that is computed from others"
    if kernel_name(conv) is None and parametrization_of(conv) is None:
        return "has a weight that hooks compute from others, as the old weight_norm does"
    if kernel_name(conv) is None:
        return "has a weight that is computed from others, of which not just one has its shape"
    if reason := _odd_attributes(conv):
        return reason
    dtype = kernel_tensor(conv).dtype
    if not dtype.is_floating_point:
        return f"computes in {str(dtype).removeprefix('torch.')}"
    if conv.bias is not None and "bias" not in {**conv._parameters, **conv._buffers}:
        return "has a bias that is neither a parameter nor a buffer"
    if any(getattr(conv, hooks, None) for hooks in HOOKS):
        return "has hooks, which another module in its place would lose"
    own = {*vars(conv), *conv._parameters, *conv._buffers, *conv._modules}
    if taken := sorted(own & RESERVED):
        return f"has an attribute {taken[0]!r}, which a searched layer uses itself"
    if reason := size_obstacle(conv, [max(conv.kernel_size) + 2]):
        return f"is a {type(conv).__name__}, which {reason}"
    extents = {taps for taps in conv.kernel_size if taps > 1}
    if len(extents) > 1 and not per_axis:
        return f"has a kernel of {'x'.join(map(str, conv.kernel_size))}, which needs per_axis=True"
    return None


def _odd_attributes(conv: nn.Module) -> str | None:
    """Return what somebody has set on a convolution that does not go together, if they have."""
    axes = kernel_tensor(conv).dim() - 2
    for name in ("kernel_size", "stride", "padding", "dilation", "output_padding"):
        value = getattr(conv, name)
        if not isinstance(value, str) and not (isinstance(value, tuple) and len(value) == axes):
            return f"has {value!r} as {name}, which is not a number for each axis"
    wanted, shape = (*channels_of(conv), *conv.kernel_size), tuple(kernel_tensor(conv).shape)
    if shape != wanted:
        return f"has a weight of shape {shape}, and its attributes say {wanted}"
    return None if math.prod(shape) else "has a weight without values"


def _sharing(model: nn.Module, convs: Mapping[str, nn.Module], own: str) -> list[str]:
    """Return the names of the convolutions that share a parameter with another module."""
    holders: dict[int, set[nn.Module]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                holders.setdefault(id(parameter), set()).add(module)
    owned = {
        n: kernel_tensor(m) if own == "weight" and kernel_name(m) else m._parameters.get(own)
        for n, m in convs.items()
    }
    return [name for name, tensor in owned.items() if len(holders.get(id(tensor), ())) > 1]


def _wanted(
    model: nn.Module, convs: Mapping[str, Conv], searched: LayerFilter | None
) -> Callable[[str, Conv], bool] | None:
    """Convert any form of `searched` into a function of name and module; None stays None."""
    if searched is None or (callable(searched) and not isinstance(searched, nn.Module)):
        return searched
    entries = [searched] if isinstance(searched, str | nn.Module) else list(searched)
    names: set[str] = set()
    for entry in entries:
        if isinstance(entry, str):
            names |= set(matching(entry, convs, "searched"))
        elif isinstance(entry, nn.Module):
            found = [name for name, conv in convs.items() if conv is entry]
            if not found:
                raise ValueError(
                    f"searched holds a {type(entry).__name__} that is not a convolution of the "
                    f"{type(model).__name__}; pass modules of this model, or their names"
                )
            names |= set(found)
        else:
            raise TypeError(
                f"searched holds {entry!r}; pass a function of name and module, name patterns or "
                "modules"
            )
    return lambda name, _: name in names


def matching(pattern: str, names: Iterable[str], argument: str) -> list[str]:
    """Return the names that match a pattern, in order, or the one that is the pattern itself.

    Raises:
        ValueError: if it matches none.
    """
    names = list(names)
    # A name is taken as it is, also with a bracket or a star in it.
    found = [pattern] if pattern in names else [n for n in names if fnmatchcase(n, pattern)]
    if not found:
        raise ValueError(
            f"{argument} names {pattern!r}, which fits no layer; the layers are {names}"
        )
    return found


def size_space(
    chosen: Mapping[str, Conv],
    largest: int,
    *,
    allowed: Ranges | None = None,
    tie: Iterable[str | Iterable[str]] = (),
    per_axis: bool = False,
) -> SizeSpace:
    """Build the search space of the chosen layers.

    Args:
        chosen: layer name to convolution.
        largest: largest size where `allowed` gives none; a layer whose own kernel is larger may
            have all sizes up to that.
        allowed: one range for all layers, or name pattern to range; a later pattern wins. Steps of
            2 from 1 allow only odd sizes.
        tie: groups of layers that share their sizes, each a name pattern or a list of them.
        per_axis: whether each axis of a kernel has its own size.

    Raises:
        TypeError: if a range is not a `range`.
        ValueError: if a range or a group is invalid.
    """
    if isinstance(tie, str):
        raise ValueError(f"tie is {tie!r}; pass a list of groups, such as [{tie!r}]")
    ranges = {n: _own_range(conv, largest) for n, conv in chosen.items()}
    given = {} if allowed is None else allowed if isinstance(allowed, Mapping) else {"*": allowed}
    for pattern, sizes in given.items():
        _check_range(pattern, sizes)
        ranges |= dict.fromkeys(matching(pattern, chosen, "allowed"), sizes)
    layers = []
    for name, conv in chosen.items():
        if reason := size_obstacle(conv, ranges[name]):
            raise ValueError(
                f"layer {name!r}, a {type(conv).__name__}, {reason}; allow it others, or leave it "
                "out with `searched`"
            )
        if per_axis and len(conv.kernel_size) > 1:
            axes: tuple[int | None, ...] = tuple(range(len(conv.kernel_size)))
        else:
            point = max(conv.kernel_size) == 1
            axes = tuple(0 if taps > 1 or point else None for taps in conv.kernel_size)
        ruled = [
            taps for taps, axis in zip(conv.kernel_size, axes, strict=True) if axis is not None
        ]
        own = tuple(ruled) if per_axis else (max(ruled),)
        layers.append(Layer(name, channels_of(conv), ranges[name], axes, conv.groups, own))
    return SizeSpace(layers, _ties(layers, tie))


def _own_range(conv: Conv, largest: int) -> range:
    """Return the sizes of a layer for which none are given.

    Those are all, or, where the layer cannot have all, those around its own as far as it can, in
    steps of two where it cannot have the next: that needs more padding at one side.
    """
    own = max(conv.kernel_size)
    sizes = range(1, max(largest, own) + 1)
    if size_obstacle(conv, sizes) is None:
        return sizes
    for step in (1, 2):
        low = high = own
        while low - step in sizes and size_obstacle(conv, [low - step]) is None:
            low -= step
        while high + step in sizes and size_obstacle(conv, [high + step]) is None:
            high += step
        if low < high:
            break
    return range(low, high + 1, step)


def _check_range(pattern: str, sizes: range) -> None:
    if not isinstance(sizes, range):
        raise TypeError(
            f"allowed gives {sizes!r} for {pattern!r}; pass a range, such as range(1, 8)"
        )
    if not sizes or sizes[0] < 1 or sizes.step < 1:
        raise ValueError(
            f"allowed gives {sizes} for {pattern!r}; sizes start at 1 and rise, so pass a range "
            "such as range(1, 8), or range(1, 8, 2) for odd ones"
        )


def _ties(layers: Sequence[Layer], tie: Iterable[str | Iterable[str]]) -> list[list[int]]:
    places = {layer.name: place for place, layer in enumerate(layers)}
    group_of: dict[str, object] = {}
    groups = []
    for group in tie:
        alone = isinstance(group, str) or not isinstance(group, Iterable)
        patterns = [group] if alone else list(group)
        odd = [pattern for pattern in patterns if not isinstance(pattern, str)]
        if odd:
            raise TypeError(f"tie holds {odd[0]!r}; pass names of layers, or patterns of names")
        names = dict.fromkeys(n for pattern in patterns for n in matching(pattern, places, "tie"))
        if len(names) < 2:
            raise ValueError(
                f"the group {group!r} of tie has the one layer {list(names)}; a group needs two or "
                "more, so name others too"
            )
        for name in names:
            if name in group_of:
                raise ValueError(
                    f"layer {name!r} is in the groups {group_of[name]!r} and {group!r} of tie; "
                    "name it in one, or make one group of both"
                )
            group_of[name] = group
        members = [layers[places[name]] for name in names]
        if len({(m.allowed, m.size_count) for m in members}) > 1:
            raise ValueError(
                f"the layers {list(names)} of a group of tie may have the sizes "
                f"{[(m.allowed, m.size_count) for m in members]} (range, sizes a layer); layers "
                "that share sizes need the same, so give them one range with `allowed`"
            )
        groups.append([places[name] for name in names])
    return groups
