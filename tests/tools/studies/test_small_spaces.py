"""Which plans a small space holds."""

import numpy as np
from effconv_core import SearchableCNN, apply_plan

from tools.studies.small_spaces import SPACES, TABLES


def test_a_space_holds_every_plan_near_its_budget_and_no_other():
    space = SPACES["planted-5"]
    network, plans = space.network(0), space.plans()
    assert space.budget == 10_684
    counted = [sum(p.numel() for p in apply_plan(network, plan).parameters()) for plan in plans]
    assert all(abs(count / 10_684 - 1) <= 0.02 for count in counted)
    # By hand: 128 a^2 + 256 (b^2 + c^2) + 512 d^2 + 316 parameters at sizes a, b, c, d.
    squares = np.arange(1, 8) ** 2
    a, b, c, d = np.meshgrid(*[squares] * 4, indexing="ij")
    cost = 128 * a + 256 * (b + c) + 512 * d + 316
    assert len(plans) == (np.abs(cost / 10_684 - 1) <= 0.02).sum() == 22
    assert SearchableCNN(network).layers == list(plans[0])


def test_a_table_of_every_plan_serves_spaces_of_several_budgets():
    every = TABLES["every"].table_plans()
    assert len(every) == 7**3
    budgets = {SPACES[name].budget for name in ("every-4", "every-5", "every-6")}
    assert len(budgets) == 3
    for name in ("every-4", "every-5", "every-6"):
        plans = SPACES[name].plans()
        assert len(plans) > 1
        assert all(plan in every for plan in plans)
        assert dict.fromkeys(plans[0], SPACES[name].uniform) in plans
