"""Steps that are timed."""

import pytest
import torch
import torch.nn.functional as F
from effconv_core import SearchableCNN
from effconv_models import create_model

from tools.bench.steps import equal_plan, held_at, random_batch, search_step, training_step
from tools.presets import demo_network


@pytest.mark.parametrize("recipe", ["paper", "default"])
def test_sizes_are_held(recipe):
    for size in (3, 5, 9, 13):
        config = held_at(size, recipe, k=max(3, size - 1))
        held = SearchableCNN(create_model("cifar_resnet20"), config).double()
        assert held.plan().sizes == dict.fromkeys(held.layers, size)


@pytest.mark.parametrize("size", [1, 7])
def test_a_size_at_the_end_is_refused(size):
    with pytest.raises(ValueError, match=f"size is {size}"):
        held_at(size, "paper")


def test_a_training_step_is_adamw_on_loss_and_penalty():
    network, twin = (demo_network(1, 4, torch.Generator().manual_seed(0)) for _ in range(2))
    images, labels = torch.randn(4, 1, 16, 16), torch.arange(4)
    groups = [{"params": network.parameters(), "lr": 1e-2}]
    first = network.see.weight
    step = training_step(network, groups, (images, labels), lambda: 3 * first.square().sum())
    optimizer = torch.optim.AdamW(twin.parameters(), 1e-2)
    for _ in range(2):
        step()
        optimizer.zero_grad()
        loss = F.cross_entropy(twin(images), labels) + 3 * twin.see.weight.square().sum()
        loss.backward()
        optimizer.step()
    for ours, theirs in zip(network.parameters(), twin.parameters()):
        torch.testing.assert_close(ours, theirs)


def test_a_search_step_moves_predictors_and_network():
    searchable = SearchableCNN(create_model("cifar_resnet20"), held_at(3, "default"))
    before = {name: value.clone() for name, value in searchable.named_parameters()}
    search_step(searchable.train(), random_batch(2, 8, "cpu"), 1e5)()
    moved = {n for n, value in searchable.named_parameters() if not torch.equal(value, before[n])}
    assert any(name.startswith("kernel_predictor") for name in moved)
    assert any(name.startswith("model") for name in moved)


def test_a_plan_of_equal_sizes_meets_its_budget():
    model = create_model("cifar_resnet20")
    plan, soft_size = equal_plan(model, 0.66e6)
    assert abs(plan.cost / 0.66e6 - 1) <= 0.02
    assert max(plan.values()) - min(plan.values()) <= 1
    assert min(plan.values()) <= soft_size <= max(plan.values())
    with pytest.raises(ValueError, match="budget is 10;"):
        equal_plan(model, 10.0)
