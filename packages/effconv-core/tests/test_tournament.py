import pytest
import torch
import torch.nn.functional as F
from effconv_core import SearchableCNN, recipe, search
from effconv_core.tournament import _candidates, tournament
from torch import nn

BUDGET = 1438  # sizes 3


def net():
    return nn.Sequential(
        nn.Conv2d(1, 4, 1),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def searchable(**changes):
    return SearchableCNN(net(), recipe("default", **{"finalists": 12, **changes}))


class Counted:
    """A loader that counts the batches taken from it."""

    def __init__(self, batches):
        self.batches, self.taken, self.epochs = batches, 0, []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.epochs[-1])
        for _ in range(self.batches):
            self.taken += 1
            yield torch.randn(4, 1, 9, 9, generator=generator), torch.arange(4)


def test_candidates_differ_meet_the_budget_and_begin_with_the_learned_plan():
    network = searchable(finalists=24)
    plan = network.plan(BUDGET)
    candidates = list(_candidates(network, plan, BUDGET))
    assert candidates[0] == tuple(plan.values())
    assert 12 <= len(candidates) == len(set(candidates)) <= 24
    assert all(abs(network.cost(sizes) / BUDGET - 1) <= 0.02 for sizes in candidates)
    assert candidates == list(_candidates(network, plan, BUDGET))


def test_the_plan_of_least_loss_wins_whatever_was_learned():
    network = searchable()
    candidates = list(_candidates(network, network.plan(BUDGET), BUDGET))
    for favourite in (candidates[0], candidates[4], candidates[-1]):
        # Stands in for what the kernels of that plan would do.
        network.forward_at = lambda sizes, inputs, f=favourite: torch.tensor(float(sizes != f))
        found = tournament(network, Counted(40), budget=BUDGET, criterion=lambda output, _: output)
        assert tuple(found.values()) == favourite
        assert found.cost == network.cost(favourite)
        assert found.soft_sizes == network.plan(BUDGET).soft_sizes


def test_thirty_batches_are_compared_of_a_long_loader_and_of_a_short_one():
    long, short = Counted(100), Counted(4)
    for loader in (long, short):
        tournament(searchable(), loader, budget=BUDGET, criterion=F.cross_entropy)
        assert loader.taken == 30
    assert long.epochs == [2]  # after the two epochs of the search
    assert short.epochs == list(range(2, 10))


def test_no_weight_is_changed():
    network = searchable()
    before = [parameter.clone() for parameter in network.parameters()]
    tournament(network, Counted(40), budget=BUDGET, criterion=F.cross_entropy)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters()))


def test_an_iterator_that_the_search_has_used_up_is_refused():
    batches = [(torch.randn(4, 1, 9, 9), torch.arange(4))] * 3
    with pytest.raises(ValueError, match=r"epoch 2.*pass a loader, not an iterator"):
        search(net(), iter(batches), budget=BUDGET, config=recipe("default", epochs=1))


def test_the_default_recipe_takes_the_tournaments_plan():
    loader, config = Counted(8), recipe("default", finalists=12)
    plan = search(net(), loader, budget=BUDGET, config=config)
    assert loader.taken == 2 * 8 + 30
    assert abs(plan.cost / BUDGET - 1) <= 0.02
