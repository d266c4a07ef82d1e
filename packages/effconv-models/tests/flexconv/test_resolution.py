"""FlexConvs on finer grids: what changes, and what `refine` says of it."""

import cmath
import math
import warnings
from dataclasses import replace

import pytest
import torch
from effconv_models import FlexConv, FlexConvConfig, flexnet3, refine, resolution_errors
from torch import nn


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def error_by_hand(layer: FlexConv, fine: FlexConv) -> float:
    """Sum kernel values times waves, tap by tap, on both grids."""

    def transformed(one: FlexConv) -> list[complex]:
        kernel, step = (
            one.sample().detach(),
            [(coarse - 1) / (taps - 1) for coarse, taps in zip(layer.grid, one.grid)],
        )
        sums = []
        for o in range(kernel.shape[0]):
            for i in range(kernel.shape[1]):
                for y in range(layer.grid[0]):
                    for x in range(layer.grid[1]):
                        total = 0
                        for row in range(kernel.shape[2]):
                            for column in range(kernel.shape[3]):
                                turns = 0.0
                                for axis, (place, cycles) in enumerate(((row, y), (column, x))):
                                    tap = one.window[axis][0] + place - one.origins[axis]
                                    taps = layer.grid[axis]
                                    turns += (cycles - taps // 2) * tap * step[axis] / taps
                                wave = cmath.exp(-2j * math.pi * turns)
                                total += kernel[o, i, row, column].item() * wave
                        sums.append(total)
        return sums

    before, after = transformed(layer), transformed(fine)
    away = math.sqrt(sum(abs(a - b) ** 2 for a, b in zip(after, before)))
    return away / math.sqrt(sum(abs(b) ** 2 for b in before))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("factor", [2, 3])
def test_errors_are_those_of_the_sums_written_out(factor):
    net = nn.Sequential(FlexConv(1, 2, (7, 5), generator=seeded()))
    with torch.no_grad():
        net[0].mask.copy_(torch.tensor([[0.1, 0.2], [-0.1, 0.3]]))
    expected = error_by_hand(net[0], refine(net, factor)[0])
    assert resolution_errors(net, factor) == {"0": pytest.approx(expected, rel=1e-4)}
    assert resolution_errors(net, 1)["0"] < 1e-5


def test_frequencies_that_the_grid_holds_do_not_change():
    layer = FlexConv(2, 3, 33, generator=seeded())
    with torch.no_grad():
        layer.network.frequency.mul_(0.02)
        layer.network.gamma.mul_(0.1)
        layer.mask[:, 1] = 0.2
    net = nn.Sequential(layer)
    assert resolution_errors(net)["0"] < 0.05  # where the mask is cropped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refine(net, 2)
    with torch.no_grad():
        layer.network.frequency.mul_(400)
    assert resolution_errors(net)["0"] > 0.1
    with pytest.warns(UserWarning, match="1 of 1 kernels"):
        refine(net, 2)


@pytest.mark.parametrize("options", [
    {"axes": 1, "causal": True},
    {"axes": 1, "config": FlexConvConfig(masked=False)},
    {"config": FlexConvConfig(kernel="siren")},
])  # fmt: skip
def test_all_kinds_of_layers_are_compared(options):
    layer = FlexConv(1, 2, 9, **options, generator=seeded())
    assert 0 < resolution_errors(layer)[""] < 10


def test_settings_for_a_small_grid_are_the_papers_in_taps():
    config = FlexConvConfig()
    assert config.on_grid(33) == config
    small = config.on_grid(15)
    assert small.mask_width * 7 == pytest.approx(config.mask_width * 16)
    assert small.input_scale / 7 == pytest.approx(config.input_scale / 16)
    for taps in (0, 2):
        with pytest.raises(ValueError, match=f"taps is {taps}"):
            config.on_grid(taps)
    sizes = [
        FlexConv(1, 1, taps, config=given, generator=seeded()).effective_size
        for taps, given in ((33, config), (15, small), (15, config))
    ]
    assert sizes == [(5, 5), (5, 5), (3, 3)]


def test_small_images_start_with_frequencies_that_their_grid_holds():
    errors = {}
    for name, config in (("paper", FlexConvConfig()), ("grid", FlexConvConfig().on_grid(15))):
        net = flexnet3(channels=8, image_size=14, config=config, generator=seeded())
        errors[name] = max(resolution_errors(net).values())
    assert errors["grid"] < 0.1 < errors["paper"]


def test_a_siren_starts_on_a_small_grid_with_frequencies_that_it_holds():
    usual = FlexConvConfig(kernel="siren")
    given = {"scaled": usual.on_grid(9), "mask": replace(usual.on_grid(9), omega_0=usual.omega_0)}
    errors, spreads = {}, {}
    for name, config in given.items():
        layers = [FlexConv(8, 8, 9, config=config, generator=seeded(seed)) for seed in range(3)]
        errors[name] = max(resolution_errors(layer)[""] for layer in layers)
        spreads[name] = sum(layer.sample().std().item() for layer in layers)
    assert errors["scaled"] < 0.05
    assert errors["mask"] > 0.1
    assert spreads["scaled"] / spreads["mask"] == pytest.approx(1.6, abs=0.1)
