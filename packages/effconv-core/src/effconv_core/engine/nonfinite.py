"""Checks for non-finite losses before they reach a parameter, and their diagnosis."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from effconv_core.distributed.failures import own_statistics
from effconv_core.layers.inputs import run_on


def finite_soon(loss: Tensor) -> Callable[[], bool]:
    """Start copying `isfinite(loss)` to the host; call the result to wait for it.

    The call waits only for the loss: work queued behind it on a GPU, such as the backward pass,
    continues meanwhile.

    Args:
        loss: any tensor.
    """
    finite = loss.detach().isfinite().all()
    if not finite.is_cuda:
        return lambda: bool(finite)
    on_host = torch.empty(finite.shape, dtype=finite.dtype, pin_memory=True)
    on_host.copy_(finite, non_blocking=True)
    arrived = torch.cuda.Event()
    # The loss's own GPU need not be the current one, whose stream is recorded by default.
    arrived.record(torch.cuda.current_stream(finite.device))

    def wait() -> bool:
        arrived.synchronize()
        return bool(on_host)

    return wait


def no_finite_loss(
    model: nn.Module, batch: tuple[Any, Any], *, loss: Tensor, epoch: int, step: int
) -> FloatingPointError:
    """Return the error of a loss that is not finite; its message names the likely cause.

    Args:
        model: run once more on the batch, to find its first layer whose output is not finite.
        batch: inputs and targets of the step.
        loss: the loss of the step.
        epoch: counted from 0.
        step: index of the step in its epoch, counted from 0.
    """
    cause = _cause(model, batch, first=epoch == step == 0)
    return FloatingPointError(
        f"the loss is {loss.item()} in step {step + 1} of epoch {epoch + 1}: {cause}"
    )


def check_parameters(model: nn.Module, epoch: int) -> None:
    """Check that all parameters are finite, so that no bad checkpoint replaces a good one.

    Args:
        model: the network after an epoch.
        epoch: counted from 0.

    Raises:
        FloatingPointError: if one is not finite.
    """
    if name := _bad_parameter(model):
        raise FloatingPointError(
            f"the parameter {name!r} is not finite after epoch {epoch + 1}, because a gradient was "
            "not; lower the learning rates"
        )


def _bad_parameter(model: nn.Module) -> str | None:
    pairs = model.named_parameters()
    return next((name for name, values in pairs if not values.isfinite().all()), None)


def _cause(model: nn.Module, batch: tuple[Any, Any], *, first: bool) -> str:
    for what, values in zip(("inputs", "targets"), batch, strict=True):
        tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
        if not all(tensor.isfinite().all() for tensor in tensors):
            return f"the loader gave {what} that are not finite, so check the data"
    if name := _bad_parameter(model):
        if first:
            return f"the parameter {name!r} of the network is not finite; check its weights"
        return (
            f"the parameter {name!r} is not finite, because a gradient of an earlier step was not; "
            "lower the learning rates"
        )
    layer = _first_not_finite(model, batch[0])
    if layer is None:
        return "the outputs of all layers are finite, so look at the criterion and the targets"
    return f"the first outputs that are not finite are those of layer {layer!r}; lower the rates"


@torch.no_grad()
def _first_not_finite(model: nn.Module, inputs: Any) -> str | None:
    """Return the name of the first leaf module, in order of execution, with a non-finite output."""
    found: list[str] = []

    def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name)

        return hook

    innermost = [(name, m) for name, m in model.named_modules() if not any(m.children())]
    handles = [module.register_forward_hook(look(name)) for name, module in innermost]
    try:
        with own_statistics():  # the loss of this rank may be the only one
            run_on(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
