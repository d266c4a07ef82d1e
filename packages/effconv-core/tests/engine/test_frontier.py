"""`frontier`: plans of many costs after one search."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from effconv_core import (
    Budget,
    Frontier,
    FrontierPoint,
    Macs,
    SearchableCNN,
    frontier,
    recipe,
    search,
)
from effconv_core.engine.race import Result, Trials
from torch import nn

CONFIG = recipe("bank", least_steps=0, race_steps=3)


def network(channels: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, channels, 1),
        *(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()),
        nn.Conv2d(channels, channels, 3, padding=1),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2)),
    )


def batches(count: int = 10) -> list:
    generator = torch.Generator().manual_seed(0)
    labels = [torch.randint(2, (8,), generator=generator) for _ in range(count)]
    return [
        (torch.randn(8, 1, 8, 8, generator=generator) + y[:, None, None, None], y) for y in labels
    ]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    searchable = SearchableCNN(network(), CONFIG)
    path = tmp_path_factory.mktemp("search") / "search.safetensors"
    search(searchable, batches(), checkpoint=path)
    return searchable, path


@pytest.fixture(scope="module")
def three(searched):
    """A frontier of three amounts."""
    return frontier(searched[0], batches(), amounts=[200, 300, 500])


SETTINGS = {"data": "own", "batch_size": 8}


@pytest.fixture(scope="module")
def made(searched, tmp_path_factory):
    """The checkpoint of a frontier of two amounts."""
    path = tmp_path_factory.mktemp("frontier") / "f.progress.json"
    frontier(searched[0], batches(), amounts=[200, 300], checkpoint=path, settings=SETTINGS)
    return path


@pytest.fixture
def kept(made, tmp_path):
    """A copy of it."""
    return shutil.copy(made, tmp_path / "f.progress.json")


def test_a_dearer_point_has_a_lower_loss_and_costs_are_those_of_the_sizes(searched):
    searchable, _ = searched
    found = frontier(searchable, batches())
    costs = [point.cost for point in found.points]
    losses = [point.loss for point in found.points]
    assert costs == sorted(set(costs))
    assert losses == sorted(losses, reverse=True)
    own = searchable.cost(list(searchable.original_sizes.values()))
    for point in (*found.points, found.original):
        assert searchable.cost(list(point.sizes.values())) == point.cost <= 2 * own
    assert found.original.sizes == {"1": 3, "4": 3}
    assert found.knee in found.points


@pytest.mark.parametrize(("race_steps", "steps"), [(195, 60), (7, 7), (0, 60)])
def test_a_plan_is_trained_for_at_most_60_steps(monkeypatch, race_steps, steps):
    taken = []

    def run(self, plans, *, steps, **options):
        taken.append(steps)
        return [Result(1.0, 0.5) for _ in plans]

    monkeypatch.setattr(Trials, "run", run)
    settings = recipe("bank", least_steps=0, race_steps=race_steps)
    frontier(SearchableCNN(network(), settings), batches(), amounts=[200, 300])
    assert taken == [steps] * 3


@pytest.mark.parametrize("times", [0.5, 0.8, 1.0, 1.7, 3.0])
def test_a_plan_of_any_budget(searched, three, times):
    budget = times * three.original.cost
    plan = three.plan(searched[0], Budget(budget, at_most=True))
    assert 0.6 * budget <= plan.cost <= budget


def test_multiply_accumulates_are_counted_where_asked(searched):
    searchable, _ = searched
    counter = Macs(torch.zeros(1, 1, 8, 8))
    found = frontier(searchable, batches(), counter=counter, amounts=[20_000, 40_000])
    assert found.counts == counter(searchable).counts
    assert max(point.cost for point in found.points) <= 40_000


def test_validation_data_are_what_a_frontier_tests_on(searched, tmp_path):
    path, validation = tmp_path / "f.progress.json", batches()
    turned = [(images, 1 - labels) for images, labels in validation]
    options = {"amounts": [300], "checkpoint": path}
    found = frontier(searched[0], batches(3), validation=validation, **options)
    other = frontier(searched[0], batches(3), validation=turned, amounts=[300])
    assert found.original.loss != other.original.loss
    with pytest.raises(ValueError, match="validation"):
        frontier(searched[0], batches(3), validation=validation[:8], **options)


def test_a_file_is_read_as_it_was_written(tmp_path):
    points = (
        FrontierPoint({"a": 1, "b": (3, 1)}, 10, 0.5),
        FrontierPoint({"a": 3, "b": (3, 5)}, 30, 0.2),
    )
    found = Frontier("parameters", points, points[0], 64, 1000, {"a": (1, 7, 1), "b": (1, 7, 2)})
    found.save(tmp_path / "frontier.json")
    assert Frontier.load(tmp_path / "frontier.json") == found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("schema", 9),
        ("points", []),
        ("steps", "many"),
        ("original", {"sizes": {"a": 0}, "cost": 1, "loss": 0.0}),
        ("allowed", {"a": [1, 7, 1], "c": [1, 7, 1]}),
        ("points", [{"sizes": {"a": 1, "b": 3}, "cost": 3, "loss": 0.1}] * 2),
    ],
)
def test_another_file_is_refused_by_its_name(name, value, tmp_path):
    point = {"sizes": {"a": 1, "b": 3}, "cost": 10, "loss": 0.5}
    content = {"schema": 1, "counts": "parameters", "points": [point], "original": point}
    content |= {"steps": 64, "spent": 1, "allowed": {"a": [1, 7, 1], "b": [1, 7, 1]}, name: value}
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"odd\.json"):
        Frontier.load(path)


def test_three_points_bend_at_their_knee():
    rows = ((1, 10, 1.0), (3, 20, 0.2), (5, 40, 0.1))
    points = tuple(FrontierPoint({"a": size}, cost, loss) for size, cost, loss in rows)
    assert Frontier("parameters", points, points[0], 1, 1, {"a": (1, 7, 1)}).knee.cost == 20


def test_too_few_batches_are_refused(searched):
    with pytest.raises(ValueError, match="4 batches"):
        frontier(searched[0], batches(4))
    with pytest.raises(ValueError, match="amounts"):
        frontier(searched[0], batches(), amounts=[])


@pytest.mark.parametrize("last", [5, -1.0, math.nan, "900"])
def test_an_amount_that_no_plan_meets_is_refused_before_any_training(searched, last):
    run = []
    with pytest.raises((ValueError, TypeError), match=f"budget is|budget {last}"):
        frontier(searched[0], batches(), amounts=[300, last], criterion=lambda *_: run.append(1))
    assert not run


@pytest.mark.parametrize("allowed", [range(1, 3), range(3, 4), range(5, 8)])
def test_amounts_by_default_are_costs_of_plans_where_the_own_sizes_are_not_allowed(allowed):
    searchable = SearchableCNN(network(), CONFIG, allowed=allowed)
    found = frontier(searchable, batches())
    least, most = searchable.space.smallest(), searchable.space.largest()
    assert found.points
    assert all(size in allowed for point in found.points for size in point.sizes.values())
    assert searchable.cost(least) <= found.points[0].cost <= searchable.cost(most)


def test_amounts_may_be_numpys_and_equal_ones_count_once(searched, three):
    told = []
    amounts = np.array([200, 300, 300, 500], dtype=np.float32)
    found = frontier(searched[0], batches(), amounts=amounts, on_amount=lambda *n: told.append(n))
    assert found == three
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("context", [torch.no_grad, lambda: torch.autocast("cpu")])
def test_where_nothing_is_learned_is_refused(searched, context):
    with context(), pytest.raises(ValueError, match=r"gradients are off|torch\.autocast is on"):
        frontier(searched[0], batches(), amounts=[300])


def stop_at(number: int):
    def on_amount(current: int, _: int) -> None:
        if current == number:
            raise KeyboardInterrupt

    return on_amount


@pytest.mark.parametrize("number", [1, 3])
def test_a_stopped_frontier_goes_on_where_it_was(searched, three, number, tmp_path):
    searchable, _ = searched
    amounts, path = [200, 300, 500], tmp_path / "f.progress.json"
    with pytest.raises(KeyboardInterrupt):
        frontier(searchable, batches(), amounts=amounts, checkpoint=path, on_amount=stop_at(number))
    begun = json.loads(path.read_text())["stages"]
    assert len(begun) == number  # the original, and the amounts before the one that was begun
    again = frontier(searchable, batches(), amounts=amounts, checkpoint=path)
    assert again == three

    done = json.loads(path.read_text())
    assert done["stages"].items() >= begun.items()
    assert frontier(searchable, batches(), amounts=amounts, checkpoint=path) == again
    assert json.loads(path.read_text()) == done


@pytest.mark.parametrize(
    "change",
    [
        {"amounts": [200, 400]},
        {"counter": Macs(torch.zeros(1, 1, 8, 8)), "amounts": [20_000, 40_000]},
        {"loader": batches(11)},
        {"settings": {"data": "other", "batch_size": 8}},
    ],
)
def test_the_checkpoint_of_another_frontier_is_refused(searched, change, kept):
    before = kept.read_bytes()
    keywords = {"amounts": [200, 300], "checkpoint": kept, "settings": SETTINGS} | change
    loader = keywords.pop("loader", batches())
    with pytest.raises(ValueError, match=r"f\.progress\.json"):
        frontier(searched[0], loader, **keywords)
    assert kept.read_bytes() == before


@pytest.mark.parametrize(
    "row",
    [
        [[3, 3], 0.5, 1],  # a number too few
        [[3], 0.5, 1, 1],  # a size too few
        [[3, 99], 0.5, 1, 1],  # a size that is not allowed
        [[3, 3], "low", 1, 1],
        "text",
    ],
)
def test_stages_that_no_frontier_makes_are_refused(searched, row, kept):
    content = json.loads(kept.read_text())
    content["stages"]["amount 0"] = row
    kept.write_text(json.dumps(content))
    keywords = {"amounts": [200, 300], "checkpoint": kept, "settings": SETTINGS}
    with pytest.raises(ValueError, match=r"f\.progress\.json"):
        frontier(searched[0], batches(), **keywords)
