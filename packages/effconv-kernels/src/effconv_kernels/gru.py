"""`gru_unroll`: many small GRUs on constant inputs, all layers and timesteps in one call."""

# PyTorch 2.6 reads an operator's schema only from typing's Sequence.
from typing import Any, Sequence  # noqa: UP035

import torch
from torch import Tensor

from effconv_kernels.dispatch import form_of
from effconv_kernels.validation import LIMIT, check_shape, check_tensors, counts_of, uncast
from effconv_kernels.vmap import folded


def gru_unroll(
    input_gates: Tensor, weight_hh: Tensor, bias_hh: Tensor, steps: Sequence[int] | Tensor
) -> Tensor:
    """Unroll L independent GRUs, each on one constant input from a zero state (EffConv Eq. 5).

    This is the GRU of `torch.nn.GRU`: the gate order is r, z, n, and the reset gate
    multiplies the recurrent half of the candidate after its bias.

    Args:
        input_gates: `(L, 3H)`, `W_ih z + b_ih` of each layer's constant input z.
        weight_hh: `(L, 3H, H)`, recurrent weights.
        bias_hh: `(L, 3H)`, recurrent biases.
        steps: L timestep counts T_l, from 1 to 65,536. A tensor on a GPU costs one
            synchronisation.

    Under autocast, bfloat16 and float16 arguments are converted to float32.

    Returns:
        `(sum T_l, H)`: the state after each timestep, layer after layer.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if shapes, dtypes, devices or counts do not fit together.
        NotImplementedError: if a forward-mode derivative is requested.

    Examples:
        >>> gates, weight, bias = torch.zeros(2, 12), torch.zeros(2, 12, 4), torch.zeros(2, 12)
        >>> gru_unroll(gates, weight, bias, steps=[9, 25]).shape
        torch.Size([34, 4])
    """
    input_gates, weight_hh, bias_hh = uncast(input_gates, weight_hh, bias_hh)
    check_tensors(
        "gru_unroll",
        {
            "input_gates": (input_gates, "(L, 3H)"),
            "weight_hh": (weight_hh, "(L, 3H, H)"),
            "bias_hh": (bias_hh, "(L, 3H)"),
        },
    )
    layers, _, H = weight_hh.shape
    if layers < 1 or H < 1:
        raise ValueError(
            f"gru_unroll: weight_hh has shape {tuple(weight_hh.shape)}; "
            "it must be (L, 3H, H) with L and H of at least 1, so pass at least one GRU"
        )
    if weight_hh.shape[1] != 3 * H:
        raise ValueError(
            f"gru_unroll: weight_hh has shape {tuple(weight_hh.shape)}; it must be (L, 3H, H), "
            "that of torch.nn.GRU for each layer, so stack or transpose it to that"
        )
    check_shape("gru_unroll", "input_gates", input_gates, "(L, 3H)", (layers, 3 * H))
    check_shape("gru_unroll", "bias_hh", bias_hh, "(L, 3H)", (layers, 3 * H))
    counts = counts_of("gru_unroll", "steps", steps, layers, LIMIT)
    return _gru_unroll(input_gates, weight_hh, bias_hh, counts)


@torch.library.custom_op("effconv::gru_unroll", mutates_args=())
def _gru_unroll(
    input_gates: Tensor, weight_hh: Tensor, bias_hh: Tensor, steps: Sequence[int]
) -> Tensor:
    form = form_of("gru", weight_hh, weight_hh.shape[-1])
    with torch.autocast(weight_hh.device.type, enabled=False), torch.cuda.device_of(weight_hh):
        return form.gru_unroll(input_gates, weight_hh, bias_hh, steps)


@_gru_unroll.register_fake
def _(input_gates: Tensor, weight_hh: Tensor, bias_hh: Tensor, steps: Sequence[int]) -> Tensor:
    return weight_hh.new_empty(sum(steps), weight_hh.shape[-1])


@torch.library.custom_op("effconv::gru_unroll_backward", mutates_args=())
def _gru_unroll_backward(
    grad: Tensor,
    hidden: Tensor,
    input_gates: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor,
    steps: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    form = form_of("gru", weight_hh, weight_hh.shape[-1])
    with torch.autocast(weight_hh.device.type, enabled=False), torch.cuda.device_of(weight_hh):
        return form.gru_unroll_backward(grad, hidden, input_gates, weight_hh, bias_hh, steps)


@_gru_unroll_backward.register_fake
def _(
    grad: Tensor,
    hidden: Tensor,
    input_gates: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor,
    steps: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(tensor.new_empty(tensor.shape) for tensor in (input_gates, weight_hh, bias_hh))


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.steps = inputs
    ctx.save_for_backward(output, *tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple:
    return *_gru_unroll_backward(grad.contiguous(), *ctx.saved_tensors, ctx.steps), None


_gru_unroll.register_autograd(_backward, setup_context=_save)


@_gru_unroll.register_vmap
def _(info: Any, in_dims: tuple, *arguments: Any) -> tuple[Tensor, int]:
    *tensors, steps = arguments
    B = info.batch_size
    states = _gru_unroll(*folded(tensors, in_dims, B), steps * B)
    return states.unflatten(0, (B, -1)), 0


@_gru_unroll_backward.register_vmap
def _(info: Any, in_dims: tuple, *arguments: Any) -> tuple[tuple, tuple]:
    *tensors, steps = arguments
    B = info.batch_size
    grads = _gru_unroll_backward(*folded(tensors, in_dims, B), steps * B)
    return tuple(grad.unflatten(0, (B, -1)) for grad in grads), (0, 0, 0)
