"""Which plans are proposed."""

import copy
import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from effconv_core import SearchableCNN
from effconv_core.engine.proposals import KernelLosses, Proposals
from effconv_core.engine.race import Trials
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

spec = importlib.util.spec_from_file_location("signs", Path(__file__).with_name("signs.py"))
signs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(signs)
ALLOWED, Signs, config, cost, net = signs.ALLOWED, signs.Signs, signs.config, signs.cost, signs.net
BATCHES = signs.BATCHES


def searched(**changes) -> tuple[SearchableCNN, Trials]:
    model, settings = net(), config(**changes)
    searchable = SearchableCNN(model, settings, **ALLOWED)
    device = torch.device("cpu")
    return searchable, Trials(model, settings, Signs(), F.cross_entropy, BATCHES, 2, device)


def test_proposals_are_distinct_within_the_budget_and_hold_the_original():
    searchable, trials = searched(finalists=16)
    budget = cost(net())
    proposals = Proposals(searchable, trials, budget)
    plans, losses, passes = proposals.draw()
    assert plans[0] == [3, 3]
    assert len({tuple(plan) for plan in plans}) == len(plans) == len(losses) <= 16
    assert all(abs(searchable.cost(plan) / budget - 1) <= 0.02 for plan in plans)
    assert passes % 4 == 0


class Losses:
    """Losses that speak for plans near some sizes."""

    def __init__(self, sizes):
        self.sizes, self.passes = sizes, 0

    def __call__(self, plan):
        return sum(abs(a - b) for a, b in zip(self.sizes, plan, strict=True))


@pytest.mark.parametrize("times", [1, 1.5])
def test_plans_further_along_the_way_are_proposed_whatever_their_loss(times):
    stem, *rest = net()
    model = nn.Sequential(stem, nn.Conv1d(4, 4, 3, padding=1), nn.BatchNorm1d(4), *rest)
    settings = config()
    searchable = SearchableCNN(model, settings, **ALLOWED)
    device = torch.device("cpu")
    trials = Trials(model, settings, Signs(), F.cross_entropy, BATCHES, 2, device)
    proposals = Proposals(searchable, trials, times * cost(model))
    learned, start = np.array([4.0, 2.5, 3.0]), np.array([3.0, 3.0, 3.0])
    proposals.learned, proposals.losses = learned.tolist(), Losses(learned)
    within = proposals.within
    further = [list(within.nearest(start * (learned / start) ** n)) for n in (2, 4)]
    plans, losses, _ = proposals.draw()
    assert all(plan in plans for plan in further)
    assert losses[plans.index(further[1])] > min(losses) + 1
    assert list(within.nearest(start)) in plans


def test_sizes_are_proposed_that_are_larger_where_a_tap_is_cheap():
    model = net((5, 5))
    model[4], model[7] = nn.Conv1d(8, 16, 5, padding=2), nn.Linear(16, 2)
    settings = config(count="searched")
    searchable = SearchableCNN(model, settings, allowed=range(1, 14))
    device = torch.device("cpu")
    trials = Trials(model, settings, Signs(), F.cross_entropy, BATCHES, 2, device)
    plans, _, _ = Proposals(searchable, trials, 800).draw()
    # A tap costs 32 in the first layer and 128 in the second, of which the root is 2.
    assert [9, 4] in plans
    assert 9 * 32 + 4 * 128 == 800


def test_tied_layers_are_proposed_one_size():
    model, settings = net(), config(tolerance=0.2)
    searchable = SearchableCNN(model, settings, tie=[["1", "4"]], **ALLOWED)
    device = torch.device("cpu")
    trials = Trials(model, settings, Signs(), F.cross_entropy, BATCHES, 2, device)
    plans, _, _ = Proposals(searchable, trials, 1.5 * cost(model)).draw()
    assert plans
    assert all(first == second for first, second in plans)


def test_a_plans_loss_is_that_of_its_kernels_and_is_computed_once():
    searchable, trials = searched()
    losses = KernelLosses(searchable, trials)
    batches = list(Signs())[:4]
    expected = []
    for plan in ([1, 5], [7, 3]):
        reference = copy.deepcopy(searchable).train()
        with torch.no_grad():
            each = [F.cross_entropy(reference.forward_at(plan, x), y) for x, y in batches]
        expected.append(sum(each).item() / 4)
    assert [losses((1, 5)), losses((7, 3)), losses((1, 5))] == pytest.approx(
        [*expected, expected[0]], rel=1e-5
    )
    assert losses.passes == 8


@pytest.mark.parametrize("own", [None, torch.Generator()])
def test_a_plans_loss_is_on_the_same_validation_batches_whatever_the_global_seed(own):
    searchable, trials = searched()
    data = TensorDataset(*(part.flatten(0, 1) for part in (Signs().inputs, Signs().labels)))
    validation = DataLoader(data, batch_size=16, shuffle=True, generator=own)
    trials = dataclasses.replace(trials, validation=validation, validation_steps=BATCHES)
    losses = []
    for seed in range(2):
        torch.manual_seed(seed)
        before = [torch.get_rng_state(), *([] if own is None else [own.get_state()])]
        losses.append(KernelLosses(searchable, trials)((1, 5)))
        after = [torch.get_rng_state(), *([] if own is None else [own.get_state()])]
        assert all(map(torch.equal, before, after))
    assert losses[0] == losses[1]


def test_a_plan_whose_loss_is_not_finite_comes_last():
    searchable, trials = searched()
    with torch.no_grad():
        searchable.model[-1].bias.fill_(torch.inf)
    assert KernelLosses(searchable, trials)((3, 3)) == 1e30


@pytest.mark.parametrize("error", [ValueError, TypeError, RuntimeError])
def test_an_error_of_a_loss_is_the_one_that_is_raised(error):
    def broken(outputs, targets):
        raise error("of the criterion")

    searchable, trials = searched()
    proposals = Proposals(searchable, dataclasses.replace(trials, criterion=broken), cost(net()))
    with pytest.raises(error, match="of the criterion"):
        proposals.draw()


def test_where_all_sizes_are_fixed_there_is_one_plan():
    model, settings = net(), config()
    searchable = SearchableCNN(model, settings, allowed=range(3, 4))
    trials = Trials(model, settings, Signs(), F.cross_entropy, BATCHES, 2, torch.device("cpu"))
    proposals = Proposals(searchable, trials, cost(model))
    plans, _, _ = proposals.draw()
    assert plans == [[3, 3]]
