"""Registration of the operators with PyTorch's dispatcher."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

LIBRARY = torch.library.Library("effconv", "FRAGMENT")


def register(schema: str, implementation: Callable, fake: Callable) -> torch._ops.OpOverload:
    """Define `effconv::NAME(...) -> ...` and return the operator.

    This is what `torch.library.custom_op` does but for its checks in every call, which take longer
    than the launch of a small program.

    Args:
        schema: name, arguments and results.
        implementation: computes the results, on any device.
        fake: makes empty tensors of their shapes.
    """
    name = schema.split("(")[0]
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"effconv::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.effconv, name).default


def refuse_derivatives(operator: torch._ops.OpOverload) -> None:
    """Let the derivative of an operator, the backward pass of another, raise an error."""

    def refuse(*_: object) -> None:
        raise NotImplementedError(
            f"{operator.name()} has no derivative, because no autograd formula was registered for "
            "second derivatives; call torch.autograd.grad without create_graph"
        )

    torch.library.register_autograd(operator, refuse, lib=LIBRARY)


def without_autocast(tensor: Tensor) -> torch.autocast | nullcontext:
    """Return a context in which sums keep their precision; free where autocast is off anyway."""
    kind = tensor.device.type
    if kind != "meta" and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def on_device_of(tensor: Tensor) -> torch.cuda.device_of | nullcontext:
    """Return a context with a tensor's GPU as the current one; free where it is that anyway."""
    if tensor.is_cuda and tensor.device.index != torch.cuda.current_device():
        return torch.cuda.device_of(tensor)
    return nullcontext()
