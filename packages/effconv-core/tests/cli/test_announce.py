import io
import re

import pytest
import torch
from effconv_core import Budget, SearchableCNN, recipe
from effconv_core.cli.announce import fitting_batch, say_search, say_training
from effconv_core.engine.train import TrainConfig
from rich.console import Console
from torch import nn


@pytest.mark.parametrize(
    ("samples", "epochs", "size"),
    [
        *[(50_000, 2, 128), (240, 2, 8), (1000, 2, 32), (20, 1, 8), (None, 1, 128)],
        *[(240, 50, 32), (192, 200, 64), (256, 200, 128), (255, 200, 16), (142, 200, 128)],
    ],
)
def test_a_batch_gives_enough_steps_and_leaves_few_images_out(samples, epochs, size):
    assert fitting_batch(samples, epochs) == size


def said(samples, *, batch=64, epochs=2, budget=5000):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 3))
    file = io.StringIO()
    searchable = SearchableCNN(model, recipe("bank", epochs=epochs, least_steps=0))
    say_search(Console(file=file, width=300), searchable, budget, samples // batch, batch, samples)
    return file.getvalue()


def test_a_search_says_steps_pictures_left_out_and_budget():
    numbers = re.findall(r"[\d,]+", said(240).partition("warning")[0])
    assert {"5,000", "2", "3", "64", "240", "48"} <= {number.strip(",") for number in numbers}
    assert "at most 5,000" in said(240, budget=Budget(5000, at_most=True))


def test_a_search_of_few_steps_names_a_batch_that_would_do():
    assert "--batch-size 8" in said(240)
    assert "warning" not in said(240, batch=8)
    assert "--search.epochs 17" in said(24, batch=8)
    assert "warning" not in said(24, batch=8, epochs=17)


def test_a_training_of_one_step_says_so():
    file = io.StringIO()
    say_training(Console(file=file, width=300), TrainConfig(epochs=1, batch_size=20), 1, 20)
    assert "1 epoch of 1 step of 20 images" in file.getvalue()
    assert "left out" not in file.getvalue()
