"""Pruning of multi-resolution networks, and the plain CNNs made of them."""

import pytest
import torch
from effconv_models import (
    MBConv6,
    MultiResolutionNet,
    best_resolutions,
    effective_sizes,
    learned_depth,
    mixing_parameters,
    mixing_weights,
    multiply_accumulates,
    one_resolution,
    prune,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(*shape, seed=1):
    return torch.randn(*shape, generator=seeded(seed))


def trained(**options):
    """Give a network whose statistics and mixing weights differ in all places, for evaluation."""
    network = MultiResolutionNet(6, 6, generator=seeded(), **options)
    for position, parameter in enumerate(mixing_parameters(network)):
        parameter.data.normal_(generator=seeded(position))
    for _ in range(3):
        network(images(8, 3, 16, 16))
    return network.eval()


def set_one_hot(network, resolutions, exit_position=None):
    """Let the softmax be 1 in one place and exactly 0 elsewhere."""
    for layer, resolution in zip(network.layers, resolutions, strict=True):
        layer.mixing.data.fill_(-1e4)
        layer.mixing.data[resolution] = 0
    if exit_position is not None:
        network.exit_mixing.data.fill_(-1e4)
        network.exit_mixing.data[exit_position] = 0


@settings(deadline=None, max_examples=30)
@given(
    resolutions=st.lists(st.integers(0, 3), min_size=5, max_size=5),
    block=st.sampled_from(["conv", "mbconv6"]),
    exit_position=st.none() | st.integers(0, 4),
)
def test_the_plain_cnn_is_the_network_with_one_hot_weights(resolutions, block, exit_position):
    network = trained(block=block, learned_depth=exit_position is not None)
    set_one_hot(network, resolutions, exit_position)
    assert best_resolutions(network) == resolutions
    plain = one_resolution(network)
    batch = images(4, 3, 16, 24)
    torch.testing.assert_close(plain(batch), network(batch), rtol=0, atol=1e-5)
    network.train(), plain.train()
    torch.testing.assert_close(plain(batch), network(batch), rtol=0, atol=1e-5)


def test_the_plain_cnn_ends_at_the_heaviest_exit():
    network = trained(learned_depth=True)
    set_one_hot(network, [0] * 5, 2)
    assert learned_depth(network) == 4
    assert len(one_resolution(network).layers) == 3
    assert learned_depth(trained()) == 6


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("block", ["conv", "mbconv6"])
def test_the_plain_cnn_is_of_torch_nn(block, smooth):
    network = trained(block=block)
    set_one_hot(network, [0, 1, 1, 3, 2])
    for name, module in one_resolution(network, smooth=smooth).named_modules():
        own = type(module) is MBConv6 and list(module.children())
        assert own or type(module).__module__.startswith("torch.nn."), name


def test_a_typical_cnn_pools_only_where_the_resolution_falls():
    network = trained()
    set_one_hot(network, [0, 1, 1, 3, 2])
    typical = one_resolution(network, smooth=False)
    found = [[type(m) for m in layer.children()][:-1] for layer in typical.layers]
    assert found == [[], [nn.AvgPool2d], [], [nn.AvgPool2d], [nn.Upsample]]
    batch = images(2, 3, 32, 32)
    assert not torch.allclose(typical(batch), network(batch), atol=1e-5)
    set_one_hot(network, [0] * 5)
    torch.testing.assert_close(one_resolution(network, smooth=False)(batch), network(batch))


def test_the_plain_cnn_has_the_effective_sizes_and_a_copy_of_the_weights():
    network = trained()
    set_one_hot(network, [0, 1, 1, 3, 2])
    for smooth in (True, False):
        plain = one_resolution(network, smooth=smooth)
        assert list(effective_sizes(plain).values()) == [3, 6, 6, 24, 12]
    assert effective_sizes(plain) == effective_sizes(network)
    plain.layers[0].block.conv.weight.data.zero_()
    assert network.layers[0].block.conv.weight.any()


@pytest.mark.parametrize("size", [(33, 30), (7, 5)], ids=str)
def test_the_plain_cnn_takes_images_of_any_size(size):
    network = trained()
    set_one_hot(network, [0, 1, 1, 3, 2])
    batch = images(2, 3, *size)
    assert one_resolution(network)(batch).shape == network(batch).shape == (2, 10)


@pytest.mark.parametrize("smooth", [True, False])
def test_the_plain_cnn_can_be_trained_again(smooth):
    network = trained()
    set_one_hot(network, [0, 1, 1, 3, 2])
    cnn = one_resolution(network, smooth=smooth).train()
    optimizer = torch.optim.SGD(cnn.parameters(), 0.05, momentum=0.9)
    batch, labels = images(10, 3, 16, 16), torch.arange(10)
    losses = []
    for _ in range(15):
        loss = nn.functional.cross_entropy(cnn(batch), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_grid_by_hand():
    network = MultiResolutionNet(3, 4, resolutions=3)
    network.layers[0].mixing.data = torch.tensor([0.6, 0.3, 0.1]).log()
    third = 1 / 3
    expected = torch.tensor([[0.6, 0.3, 0.1], [third, third, third]])
    torch.testing.assert_close(mixing_weights(network), expected)
    pruned = prune(network, 0.2)
    # 0.6 and 0.3 go on as 2/3 and 1/3.
    expected = torch.tensor([[2 * third, third, 0], [third, third, third]])
    torch.testing.assert_close(mixing_weights(pruned), expected)
    assert best_resolutions(pruned) == [0, 0]


def test_pruning_drops_what_is_below_and_never_all():
    network = trained()
    before = mixing_weights(network)
    for threshold in (0.0, 0.1, 0.2, 0.9, 1.0):
        pruned = prune(network, threshold)
        for weights, layer in zip(before, pruned.layers, strict=True):
            kept = [r for r, w in enumerate(weights.tolist()) if w >= threshold]
            assert layer.resolutions == tuple(kept or [int(weights.argmax())])
            torch.testing.assert_close(layer.weights().sum(), torch.tensor(1.0))
    assert [len(layer.resolutions) for layer in network.layers] == [4] * 5


def test_pruning_at_zero_changes_nothing_and_pruning_all_but_one_is_the_one_hot_network():
    network, batch = trained(), images(2, 3, 16, 16)
    torch.testing.assert_close(prune(network, 0.0)(batch), network(batch))
    pruned = prune(network, 1.0)
    set_one_hot(network, best_resolutions(network))
    torch.testing.assert_close(pruned(batch), network(batch))
    torch.testing.assert_close(one_resolution(pruned)(batch), network(batch), rtol=0, atol=1e-5)


def test_pruning_saves_the_products_of_what_is_dropped():
    network = trained()
    set_one_hot(network, [0, 0, 1, 1, 3])
    pruned = prune(network, 0.1)
    expected = 1024 * 27 * 6 + 9 * 36 * (1024 + 256 + 256 + 16) + 60
    assert multiply_accumulates(pruned, (3, 32, 32)) == expected
    plain = one_resolution(network)
    assert multiply_accumulates(plain, (3, 32, 32)) == expected


def test_pruning_drops_exits_and_the_layers_behind_them():
    network = trained(learned_depth=True)
    network.exit_mixing.data = torch.tensor([0.05, 0.5, 0.05, 0.35, 0.05]).log()
    pruned = prune(network, 0.1)
    assert (pruned.exits, len(pruned.layers)) == ((1, 3), 4)
    torch.testing.assert_close(pruned.exit_weights(), torch.tensor([0.5, 0.35]) / 0.85)
    assert learned_depth(pruned) == learned_depth(network) == 3
    assert pruned(images(2, 3, 8, 8)).shape == (2, 10)


def test_a_pruned_network_can_be_trained_on_and_keeps_its_names():
    network = prune(trained(learned_depth=True), 0.2).train()
    loss = network(images(4, 3, 8, 8)).square().sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    again = prune(trained(learned_depth=True), 0.2)
    again.load_state_dict(network.state_dict())


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match="mixing weights lie in 0..1, so pass one there"):
        prune(trained(), threshold)
