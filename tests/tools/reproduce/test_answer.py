"""Whether learned sizes were better than random ones."""

from tests.tools.reproduce.made_up_result import compared
from tools.reproduce.answer import answer, random_ones


def test_the_answer_is_a_paired_test():
    rows = []
    for seed, found in enumerate((0.80, 0.84, 0.82)):
        rows += [compared("found", found, seed)]
        rows += [compared(f"random {i}", 0.79 + 0.02 * i, seed) for i in range(2)]
    said = answer({("cifar10", "gpu"): rows})
    # Differences 0, 4 and 2 points: mean 2, standard error 2 / sqrt(3), t of two degrees 4.303.
    assert (
        "no difference can be told: +2.00 points (paired t, 95 % interval -2.97 to +6.97, 3 pairs"
        in said
    )

    def moved(points):
        return [
            {**row, "accuracy": row["accuracy"] + points * (row["row"]["sizes"] == "found") / 100}
            for row in rows
        ]

    assert "The learned networks have 10.0 % more parameters than the random ones." in said
    assert "In 1 of 3 the learned plan is 3x3 in all layers" in said
    assert "yes: +12.00 points" in answer({("cifar10", "gpu"): moved(10)})
    assert "no: -18.00 points" in answer({("cifar10", "gpu"): moved(-20)})
    one = answer({("cifar10", "cpu"): rows[:3]})
    assert "+0.00 points against the mean of 2 random plans" in one
    assert "no interval" in one
    assert "Not measured yet" in answer({("cifar10", "cpu"): []})


def test_a_recipe_is_compared_with_the_random_plans_of_its_own_cost():
    rows = {kind: {"row": {"sizes": kind}} for kind in ("random 0", "random 1", "random 0 paper")}
    assert random_ones(rows, "paper") == [rows["random 0 paper"]]
    assert random_ones(rows, "found") == [rows["random 0"], rows["random 1"]]
    del rows["random 0 paper"]
    assert random_ones(rows, "paper") == [rows["random 0"], rows["random 1"]]
