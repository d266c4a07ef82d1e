"""`gru_unroll`: many small GRUs, all layers and timesteps in one call."""

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor

from effconv_kernels.device_tables import ready
from effconv_kernels.dispatch import backend_of, form_of
from effconv_kernels.eager.ragged import last_rows, last_table
from effconv_kernels.registration import (
    on_device_of,
    refuse_derivatives,
    register,
    without_autocast,
)
from effconv_kernels.validation import LIMIT, check_shape, check_tensors, counts_of, uncast
from effconv_kernels.vmap import check_batch, folded


@overload
def gru_unroll(
    input_gates: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    steps: Sequence[int] | Tensor,
    *,
    initial_state: Tensor | None = ...,
    reverse: bool = ...,
    return_last: Literal[False] = ...,
    backend: Literal["auto", "triton", "torch"] = ...,
) -> Tensor: ...


@overload
def gru_unroll(
    input_gates: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    steps: Sequence[int] | Tensor,
    *,
    initial_state: Tensor | None = ...,
    reverse: bool = ...,
    return_last: Literal[True],
    backend: Literal["auto", "triton", "torch"] = ...,
) -> tuple[Tensor, Tensor]: ...


def gru_unroll(
    input_gates: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    steps: Sequence[int] | Tensor,
    *,
    initial_state: Tensor | None = None,
    reverse: bool = False,
    return_last: bool = False,
    backend: Literal["auto", "triton", "torch"] = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Unroll L independent GRUs, each on its own inputs (EffConv Eq. 5: one constant input).

    This is the GRU of `torch.nn.GRU`: the gate order is r, z, n, and the reset gate
    multiplies the recurrent half of the candidate after its bias.

    Args:
        input_gates: `W_ih x + b_ih`: `(L, 3H)` for one constant input x of each layer, or
            `(sum T_l, 3H)` for an input at each timestep, layer after layer. With a leading
            dimension B, `(B, L, 3H)` or `(B, sum T_l, 3H)`, a batch that shares all weights.
        weight_hh: `(L, 3H, H)`, recurrent weights.
        bias_hh: `(L, 3H)`, recurrent biases; None is zero.
        steps: L timestep counts T_l, from 1 to 65,536. A tensor on a GPU costs one
            synchronisation.
        initial_state: `(L, H)`, or `(B, L, H)` with a batch; None is zero.
        reverse: run from a layer's last row to its first, as the second direction of
            `torch.nn.GRU` does.
        return_last: return the states after the last timestep as well.
        backend: `"triton"`, `"torch"`, or `"auto"`, which is what the environment variable
            EFFCONV_KERNELS_BACKEND says, or else Triton wherever its programs can run the call.

    Under autocast, bfloat16 and float16 arguments are converted to float32.

    Returns:
        `(sum T_l, H)`: the state after each timestep, layer after layer; `(B, sum T_l, H)` with a
        batch. If `return_last`, also `(L, H)` or `(B, L, H)`.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if shapes, dtypes, devices or counts do not fit together, or the backend cannot
            run them.
        NotImplementedError: if a forward-mode derivative is requested.

    Examples:
        >>> gates, weight, bias = torch.zeros(2, 12), torch.zeros(2, 12, 4), torch.zeros(2, 12)
        >>> gru_unroll(gates, weight, bias, steps=[9, 25]).shape
        torch.Size([34, 4])
        >>> states, last = gru_unroll(
        ...     torch.zeros(8, 34, 12), weight, None, steps=[9, 25], return_last=True
        ... )
        >>> states.shape, last.shape
        (torch.Size([8, 34, 4]), torch.Size([8, 2, 4]))
    """
    name = "gru_unroll"
    input_gates, weight_hh, bias_hh, initial_state = uncast(
        input_gates, weight_hh, bias_hh, initial_state
    )
    batched = isinstance(input_gates, Tensor) and input_gates.dim() == 3
    lead = "(B, " if batched else "("
    tensors = {
        "input_gates": (input_gates, f"{lead}L, 3H)"),
        "weight_hh": (weight_hh, "(L, 3H, H)"),
    }
    if bias_hh is not None:
        tensors["bias_hh"] = (bias_hh, "(L, 3H)")
    if initial_state is not None:
        tensors["initial_state"] = (initial_state, f"{lead}L, H)")
    check_tensors(name, tensors)
    layers, _, H = weight_hh.shape
    if layers < 1 or H < 1:
        raise ValueError(
            f"{name}: weight_hh has shape {tuple(weight_hh.shape)}; "
            "it must be (L, 3H, H) with L and H of at least 1, so pass at least one GRU"
        )
    if weight_hh.shape[1] != 3 * H:
        raise ValueError(
            f"{name}: weight_hh has shape {tuple(weight_hh.shape)}; it must be (L, 3H, H), "
            "that of torch.nn.GRU for each layer, so stack or transpose it to that"
        )
    batch = tuple(input_gates.shape[:1]) if batched else ()
    if batch == (0,):
        raise ValueError(f"{name}: input_gates has a batch of 0 calls; pass at least one")
    if bias_hh is None:
        bias_hh = weight_hh.new_zeros(layers, 3 * H)
    check_shape(name, "bias_hh", bias_hh, "(L, 3H)", (layers, 3 * H))
    if initial_state is not None:
        check_shape(name, "initial_state", initial_state, f"{lead}L, H)", (*batch, layers, H))
    counts = counts_of(name, "steps", steps, layers, LIMIT)
    rows = input_gates.shape[-2]
    if input_gates.shape[-1] != 3 * H or (rows != layers and rows != sum(counts)):
        raise ValueError(
            f"{name}: input_gates has shape {tuple(input_gates.shape)}; it must be {lead}L, 3H) "
            f"or {lead}sum T, 3H), which by the other arguments is {(*batch, layers, 3 * H)} or "
            f"{(*batch, sum(counts), 3 * H)}, so pass one of them, or change those"
        )
    backend_of(name, backend)
    states = _gru_unroll(input_gates, weight_hh, bias_hh, counts, initial_state, reverse, backend)
    if not return_last:
        return states
    if torch.compiler.is_compiling():  # counts may be unknown integers, which no cache takes
        index = torch.tensor(last_rows(counts, reverse), device=states.device)
    else:
        index = ready(last_table(tuple(counts), reverse, states.device))
    return states, states.index_select(-2, index)


def _run(
    input_gates: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor,
    steps: Sequence[int],
    initial_state: Tensor | None,
    reverse: bool,
    backend: str,
) -> Tensor:
    arguments = input_gates, weight_hh, bias_hh, steps, initial_state, reverse
    form = _form(input_gates, weight_hh, initial_state, reverse, backend)
    with without_autocast(weight_hh), on_device_of(weight_hh):
        return form.gru_unroll(*arguments)


def _form(
    input_gates: Tensor,
    weight_hh: Tensor,
    initial_state: Tensor | None,
    reverse: bool,
    backend: str,
) -> Any:
    layers, _, H = weight_hh.shape
    # What the Triton programs know: a constant input of each layer, and a zero initial state.
    known = input_gates.shape[:-1] == (layers,) and initial_state is None and not reverse
    return form_of("gru", weight_hh, H, backend, known)


def _fake(
    input_gates: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor,
    steps: Sequence[int],
    initial_state: Tensor | None,
    reverse: bool,
    backend: str,
) -> Tensor:
    return weight_hh.new_empty(*input_gates.shape[:-2], sum(steps), weight_hh.shape[-1])


def _run_backward(
    grad: Tensor,
    hidden: Tensor,
    input_gates: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor,
    steps: Sequence[int],
    initial_state: Tensor | None,
    reverse: bool,
    needs: Sequence[bool],
    backend: str,
) -> tuple[Tensor, ...]:
    """Compute four gradients; those that are not needed are empty."""
    arguments = grad, hidden, input_gates, weight_hh, bias_hh, steps, initial_state, reverse, needs
    form = _form(input_gates, weight_hh, initial_state, reverse, backend)
    with without_autocast(weight_hh), on_device_of(weight_hh):
        found = iter(form.gru_unroll_backward(*arguments))
    return tuple(next(found) if needed else weight_hh.new_empty(0) for needed in needs)


def _fake_backward(
    grad: Tensor,
    hidden: Tensor,
    input_gates: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor,
    steps: Sequence[int],
    initial_state: Tensor | None,
    reverse: bool,
    needs: Sequence[bool],
    backend: str,
) -> tuple[Tensor, ...]:
    tensors = input_gates, weight_hh, bias_hh, initial_state
    wanted = zip(tensors, needs, strict=True)
    return tuple(weight_hh.new_empty(t.shape if needed else 0) for t, needed in wanted)


_gru_unroll = register(
    "gru_unroll(Tensor input_gates, Tensor weight_hh, Tensor bias_hh, SymInt[] steps, "
    "Tensor? initial_state, bool reverse, str backend) -> Tensor",
    _run,
    _fake,
)
_gru_unroll_backward = register(
    "gru_unroll_backward(Tensor grad, Tensor hidden, Tensor input_gates, Tensor weight_hh, "
    "Tensor bias_hh, SymInt[] steps, Tensor? initial_state, bool reverse, bool[] needs, "
    "str backend) -> (Tensor, Tensor, Tensor, Tensor)",
    _run_backward,
    _fake_backward,
)


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.steps, initial, ctx.reverse, ctx.backend = inputs
    ctx.save_for_backward(output, *tensors, initial)


def _backward(ctx: Any, grad: Tensor) -> tuple:
    *tensors, initial = ctx.saved_tensors
    gates, weight, bias, _, start, *_ = ctx.needs_input_grad
    needs = [gates, weight, bias, start]
    found = _gru_unroll_backward(
        grad.contiguous(), *tensors, ctx.steps, initial, ctx.reverse, needs, ctx.backend
    )
    gates, weight, bias, start = (
        grad if needed else None for grad, needed in zip(found, needs, strict=True)
    )
    return gates, weight, bias, None, start, None, None


torch.library.register_autograd("effconv::gru_unroll", _backward, setup_context=_save)
refuse_derivatives(_gru_unroll_backward)


@torch.library.register_vmap("effconv::gru_unroll")
def _(
    info: Any,
    in_dims: tuple,
    input_gates: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor,
    steps: Sequence[int],
    initial_state: Tensor | None,
    reverse: bool,
    backend: str,
) -> tuple[Tensor, int]:
    B = info.batch_size
    check_batch(B)
    at_gates, at_weight, at_bias, _, at_start, *_ = in_dims
    gates, start = (
        _in_front(tensor, at, B)
        for tensor, at in ((input_gates, at_gates), (initial_state, at_start))
    )
    inner = gates.dim() == 4
    if at_weight is None and at_bias is None:  # shared weights: no copies of them
        if inner:
            gates = gates.flatten(0, 1)
            start = None if start is None else start.flatten(0, 1)
        states = _gru_unroll(gates, weight_hh, bias_hh, steps, start, reverse, backend)
        return (states.unflatten(0, (B, -1)) if inner else states), 0
    gates, start = (_merge(tensor, inner) for tensor in (gates, start))
    weight, bias = folded((weight_hh, bias_hh), (at_weight, at_bias), B)
    states = _gru_unroll(gates, weight, bias, list(steps) * B, start, reverse, backend)
    return states.unflatten(-2, (B, -1)), int(inner)


def _in_front(tensor: Tensor | None, at: int | None, B: int) -> Tensor | None:
    """Move the batch to the front; a tensor without one is expanded, which copies nothing."""
    if tensor is None:
        return None
    return tensor.expand(B, *tensor.shape) if at is None else tensor.movedim(at, 0)


def _merge(tensor: Tensor | None, inner: bool) -> Tensor | None:
    """Merge the batch `(B, ...)` with the layers, behind the batch within each call if any."""
    if tensor is None:
        return None
    return tensor.transpose(0, 1).flatten(1, 2) if inner else tensor.flatten(0, 1)


@torch.library.register_vmap("effconv::gru_unroll_backward")
def _(
    info: Any,
    in_dims: tuple,
    grad: Tensor,
    hidden: Tensor,
    input_gates: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor,
    steps: Sequence[int],
    initial_state: Tensor | None,
    reverse: bool,
    needs: Sequence[bool],
    backend: str,
) -> tuple[tuple, tuple]:
    # Each call of the batch wants its own gradients of the weights.
    B, inner = info.batch_size, grad.dim() - (in_dims[0] is not None) == 3
    grad, hidden, gates = (
        _merge(_in_front(tensor, at, B), inner)
        for tensor, at in zip((grad, hidden, input_gates), in_dims[:3], strict=True)
    )
    start = _merge(_in_front(initial_state, in_dims[6], B), inner)
    weight, bias = folded((weight_hh, bias_hh), in_dims[3:5], B)
    found = _gru_unroll_backward(
        *(grad, hidden, gates, weight, bias, list(steps) * B, start, reverse, needs, backend)
    )
    grads, places = [], []
    for tensor, needed, shared in zip(found, needs, (True, False, False, True), strict=True):
        place = -2 if shared else 0
        grads.append(tensor.unflatten(place, (B, -1)) if needed else tensor.expand(B, 0))
        places.append(int(inner and shared and needed))
    return tuple(grads), tuple(places)
