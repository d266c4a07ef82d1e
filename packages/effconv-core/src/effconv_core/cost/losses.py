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
    """Give |log(P(s) / amount)| with a straight-through gradient (EffConv Eq. 4).

    The gradient takes d P / d v_l = 2 c_l c_{l-1} s_l.

    Args:
        cost: what sizes cost.
        soft_sizes: `(S,)`, v.
        amount: the wanted cost, above 0.
        sizes: `(S,)`, s; v rounded when None.
        at_most: whether it is 0 below the amount.
    """
    ratio = torch.log(cost.soft(round_straight_through(soft_sizes, sizes)) / amount)
    return ratio.relu() if at_most else ratio.abs()


def smooth_budget_loss(
    cost: Cost, soft_sizes: Tensor, amount: float, *, at_most: bool = False
) -> Tensor:
    """Give log(P(v) / amount)^2 on the soft sizes: no dead zone, no jump at a half-integer.

    Args:
        cost: what sizes cost.
        soft_sizes: `(S,)`, v.
        amount: the wanted cost, above 0.
        at_most: whether it is 0 below the amount.
    """
    ratio = torch.log(cost.soft(soft_sizes) / amount)
    return (ratio.relu() if at_most else ratio) ** 2
