import pytest
import torch
from effconv_core.mask import modulation_mask
from effconv_kernels.reference import mask_reference


def test_papers_mask_by_hand():
    # v = 3, s = 3, c = 1.5: offsets -0.5, 0.5, 1.5, so the profile is
    # exp(-1/36) = 0.9726045, the same, and exp(-1/4) = 0.7788008.
    mask = modulation_mask(torch.tensor(3.0), 3)
    a, b = 0.9726045, 0.7788008
    expected = torch.tensor([[a * a, a * a, a * b], [a * a, a * a, a * b], [a * b, a * b, b * b]])
    torch.testing.assert_close(mask, expected)


def test_aligned_mask_by_hand():
    # v = 3, s = 3, c = 2: the profile is exp(-1/9) = 0.8948393, 1, exp(-1/9).
    profile = torch.tensor([0.8948393, 1.0, 0.8948393])
    mask = modulation_mask(torch.tensor(3.0), 3, "aligned")
    torch.testing.assert_close(mask, torch.outer(profile, profile))


@pytest.mark.parametrize("centre", ["paper", "aligned"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7])
def test_equals_the_equation_tap_by_tap(size, centre):
    soft_size = torch.tensor(size + 0.3, dtype=torch.float64)
    torch.testing.assert_close(
        modulation_mask(soft_size, size, centre), mask_reference(soft_size, size, centre)
    )


@pytest.mark.parametrize("centre", ["paper", "aligned"])
def test_gradcheck(centre):
    soft_size = torch.tensor(3.7, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda v: modulation_mask(v, 4, centre), soft_size)


def test_papers_mask_leans_towards_the_origin_and_the_aligned_one_does_not():
    paper = modulation_mask(torch.tensor(5.0), 5)
    aligned = modulation_mask(torch.tensor(5.0), 5, "aligned")
    assert paper[0, 0] > paper[-1, -1]
    torch.testing.assert_close(aligned, aligned.flip(0, 1))
