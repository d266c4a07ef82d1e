import dataclasses

import pytest
import torch
from effconv_core import rank_plan, recipe, score, search
from torch import nn

PLANS = [{"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}, {"a": 5}]


def test_rank_by_hand():
    accuracies = [0.5, 0.7, 0.7, 0.9, 0.6]
    best, tied, worst = (rank_plan({"a": size}, PLANS, accuracies) for size in (4, 2, 1))
    assert (best.percentile, best.regret, best.accuracy) == (100.0, 0.0, 0.9)
    # Of four others two are worse and one is equal: 2.5 of 4.
    assert (tied.percentile, tied.regret) == pytest.approx((62.5, 0.2))
    assert (worst.percentile, worst.regret) == pytest.approx((0.0, 0.4))


def test_rank_takes_the_mean_over_trainings():
    accuracies = [[0.1, 0.9], [0.4, 0.5], [0.6, 0.6], [0.2, 0.2], [0.3, 0.3]]
    assert rank_plan({"a": 1}, PLANS, accuracies).accuracy == pytest.approx(0.5)
    assert rank_plan({"a": 1}, PLANS, accuracies).percentile == 75.0


@pytest.mark.parametrize(
    ("plan", "plans", "accuracies", "sentence"),
    [
        ({"a": 7}, PLANS, [0.1] * 5, r"plan \{'a': 7\} is not among the 5 plans of the table"),
        ({"a": 1}, PLANS, [0.1] * 4, r"has 5 plans and accuracies of shape \(4,\)"),
        ({"a": 1}, PLANS[:1], [0.1], "pass at least two plans"),
        ({"a": 1}, PLANS, [0.1] * 4 + [float("nan")], "one finite accuracy"),
    ],
)
def test_a_malformed_table_is_refused(plan, plans, accuracies, sentence):
    with pytest.raises(ValueError, match=sentence):
        rank_plan(plan, plans, accuracies)


def make_model(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 1),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def loader():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, 1, 9, 9, generator=generator), torch.tensor([0, 1, 2, 3]))] * 3


TABLE = [{"1": a, "2": b} for a, b in ((3, 3), (4, 1), (1, 4))]


def test_score_ranks_the_plans_that_search_finds():
    config = recipe("bank", epochs=2, least_steps=0)
    scores = score(make_model, [loader()] * 3, TABLE, [0.7, 0.8, 0.9], config, budget=304)
    for seed, scored in enumerate(scores):
        own = dataclasses.replace(config, seed=seed)
        plan = search(make_model(seed), loader(), budget=304, config=own)
        assert scored == rank_plan(plan, TABLE, [0.7, 0.8, 0.9])


def test_the_budget_is_the_middle_of_the_table_unless_it_is_given():
    # Costs at (3, 3), (4, 1) and (1, 4) are 16 * (18, 17, 17) and 16 for stem and biases, so the
    # middle is 296, and no plan is as near to it as a hundredth.
    config = recipe("bank", epochs=1, tolerance=0.01)
    with pytest.raises(ValueError, match="the budget 296"):
        score(make_model, [loader()], TABLE, [1, 2, 3], config)


def test_a_malformed_table_is_refused_before_any_search():
    def untouchable(seed):
        raise AssertionError

    with pytest.raises(ValueError, match="at least two plans"):
        score(untouchable, [loader()], TABLE, [0.1], recipe("bank"))
