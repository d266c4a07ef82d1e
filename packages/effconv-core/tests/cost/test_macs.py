"""Multiply-accumulates against PyTorch's own counter and by hand."""

import pytest
import torch
from effconv_core import Budget, Macs, SearchableCNN, apply_plan, recipe
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


class Net(nn.Module):
    """Every kind of layer, one of them used twice, in front of a matrix product."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.depthwise = nn.Conv2d(6, 6, 5, stride=2, padding=2, groups=6)
        self.row = nn.Conv2d(6, 4, (1, 3))
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 7)

    def forward(self, images, scale=1.0):
        x = self.twice(self.twice(self.stem(images * scale)))
        return self.fc(self.norm(self.row(self.depthwise(x))).mean((2, 3)))


def counted(model, *arguments):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*arguments)
    return counter.get_total_flops() // 2


IMAGES = torch.randn(1, 3, 8, 10)


def test_by_hand():
    cost = Macs(IMAGES)(SearchableCNN(Net()))
    # Outputs: twice 8x10, twice; depthwise 4x5; row 4x3.
    assert cost.per_tap == (2 * 80 * 36, 20 * 6, 12 * 24)
    assert cost.constant == 80 * 9 * 18 + 4 * 7
    assert cost.counts == "multiply-accumulates"


@pytest.mark.parametrize("sizes", [[3, 5, 3], [1, 1, 1], [4, 6, 2], [7, 7, 7]])
@pytest.mark.parametrize("form", ["projected", "literal", "bank"])
def test_equals_pytorchs_counter_of_the_network_that_is_built(sizes, form):
    model = Net()
    searchable = SearchableCNN(model, recipe("paper", kernel_form=form))
    cnn = apply_plan(model, dict(zip(searchable.layers, sizes)))
    assert Macs(IMAGES)(searchable)(sizes) == counted(cnn, IMAGES)


def test_a_batch_counts_as_often_as_it_has_images_and_arguments_come_as_a_tuple():
    searchable = SearchableCNN(Net())
    one = Macs(IMAGES)(searchable)
    two = Macs((IMAGES.expand(2, -1, -1, -1), 0.5))(searchable)
    assert two([4, 3, 2]) == 2 * one([4, 3, 2])


def test_counting_changes_nothing():
    searchable = SearchableCNN(Net()).train()
    before = {name: value.clone() for name, value in searchable.state_dict().items()}
    Macs(IMAGES)(searchable)
    assert searchable.training
    assert searchable.model.norm.training
    assert not any(conv._forward_hooks for conv in searchable.convs)
    assert all(torch.equal(before[n], value) for n, value in searchable.state_dict().items())


def test_a_plan_of_parameters_and_multiply_accumulates_meets_both():
    model = Net()
    searchable = SearchableCNN(model)
    macs = Macs(IMAGES)
    wanted = 40 * 80 * 36, 500
    budgets = [Budget(wanted[0], macs, at_most=True), Budget(wanted[1])]
    plan = searchable.plan(budgets)
    cnn = apply_plan(model, plan)
    assert counted(cnn, IMAGES) <= wanted[0]
    assert abs(sum(p.numel() for p in cnn.parameters()) / wanted[1] - 1) <= 0.02
    first = {"counts": "multiply-accumulates", "amount": wanted[0], "at_most": True, "weight": 1.0}
    before = apply_plan(model, searchable.plan())
    costs = {"cost": counted(cnn, IMAGES), "rounded": counted(before, IMAGES)}
    assert plan.budgets[0] == first | costs
    assert plan.budgets[1]["cost"] == plan.cost
    assert plan.budget == wanted[1]


def test_the_loss_is_the_weighted_sum_of_each_budgets():
    searchable = SearchableCNN(Net(), recipe("bank", budget_weight=3.0))
    searchable(IMAGES)
    macs = Macs(IMAGES)
    one, other = Budget(300, weight=0.25), Budget(4e4, macs, weight=5.0)
    expected = 0.25 * searchable.budget_loss(300) + 5 * searchable.budget_loss(Budget(4e4, macs))
    torch.testing.assert_close(searchable.budget_loss([one, other]), expected)


def test_an_infeasible_number_of_multiply_accumulates_names_the_range():
    searchable = SearchableCNN(Net())
    cost = Macs(IMAGES)(searchable)
    low, high = cost([1, 1, 1]), cost([7, 7, 7])
    sentence = rf"from {low:,} \(all sizes 1\) to {high:,} \(all sizes 7\) multiply-accumulates"
    with pytest.raises(ValueError, match=sentence):
        searchable.plan(Budget(high + 1, Macs(IMAGES)))
