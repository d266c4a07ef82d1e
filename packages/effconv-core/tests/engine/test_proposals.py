"""Which plans are proposed."""

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from effconv_core import SearchableCNN
from effconv_core.engine.proposals import Proposals
from effconv_core.engine.race import Trials

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
    children, of_children = proposals.children(plans, losses)
    assert len(children) == len(of_children)
    assert not {tuple(c) for c in children} & {tuple(p) for p in plans}


def test_tied_layers_are_proposed_one_size():
    model, settings = net(), config(tolerance=0.2)
    searchable = SearchableCNN(model, settings, tie=[["1", "4"]], **ALLOWED)
    device = torch.device("cpu")
    trials = Trials(model, settings, Signs(), F.cross_entropy, BATCHES, 2, device)
    plans, _, _ = Proposals(searchable, trials, 1.5 * cost(model)).draw()
    assert plans
    assert all(first == second for first, second in plans)
