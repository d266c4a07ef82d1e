import collections

import pytest
import torch
from effconv_models import (
    CifarResNet,
    ResNet18,
    WideResNet,
    block_kernel_sizes,
    create_model,
    list_models,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

SMALL = {
    "CifarResNet": (lambda **options: CifarResNet(8, **options), 6),
    "ResNet18": (ResNet18, 16),
    "WideResNet": (lambda **options: WideResNet(10, 2, **options), 6),
}
families = pytest.mark.parametrize(("make", "layers"), SMALL.values(), ids=SMALL.keys())


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def seeded():
    return torch.Generator().manual_seed(3)


def same_state(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


CONVOLUTIONS = nn.Conv1d, nn.Conv2d


LEARNED = ("flex", "ckcnn", "njet", "cifar_resnet44_")


@pytest.mark.parametrize("name", [n for n in list_models() if not n.startswith(LEARNED)])
def test_names_are_those_of_the_3x3_layers_in_forward_order(name):
    with torch.device("meta"):
        model = create_model(name)
        names = list(block_kernel_sizes(model))
        called = []
        modules = dict(model.named_modules())
        for layer, module in modules.items():
            kernel = getattr(module, "kernel_size", ())
            if isinstance(module, CONVOLUTIONS) and set(kernel) == {3} and layer != "conv1":
                module.register_forward_hook(lambda *_, layer=layer: called.append(layer))
        model(torch.zeros((2, 3, 80) if "1d" in name else (2, 3, 32, 32)))
    assert names == list(dict.fromkeys(called))  # some layers run at several resolutions


@families
@pytest.mark.parametrize("size", [1, 3, 4])
def test_int_sequence_and_mapping_give_the_same_model(make, layers, size):
    by_int = make(kernel_sizes=size, generator=seeded())
    names = list(block_kernel_sizes(by_int))
    for kernel_sizes in (
        [size] * layers,
        (size,) * layers,
        dict.fromkeys(names, size),
        collections.OrderedDict.fromkeys(reversed(names), size),
    ):
        assert same_state(by_int, make(kernel_sizes=kernel_sizes, generator=seeded()))


@families
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_sizes_come_back_and_count_by_formula(make, layers, data):
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=layers, max_size=layers))
    with torch.device("meta"):
        published, model = make(), make(kernel_sizes=sizes)
    assert list(block_kernel_sizes(model).values()) == sizes
    convs = [published.get_submodule(name) for name in block_kernel_sizes(published)]
    extra = sum(
        conv.in_channels * conv.out_channels * (size**2 - 9) for conv, size in zip(convs, sizes)
    )
    assert count(model) == count(published) + extra


@families
def test_layers_left_out_of_a_mapping_are_3x3(make, layers):
    with torch.device("meta"):
        assert set(block_kernel_sizes(make(kernel_sizes={})).values()) == {3}
        sizes = block_kernel_sizes(make(kernel_sizes={"layer2.0.conv1": 6}))
    assert sizes.pop("layer2.0.conv1") == 6
    assert list(sizes.values()) == [3] * (layers - 1)


@families
def test_first_convolution_and_shortcuts_keep_their_sizes(make, layers):
    with torch.device("meta"):
        published, model = make(), make(kernel_sizes=5)
    for name, module in published.named_modules():
        if isinstance(module, nn.Conv2d) and name not in block_kernel_sizes(published):
            assert model.get_submodule(name).kernel_size == module.kernel_size


@families
@pytest.mark.parametrize("size", range(1, 8))
def test_no_size_changes_the_output_size_of_a_layer(make, layers, size):
    def output_sizes(kernel_sizes):
        model, found = make(kernel_sizes=kernel_sizes), {}
        for name in block_kernel_sizes(model):
            model.get_submodule(name).register_forward_hook(
                lambda _, inputs, output, name=name: found.update({name: output.shape})
            )
        model(torch.zeros(2, 3, 45, 38))
        return found

    with torch.device("meta"):
        assert output_sizes(size) == output_sizes(3)


@pytest.mark.parametrize(
    ("kernel_sizes", "error", "sentence"),
    [
        (0, ValueError, "kernel_sizes is 0; the smallest allowed is 1"),
        (3.0, TypeError, "kernel_sizes is of type float; pass an int, a sequence of one int"),
        (True, TypeError, "kernel_sizes is of type bool; pass an int"),
        ("3", TypeError, "kernel_sizes is of type str; pass an int"),
        (None, TypeError, "kernel_sizes is of type NoneType; pass an int"),
        (torch.tensor([3] * 6), TypeError, "kernel_sizes is of type Tensor; pass an int"),
        (
            [3] * 5,
            ValueError,
            "kernel_sizes holds 5 sizes; this model needs one for each of the 6 layers "
            "'layer1.0.conv1' to 'layer3.0.conv2', so pass 6,",
        ),
        ([], ValueError, "kernel_sizes holds 0 sizes"),
        (
            [3, 3, 3, -2, 3, 3],
            ValueError,
            "kernel size of layer 'layer2.0.conv2' is -2; the smallest allowed is 1",
        ),
        (
            [3, 3.5, 3, 3, 3, 3],
            TypeError,
            "kernel size of layer 'layer1.0.conv2' is 3.5; it must be an int",
        ),
        (
            {"layer3.0.conv1": False},
            TypeError,
            "kernel size of layer 'layer3.0.conv1' is False; it must be an int",
        ),
        (
            {"layer3.0.conv1": 0},
            ValueError,
            "kernel size of layer 'layer3.0.conv1' is 0; the smallest allowed is 1",
        ),
        (
            {"layer1.0.conv1": 3, "layer1.1.conv1": 3, "conv1": 5},
            ValueError,
            r"kernel_sizes names unknown layer\(s\) \['layer1.1.conv1', 'conv1'\]; this model's "
            "sizes are those of the 6 layers 'layer1.0.conv1' to 'layer3.0.conv2', so pass names "
            "that block_kernel_sizes lists",
        ),
    ],
)
def test_kernel_sizes_refused(kernel_sizes, error, sentence):
    with pytest.raises(error, match=sentence):
        CifarResNet(8, kernel_sizes=kernel_sizes)


def test_block_kernel_sizes_refuses_other_networks():
    with pytest.raises(ValueError, match="the Linear has no layer named like 'layer1.0.conv1'"):
        block_kernel_sizes(nn.Linear(2, 2))
