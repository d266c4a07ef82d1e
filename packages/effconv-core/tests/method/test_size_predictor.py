import pytest
import torch
from effconv_core.config import SearchConfig
from effconv_core.method.size_predictor import SizePredictor, squash
from torch import nn


def test_squash_by_hand():
    # 3 tanh(x / 3 - 0.35) + 4: tanh(-0.35) = -0.3363756, tanh(0.65) = 0.5716700.
    soft = squash(torch.tensor([0.0, 3.0], dtype=torch.float64), 3, 3.0, -0.35)
    assert soft.tolist() == pytest.approx([2.9908732, 5.7150099], abs=1e-6)


def test_squash_stays_within_one_and_2k_plus_1():
    soft = squash(torch.tensor([-1e6, 1e6]), 3, 3.0, -0.35)
    assert soft.tolist() == [1.0, 7.0]


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
    assert (config.k, config.tau, config.b, config.budget_weight) == (3, 3.0, -0.35, 2.0)
    assert (config.size_lr, config.cnn_lr, config.kernel_lr) == (1e-4, 1e-4, 1e-3)
    assert (config.weight_decay, config.epochs, config.largest) == (1e-3, 10, 7)
    assert (config.budget_form, config.centre) == ("paper", "paper")
