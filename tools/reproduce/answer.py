"""Are learned sizes better than random ones at equal cost?"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tools.support.stats import half_width

Results = Mapping[tuple[str, str], list[dict[str, Any]]]
"""Finished runs by data set and scale."""

RECIPES = {"found": "recipe bank", "paper": "the paper's recipe"}


def answer(results: Results) -> str:
    """Return a paragraph on whether learned sizes beat random ones, for each set and recipe."""
    question = "**Are learned sizes better than random ones at equal cost?** "
    sentences = []
    for (data, scale), rows in results.items():
        groups = defaultdict(list)
        for row in rows:
            groups[row["row"]["model"], row["row"]["budget"], row["seed"]].append(row)
        for recipe, title in RECIPES.items():
            differences, learned, larger = [], [], []
            for group in groups.values():
                by_kind = {row["row"]["sizes"]: row for row in group}
                drawn = random_ones(by_kind, recipe)
                if recipe in by_kind and drawn:
                    accuracies = [100 * row["accuracy"] for row in drawn]
                    found = by_kind[recipe]
                    learned.append(found)
                    mean = statistics.mean(accuracies)
                    differences.append((100 * found["accuracy"] - mean, accuracies))
                    theirs = statistics.mean(row["parameters"] for row in drawn)
                    larger.append(found["parameters"] / theirs - 1)
            if differences:
                sentences.append(
                    f"{data}, scale {scale}, {title}: {told(differences)} {equal_cost(larger)}"
                    f"{one_size(learned)}"
                )
    return question + (" ".join(sentences) if sentences else "Not measured yet.")


def random_ones(rows: Mapping[str, dict[str, Any]], recipe: str) -> list[dict[str, Any]]:
    """Return the random plans to compare a recipe's with: those of its own cost if there are any.

    Args:
        rows: by the source of their sizes.
        recipe: a key of `RECIPES`.
    """
    drawn = {kind: row for kind, row in rows.items() if kind.startswith("random")}
    of_recipe = [row for kind, row in drawn.items() if kind.endswith(f" {recipe}")]
    others = [row for kind, row in drawn.items() if kind.split()[-1] not in RECIPES]
    return of_recipe or others


def told(differences: Sequence[tuple[float, list[float]]]) -> str:
    """Return a sentence on the differences to the mean of random plans, with their accuracies."""
    mean = statistics.mean(difference for difference, _ in differences)
    if len(differences) == 1:
        drawn = differences[0][1]
        spread = (
            f", which spread by {statistics.stdev(drawn):.2f} (standard deviation)"
            if len(drawn) > 1
            else ""
        )
        return (
            f"{mean:+.2f} points against the mean of {len(drawn)} random plans{spread}; one pair, "
            "so no interval."
        )
    half = half_width([difference for difference, _ in differences])
    verdict = "yes" if mean > half else "no" if mean < -half else "no difference can be told"
    return (
        f"{verdict}: {mean:+.2f} points (paired t, 95 % interval {mean - half:+.2f} to "
        f"{mean + half:+.2f}, {len(differences)} pairs of network, budget and seed)."
    )


def equal_cost(larger: Sequence[float]) -> str:
    """Return a sentence on how much larger the learned networks are than the random ones."""
    mean = statistics.mean(larger)
    word = "more" if mean >= 0 else "fewer"
    return (
        f"The learned networks have {100 * abs(mean):.1f} % {word} parameters than the random ones."
    )


def one_size(learned: Sequence[dict[str, Any]]) -> str:
    """Return a sentence on learned plans that have one size for all layers."""
    sizes = [set(row["sizes"].values()) for row in learned]
    uniform = sorted(next(iter(each)) for each in sizes if len(each) == 1)
    if not uniform:
        return ""
    squares = " or ".join(f"{size}x{size}" for size in dict.fromkeys(uniform))
    return (
        f" In {len(uniform)} of {len(learned)} the learned plan is {squares} in all layers, so "
        "that this is what random plans are compared with there."
    )
