"""Forecasts of many series, each by its own small GRU, all in one call."""

from gru_bank_forecaster.forecaster import GRUBankForecaster
from gru_bank_forecaster.series import best_lag, cut, draw_series, last_value, repeated
from gru_bank_forecaster.training import errors, fit

__all__ = [
    "GRUBankForecaster",
    "best_lag",
    "cut",
    "draw_series",
    "errors",
    "fit",
    "last_value",
    "repeated",
]
