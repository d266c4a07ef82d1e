"""FlexNets, and FlexConv in models of others."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from effconv_models import (
    FlexConv,
    FlexConvConfig,
    FlexNet,
    create_model,
    effective_sizes,
    flexnet3,
    flexnet5,
    flexnet7,
    flexnet16,
    left_alone,
    mask_parameters,
    refine,
    to_plain,
    with_flexconv,
)
from effconv_models.flexconv.flexnet import covering_grid
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

SMALL = FlexConvConfig(hidden=4, layers=2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("make", "options", "count"),
    [
        # The paper's 0.67 M, on all three sets.
        (flexnet16, {}, 671_650),
        (flexnet16, {"in_channels": 1, "image_size": 28}, 670_066),
        (flexnet16, {"image_size": 96}, 671_650),
        # The paper has 0.27 M and 0.44 M, which two hidden layers in the kernels would give.
        (flexnet3, {}, 277_090),
        (flexnet5, {}, 454_046),
        (flexnet3, {"config": FlexConvConfig(layers=2)}, 268_130),
        (flexnet5, {"config": FlexConvConfig(layers=2)}, 439_966),
    ],
)
def test_parameter_counts(make, options, count):
    assert parameters(make(**options)) == count


def test_flexnet16_has_16_weighted_layers_in_blocks_of_two():
    net = flexnet16()
    kinds = [type(m) for name, m in net.named_modules() if "shortcut" not in name]
    assert kinds.count(FlexConv) + kinds.count(nn.Linear) == 16
    widths = [24, 24, 36, 36, 36, 48, 48]
    assert [block.conv2.c_out for block in net.blocks] == widths
    assert [type(block.shortcut) is nn.Conv2d for block in net.blocks] == [
        a != b for a, b in itertools.pairwise([24, *widths])
    ]
    assert {block.dropout.p for block in net.blocks} == {0.2}
    assert {layer.grid for layer in net.modules() if isinstance(layer, FlexConv)} == {(33, 33)}
    assert flexnet7 is flexnet16


def test_the_network_is_what_the_paper_draws():
    """Conv, norm, ReLU; blocks with dropout after the first ReLU and a ReLU after the sum."""
    net = FlexNet([1, 2], channels=3, config=SMALL, image_size=8, generator=seeded()).eval()
    images = torch.randn(2, 3, 8, 8, generator=seeded(1))

    def norm(bn, x):
        mean, scale = bn.running_mean, (bn.running_var + bn.eps).rsqrt() * bn.weight
        return (x - mean[:, None, None]) * scale[:, None, None] + bn.bias[:, None, None]

    x = F.relu(norm(net.bn, net.conv(images)))
    for block in net.blocks:
        residual = F.relu(norm(block.bn1, block.conv1(x)))
        residual = norm(block.bn2, block.conv2(residual))
        shortcut = x
        if residual.shape != x.shape:
            weight, bias = block.shortcut.weight[:, :, 0, 0], block.shortcut.bias
            shortcut = torch.einsum("oi,bihw->bohw", weight, x) + bias[:, None, None]
        x = F.relu(residual + shortcut)
    logits = x.mean((2, 3)) @ net.fc.weight.T + net.fc.bias
    torch.testing.assert_close(net(images), logits, rtol=1e-4, atol=1e-5)


def test_initial_values_come_from_the_generator_alone():
    before = torch.get_rng_state()
    one, two = (flexnet3(channels=2, config=SMALL, generator=seeded(5)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one.fc.bias.abs().max() == 0


def test_grids_cover_the_images():
    assert [covering_grid(n) for n in (1, 2, 3, 28, 32, 33, 96)] == [3, 3, 3, 29, 33, 33, 97]
    net = FlexNet([1], channels=2, image_size=(20, 12), config=SMALL)
    assert net.conv.grid == (21, 13)
    assert net(torch.zeros(1, 3, 20, 12)).shape == (1, 10)
    assert net(torch.zeros(1, 3, 31, 9)).shape == (1, 10)


@pytest.mark.parametrize("size", ["abc", ["7", 7], b"ab"])
def test_a_size_that_is_text_is_named(size):
    with pytest.raises(TypeError, match="'abc'|'7'|b'ab'"):
        create_model("flexnet3", input_size=size)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"widths": []}, ValueError, "widths is empty; pass a number for each block"),
        ({"channels": 0}, ValueError, "channels is 0; the smallest allowed is 1"),
        ({"num_classes": 0}, ValueError, "num_classes is 0; the smallest allowed is 1"),
        ({"image_size": 32.0}, TypeError, "image_size is 32.0; it must be an int"),
    ],
)
def test_flexnet_refuses(options, error, sentence):
    with pytest.raises(error, match=sentence):
        FlexNet(**{"widths": [1], **options})


def stretched(model: nn.Module) -> nn.Module:
    """Give masks that are off centre and wide, as if learned."""
    with torch.no_grad():
        for i, mask in enumerate(mask_parameters(model)):
            mask += torch.empty_like(mask).uniform_(-0.05, 0.05, generator=seeded(i))
            mask[:, 1] += 0.2
    return model


def test_a_plain_network_gives_what_the_flexnet_gave():
    net = stretched(flexnet3(channels=4, config=SMALL, image_size=16, generator=seeded())).double()
    images = torch.randn(2, 3, 16, 16, generator=seeded(1), dtype=torch.float64)
    net.train()(images)
    plain = to_plain(net.eval())
    assert not any(isinstance(m, FlexConv) for m in plain.modules())
    assert any(isinstance(m, nn.ZeroPad2d) for m in plain.modules())
    torch.testing.assert_close(plain(images), net(images), rtol=1e-10, atol=1e-10)
    taps = {
        name.removesuffix(".1"): m.kernel_size
        for name, m in plain.named_modules()
        if isinstance(m, nn.Conv2d) and "shortcut" not in name
    }
    told = {n: s if isinstance(s, tuple) else (s, s) for n, s in effective_sizes(net).items()}
    assert taps == told
    # The plain network learns on its own, and the FlexNet stays as it was.
    plain(images).sum().backward()
    assert plain.fc.weight.grad is not None
    assert net.fc.weight.grad is None


def test_a_frozen_mask_is_a_plain_convolution_in_training_too():
    """With all but the input fixed, gradients are those of the plain layer."""
    layer = stretched(nn.Sequential(FlexConv(2, 3, 17, generator=seeded())))[0]
    images = torch.randn(2, 2, 12, 12, generator=seeded(1))
    upstream = torch.randn(2, 3, 12, 12, generator=seeded(2))
    gradients = []
    for module in (layer.requires_grad_(False), to_plain(layer)):
        inputs = images.clone().requires_grad_()
        gradients.append(torch.autograd.grad(module(inputs), inputs, upstream)[0])
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=80)
@given(
    taps=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    padding=st.one_of(st.sampled_from(["same", "valid"]), st.tuples(*[st.integers(0, 3)] * 2)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    lengths=st.tuples(st.integers(9, 14), st.integers(9, 14)),
)
def test_a_layer_that_stands_in_keeps_the_outputs_size(
    taps, padding, stride, dilation, groups, bias, lengths
):
    if padding == "same":
        stride = 1
    conv = nn.Conv2d(
        2, 4, taps, stride, padding, dilation, groups=groups, bias=bias
    )  # fmt: skip
    model, images = nn.Sequential(conv), torch.randn(1, 2, *lengths)
    flexible = with_flexconv(model, images, chosen="0", config=SMALL)
    layer = flexible[0]
    assert flexible(images).shape == model(images).shape
    assert to_plain(flexible)(images).shape == model(images).shape
    assert layer.grid == tuple(covering_grid(length) for length in lengths)
    assert layer.groups == groups
    assert (layer.bias is None) == (not bias)
    torch.testing.assert_close(layer.sample().norm(), conv.weight.norm())


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_layer_that_stands_in_looks_where_the_other_looked(padding, stride, dilation):
    """With a kernel of its middle tap alone, both give the same."""
    conv = nn.Conv2d(2, 3, 3, stride, padding, dilation)
    with torch.no_grad():
        middle = conv.weight[:, :, 1, 1].clone()
        conv.weight.zero_()[:, :, 1, 1] = middle
    layer = with_flexconv(nn.Sequential(conv), grid=9, chosen="*", config=SMALL)[0]
    with torch.no_grad():
        layer.mask[:, 1] = 1e-3
    assert layer.effective_size == (1, 1)
    plain = layer.to_conv()
    [own] = [m for m in plain.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        own.weight.copy_(middle[:, :, None, None])
    images = torch.randn(2, 2, 11, 10)
    torch.testing.assert_close(plain(images), conv(images))


class Net(nn.Module):
    """A first convolution, ones to replace, and one of every kind that stays as it is."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.a = nn.ModuleDict({"dw": nn.Conv2d(4, 4, 5, groups=4, padding=2)})
        self.b = nn.ModuleDict({"dw": nn.Conv2d(4, 4, 3, stride=2), "pw": nn.Conv2d(4, 4, 1)})
        self.mirrored = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3))
        self.up = nn.ConvTranspose2d(4, 4, 3)
        self.hooked = nn.Conv2d(4, 4, 3)
        self.hooked.register_forward_hook(lambda *_: None)
        self.twin, self.other_twin = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
        self.other_twin.weight = self.twin.weight

    def forward(self, images):
        x = self.b["pw"](self.b["dw"](self.a["dw"](self.stem(images))))
        return self.other_twin(self.twin(self.hooked(self.up(self.normed(self.mirrored(x))))))


