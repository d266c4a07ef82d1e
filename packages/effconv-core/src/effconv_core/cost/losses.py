"""The budget's term of the loss: as EffConv Eq. 4 has it, and a smooth one."""

import torch
from torch import Tensor

from effconv_core.cost.base import Cost
from effconv_core.space.rounding import round_straight_through


def paper_budget_loss(
    cost: Cost,
    soft_sizes: Tensor,
    amount: float,
    *,
    sizes: Tensor | None = None,
    at_most: bool = False,
) -> Tensor:
    """Return |log(P(s) / amount)|, a scalar, with a straight-through gradient (EffConv Eq. 4).

    The gradient uses d P / d v_l = 2 c_l c_{l-1} s_l.

    Args:
        cost: the cost function P.
        soft_sizes: `(S,)`, v.
        amount: the target cost, above 0.
        sizes: `(S,)`, s; None rounds v.
        at_most: whether the loss is 0 below the amount.
    """
    ratio = torch.log(cost.soft(round_straight_through(soft_sizes, sizes)) / amount)
    return ratio.relu() if at_most else ratio.abs()


def smooth_budget_loss(
    cost: Cost, soft_sizes: Tensor, amount: float, *, at_most: bool = False
) -> Tensor:
    """Return log(P(v) / amount)^2, a scalar: no dead zone, no jump at half-integers.

    Args:
        cost: the cost function P.
        soft_sizes: `(S,)`, v.
        amount: the target cost, above 0.
        at_most: whether the loss is 0 below the amount.
    """
    ratio = torch.log(cost.soft(soft_sizes) / amount)
    return (ratio.relu() if at_most else ratio) ** 2
