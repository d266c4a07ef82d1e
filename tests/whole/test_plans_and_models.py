"""A plan is read alike by effconv-core and by effconv-models."""

import pytest
import torch
from effconv_core import SearchableCNN, SizePlan, apply_plan, recipe, search, searched_layers
from effconv_models import block_kernel_sizes, create_model, list_models
from torch import nn


def mixed_plan(model: nn.Module) -> dict[str, int]:
    return {name: 1 + (3 * place) % 7 for place, name in enumerate(searched_layers(model))}


@pytest.mark.parametrize("name", ["cifar_resnet20", "wide_resnet28_1", "resnet18"])
def test_the_default_choice_of_layers_is_every_convolution_inside_blocks(name):
    model = create_model(name)
    assert list(searched_layers(model)) == list(block_kernel_sizes(model))


@pytest.mark.parametrize("name", ["cifar_resnet20", "wide_resnet28_1", "resnet18"])
def test_apply_plan_and_kernel_sizes_build_the_same_network(name):
    model = create_model(name, num_classes=10)
    plan = mixed_plan(model)
    rebuilt = apply_plan(model, plan).eval()
    created = create_model(name, num_classes=10, kernel_sizes=plan).eval()

    assert created.state_dict().keys() == rebuilt.state_dict().keys()
    created.load_state_dict(rebuilt.state_dict())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(created(images), rebuilt(images), rtol=0, atol=0)


def test_a_size_plan_is_a_kernel_sizes_argument_and_its_cost_the_parameter_count():
    model = create_model("cifar_resnet20")
    plan = mixed_plan(model)
    cost = SearchableCNN(model).cost(list(plan.values()))
    created = create_model("cifar_resnet20", kernel_sizes=SizePlan(plan, cost=cost))
    assert sum(parameter.numel() for parameter in created.parameters()) == cost


def test_every_registered_model_can_be_searched():
    learned = ("flex", "ckcnn", "njet", "cifar_resnet44_")  # sizes of their own
    for name in (name for name in list_models() if not name.startswith(learned)):
        with torch.device("meta"):
            assert searched_layers(create_model(name))


@pytest.mark.parametrize("name", ["resnet1d10", "resnet1d14"])
@pytest.mark.parametrize("settings", ["paper", "default"])
def test_a_search_over_sequences_finds_sizes_up_to_31(name, settings):
    generator = torch.Generator().manual_seed(0)
    model = create_model(name, in_channels=1, kernel_sizes=9, generator=generator)
    loader = [
        (torch.randn(4, 1, 196, generator=generator), torch.randint(10, (4,), generator=generator))
        for _ in range(2)
    ]
    steps = []
    large = create_model(name, in_channels=1, kernel_sizes=25)
    budget = sum(parameter.numel() for parameter in large.parameters())
    config = recipe(settings, k=15, epochs=1, finalists=1, least_steps=0)
    plan = search(model, loader, budget=budget, config=config, on_step=steps.append)
    assert len(steps) == 2
    assert list(plan) == list(block_kernel_sizes(model))
    assert 9 < max(plan.values()) <= 31
    found = apply_plan(model, plan)
    assert abs(sum(p.numel() for p in found.parameters()) / budget - 1) <= config.tolerance
    assert found(loader[0][0]).isfinite().all()