def test_every_convolution_is_replaced_or_left_alone_with_a_reason():
    net = Net()
    shared = "has its weight in common with another module"
    reasons = {
        "stem": "is the model's first convolution",
        "b.pw": "has one tap",
        "mirrored": "pads by 'reflect', and FlexConv pads only with zeros",
        "normed": "is a ParametrizedConv2d, not one of torch.nn's own Conv1d and Conv2d",
        "up": "is a ConvTranspose2d, not one of torch.nn's own Conv1d and Conv2d",
        "hooked": "has hooks, which another module in its place would lose",
        "twin": shared,
        "other_twin": shared,
    }
    assert left_alone(net) == reasons
    images = torch.randn(2, 3, 24, 24)
    flexible = with_flexconv(net, images, config=SMALL)
    assert list(effective_sizes(flexible)) == ["a.dw", "b.dw"]
    assert flexible(images).shape == net(images).shape
    assert isinstance(net.a["dw"], nn.Conv2d)


def test_a_pattern_leaves_alone_what_cannot_be_replaced():
    flexible = with_flexconv(Net(), grid=9, chosen="*")
    assert list(effective_sizes(flexible)) == ["stem", "a.dw", "b.dw", "b.pw"]
    assert left_alone(Net(), "*")["hooked"].startswith("has hooks")


