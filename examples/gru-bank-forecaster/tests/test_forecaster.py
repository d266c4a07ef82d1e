"""The bank against a loop over GRU cells, and against forecasts that take no training."""

import re
import runpy
from pathlib import Path

import torch
from gru_bank_forecaster import (
    GRUBankForecaster,
    best_lag,
    cut,
    errors,
    last_value,
    repeated,
)
from torch import nn

HORIZONS = [5, 1, 8]


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


def bank(**changes):
    settings = {"window": 6, "hidden": 4, "generator": drawn()} | changes
    return GRUBankForecaster(HORIZONS, **settings).double()


def looped(model, windows):
    """Forecast one series, one time and one step after the other, with torch's own cell."""
    forecasts = []
    for s, horizon in enumerate(model.horizons):
        H = model.weight_hh.shape[-1]
        cell = nn.GRUCell(model.window, H, dtype=windows.dtype)
        weights = {
            name: getattr(model, name)[s]
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        rows = []
        for window in windows[:, s]:
            level, spread = window.mean(), window.std() + 1e-6
            state, row = window.new_zeros(1, H), []
            for _ in range(horizon):
                inputs = ((window - level) / spread).unsqueeze(0)
                state = torch.func.functional_call(cell, weights, (inputs, state))
                value = (state @ model.weight_out[s] + model.bias_out[s]).squeeze(0)
                row.append(level + spread * value)
            rows.append(torch.stack(row))
        forecasts.append(torch.stack(rows))
    return forecasts


def test_the_bank_is_a_loop_over_gru_cells_and_so_are_its_gradients():
    model, windows = bank(), torch.randn(3, 3, 6, dtype=torch.float64, generator=drawn(1))
    windows.requires_grad_()
    ours, slow = model(windows), looped(model, windows)
    assert [tuple(f.shape) for f in ours] == [(3, 5), (3, 1), (3, 8)]
    parameters = dict(model.named_parameters()) | {"windows": windows}
    upstream = [torch.randn(f.shape, dtype=f.dtype, generator=drawn(2)) for f in ours]
    gradients = [
        torch.autograd.grad(forecasts, list(parameters.values()), upstream)
        for forecasts in (list(ours), slow)
    ]
    for one, other in zip(ours, slow, strict=True):
        torch.testing.assert_close(one, other)
    for name, one, other in zip(parameters, *gradients, strict=True):
        torch.testing.assert_close(one, other, msg=lambda text, name=name: f"{name}: {text}")


def test_gradients_are_those_of_finite_differences():
    model, windows = bank(), torch.randn(2, 3, 6, dtype=torch.float64, generator=drawn(3))
    names, parameters = zip(*model.named_parameters(), strict=True)

    def forecast(windows, *values):
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (windows,))

    assert torch.autograd.gradcheck(forecast, (windows.requires_grad_(), *parameters))


def test_a_series_has_no_part_in_the_forecast_of_another():
    model, windows = bank(), torch.randn(2, 3, 6, dtype=torch.float64, generator=drawn(4))
    before = model(windows)
    windows[:, 1] += torch.randn(2, 6, dtype=torch.float64, generator=drawn(5))
    after = model(windows)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[2], after[2])
    assert not torch.allclose(before[1], after[1])


def test_windows_end_where_the_values_to_forecast_begin():
    series = torch.arange(20.0).repeat(2, 1) + torch.tensor([[0.0], [100.0]])
    windows, targets = cut(series, [4, 10], 3, [2, 4])
    assert windows[:, 0].tolist() == [[1, 2, 3], [7, 8, 9]]
    assert targets[0].tolist() == [[4, 5], [10, 11]]
    assert targets[1].tolist() == [[104, 105, 106, 107], [110, 111, 112, 113]]


def test_forecasts_without_training():
    series = torch.tensor([[0.0, 1, 2] * 6, [5.0, 7] * 9])
    assert best_lag(series, 6) == [3, 2]
    windows, targets = cut(series, [9, 10], 6, [5, 3])
    assert errors(repeated(windows, [3, 2], [5, 3]), targets).tolist() == [0, 0]
    assert last_value(windows, [5, 3])[0].tolist() == [[2] * 5, [0] * 5]


def test_what_the_readme_shows_runs():
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    exec(block, {})


def test_the_command_learns_what_simple_forecasts_do_not_know(capsys):
    runpy.run_module("gru_bank_forecaster", run_name="__main__")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert len(rows) == 9
    for row in rows[:-1]:
        _, _, ours, _, stays = map(float, row)
        assert ours < 0.5 * stays
    ours, repeats, _ = map(float, rows[-1][1:])
    assert ours < repeats
