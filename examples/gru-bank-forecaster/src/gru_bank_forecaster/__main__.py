"""`python -m gru_bank_forecaster`: train on drawn series, and compare on their later part."""

import torch

from gru_bank_forecaster import (
    GRUBankForecaster,
    best_lag,
    cut,
    draw_series,
    errors,
    fit,
    last_value,
    repeated,
)

SERIES, LENGTH, WINDOW, HIDDEN = 8, 1500, 24, 12
TRAINED = 1200  # values before the part that is forecast


def main() -> None:
    """Train and print the mean absolute error of each series."""
    generator = torch.Generator().manual_seed(0)
    series = draw_series(SERIES, LENGTH, generator)
    horizons = [4 + 2 * s for s in range(SERIES)]
    model = GRUBankForecaster(horizons, window=WINDOW, hidden=HIDDEN, generator=generator)
    known = series[:, :TRAINED]
    fit(model, known, steps=500, batch_size=16, learning_rate=0.02, generator=generator)
    times = range(TRAINED + WINDOW, LENGTH - max(horizons) + 1)
    windows, targets = cut(series, times, WINDOW, horizons)
    lags = best_lag(known, WINDOW)
    with torch.no_grad():
        ours = errors(model(windows), targets)
    repeats = errors(repeated(windows, lags, horizons), targets)
    stays = errors(last_value(windows, horizons), targets)
    print("mean absolute error of values that no training has seen")
    print("series  horizon  GRU bank  best lag repeated  last value")
    for s, horizon in enumerate(horizons):
        print(f"{s:6}  {horizon:7}  {ours[s]:8.3f}  {repeats[s]:17.3f}  {stays[s]:10.3f}")
    print(f"mean             {ours.mean():8.3f}  {repeats.mean():17.3f}  {stays.mean():10.3f}")


if __name__ == "__main__":
    main()
