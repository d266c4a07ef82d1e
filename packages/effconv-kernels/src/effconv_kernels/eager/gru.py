"""`gru_unroll` in batched PyTorch: a loop over timesteps for many layers together."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from effconv_kernels.device_tables import ready
from effconv_kernels.eager.precision import widened
from effconv_kernels.eager.ragged import Ragged, ragged

CACHE = 2**20
"""Bytes of weights and states of the layers that a CPU runs together: of more layers, each timestep
would read the weights from a slower cache."""
LONG = 8
"""Timesteps from which on a CPU's forward pass has its weights transposed in memory first."""


def _chunks(weight: Tensor, steps: Sequence[int], batch: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of layers, and of their rows, that run together: on a GPU all of them."""
    ends, together = [0, *accumulate(steps)], len(steps)
    if weight.device.type == "cpu":
        _, width, H = weight.shape
        size = weight.element_size() * H * (width + batch * ends[-1] // len(steps))
        together = max(1, CACHE // size)
    for first, last in pairwise([*range(0, len(steps), together), len(steps)]):
        yield slice(first, last), slice(ends[first], ends[last])


def _rows(tensor: Tensor, batched: bool) -> Tensor:
    """Return a batch `(B, N, ...)`, or one call `(N, ...)`, as `(N, B, ...)`."""
    return tensor.transpose(0, 1) if batched else tensor.unsqueeze(1)


def _sorted(tables: Ragged, layers: Tensor) -> Tensor:
    """Sort layers by length; sorted ones are not copied."""
    return layers if tables.is_sorted else layers.index_select(0, ready(tables.order))


def gru_unroll(
    input_gates: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor,
    steps: Sequence[int],
    initial_state: Tensor | None,
    reverse: bool,
) -> Tensor:
    """Run all GRUs, a chunk of layers at a time; finished layers drop out of it."""
    batched, stepped = input_gates.dim() == 3, input_gates.shape[-2] != weight_hh.shape[0]
    gates, weight, bias = widened(input_gates, weight_hh, bias_hh)
    gates = _rows(gates, batched)
    start = None if initial_state is None else _rows(*widened(initial_state), batched)
    found = []
    for layers, rows in _chunks(weight, steps, gates.shape[1]):
        part = (
            gates[rows if stepped else layers],
            weight[layers],
            bias[layers].unsqueeze(1),
            None if start is None else start[layers],
        )
        found.append(_forward(*part, steps[layers], reverse, stepped).to(weight_hh.dtype))
    states = found[0] if len(found) == 1 else torch.cat(found, 1)
    return states if batched else states.squeeze(0)


def _forward(
    gates: Tensor,
    weight: Tensor,
    bias: Tensor,
    start: Tensor | None,
    steps: Sequence[int],
    reverse: bool,
    stepped: bool,
) -> Tensor:
    """Return `(B, sum T, H)`, the states of a chunk."""
    tables = ragged(tuple(steps), reverse, weight.device)
    weight, bias = _sorted(tables, weight), _sorted(tables, bias)
    gates = gates.index_select(0, ready(tables.natural)) if stepped else _sorted(tables, gates)
    if start is not None:
        start = _sorted(tables, start).contiguous()
    states = gates.new_empty(sum(steps), gates.shape[1], weight.shape[-1])
    _run(gates, weight, bias, start, tables.active, stepped, states)
    # A gather along the second dimension needs no other copy.
    return states.transpose(0, 1).index_select(1, ready(tables.looped))


def _run(
    gates: Tensor,
    weight: Tensor,
    bias: Tensor,
    hidden: Tensor | None,
    active: list[int],
    stepped: bool,
    states: Tensor,
) -> None:
    """Write a chunk's states, in the order of the loop.

    Args:
        gates: `(n, B, 3H)`, or for each timestep `(rows, B, 3H)`.
        weight: `(n, 3H, H)`.
        bias: `(n, 1, 3H)`.
        hidden: `(n, B, H)`, the initial states, or None for zero.
        active: layers that run at each timestep.
        stepped: whether there are gates for each timestep.
        states: `(rows, B, H)`, the result.
    """
    n, B, H = active[0], states.shape[1], states.shape[2]
    two = 2 * H
    if stepped:
        base, inputs = bias, gates.split(active)
    else:
        # The reset gate multiplies the recurrent half of the candidate, so that only r and z can
        # have the input and the bias in one number.
        base = torch.cat([gates[..., :two] + bias[..., :two], bias[..., two:].expand(n, B, H)], 2)
    transposed = weight.transpose(1, 2)
    if weight.device.type == "cpu" and n > 1 and B < LONG and len(active) >= LONG:
        transposed = transposed.contiguous()
    # States are rows: on a CPU the batched product with columns takes longer. A single GRU is a
    # matrix and a vector, whose product has its own call.
    alone, zero = n == 1 and B == 1, hidden is None
    buffer, candidates = states.new_empty(n, B, 3 * H), states.new_empty(n, B, H)
    views = {}
    for count in set(active):
        whole = buffer[:count]
        reset, update, recurrent = whole.split(H, 2)
        parts = base[:count].expand_as(whole), transposed[:count], whole, whole[..., :two]
        given = None if stepped else gates[:count, :, two:]
        views[count] = *parts, reset, update, recurrent, given, candidates[:count]
    if hidden is None:
        hidden = states.new_zeros(n, B, H)
    for t, (count, after) in enumerate(zip(active, states.split(active), strict=True)):
        constant, matrix, whole, both, reset, update, recurrent, given, candidate = views[count]
        hidden = hidden[:count]
        if t == 0 and zero:
            whole.copy_(constant)
        elif alone:
            torch.addmv(base[0, 0], weight[0], hidden[0, 0], out=buffer[0, 0])
        else:
            torch.baddbmm(constant, hidden, matrix, out=whole)
        if stepped:
            given = inputs[t][..., two:]
            both.add_(inputs[t][..., :two])
        both.sigmoid_()
        torch.addcmul(given, reset, recurrent, out=candidate).tanh_()
        hidden = torch.lerp(candidate, hidden, update, out=after)


def gru_unroll_backward(
    grad: Tensor,
    hidden: Tensor,
    input_gates: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor,
    steps: Sequence[int],
    initial_state: Tensor | None,
    reverse: bool,
    needs: Sequence[bool],
) -> list[Tensor]:
    """Return those gradients of gates, weights, biases and initial states that are needed.

    The gates of all timesteps are recomputed from the saved states in one product, and the
    weight gradient is one product at the end; the loop only carries dL/dh from step to step.
    """
    batched, stepped = input_gates.dim() == 3, input_gates.shape[-2] != weight_hh.shape[0]
    gates, weight, bias, grad, hidden = widened(input_gates, weight_hh, bias_hh, grad, hidden)
    gates, grad, hidden = (_rows(tensor, batched) for tensor in (gates, grad, hidden))
    start = None if initial_state is None else _rows(*widened(initial_state), batched)
    found = []
    for layers, rows in _chunks(weight, steps, gates.shape[1]):
        part = (
            grad[rows],
            hidden[rows],
            gates[rows if stepped else layers],
            weight[layers],
            bias[layers].unsqueeze(1),
            None if start is None else start[layers],
        )
        found.append(_backward(*part, steps[layers], reverse, stepped, needs))
    grads = [
        parts[0] if len(parts) == 1 else torch.cat(parts) for parts in zip(*found, strict=True)
    ]
    for place, name in enumerate(name for name, needed in enumerate(needs) if needed):
        if name in (0, 3):  # gates and initial states have the batch
            rows = grads[place]
            grads[place] = rows.transpose(0, 1).contiguous() if batched else rows.squeeze(1)
    return [tensor.to(weight_hh.dtype) for tensor in grads]


def _backward(
    grad: Tensor,
    hidden: Tensor,
    gates: Tensor,
    weight: Tensor,
    bias: Tensor,
    start: Tensor | None,
    steps: Sequence[int],
    reverse: bool,
    stepped: bool,
    needs: Sequence[bool],
) -> list[Tensor]:
    """Return a chunk's gradients; those of gates and initial states have the batch second."""
    tables = ragged(tuple(steps), reverse, weight.device)
    layer, natural, looped = map(ready, (tables.layer, tables.natural, tables.looped))
    previous = _previous(hidden, start, ready(tables.first), reverse)
    slopes, update = _slopes(
        gates if stepped else gates.index_select(0, layer),
        previous,
        weight,
        bias.index_select(0, layer),
        steps,
    )
    in_order = _sorted(tables, weight)
    totals = grad.index_select(0, natural)
    carried = totals.new_zeros(len(steps), *totals.shape[1:]) if needs[3] else None
    recurrent, kept = slopes[:, :, 1:].index_select(0, natural), update.index_select(0, natural)
    _run_back(totals, recurrent, kept, in_order, tables.active, carried)
    slopes *= totals.index_select(0, looped).unsqueeze(2)
    sums = _sums(slopes, steps) if needs[2] or (needs[0] and not stepped) else None
    found = []
    if needs[0]:
        wanted = slopes if stepped else sums
        found.append(torch.cat([wanted[:, :, 1:3], wanted[:, :, :1]], 2).flatten(2))
    if needs[1]:
        found.append(_grad_weight(slopes, previous, steps))
    if needs[2]:
        found.append(sums[:, :, 1:].sum(1).flatten(1))
    if carried is not None:
        found.append(carried if tables.is_sorted else carried[ready(tables.rank)])
    return found


def _previous(hidden: Tensor, initial: Tensor | None, first: Tensor, reverse: bool) -> Tensor:
    """Return the state before each timestep, `(sum T, B, H)`, in the natural order."""
    previous = hidden.new_empty(hidden.shape)
    if reverse:
        previous[:-1] = hidden[1:]
    else:
        previous[1:] = hidden[:-1]
    if initial is None:
        return previous.index_fill_(0, first, 0)
    return previous.index_copy_(0, first, initial)


def _slopes(
    gates: Tensor, previous: Tensor, weight: Tensor, bias: Tensor, steps: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Compute the derivatives of each timestep's state, in the natural order.

    Args:
        gates: `(sum T, B, 3H)`.
        previous: `(sum T, B, H)`, the state before each timestep.
        weight: `(L, 3H, H)`.
        bias: `(sum T, 1, 3H)`.
        steps: T of each layer.

    Returns:
        `(sum T, B, 4, H)`, the derivatives by the input half of n, by r, by z and by the recurrent
        half of n before their nonlinearities; and `(sum T, B, H)`, z, the derivative by the state
        before that does not pass through the gates.
    """
    count, B, H = previous.shape
    two = 2 * H
    pre = previous.new_empty(count, B, 3 * H)
    if len(set(steps)) == 1:
        shape = len(steps), -1
        torch.bmm(previous.view(*shape, H), weight.transpose(1, 2), out=pre.view(*shape, 3 * H))
    else:
        parts = zip(previous.split(steps), weight, pre.split(steps), strict=True)
        for rows, matrix, out in parts:
            torch.mm(rows.flatten(0, 1), matrix.t(), out=out.view(-1, 3 * H))
    pre += bias
    pre[..., :two] += gates[..., :two]
    pre[..., :two].sigmoid_()
    reset, update, h_n = pre.split(H, 2)
    candidate = torch.addcmul(gates[..., two:], reset, h_n).tanh_()
    slopes = previous.new_empty(count, B, 4, H)
    slope_n, slope_r, slope_z, slope_h = slopes.unbind(2)
    rest = 1 - update
    torch.addcmul(rest, rest * candidate, candidate, value=-1, out=slope_n)
    torch.sub(previous, candidate, out=slope_z).mul_(rest.mul_(update))
    torch.mul(slope_n, reset, out=slope_h)
    by_reset = slope_h * h_n
    torch.addcmul(by_reset, by_reset, reset, value=-1, out=slope_r)
    return slopes, update


def _run_back(
    totals: Tensor,
    slopes: Tensor,
    update: Tensor,
    weight: Tensor,
    active: list[int],
    carried: Tensor | None,
) -> None:
    """Add to each timestep's gradient what later timesteps contribute, in the order of the loop.

    Args:
        totals: `(rows, B, H)`, dL/dh of the outputs, changed in place.
        slopes: `(rows, B, 3, H)`, those by r, z and the recurrent half of n; overwritten.
        update: `(rows, B, H)`.
        weight: `(n, 3H, H)`.
        active: layers that run at each timestep.
        carried: `(n, B, H)` of zeros for the gradient of the initial states, or None.
    """
    flat = slopes.flatten(2).split(active)
    totals, slopes, update = (x.split(active) for x in (totals, slopes, update))
    for t in range(len(active) - 1, -1, -1):
        count, total = active[t], totals[t]
        if t:
            before = totals[t - 1][:count]
        elif carried is not None:
            before = carried
        else:
            break
        slopes[t].mul_(total.unsqueeze(2))
        before.addcmul_(update[t], total).baddbmm_(flat[t], weight[:count])


def _sums(slopes: Tensor, steps: Sequence[int]) -> Tensor:
    """Sum each layer's rows: `(sum T, B, 4, H)` to `(L, B, 4, H)`, in a fixed order."""
    if len(set(steps)) == 1:
        return slopes.unflatten(0, (len(steps), -1)).sum(1)
    return torch.stack([rows.sum(0) for rows in slopes.split(steps)])


def _grad_weight(slopes: Tensor, previous: Tensor, steps: Sequence[int]) -> Tensor:
    """Return `(L, 3H, H)`, the sum of D h^T over a layer's timesteps and batch."""
    H, layers = previous.shape[-1], len(steps)
    recurrent = slopes.flatten(2)[..., H:]
    if len(set(steps)) == 1:
        rows = slopes.view(layers, -1, 4 * H)[..., H:]
        return torch.bmm(rows.transpose(1, 2), previous.view(layers, -1, H))
    found = previous.new_empty(layers, 3 * H, H)
    for out, rows, states in zip(found, recurrent.split(steps), previous.split(steps), strict=True):
        torch.mm(rows.flatten(0, 1).t(), states.flatten(0, 1), out=out)
    return found
