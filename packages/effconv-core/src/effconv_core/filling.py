"""How far soft sizes were from the budget, and how many sizes the nearest plan fills in."""

from effconv_core.plan import SizePlan
from effconv_core.space.search_space import flat

MOST_FILLED_IN, FAR_OFF = 0.25, 0.1
"""Beyond this share of sizes filled in and relative distance to a budget there is a warning."""


def filling_sentence(plan: SizePlan) -> str:
    """Return a sentence on how far the soft sizes were from the budget; empty if that is not known.

    Empty too where plans were trained to choose among them. It is a warning beyond
    `MOST_FILLED_IN` and `FAR_OFF`.
    """
    if plan.evidence is not None or plan.filled_in is None:
        return ""
    if any("rounded" not in budget for budget in plan.budgets):
        return ""
    S, n, off = len(flat(plan.sizes.values())), plan.filled_in, []
    far = False
    for budget in plan.budgets:
        share = budget["rounded"] / budget["amount"] - 1
        far |= share > FAR_OFF or (share < -FAR_OFF and not budget["at_most"])
        off.append(f"{budget['rounded']:,} {budget['counts']} ({share:+.1%})")
    told = f"the rounded soft sizes cost {', '.join(off)}, so {n} of {S} sizes are filled in"
    if n <= MOST_FILLED_IN * S or not far:
        return f"{told[0].upper()}{told[1:]}."
    return (
        f"Warning: {told}, by nearness and not by learning; search for more epochs, or raise "
        "size_lr or budget_weight."
    )
