"""Check tensors and numbers of a file before they are put into a network or an optimizer.

PyTorch converts on loading: int8 values become float32 weights, and slots of an optimizer may have
any shape until its next step. Files that were not written for the network are refused by name.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

LIKE_PARAMETER = ("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")
OF_ADAM = ("step", "exp_avg", "exp_avg_sq")


class Optimizer(Protocol):
    """What is needed of a `torch.optim.Optimizer`, or of several kept as one."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups, each with its `params` and its settings."""


def check_weights(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], model: nn.Module, remedy: str
) -> None:
    """Raise unless a file's tensors hold values that the network can have.

    Names are left to `load_state_dict`, in which a network may rename those of earlier versions.

    Args:
        path: of the file, for the sentence.
        tensors: name to tensor, as in the network's `state_dict`.
        model: the network, not changed.
        remedy: ends the sentence.

    Raises:
        ValueError: if a tensor has another shape or is of another kind (floating point, integer,
            complex, boolean) than the network's, or a parameter is not finite; the message names
            it.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, own in model.state_dict().items():
        value = tensors.get(name)
        if value is None or not isinstance(own, Tensor) or is_lazy(own):
            continue
        if value.shape != own.shape and not value.numel() == own.numel() == 1:
            raise ValueError(
                f"{path} holds {name!r} of shape {tuple(value.shape)}, which does not fit the "
                f"model, where it has shape {tuple(own.shape)}; {remedy}"
            )
        if kind_of(value.dtype) != kind_of(own.dtype):
            raise ValueError(
                f"{path} holds {name!r} as {value.dtype}, and the network has it as {own.dtype}; "
                f"{remedy}"
            )
        if name in parameters and not value.isfinite().all():
            raise ValueError(f"{path} holds {name!r} with values that are not finite; {remedy}")


def check_slots(
    path: str | os.PathLike[str],
    slots: Mapping[int, Mapping[str, Tensor]],
    groups: Sequence[Mapping[str, Any]],
    optimizer: Optimizer,
    remedy: str,
) -> None:
    """Raise unless an optimizer can go on with the slots and the settings of a file.

    Args:
        path: of the file, for the sentence.
        slots: number of a parameter to its slots, such as `exp_avg`.
        groups: the settings, as in `state_dict()["param_groups"]`.
        optimizer: is to take them; not changed.
        remedy: ends the sentence.

    Raises:
        ValueError: if groups, parameters, slots or settings are others than the optimizer's, or
            hold values that it never has; the message names the slot or the setting.
    """
    own_groups = optimizer.param_groups
    if len(groups) != len(own_groups):
        raise ValueError(
            f"{path} has {len(groups)} groups of parameters, and the optimizer has "
            f"{len(own_groups)}; {remedy}"
        )
    first = 0
    for own, saved in zip(own_groups, groups, strict=True):
        count = len(own["params"])
        if saved.get("params") != list(range(first, first + count)):
            raise ValueError(
                f"{path} does not have the {count} parameters from number {first} in one group, as "
                f"the optimizer has; {remedy}"
            )
        for name in own.keys() & saved.keys() - {"params"}:
            if not _alike(own[name], saved[name]):
                raise ValueError(
                    f"{path} has {name} {saved[name]!r} for the optimizer, where it is "
                    f"{own[name]!r}; {remedy}"
                )
        for number, parameter in enumerate(own["params"], first):
            _check_slots_of(path, number, slots.get(number, {}), parameter, own, remedy)
        first += count
    if more := sorted(slots.keys() - range(first)):
        raise ValueError(
            f"{path} has slots of parameter {more[0]}, and the optimizer has {first}; {remedy}"
        )


def _check_slots_of(
    path: str | os.PathLike[str],
    number: int,
    slots: Mapping[str, Tensor],
    parameter: Tensor,
    group: Mapping[str, Any],
    remedy: str,
) -> None:
    needed = OF_ADAM if "amsgrad" in group and slots else ()  # Adam and AdamW have it, none else
    if missing := [name for name in needed if name not in slots]:
        raise ValueError(f"{path} lacks {missing[0]!r} of parameter {number}; {remedy}")
    for name, value in slots.items():
        what = f"{path} has 'optimizer.{number}.{name}'"
        formed = not is_lazy(parameter)
        if name in LIKE_PARAMETER and formed and value.shape != parameter.shape:
            raise ValueError(
                f"{what} of shape {tuple(value.shape)}, and its parameter has "
                f"{tuple(parameter.shape)}; {remedy}"
            )
        if name in LIKE_PARAMETER and kind_of(value.dtype) != kind_of(parameter.dtype):
            raise ValueError(
                f"{what} as {value.dtype}, and its parameter is {parameter.dtype}; {remedy}"
            )
        if name == "step" and (value.numel() != 1 or value.is_complex() or not value.item() >= 0):
            raise ValueError(f"{what}, which is not a count of steps; {remedy}")
        if value.isnan().any() or (name == "step" and value.isinf().any()):
            raise ValueError(f"{what} with values that are not numbers; {remedy}")


def kind_of(dtype: torch.dtype) -> str:
    """Return `float`, `complex`, `bool` or `integer`, in which a file and a network agree."""
    if dtype.is_complex or dtype.is_floating_point or dtype == torch.bool:
        return "complex" if dtype.is_complex else "bool" if dtype == torch.bool else "float"
    return "integer"


def _alike(own: Any, saved: Any) -> bool:
    """Return whether a setting is of the optimizer's kind; numbers are finite and at least 0."""
    if isinstance(own, bool):
        return saved is None or isinstance(saved, bool)
    if isinstance(own, int | float):
        number = isinstance(saved, int | float) and not isinstance(saved, bool)
        return number and math.isfinite(saved) and saved >= 0
    if isinstance(own, list | tuple):
        same = isinstance(saved, list | tuple) and len(saved) == len(own)
        return same and all(map(_alike, own, saved))
    if isinstance(own, str):
        return isinstance(saved, str)
    return own is not None or not isinstance(saved, list | dict)
