"""Numbers of NumPy and PyTorch, as Python's own, which JSON and comparisons of kinds know."""

from typing import Any


def plain(value: Any) -> Any:
    """Return the Python number that a NumPy scalar or a tensor of no axes stands for.

    Anything else, such as text or an array, is returned as it is.
    """
    single = getattr(value, "shape", None) == () and callable(getattr(value, "item", None))
    return value.item() if single else value


def in_figures(amount: float) -> str:
    """Format an amount, such as a budget: whole from 100 on, else with four significant digits."""
    whole = amount >= 100 or amount % 1 == 0
    return f"{amount:,.0f}" if whole else f"{amount:.4g}"
