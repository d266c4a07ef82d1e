"""The mask of Eq. 6, from a number at each tap."""

import math

import pytest
import torch
from effconv_kernels.mask import gaussian, middle_of


@pytest.mark.parametrize(("centre", "expected"), [("paper", [1.7, 2.5]), ("aligned", [2.0, 3.0])])
def test_the_middle_is_counted_from_one(centre, expected):
    soft = torch.tensor([3.4, 5.0], dtype=torch.float64)
    sizes = torch.tensor([3, 5])
    found = middle_of(soft, sizes, centre)
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64))


def test_an_aligned_middle_of_a_whole_size_is_a_number():
    assert middle_of(torch.tensor(2.2), 4, "aligned") == 2.5


def test_offsets_along_all_axes_add_up():
    rows = torch.tensor([[-1.0], [0.0], [2.0]], dtype=torch.float64)
    columns = torch.tensor([[0.5, 1.0]], dtype=torch.float64)
    found = gaussian([rows, columns], torch.tensor(2.0, dtype=torch.float64))
    for i, row in enumerate((-1, 0, 2)):
        for j, column in enumerate((0.5, 1)):
            assert found[i, j].item() == pytest.approx(math.exp(-(row**2 + column**2) / 4))


def test_it_is_differentiable_in_all():
    offsets = torch.tensor([-0.7, 1.3], dtype=torch.float64, requires_grad=True)
    soft = torch.tensor(1.9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda o, v: gaussian([o, o / 2], v), (offsets, soft))
