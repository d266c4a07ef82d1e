"""Checks of what a plan holds."""

from collections.abc import Mapping
from typing import Any

from effconv_core.io.read_json import in_brief, is_text
from effconv_core.io.schemas import (
    LARGEST_NUMBER,
    LARGEST_SIZE,
    LONGEST_NAME,
    MOST_AXES,
    MOST_LAYERS,
)


def check_sizes(sizes: Mapping[str, Any]) -> None:
    """Raise unless these are a plan's sizes, of at least one layer."""
    if not sizes:
        raise ValueError("the plan holds no layer; pass at least one layer name with its size")
    if len(sizes) > MOST_LAYERS:
        raise ValueError(
            f"the plan holds {len(sizes):,} layers; the most is {MOST_LAYERS:,}, so pass fewer"
        )
    for name, size in sizes.items():
        if not isinstance(name, str):
            raise TypeError(f"{in_brief(name)} names a layer of the plan; names are text")
        if not is_text(name):
            raise ValueError(
                f"the name of layer {name!r} has half of a character; rename the layer"
            )
        if len(name) > LONGEST_NAME:
            raise ValueError(
                f"the name of layer {in_brief(name)} has {len(name):,} characters; the most is "
                f"{LONGEST_NAME}, so shorten it"
            )
        numbers = size if isinstance(size, tuple) and 0 < len(size) <= MOST_AXES else (size,)
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, int):
                raise TypeError(
                    f"size of layer {name!r} is {in_brief(size)}; sizes are integers, so pass one, "
                    f"or a tuple of one for each axis, of which there are up to {MOST_AXES}"
                )
            if not 1 <= number <= LARGEST_SIZE:
                raise ValueError(
                    f"size of layer {name!r} is {in_brief(size)}; sizes start at 1 and end at "
                    f"{LARGEST_SIZE:,}, so pass one between"
                )


def check_numbers(plan: Any) -> None:
    """Raise unless a plan's soft sizes, cost and budget are numbers in their ranges."""
    numbers = [
        (f"soft size of layer {name!r}", v, LARGEST_SIZE)
        for name, soft in plan.soft_sizes.items()
        for v in (soft if isinstance(soft, tuple) else (soft,))
    ]
    for name, value in (("cost", plan.cost), ("budget", plan.budget)):
        if value is not None:
            numbers.append((name, value, LARGEST_NUMBER))
    for name, value, largest in numbers:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} of the plan is {in_brief(value)}; it must be a number")
        if not 0 <= value <= largest:
            raise ValueError(
                f"{name} of the plan is {in_brief(value)}; it must be a finite number from 0 to "
                f"{largest:,}"
            )


def check_allowed(allowed: Mapping[str, tuple[int, int, int]]) -> None:
    """Raise unless these are the smallest size, the largest and the step of each layer."""
    for name, numbers in allowed.items():
        if not isinstance(numbers, tuple) or [type(n) for n in numbers] != [int] * 3:
            raise TypeError(
                f"allowed sizes of layer {name!r} are {in_brief(numbers)}; pass three integers, "
                "the smallest, the largest and the step"
            )
        smallest, largest, step = numbers
        if not (1 <= smallest <= largest <= LARGEST_SIZE and 1 <= step <= LARGEST_SIZE):
            raise ValueError(
                f"allowed sizes of layer {name!r} are {in_brief(numbers)}; they start at 1 and "
                f"rise, to {LARGEST_SIZE:,} at most, so pass the smallest, the largest and a step "
                "of at least 1"
            )