def test_convolutions_are_chosen_by_pattern_and_predicate():
    net = Net()
    for chosen in ("a.*", ["a.dw"], lambda name, conv: conv.groups > 1):
        assert list(effective_sizes(with_flexconv(net, grid=9, chosen=chosen))) == ["a.dw"]
        assert left_alone(net, chosen)["b.dw"] == "is not chosen"
    assert list(effective_sizes(with_flexconv(net, grid=9, chosen=["stem", "b.*"]))) == [
        *("stem", "b.dw", "b.pw")
    ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "takes an example input or a grid, and one of them"),
        ({"grid": 9, "example": torch.zeros(1, 3, 9, 9)}, "takes an example input or a grid"),
        ({"grid": 9, "chosen": "c.*"}, "'c.\\*' in `chosen` fits no convolution"),
        ({"grid": 9, "chosen": ["a.dw", "hooked"]}, "'hooked' is chosen, but it has hooks"),
        ({"grid": 9, "chosen": lambda *_: False}, "no convolution to replace: of its 10"),
        ({"grid": 8}, "grid is 8; a grid has a middle"),
    ],
)
def test_with_flexconv_refuses(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        with_flexconv(Net(), **options)


def test_models_without_convolutions_or_flexconvs_are_refused():
    with pytest.raises(ValueError, match="the Linear has no convolution to replace: it has none"):
        with_flexconv(nn.Linear(1, 1), grid=9)
    with pytest.raises(
        ValueError, match="the Conv2d has no convolution to replace: .* whole model"
    ):
        with_flexconv(nn.Conv2d(1, 1, 3), grid=9, chosen=lambda *_: True)
    with pytest.raises(ValueError, match="has no FlexConv layer; pass a FlexNet"):
        to_plain(nn.Sequential(nn.Conv2d(1, 1, 3)))


def test_an_example_that_misses_a_layer_is_refused():
    class Forks(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)

        def forward(self, images):
            return self.used(images)

    with pytest.raises(ValueError, match=r"the example does not reach \['unused'\]"):
        with_flexconv(Forks(), torch.zeros(1, 1, 9, 9), chosen="*used")


def test_a_model_is_left_as_it_was():
    """No hooks, statistics or modes change, and neither do the global random numbers."""
    net = create_model("cifar_resnet20", generator=seeded())
    net.layer1.eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = torch.get_rng_state()
    flexible = with_flexconv(net, torch.randn(1, 3, 32, 32, generator=seeded()), generator=seeded())
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not any(m._forward_pre_hooks for m in flexible.modules())
    assert flexible.bn1.num_batches_tracked == 0
    assert flexible.training
    assert not flexible.layer1[0].conv1.training


def test_cifar_resnet44_has_as_many_parameters_as_in_the_paper():
    """2.58 M in Table 2 of EffConv, with the first convolution replaced too."""
    flexible = with_flexconv(create_model("cifar_resnet44"), grid=33, chosen="*conv?")
    assert parameters(flexible) == 2_579_558


def test_sequences():
    net = nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Conv1d(4, 4, 5, stride=2, padding=2), nn.ReLU()
    )
    sequences = torch.randn(3, 2, 30)
    flexible = stretched(with_flexconv(net, sequences))
    assert flexible[2].grid == (29,)
    assert flexible(sequences).shape == net(sequences).shape
    torch.testing.assert_close(
        to_plain(flexible)(sequences), flexible(sequences), rtol=1e-5, atol=1e-5
    )


