"""`assemble_kernels`: hidden states to masked convolution kernels, all layers in one call."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from effconv_kernels.dispatch import backend_of, form_of
from effconv_kernels.registration import (
    on_device_of,
    refuse_derivatives,
    register,
    without_autocast,
)
from effconv_kernels.shapes import plan_of, taps_of
from effconv_kernels.validation import check_dtype, check_shape, check_tensors, uncast
from effconv_kernels.vmap import folded


def assemble_kernels(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    soft_sizes: Tensor | None,
    *,
    sizes: Sequence[int | Sequence[int]],
    channels: Sequence[tuple[int, int]],
    axes: Sequence[Sequence[int | None]] | None = None,
    centre: Literal["paper", "aligned"] = "paper",
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
    precision: Literal["ieee", "tf32x3", "tf32"] = "ieee",
    backend: Literal["auto", "triton", "torch"] = "auto",
) -> list[Tensor]:
    """Turn hidden states into masked kernels (EffConv Eq. 5 to 7).

    Layer l's state at timestep t is mapped linearly to the c_out * c_in values of the kernel's
    t-th position, row by row, which are multiplied by the mask of Eq. 6: of a square kernel it is
    `exp(-((i - c)^2 + (j - c)^2) / v^2)` with i, j counted from 1. Where axes have
    separate soft sizes, their exponents add up.

    Args:
        hidden: `(sum of taps, H)`, the states of `gru_unroll`, layer after layer.
        weight: `(sum c_out c_in, H)`, the maps of all layers, one below the other.
        bias: `(sum c_out c_in,)`.
        soft_sizes: `(L,)`, v of each layer; `(S,)` with `axes`; None for kernels without a mask.
            Each is above 0, which is not checked, because that would wait for the device: at 0
            values and gradients are not finite.
        sizes: for each layer the kernel's size s, from 1 to 256, for s x s taps; or its taps along
            each of 1 to 3 axes, such as `(3, 5)`, together at most 65,536.
        channels: L pairs `(c_out, c_in)`; for a grouped convolution c_in is that of one group.
        axes: for each layer and axis of its kernel, which of the soft sizes rules it; None for an
            axis that none rules, along which the mask is the same everywhere. By default soft size
            l rules all axes of layer l.
        centre: centre of the mask along an axis with s taps: `"paper"` is v / 2, as in Eq. 6;
            `"aligned"` is (s + 1) / 2, the middle of the kernel.
        dtype: dtype of the kernels; None takes that of `hidden`. Sums are in float32 or wider.
        memory_format: `torch.contiguous_format`, or `torch.channels_last`, which has c_in behind
            the taps whatever their number of axes.
        precision: how Triton's programs multiply: `"ieee"` in float32; `"tf32x3"` on tensor cores
            by three products of TF32, which keeps most digits of float32; `"tf32"` by one, with
            the digits of TF32. The gradients of kernels with more than 32 taps are multiplied in
            float32 always. PyTorch multiplies as it is set to.
        backend: `"triton"`, `"torch"`, or `"auto"`, which is what the environment variable
            EFFCONV_KERNELS_BACKEND says, or else Triton wherever its programs can run the call.

    Under autocast, bfloat16 and float16 arguments are converted to float32.

    Returns:
        L kernels `(c_out, c_in, *taps)` in that memory format, views of one buffer.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if shapes, dtypes, devices, counts or the centre do not fit together, or the
            backend cannot run them.
        NotImplementedError: if a forward-mode derivative is requested.

    Examples:
        >>> kernels = assemble_kernels(
        ...     torch.ones(13, 4), torch.ones(10, 4), torch.zeros(10), torch.tensor([3.2, 1.7]),
        ...     sizes=[3, (1, 4)], channels=[(2, 3), (4, 1)], axes=[(0, 0), (None, 1)],
        ... )
        >>> [tuple(kernel.shape) for kernel in kernels]
        [(2, 3, 3, 3), (4, 1, 1, 4)]
    """
    name = "assemble_kernels"
    hidden, weight, bias, soft_sizes = uncast(hidden, weight, bias, soft_sizes)
    tensors = {
        "hidden": (hidden, "(sum of taps, H)"),
        "weight": (weight, "(sum c_out c_in, H)"),
        "bias": (bias, "(sum c_out c_in,)"),
    }
    if soft_sizes is not None:
        tensors["soft_sizes"] = (soft_sizes, "(S,)" if axes is not None else "(L,)")
    check_tensors(name, tensors)
    if soft_sizes is not None and soft_sizes.shape[0] < 1:
        raise ValueError(f"{name}: soft_sizes is empty; pass one soft size for each layer, or None")
    soft_count = None if soft_sizes is None else soft_sizes.shape[0]
    plan = plan_of(name, sizes, channels, axes, soft_count)
    H = hidden.shape[1]
    if H < 1:
        raise ValueError(
            f"{name}: hidden has shape {tuple(hidden.shape)}; a state must have at least one unit, "
            "so pass (sum of taps, H) with H of at least 1"
        )
    rows = sum(plan.counts)
    check_shape(name, "hidden", hidden, "(sum of taps, H)", (plan.taps, H))
    check_shape(name, "weight", weight, "(sum c_out c_in, H)", (rows, H))
    check_shape(name, "bias", bias, "(sum c_out c_in,)", (rows,))
    if centre not in ("paper", "aligned"):
        raise ValueError(f"{name}: centre is {centre!r}; pass 'paper' or 'aligned'")
    if memory_format not in (torch.contiguous_format, torch.channels_last):
        raise ValueError(
            f"{name}: memory_format is {memory_format}; pass torch.contiguous_format or "
            "torch.channels_last"
        )
    dtype = hidden.dtype if dtype is None else dtype
    check_dtype(name, "dtype is", dtype)
    if precision not in ("ieee", "tf32x3", "tf32"):
        raise ValueError(f"{name}: precision is {precision!r}; pass 'ieee', 'tf32x3' or 'tf32'")
    backend_of(name, backend)
    last = memory_format == torch.channels_last
    which = plan.flat, plan.counts, plan.inner, plan.rules, centre, last, dtype, precision, backend
    buffer = _assemble_kernels(hidden, weight, bias, soft_sizes, *which)
    kernels = []
    parts = buffer.split(plan.values), plan.outer, plan.inner, plan.shapes
    for part, c_out, c_in, shape in zip(*parts, strict=True):
        if last:
            kernels.append(part.view(c_out, *shape, c_in).movedim(-1, 1))
        else:
            kernels.append(part.view(c_out, c_in, *shape))
    return kernels


def _run(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    soft_sizes: Tensor | None,
    shapes: Sequence[int],
    counts: Sequence[int],
    inner: Sequence[int],
    rules: Sequence[int],
    centre: str,
    last: bool,
    dtype: torch.dtype,
    precision: str,
    backend: str,
) -> Tensor:
    """Compute all kernels in one buffer.

    Args:
        hidden: as above; so are `weight`, `bias`, `soft_sizes`, `centre` and `dtype`.
        shapes: `(3 L)`, each kernel's taps along three axes; missing ones are in front and 1.
        counts: c_out c_in of each layer.
        inner: c_in of each layer.
        rules: `(3 L)`, the index of each axis' soft size, or -1.
        last: whether c_in comes behind the taps.
        backend: as above.
    """
    form = form_of("assemble", hidden, hidden.shape[1], backend)
    with without_autocast(hidden), on_device_of(hidden):
        return form.assemble_kernels(
            *(hidden, weight, bias, soft_sizes, shapes, counts, inner, rules),
            *(centre, last, dtype, precision),
        )


def _fake(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    soft_sizes: Tensor | None,
    shapes: Sequence[int],
    counts: Sequence[int],
    inner: Sequence[int],
    rules: Sequence[int],
    centre: str,
    last: bool,
    dtype: torch.dtype,
    precision: str,
    backend: str,
) -> Tensor:
    total = sum(count * taps for count, taps in zip(counts, taps_of(shapes), strict=True))
    return hidden.new_empty(total, dtype=dtype)


def _run_backward(
    grad: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    soft_sizes: Tensor | None,
    shapes: Sequence[int],
    counts: Sequence[int],
    inner: Sequence[int],
    rules: Sequence[int],
    centre: str,
    last: bool,
    needs: Sequence[bool],
    precision: str,
    backend: str,
) -> tuple[Tensor, ...]:
    """Compute the gradients of the four tensors; those that are not needed are empty."""
    form = form_of("assemble", hidden, hidden.shape[1], backend)
    with without_autocast(hidden), on_device_of(hidden):
        found = form.assemble_kernels_backward(
            grad,
            hidden,
            weight,
            bias,
            soft_sizes,
            shapes,
            counts,
            inner,
            rules,
            centre,
            last,
            needs,
            precision,
        )
    found = iter(found)
    return tuple(next(found) if needed else hidden.new_empty(0) for needed in needs)


def _fake_backward(
    grad: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    soft_sizes: Tensor | None,
    shapes: Sequence[int],
    counts: Sequence[int],
    inner: Sequence[int],
    rules: Sequence[int],
    centre: str,
    last: bool,
    needs: Sequence[bool],
    precision: str,
    backend: str,
) -> tuple[Tensor, ...]:
    wanted = zip((hidden, weight, bias, soft_sizes), needs, strict=True)
    return tuple(hidden.new_empty(t.shape if needed else 0) for t, needed in wanted)


_assemble_kernels = register(
    "assemble_kernels(Tensor hidden, Tensor weight, Tensor bias, Tensor? soft_sizes, "
    "SymInt[] shapes, SymInt[] counts, SymInt[] inner, int[] rules, str centre, bool last, "
    "ScalarType dtype, str precision, str backend) -> Tensor",
    _run,
    _fake,
)
_assemble_kernels_backward = register(
    "assemble_kernels_backward(Tensor grad, Tensor hidden, Tensor weight, Tensor bias, "
    "Tensor? soft_sizes, SymInt[] shapes, SymInt[] counts, SymInt[] inner, int[] rules, "
    "str centre, bool last, bool[] needs, str precision, str backend) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _run_backward,
    _fake_backward,
)


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, shapes, counts, inner, rules, centre, last, _, precision, backend = inputs
    ctx.how = precision, backend
    ctx.which = shapes, counts, inner, rules, centre, last
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple:
    needs = list(ctx.needs_input_grad[:4])
    found = _assemble_kernels_backward(
        grad.contiguous(), *ctx.saved_tensors, *ctx.which, needs, *ctx.how
    )
    grads = (grad if needed else None for grad, needed in zip(found, needs, strict=True))
    return *grads, *[None] * 9


torch.library.register_autograd("effconv::assemble_kernels", _backward, setup_context=_save)
refuse_derivatives(_assemble_kernels_backward)


def _repeated(rules: Sequence[int], soft_sizes: int, batch: int) -> list[int]:
    """Return the rules of a batch of calls whose soft sizes stand one behind the other."""
    return [
        rule if rule < 0 else rule + call * soft_sizes for call in range(batch) for rule in rules
    ]


def _soft_count(soft_sizes: Tensor | None, dim: int | None) -> int:
    """Return the number of soft sizes of one call."""
    return 0 if soft_sizes is None else soft_sizes.shape[1 - dim if dim is not None else 0]


@torch.library.register_vmap("effconv::assemble_kernels")
def _(info: Any, in_dims: tuple, *arguments: Any) -> tuple[Tensor, int]:
    *tensors, shapes, counts, inner, rules, centre, last, dtype, precision, backend = arguments
    B = info.batch_size
    rules = _repeated(rules, _soft_count(tensors[3], in_dims[3]), B)
    lists = (list(values) * B for values in (shapes, counts, inner))
    kernels = _assemble_kernels(
        *folded(tensors, in_dims, B), *lists, rules, centre, last, dtype, precision, backend
    )
    return kernels.unflatten(0, (B, -1)), 0


@torch.library.register_vmap("effconv::assemble_kernels_backward")
def _(info: Any, in_dims: tuple, *arguments: Any) -> tuple[tuple, tuple]:
    *tensors, shapes, counts, inner, rules, centre, last, needs, precision, backend = arguments
    B = info.batch_size
    rules = _repeated(rules, _soft_count(tensors[4], in_dims[4]), B)
    lists = (list(values) * B for values in (shapes, counts, inner))
    grads = _assemble_kernels_backward(
        *folded(tensors, in_dims, B), *lists, rules, centre, last, needs, precision, backend
    )
    grads = tuple(
        grad.unflatten(0, (B, -1)) if needed else grad.expand(B, 0)
        for grad, needed in zip(grads, needs, strict=True)
    )
    return grads, (0, 0, 0, 0)
