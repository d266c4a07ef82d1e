import pytest
import torch
from effconv_core.config import SearchConfig
from effconv_core.method.size_predictor import SizePredictor, b_of, squash
from torch import nn


def test_squash_by_hand():
    # 3 tanh(x / 3 - 0.35) + 4: tanh(-0.35) = -0.3363756, tanh(0.65) = 0.5716700.
    soft = squash(torch.tensor([0.0, 3.0], dtype=torch.float64), 3, 3.0, -0.35)
    assert soft.tolist() == pytest.approx([2.9908732, 5.7150099], abs=1e-6)


def test_squash_stays_within_one_and_2k_plus_1():
    soft = squash(torch.tensor([-1e6, 1e6]), 3, 3.0, -0.35)
    assert soft.tolist() == [1.0, 7.0]


@pytest.mark.parametrize(
    ("start", "allowed", "b", "v"),
    [
        (3, range(1, 8), -0.35, 2.9908732),  # the paper's
        (5, range(1, 8), 0.35, 5.0091268),
        (4, range(1, 8), 0.0, 4.0),
        (1, range(1, 8), -1.57, 1.2489),  # tanh(1.57) = 0.91703
        (7, range(1, 8), 1.57, 6.7511),
        (11, range(1, 12), 1.83, 10.7497),  # tanh(1.83) = 0.94983
        (11, range(1, 8), 1.57, 6.7511),
        (3, range(1, 6), 0.0, 3.0),
        (3, range(3, 4), 0.0, 3.0),
        (301, range(1, 1001), None, 301.0),
    ],
)
def test_a_layer_starts_close_to_its_own_size(start, allowed, b, v):
    found = b_of(start, allowed)
    if b is not None:
        assert found == b
    generator = torch.Generator().manual_seed(0)
    predictor = SizePredictor([allowed] * 2, SearchConfig(), generator, [start] * 2)
    assert predictor().tolist() == pytest.approx([v] * 2, abs=2e-3 if b is not None else 0.1)
    if allowed[0] != allowed[-1]:
        slope = torch.autograd.grad(predictor().sum(), predictor.head_bias)[0]
        assert torch.all(slope > 0.05)


def test_a_given_b_is_that_of_all_layers():
    generator = torch.Generator().manual_seed(0)
    predictor = SizePredictor([range(1, 8)] * 2, SearchConfig(b=-0.35), generator, [3, 5])
    assert predictor().tolist() == pytest.approx([2.9908732] * 2, abs=1e-5)


def test_a_state_without_b_has_the_former_one_in_all_layers():
    def predictor(**changes):
        generator = torch.Generator().manual_seed(0)
        return SizePredictor([range(1, 8)] * 2, SearchConfig(**changes), generator, [5, 7])

    before = predictor().state_dict()
    del before["b"]
    for changes, b in (({}, -0.35), ({"b": 0.5}, 0.5)):
        now = predictor(**changes)
        now.load_state_dict(dict(before))
        assert now.b.tolist() == pytest.approx([b] * 2)


def test_every_layer_starts_close_to_three():
    predictor = SizePredictor([range(1, 8)] * 5, SearchConfig(), torch.Generator().manual_seed(0))
    assert predictor().tolist() == pytest.approx([2.9908732] * 5, abs=1e-5)


def test_equals_a_plain_torch_gru_with_a_linear_head_a_layer():
    layers, config = 4, SearchConfig(size_hidden=6)
    predictor = SizePredictor(
        [range(1, 8)] * layers, config, torch.Generator().manual_seed(3)
    ).double()
    with torch.no_grad():
        predictor.head_weight.normal_(generator=torch.Generator().manual_seed(1))
        predictor.head_bias.normal_(generator=torch.Generator().manual_seed(2))
    gru = nn.GRU(64, 6).double()
    gru.load_state_dict(
        {
            "weight_ih_l0": predictor.gru.weight_ih[0],
            "weight_hh_l0": predictor.gru.weight_hh[0],
            "bias_ih_l0": predictor.gru.bias_ih[0],
            "bias_hh_l0": predictor.gru.bias_hh[0],
        }
    )
    states, _ = gru(predictor.gru.z.expand(layers, 64))
    expected = [
        3 * torch.tanh((states[i] @ predictor.head_weight[i] + predictor.head_bias[i]) / 3 - 0.35)
        + 4
        for i in range(layers)
    ]
    torch.testing.assert_close(predictor(), torch.stack(expected))


def test_the_generator_decides_everything_and_the_global_seed_nothing():
    def state(seed):
        return SizePredictor(
            [range(1, 8)] * 3, SearchConfig(), torch.Generator().manual_seed(seed)
        ).state_dict()

    before = torch.random.get_rng_state()
    one, same, other = state(1), state(1), state(2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["gru.z"], other["gru.z"])


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"k": 0}, ValueError, "k is 0; it must be at least 1"),
        ({"k": 2.5}, TypeError, "k is 2.5; it must be an integer"),
        ({"b": float("inf")}, ValueError, "b is inf"),
        ({"tau": -1.0}, ValueError, "tau is -1.0"),
        ({"size_lr": float("nan")}, ValueError, "size_lr is nan"),
        ({"budget_weight": -2.0}, ValueError, "budget_weight is -2.0"),
        ({"tolerance": 2}, ValueError, "such as 0.02"),
        ({"centre": "left"}, ValueError, "pass 'paper' or 'aligned'"),
    ],
)
def test_a_bad_setting_is_refused_by_name(change, error, sentence):
    with pytest.raises(error, match=sentence):
        SearchConfig(**change)


def test_defaults_are_the_papers():
    config = SearchConfig()
    assert (config.k, config.tau, config.b, config.budget_weight) == (3, 3.0, None, 2.0)
    assert (config.size_lr, config.cnn_lr, config.kernel_lr) == (1e-4, 1e-4, 1e-3)
    assert (config.weight_decay, config.epochs, config.largest) == (1e-3, 10, 7)
    assert (config.budget_form, config.centre) == ("paper", "paper")
