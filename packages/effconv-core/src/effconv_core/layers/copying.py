"""Copies of networks: also of tensors that belong to a graph, and of what functions hold.

`copy.deepcopy` refuses tensors that a forward pass left on a module, and takes functions and weak
references as they are, so that a copy would go on running layers of its original.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial, update_wrapper
from types import CellType, FunctionType, MethodType
from typing import Any, TypeVar
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

Network = TypeVar("Network", bound=nn.Module)

Memo = dict[int, Any]
"""`id` of an object to its copy, as `copy.deepcopy` fills it."""


def copy_network(model: Network, *, shared: Iterable[Tensor] = ()) -> Network:
    """Copy a network, so that no pass of the copy runs a module of the original.

    A tensor that belongs to a graph, such as an activation that a forward pass left on a module,
    or a weight that the old `weight_norm`, `spectral_norm` or `prune` computed, is copied without
    it. Functions that modules hold, such as a `forward` set on an instance or a hook, and weak
    references are bound to the copied modules.

    Args:
        model: any network; it is not changed.
        shared: tensors that the copy has in common with it.

    Raises:
        TypeError: if it holds what cannot be copied; the message names it.
        ValueError: if a `__deepcopy__` does not copy a convolution.
    """
    memo: Memo = {id(tensor): tensor for tensor in shared}
    try:
        with _DetachedCopies():
            copied = copy.deepcopy(model, memo)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        what = _uncopied(model) or f"the {type(model).__name__}"
        raise TypeError(
            f"{what} cannot be copied ({type(error).__name__}: {error}), and a search trains a "
            "copy of the network; hold it outside of the network, or give its class a __deepcopy__"
        ) from error
    named = isinstance(model, nn.Module)  # and nothing that only has a network's members
    originals = dict(model.named_modules(remove_duplicate=False)) if named else {}
    own = {id(module) for module in copied.modules()}
    for name, module in originals.items():
        trained = any(p.requires_grad for p in module.parameters(recurse=False))
        if isinstance(module, _ConvNd) and trained and id(module) in own:
            raise ValueError(
                f"the copy of the {type(model).__name__} holds the layer {name!r} itself, as a "
                "__deepcopy__ that copies nothing makes it, and a search trains a copy; let it copy"
            )
        _copy_slots(module, memo)
    for module in copied.modules():
        for name, value in list(vars(module).items()):
            bound = _bound(value, memo, {})
            if bound is not value:
                vars(module)[name] = bound
    return copied


def _uncopied(model: nn.Module) -> str | None:
    """Return which attribute of which module cannot be copied."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute == "_modules":
                continue
            try:
                copy_of = copy.deepcopy(value, {id(m): m for m in model.modules()})
            except Exception:
                return f"the {type(value).__name__} {attribute!r} of the module {name!r}"
            del copy_of
    return None


def _copy_slots(module: nn.Module, memo: Memo) -> None:
    """Copy what a module holds in `__slots__`, which `nn.Module` forgets."""
    copied = memo.get(id(module))
    for kind in type(module).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if copied is not None and hasattr(module, name) and not hasattr(copied, name):
                value = copy.deepcopy(getattr(module, name), memo)
                object.__setattr__(copied, name, _bound(value, memo, {}))


class _DetachedCopies(TorchFunctionMode):
    """Copies tensors that are not leaves of a graph, which PyTorch refuses to."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))


def _bound(value: Any, memo: Memo, made: Memo) -> Any:
    """Return a value with the copies in place of the originals; itself if it holds none.

    Args:
        value: what a copied module, or a function, holds.
        memo: of the copy.
        made: `id` of each function and container seen so far to what takes its place.
    """
    if id(value) in made:
        return made[id(value)]
    if isinstance(value, nn.Module):
        return memo.get(id(value), value)
    if isinstance(value, ReferenceType):
        target = value()
        copied = memo.get(id(target), target)
        return value if copied is target else ref(copied)
    if isinstance(value, MethodType):
        owner = _bound(value.__self__, memo, made)
        return value if owner is value.__self__ else MethodType(value.__func__, owner)
    if isinstance(value, FunctionType):
        return _bound_function(value, memo, made)
    if isinstance(value, partial):
        parts = (value.func, value.args, value.keywords)
        function, args, keywords = (_bound(part, memo, made) for part in parts)
        if function is value.func and args is value.args and keywords == value.keywords:
            return value
        other = partial(function, *args, **keywords)
        vars(other).update(vars(value))
        return other
    if type(value) in (list, tuple, set):
        made[id(value)] = value  # where it holds itself
        items = [_bound(item, memo, made) for item in value]
        changed = any(new is not old for new, old in zip(items, value, strict=True))
        made[id(value)] = type(value)(items) if changed else value
    elif type(value) in (dict, OrderedDict):
        made[id(value)] = value
        entries = {key: _bound(item, memo, made) for key, item in value.items()}
        changed = any(entries[key] is not value[key] for key in value)
        made[id(value)] = type(value)(entries) if changed else value
    return made.get(id(value), value)


def _bound_function(function: FunctionType, memo: Memo, made: Memo) -> FunctionType:
    """Return a function whose closure and defaults hold the copies; itself if they hold none."""
    originals = function.__closure__ or ()
    cells = tuple(CellType() for _ in originals)
    other = FunctionType(function.__code__, function.__globals__, closure=cells or None)
    update_wrapper(other, function)
    del other.__wrapped__
    vars(other).update(vars(function))
    made[id(function)] = other  # where it holds itself
    other.__defaults__ = _bound(function.__defaults__, memo, made)
    keywords = function.__kwdefaults__ or {}
    other.__kwdefaults__ = {key: _bound(item, memo, made) for key, item in keywords.items()}
    changed = other.__defaults__ is not function.__defaults__
    changed |= any(other.__kwdefaults__[key] is not item for key, item in keywords.items())
    for cell, original in zip(cells, originals, strict=True):
        try:
            held = original.cell_contents
        except ValueError:  # nothing is assigned to it yet
            continue
        cell.cell_contents = _bound(held, memo, made)
        changed |= cell.cell_contents is not held and held is not function
    made[id(function)] = other if changed else function
    return made[id(function)]