def test_a_finer_kernel_goes_through_the_taps_of_the_coarser_one():
    net = nn.Sequential(FlexConv(2, 3, 9, margins=((-1, 1), (0, 2)), generator=seeded()))
    with torch.no_grad():
        net[0].mask[:, 1] = 0.3
    fine = refine(net, 3)
    assert fine[0].grid == (25, 25)
    assert fine[0].margins == ((-3, 3), (0, 6))
    (top, _), (left, _) = net[0].window
    (fine_top, _), (fine_left, _) = fine[0].window
    ours = fine[0].sample()[:, :, 3 * top - fine_top :: 3, 3 * left - fine_left :: 3] * 9
    size = net[0].effective_size
    torch.testing.assert_close(
        ours[:, :, : size[0], : size[1]], net[0].sample(), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match="factor is 0; the smallest allowed is 1"):
        refine(net, 0)


def test_a_smooth_layer_answers_alike_at_twice_the_resolution():
    """A kernel and an image without high frequencies: the sum is nearly the integral at both."""
    layer = FlexConv(1, 1, 33, generator=seeded()).double()
    with torch.no_grad():
        layer.network.frequency.mul_(0.05)
        layer.mask[:, 1] = 0.15

    def image(size):
        axis = torch.linspace(-3, 3, size, dtype=torch.float64)
        return torch.exp(-(axis[:, None] ** 2) - 2 * axis**2)[None, None]

    coarse = layer(image(65))
    fine = refine(nn.Sequential(layer), 2)(image(129))[:, :, ::2, ::2]
    assert (coarse - fine).abs().max() < 0.05 * coarse.abs().max()


def test_a_step_moves_masks_and_kernels():
    net = flexnet3(channels=4, config=SMALL, image_size=16, generator=seeded())
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    images = torch.randn(16, 3, 16, 16, generator=seeded(1))
    F.cross_entropy(net(images), torch.arange(16) % 10).backward()
    optimizer.step()
    for (name, now), was in zip(net.named_parameters(), before, strict=True):
        assert (now != was).any(), name
