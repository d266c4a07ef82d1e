import dataclasses
import sys

import pytest
import torch
import torch.nn.functional as F
from effconv_core import SearchableCNN, recipe, search
from effconv_core.engine.tournament import _candidates, tournament
from torch import nn

BUDGET = 1450  # sizes 3


def net():
    return nn.Sequential(
        nn.Conv2d(1, 4, 1),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.BatchNorm2d(6),
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
    return SearchableCNN(net(), recipe("bank", **{"finalists": 12, "race_steps": 0, **changes}))


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


def stand_in(monkeypatch, loss_of):
    """Let each plan have a known loss, whatever its kernels do."""
    monkeypatch.setattr(
        SearchableCNN, "forward_at", lambda self, sizes, inputs: torch.tensor(loss_of(sizes))
    )
    return lambda output, _: output


def test_the_plan_of_least_loss_wins_whatever_was_learned(monkeypatch):
    network = searchable()
    candidates = list(_candidates(network, network.plan(BUDGET), BUDGET))
    for favourite in (candidates[0], candidates[4], candidates[-1]):
        criterion = stand_in(monkeypatch, lambda sizes, f=favourite: float(sizes != f))
        found = tournament(network, Counted(40), budget=BUDGET, criterion=criterion)
        assert tuple(found.values()) == favourite
        assert found.cost == network.cost(favourite)
        assert found.soft_sizes == network.plan(BUDGET).soft_sizes


def test_a_plan_without_a_finite_loss_never_wins(monkeypatch):
    network = searchable()
    candidates = list(_candidates(network, network.plan(BUDGET), BUDGET))
    criterion = stand_in(monkeypatch, lambda sizes: 5.0 if sizes == candidates[3] else float("nan"))
    found = tournament(network, Counted(40), budget=BUDGET, criterion=criterion)
    assert tuple(found.values()) == candidates[3]
    criterion = stand_in(monkeypatch, lambda sizes: float("nan"))
    with pytest.raises(FloatingPointError, match="no plan near the learned sizes"):
        tournament(network, Counted(40), budget=BUDGET, criterion=criterion)


def test_thirty_batches_are_compared_of_a_long_loader_and_of_a_short_one():
    long, short = Counted(100), Counted(4)
    for loader in (long, short):
        rounds, network = [], searchable()
        tournament(network, loader, budget=BUDGET, on_round=lambda *t, r=rounds: r.append(t))
        assert loader.taken == 30
        left = len(list(_candidates(network, network.plan(BUDGET), BUDGET)))
        for number, told in enumerate(rounds, 1):
            assert told == (number, left)
            left = -(-left // 2)
        assert len(rounds) == 4
    assert long.epochs == [1]  # after the epoch of the search
    assert short.epochs == list(range(1, 9))


def test_the_searchable_network_is_not_changed():
    network = searchable()
    network(torch.randn(4, 1, 9, 9))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert "model.2.running_mean" in before
    tournament(network, Counted(40), budget=BUDGET)
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(before[name], value)


def test_plans_are_compared_without_dropout_on_the_batches_own_statistics():
    network = searchable()
    network.model[5] = nn.Dropout(0.5)
    network.model[2].running_mean.fill_(1e6)  # would drown the images
    found = [tournament(network, Counted(40), budget=BUDGET) for _ in range(3)]
    assert found[0] == found[1] == found[2]
    spread = []
    criterion = stand_in_spread(spread)
    tournament(network, Counted(40), budget=BUDGET, criterion=criterion)
    assert min(spread) > 1e-4  # the images of a batch still differ in the outputs


def test_normalisation_that_the_network_keeps_frozen_stays_so():
    class Frozen(nn.Sequential):
        def train(self, mode=True):
            super().train(mode)
            self[2].eval()
            return self

    network, spread = SearchableCNN(Frozen(*net()), searchable().config), []
    network.model[2].running_mean.fill_(1e6)  # drowns the images, as in the network itself
    tournament(network, Counted(40), budget=BUDGET, criterion=stand_in_spread(spread))
    assert max(spread) < 1e-4


def stand_in_spread(spread):
    def criterion(outputs, targets):
        spread.append(outputs.std(dim=0).mean().item())
        return F.cross_entropy(outputs, targets)

    return criterion


def test_one_finalist_is_no_tournament():
    with pytest.raises(ValueError, match=r"take searchable.plan\(budget\) or raise finalists"):
        tournament(searchable(finalists=1), Counted(40), budget=BUDGET)


def test_a_search_gives_the_tournaments_plan_and_keeps_it_in_its_checkpoint(tmp_path, monkeypatch):
    config = recipe("bank", least_steps=0, finalists=12, race_steps=0)
    loader, model, keywords = Counted(8), net(), {"budget": BUDGET, "config": config}
    network = SearchableCNN(model, config)
    learned = search(
        model, Counted(8), budget=BUDGET, config=dataclasses.replace(config, finalists=1)
    )
    other = next(
        sizes
        for sizes in _candidates(network, network.plan(BUDGET), BUDGET)
        if sizes != tuple(learned.values())
    )

    def favour(searchable, loader, *, budget, **_):
        plan = searchable.plan(budget)
        return dataclasses.replace(plan, sizes=dict(zip(plan, other)), cost=network.cost(other))

    monkeypatch.setattr(sys.modules["effconv_core.engine.search"], "tournament", favour)
    found = search(model, loader, checkpoint=tmp_path / "s.safetensors", **keywords)
    assert tuple(found.values()) == other
    monkeypatch.undo()
    # Another tournament, on other batches, could end otherwise; what was found stays.
    again = search(model, [], checkpoint=tmp_path / "s.safetensors", **keywords)
    assert again == found
