"""What a search of a rival costs, in steps and forward passes."""

import pytest
import torch

from tools.versus.count import Count


def test_a_forward_pass_counts_a_third_of_a_step():
    count = Count()
    outputs, targets = torch.zeros(4, 10, requires_grad=True), torch.zeros(4, dtype=torch.long)
    count.criterion(outputs, targets).backward()
    with torch.no_grad():
        for _ in range(3):
            count.criterion(outputs, targets)
    count.forward(0.5)
    assert (count.steps, count.forwards) == (1, 3.5)
    assert count.equivalent == pytest.approx(1 + 3.5 / 3)


def test_nothing_counted_costs_nothing():
    assert (Count().steps, Count().forwards, Count().equivalent) == (0, 0, 0)


def test_each_trained_batch_is_a_step():
    count = Count()
    for _ in range(3):
        count.step(None)
    count.forward(6)
    assert count.equivalent == 3 + 2
