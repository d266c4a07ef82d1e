"""Are learned sizes better than random ones at equal cost?"""

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

Results = Mapping[tuple[str, str], list[dict[str, Any]]]
"""Finished runs by data set and scale."""

RECIPES = {"found": "default recipe", "paper": "the paper's recipe"}


def answer(results: Results) -> str:
    """Say in one paragraph whether learned sizes beat random ones, for each set and recipe."""
    question = "**Are learned sizes better than random ones at equal cost?** "
    sentences = []
    for (data, scale), rows in results.items():
        groups = defaultdict(list)
        for row in rows:
            groups[row["row"]["model"], row["row"]["budget"], row["seed"]].append(row)
        for recipe, title in RECIPES.items():
            differences = []
            for group in groups.values():
                kinds = {row["row"]["sizes"]: 100 * row["accuracy"] for row in group}
                drawn = [value for kind, value in kinds.items() if kind.startswith("random")]
                if recipe in kinds and drawn:
                    differences.append((kinds[recipe] - statistics.mean(drawn), drawn))
            if differences:
                sentences.append(f"{data}, scale {scale}, {title}: {told(differences)}")
    return question + (" ".join(sentences) if sentences else "Not measured yet.")


def told(differences: Sequence[tuple[float, list[float]]]) -> str:
    """Tell the differences to the mean of random plans, each with those plans' accuracies."""
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


def half_width(differences: Sequence[float]) -> float:
    """Give half the width of the 95 % interval of the mean of paired differences (Student's t)."""
    spread = statistics.stdev(differences)
    return float(stats.t.ppf(0.975, len(differences) - 1)) * spread / math.sqrt(len(differences))
