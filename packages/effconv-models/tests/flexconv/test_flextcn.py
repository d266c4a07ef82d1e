"""FlexTCNs: causal, of the published sizes, and equal to plain arithmetic."""

import pytest
import torch
from effconv_models import (
    FlexConvConfig,
    effective_sizes,
    flexnet7,
    flextcn2,
    flextcn4,
    flextcn6,
    flextcn7,
    to_plain,
)
from effconv_models.flexconv.flextcn import FlexTCNBlock

SMALL = {"length": 40, "channels": 5, "config": FlexConvConfig(hidden=4, layers=2, mask_width=0.2)}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def flexconv_parameters(c_in, c_out, axes=1, hidden=32, layers=3):
    """Return the parameters of a layer: filters, linear maps, output, mask, bias."""
    filters = (layers + 1) * hidden * (3 * axes + 1)
    maps = layers * (hidden + 1) * hidden
    return filters + maps + (hidden + 1) * c_in * c_out + 2 * axes + c_out


@pytest.mark.parametrize(
    ("make", "blocks", "thousands"),
    [(flextcn2, 2, 108), (flextcn4, 4, 241), (flextcn6, 6, 375), (flextcn7, 7, 442)],
)
def test_parameters(make, blocks, thousands):
    model = make(in_channels=3)
    layers = [(3, 30), *[(30, 30)] * (2 * blocks - 1)]
    expected = sum(flexconv_parameters(*pair) for pair in layers)
    expected += 2 * blocks * 60 + (3 * 30 + 30) + 310  # norms, shortcut, classifier
    count = sum(p.numel() for p in model.parameters())
    assert count == expected
    assert round(count / 1000) == thousands


def test_the_0_67_million_of_flextcn7_are_those_of_the_network_for_images():
    assert round(sum(p.numel() for p in flexnet7().parameters()) / 1e6, 2) == 0.67


def test_features_at_a_step_depend_on_no_later_one():
    model = flextcn2(**SMALL, generator=seeded()).eval()
    x = torch.randn(2, 1, 40, generator=seeded(1))
    changed = x.clone()
    changed[:, :, 25] += 1
    with torch.no_grad():
        moved = (model.blocks(x) - model.blocks(changed)).abs().amax((0, 1))
        assert not moved[:25].any()
        assert moved[25] > 0
        assert torch.equal(model(x), model.fc(model.blocks(x)[:, :, -1]))


def test_a_block_against_sums_over_the_past():
    options = {"dropout": 0.0, "config": SMALL["config"], "generator": seeded()}
    block = FlexTCNBlock(2, 3, 41, **options).eval()
    x = torch.randn(1, 2, 12, generator=seeded(1))

    def convolved(layer, x):
        kernel, out = layer.sample(), torch.zeros(layer.c_out, x.shape[1])
        newest = kernel.shape[2] - 1
        for t in range(x.shape[1]):
            for ago in range(min(t, newest) + 1):
                out[:, t] += kernel[:, :, newest - ago] @ x[:, t - ago]
        return (out + layer.bias[:, None]) / (1 + 1e-5) ** 0.5  # and batch norm's first statistics

    with torch.no_grad():
        residual = convolved(block.conv2, convolved(block.conv1, x[0]).relu()).relu()
        shortcut = block.shortcut.weight[:, :, 0] @ x[0] + block.shortcut.bias[:, None]
        torch.testing.assert_close(block(x)[0], (residual + shortcut).relu())


def test_the_plain_network_is_the_same_function():
    model = flextcn2(**SMALL, generator=seeded()).eval()
    x = torch.randn(2, 1, 40, generator=seeded(1))
    plain = to_plain(model)
    torch.testing.assert_close(plain(x), model(x))
    assert set(effective_sizes(model)) == {f"blocks.{b}.conv{c}" for b in (0, 1) for c in (1, 2)}


def test_equal_generators_give_equal_networks_and_leave_the_global_state():
    before = torch.get_rng_state()
    one, other = (flextcn2(**SMALL, generator=seeded(3)).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_it_remembers_what_began_the_sequence():
    """The class is the sign of the first step, 39 steps before the one that is read."""
    wide = {**SMALL, "config": FlexConvConfig(hidden=8, mask_width=0.5)}
    model = flextcn2(**wide, num_classes=2, dropout=0.0, generator=seeded())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    generator = seeded(4)

    def batch(B):
        x = 0.1 * torch.randn(B, 1, 40, generator=generator)
        y = torch.randint(2, (B,), generator=generator)
        x[:, 0, 0] += 2.0 * y - 1
        return x, y

    for _ in range(60):
        x, y = batch(64)
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x, y = batch(256)
    with torch.no_grad():
        assert (model.eval()(x).argmax(1) == y).float().mean() > 0.9


def test_numbers_are_checked():
    for wrong in ({"channels": 0}, {"num_classes": 0}, {"length": 0}):
        with pytest.raises(ValueError, match="smallest allowed"):
            flextcn2(**wrong)
