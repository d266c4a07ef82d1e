import itertools

import pytest
import torch
from effconv_core.cost import solver
from effconv_core.cost.base import TapCost
from effconv_core.cost.budget import Budget, Constraint
from effconv_core.cost.solver import nearest_plan
from effconv_core.space.search_space import Layer, SizeSpace
from hypothesis import given, settings
from hypothesis import strategies as st

COST = TapCost((6, 20), constant=100)


@pytest.fixture(autouse=True, scope="module", params=[solver.ALL_TRIED, 0])
def most_tried(request):
    """Let few plans all be tried, and then none, so that SciPy's solver finds all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solver, "ALL_TRIED", request.param)
        yield


def square(layers, largest=7):
    return SizeSpace([Layer(str(i), (1, 1), range(1, largest + 1)) for i in range(layers)])


def nearest(cost, soft, budget, *, tolerance=0.02, largest=7):
    constraints = [Constraint(cost, Budget(budget), tolerance)]
    return nearest_plan(constraints, soft, square(len(cost.per_tap), largest))


@settings(deadline=None, max_examples=80)
@given(
    per_tap=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    constant=st.integers(0, 50),
    data=st.data(),
    tolerance=st.sampled_from([0.02, 0.1]),
)
def test_nearest_plan_equals_trying_every_plan(per_tap, constant, data, tolerance):
    cost, largest = TapCost(tuple(per_tap), constant), 5
    soft = [data.draw(st.floats(1, largest)) for _ in per_tap]
    ends = cost([1] * len(per_tap)), cost([largest] * len(per_tap))
    budget = data.draw(st.floats(*map(float, ends)))
    plans = itertools.product(range(1, largest + 1), repeat=len(per_tap))
    inside = [p for p in plans if abs(cost(p) - budget) <= tolerance * budget]
    distance = {p: sum((s - v) ** 2 for s, v in zip(p, soft)) for p in inside}
    keywords = {"tolerance": tolerance, "largest": largest}
    if not inside:
        with pytest.raises(ValueError, match="no plan costs within"):
            nearest(cost, soft, budget, **keywords)
        return
    found = tuple(nearest(cost, soft, budget, **keywords))
    assert found in distance
    assert distance[found] == pytest.approx(min(distance.values()))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(1, 7), min_size=18, max_size=18), st.floats(0.05, 1.2))
def test_nearest_plan_of_a_resnet20_is_always_within_two_percent(soft, millions):
    per_tap = (256,) * 6 + (512,) + (1024,) * 5 + (2048,) + (4096,) * 5
    cost, budget = TapCost(per_tap, 2458), millions * 1e6
    plan = nearest(cost, soft, budget)
    assert abs(cost(plan) - budget) <= 0.02 * budget
    assert all(1 <= size <= 7 for size in plan)


def test_only_the_layer_nearest_to_the_other_integer_changes():
    cost = TapCost((10, 10, 10))
    soft = [3.1, 3.45, 3.2]  # rounds to 270; a budget of 340 wants one layer at 4
    assert nearest(cost, soft, 340.0) == [3, 4, 3]


def test_a_rounded_plan_within_the_budget_is_kept():
    cost = TapCost((10, 10, 10))
    assert nearest(cost, [3.4, 2.6, 3.0], 270.0) == [3, 3, 3]


def test_a_plan_of_at_most_a_budget_is_the_rounded_one_or_the_nearest_below():
    space, soft_sizes = square(2), [2.6, 2.4]
    for amount, expected in ((234, [3, 2]), (233, [2, 2]), (1e9, [3, 2]), (203, [3, 1])):
        constraint = Constraint(COST, Budget(amount, at_most=True), 0.02)
        found = nearest_plan([constraint], soft_sizes, space)
        assert COST(found) <= amount
        assert found == expected
    Constraint(COST, Budget(1e9, at_most=True), 0.02).check(space)
    with pytest.raises(ValueError, match="budget 125 cannot be met"):
        Constraint(COST, Budget(125, at_most=True), 0.02).check(space)


@st.composite
def problems(draw):
    """A space with ties, rectangles and odd ranges, two costs, and amounts that a plan has."""
    axes = {1: (0,), 2: (0, 0), 3: (0, 1)}
    allowed = draw(st.sampled_from([range(1, 5), range(1, 8, 2), range(3, 6)]))
    kinds = draw(st.lists(st.sampled_from([1, 2, 3]), min_size=2, max_size=3))
    layers = [Layer(str(i), (1, 1), allowed, axes[kind]) for i, kind in enumerate(kinds)]
    ties = [[0, 1]] if kinds[0] == kinds[1] and draw(st.booleans()) else []
    space = SizeSpace(layers, ties)
    per_tap = st.tuples(*[st.integers(1, 30)] * len(layers))
    costs = [TapCost(draw(per_tap), draw(st.integers(0, 20)), space.factors()) for _ in range(2)]
    soft_sizes = space.expand(
        torch.tensor([draw(st.floats(allowed[0], allowed[-1])) for _ in space.variable_ranges])
    ).tolist()
    constraints = [
        Constraint(cost, Budget(draw(st.integers(20, 800)), at_most=draw(st.booleans())), 0.1)
        for cost in costs[: draw(st.integers(1, 2))]
    ]
    return space, soft_sizes, constraints


@settings(deadline=None, max_examples=80)
@given(problems())
def test_nearest_plan_of_any_space_and_several_budgets_equals_trying_every_plan(problem):
    space, soft_sizes, constraints = problem
    V = len(space.variable_ranges)
    inside = {}
    for values in itertools.product(*space.variable_ranges):
        sizes = [values[variable] for variable in space.variables]
        if all(c.low <= c.cost(sizes) <= c.high for c in constraints):
            firsts = [space.variables.index(variable) for variable in range(V)]
            inside[tuple(sizes)] = sum((sizes[i] - soft_sizes[i]) ** 2 for i in firsts)
    if not inside:
        with pytest.raises(ValueError, match="no plan "):
            nearest_plan(constraints, soft_sizes, space)
        return
    found = tuple(nearest_plan(constraints, soft_sizes, space))
    assert found in inside
    assert inside[found] == pytest.approx(min(inside.values()))


def test_two_budgets_of_a_deep_network_are_met_at_once():
    per_tap = (256,) * 6 + (512,) + (1024,) * 5 + (2048,) + (4096,) * 5
    positions = (1024,) * 6 + (256,) * 6 + (64,) * 6
    parameters = TapCost(per_tap, 2458)
    macs = TapCost(tuple(c * p for c, p in zip(per_tap, positions)), 442_368, None, "MACs")
    space = square(18)
    amounts = parameters([4] * 18) * 1.1, macs([4] * 18) * 0.8
    constraints = [Constraint(c, Budget(a), 0.02) for c, a in zip((parameters, macs), amounts)]
    found = nearest_plan(constraints, [3.0] * 18, space)
    assert all(c.low <= c.cost(found) <= c.high for c in constraints)
    # That many parameters are used at 64 places each, at the least.
    constraints[1] = Constraint(macs, Budget(macs([1] * 18)), 0.02)
    sentence = (
        r"costs 525,353 parameters and 4,898,816 MACs at once: those of 525,353 parameters cost"
    )
    with pytest.raises(ValueError, match=sentence):
        nearest_plan(constraints, [3.0] * 18, space)


def test_budgets_that_cannot_be_met_at_once_name_the_range_that_is_left():
    # Two layers of equal cost in parameters, the second at ten times as many places.
    costs = TapCost((10, 10)), TapCost((10, 100), 5, None, "MACs")
    constraints = [Constraint(costs[0], Budget(500), 0.02), Constraint(costs[1], Budget(300), 0.02)]
    # 500 parameters are s^2 + t^2 = 50: (1, 7), (5, 5), (7, 1), of 4,915, 2,755 and 595 MACs.
    sentence = "those of 500 parameters cost from about 595 to 4,915 MACs, so pass a budget within"
    with pytest.raises(ValueError, match=sentence):
        nearest_plan(constraints, [3.0, 3.0], square(2))
    constraints = [Constraint(costs[0], Budget(501), 0.001), *constraints]
    with pytest.raises(ValueError, match="at once, so change one of the budgets"):
        nearest_plan(constraints, [3.0, 3.0], square(2))


@pytest.mark.parametrize(
    ("amount", "nearest"),
    [(30.0, "25 and 36,"), (1.03, "1 and 4,"), (48.0, "36 and 49,"), (46.0, "36 and 49,")],
)
def test_a_budget_between_the_costs_that_there_are_names_the_nearest(amount, nearest):
    constraints = [Constraint(TapCost((1,)), Budget(amount), 0.02)]
    sentence = (
        f"with 1 searched layer\\(s\\) or group\\(s\\) the nearest cost {nearest} so pass such"
    )
    with pytest.raises(ValueError, match=sentence):
        nearest_plan(constraints, [3.0], square(1))


def test_a_budget_in_nanoseconds_is_met_to_the_last_one():
    # The solver works with a tolerance, of which such a cost would be worth a thousand.
    costs = TapCost((999_999_937, 1_000_000_007), 3, None, "nanoseconds")
    exact = costs([3, 4])
    assert nearest(costs, [6.6, 6.7], exact, tolerance=1e-15) == [3, 4]
    below = [Constraint(costs, Budget(exact - 1, at_most=True), 0.02)]
    found = nearest_plan(below, [3.0, 4.6], square(2))
    assert found != [3, 4]
    assert costs(found) < exact


def test_two_budgets_that_leave_one_plan_of_a_deep_network_find_it():
    per_tap = (256,) * 6 + (512,) + (1024,) * 5 + (2048,) + (4096,) * 5
    positions = (1024,) * 6 + (256,) * 6 + (64,) * 6
    costs = TapCost(per_tap), TapCost(tuple(c * p for c, p in zip(per_tap, positions)))
    plan = [1, 7, 2, 6, 3, 5, 4, 4, 5, 3, 6, 2, 7, 1, 3, 3, 5, 2]
    constraints = [Constraint(cost, Budget(cost(plan)), 1e-9) for cost in costs]
    found = nearest_plan(constraints, [3.0] * 18, square(18))
    assert [cost(found) for cost in costs] == [cost(plan) for cost in costs]


def test_what_is_filled_in_is_spread_over_the_layers():
    # The sum of |s - v| would be less with 6 5 3 3 3 3.
    assert nearest(TapCost((10,) * 6), [3.0] * 6, 960, tolerance=0.01) == [4] * 6
