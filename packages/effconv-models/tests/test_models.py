import re

import pytest
import torch
from effconv_models import CifarResNet, WideResNet, create_model, list_models
from torch import nn

# The papers print these to one to three digits (not for the depths 26, 38 and 50, which
# lie on the line through the others); torchvision states resnet18's in full.
COUNTS = {
    "multi_resolution10_16": 19_358,
    "multi_resolution10_32": 75_534,
    "multi_resolution10_64": 298_478,
    "multi_resolution10_128": 1_186_734,
    "multi_resolution20_64": 668_438,
    "multi_resolution8_128": 891_302,
    "multi_resolution_mbconv8_128": 1_545_830,
    "cifar_resnet20": 269_722,
    "cifar_resnet26": 366_938,
    "cifar_resnet32": 464_154,
    "cifar_resnet38": 561_370,
    "cifar_resnet44": 658_586,
    "cifar_resnet50": 755_802,
    "cifar_resnet56": 853_018,
    "cifar_resnet110": 1_727_962,
    "resnet1d10": 112_122,
    "resnet1d14": 61_498,
    "resnet18": 11_689_512,
    "wide_resnet16_4": 2_748_890,
    "wide_resnet28_1": 369_498,
    "wide_resnet28_10": 36_479_194,
    "wide_resnet40_2": 2_243_546,
}

LEARNED = ("flex", "ckcnn", "njet", "cifar_resnet44_")
"""Beginnings of the names of networks that learn their sizes; they have tests of their own."""

every_model = pytest.mark.parametrize("name", sorted(COUNTS))


def test_every_model_has_a_count():
    assert [n for n in list_models() if not n.startswith(LEARNED)] == sorted(COUNTS)


@every_model
def test_parameter_count(name):
    with torch.device("meta"):
        model = create_model(name, num_classes=1000 if name == "resnet18" else 10)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]


@every_model
def test_depth_in_the_name_is_the_number_of_layers(name):
    with torch.device("meta"):
        model = create_model(name)
    uncounted = re.compile("downsample|expand|project|excitation")  # parts of a layer
    kinds = [type(m) for layer, m in model.named_modules() if not uncounted.search(layer)]
    depth = int(re.search(r"\d+(?!d)", name)[0])
    # Wide ResNets count three projections and not the classifier.
    unseen = 2 if name.startswith("wide") else 0
    assert (
        kinds.count(nn.Conv1d) + kinds.count(nn.Conv2d) + kinds.count(nn.Linear) + unseen == depth
    )


@every_model
@pytest.mark.parametrize("size", [3, 4])
def test_forward_and_backward(name, size):
    # A step of the largest takes seconds; without values its shapes are checked all the same.
    device = "meta" if COUNTS[name] > 2e7 else "cpu"
    generator = torch.Generator().manual_seed(0)
    with torch.device(device):
        model = create_model(
            name, num_classes=7, in_channels=2, kernel_sizes=size, generator=generator
        )
    shape = (2, 2, 80) if "1d" in name else (2, 2, 16, 16)
    images = torch.randn(*shape, generator=generator).to(device)
    logits = model(images)
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        if device == "cpu":
            assert parameter.grad.isfinite().all(), parameter_name
            assert parameter.grad.any(), parameter_name


# The mixture of resolutions is what torch.nn lacks; the plain CNNs made of it have their own test.
@pytest.mark.parametrize("name", [n for n in COUNTS if not n.startswith("multi_")])
@pytest.mark.parametrize("size", [3, 4])
def test_leaves_are_torch_nn_layers(name, size):
    with torch.device("meta"):
        model = create_model(name, kernel_sizes=size)
    for layer, module in model.named_modules():
        if not list(module.children()):
            assert type(module).__module__.startswith("torch.nn."), layer


@pytest.mark.parametrize("name", ["cifar_resnet20", "resnet18", "wide_resnet16_4"])
def test_equal_generators_give_equal_models_and_leave_the_global_state(name):
    before = torch.get_rng_state()
    one, other = (
        create_model(name, generator=torch.Generator().manual_seed(5)).state_dict()
        for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[key], other[key]) for key in one)
    third = create_model(name, generator=torch.Generator().manual_seed(6)).state_dict()
    for key in ("conv1.weight", "layer3.0.conv2.weight", "fc.weight", "fc.bias"):
        assert not torch.equal(one[key], third[key]), key


def test_without_a_generator_the_global_state_decides():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = create_model("cifar_resnet20").state_dict()
    same = create_model("cifar_resnet20", generator=torch.Generator().manual_seed(5)).state_dict()
    assert all(torch.equal(model[key], same[key]) for key in model)


@pytest.mark.parametrize("name", ["cifar_resnet20", "wide_resnet16_4", "resnet18"])
def test_batch_norm_starts_at_identity(name):
    model = create_model(name)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    for norm in norms:
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()
        assert (norm.running_var == 1).all()
        assert (norm.running_mean == 0).all()


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: CifarResNet(18), ValueError, "depth is 18; depths are 6n \\+ 2, so pass one of 8"),
        (lambda: CifarResNet(2), ValueError, "depth is 2; depths are 6n \\+ 2"),
        (lambda: CifarResNet(20.0), TypeError, "depth is 20.0; it must be an int"),
        (lambda: WideResNet(20, 4), ValueError, "depth is 20; depths are 6n \\+ 4"),
        (lambda: WideResNet(4, 4), ValueError, "depth is 4; depths are 6n \\+ 4"),
        (lambda: WideResNet(16, 0), ValueError, "width is 0; the smallest allowed is 1"),
        (lambda: CifarResNet(8, num_classes=0), ValueError, "num_classes is 0"),
        (lambda: WideResNet(10, 1, in_channels="3"), TypeError, "in_channels is '3'"),
        (lambda: create_model("resnet18", num_classes=True), TypeError, "num_classes is True"),
    ],
)
def test_refused(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()
