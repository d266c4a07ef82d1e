"""The instruments that say why a search ends where it ends."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from effconv_core import SearchableCNN
from effconv_core.short_report import layer_rows

from tools import carry_over, course
from tools.gradient import agreement, kernel_change, projection
from tools.score_search import reversed_plan
from tools.spaces import SPACES


def test_projection_by_hand():
    found = projection(torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([[1.0, 0.0], [0, 2.0]]))
    assert found.tolist() == [[3.0, 0.0], [0.0, 1.0]]


def source(kernel, change):
    """A stand-in whose kernel is a known function of v, around v = 3."""
    return SimpleNamespace(
        layers=["only"],
        size_predictor=lambda: torch.tensor([3.0], dtype=torch.float64),
        kernel_predictor=lambda v, sizes: [kernel + (v[0] - 3) * change],
    )


def test_a_kernels_change_is_told_apart():
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(4, 2, 3, 3, generator=generator, dtype=torch.float64)
    # Each output channel by a number of its own.
    factors = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64).view(4, 1, 1, 1)
    found = kernel_change(source(kernel, kernel * factors))
    assert found == {"scale": [pytest.approx(1)], "shift": [pytest.approx(0, abs=1e-4)]}
    # One tap in the middle moves down: the row below gains what the row above loses.
    point, moved = torch.zeros(2, 1, 1, 3, 3, dtype=torch.float64)
    point[..., 1, 1] = 1
    moved[..., 0, 1], moved[..., 2, 1] = 1, -1
    assert kernel_change(source(point, moved)) == {"scale": [0], "shift": [pytest.approx(1)]}
    # The corners alone: neither.
    moved.zero_()[..., 0, 0] = 1
    assert kernel_change(source(point, moved)) == {
        "scale": [0],
        "shift": [pytest.approx(0, abs=1e-6)],
    }


def test_agreement_by_hand():
    plans = [[3, 3], [5, 1], [1, 5], [4, 3]]
    accuracies = np.array([[0.5, 0.5], [0.9, 0.9], [0.1, 0.1], [0.6, 0.6]])
    # The loss falls with the first size: the plans are ordered as they should be.
    assert agreement([-1.0, 0.0], plans, accuracies) == (pytest.approx(1), 1.0, 2)
    assert agreement([1.0, 0.0], plans, accuracies) == (pytest.approx(-1), 0.0, 2)
    # Neighbours are [3, 3] with [4, 3] and [5, 1] with [4, 3]; this one orders the first right.
    assert agreement([-1.0, -1.0], plans, accuracies)[1:] == (0.5, 2)


def test_the_course_starts_at_the_papers_size_with_the_budgets_slope():
    row = course.record("every-4", "default", 0)
    searchable = SearchableCNN(SPACES["every-4"].network(0))
    v = 4 + 3 * math.tanh(-0.35)
    assert row["soft_sizes"][0] == [pytest.approx(v, abs=1e-3)] * 3
    assert len(row["soft_sizes"]) == len(row["task_gradient"]) == 2 * 31
    cost = searchable.cost.constant + sum(searchable.cost.per_tap) * v**2
    slopes = [
        40 * math.log(cost / SPACES["every-4"].budget) / cost * 2 * per_tap * v
        for per_tap in searchable.cost.per_tap
    ]
    assert row["budget_gradient"][0] == pytest.approx(slopes, rel=0.01)


def test_a_reversed_plan_is_the_nearest_within_the_budget():
    space = SPACES["every-5"]
    plan = {"see": 7, "mix1": 5, "mix2": 4}
    found = reversed_plan("every-5", plan)
    distances = [
        abs(other["see"] - 4) + abs(other["mix1"] - 5) + abs(other["mix2"] - 7)
        for other in space.plans()
    ]
    assert distances[space.plans().index(found)] == min(distances)


def test_random_plans_of_resnet20_differ_and_cost_what_3x3_costs():
    plans = carry_over.random_plans()
    assert len({tuple(plan.values()) for plan in plans}) == 6
    network = carry_over.network(0)
    searched = 9 * sum(row[4] // row[3] ** 2 for row in layer_rows(network, plans[0]))
    for plan in plans:
        cost = sum(row[4] for row in layer_rows(network, plan))
        assert abs((carry_over.budget() - searched + cost) / carry_over.budget() - 1) <= 0.02
