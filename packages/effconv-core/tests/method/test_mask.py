import pytest
import torch
from effconv_core.method.mask import modulation_mask, ring_mask
from effconv_kernels.reference import mask_reference


def test_papers_mask_by_hand():
    # v = 3, s = 3, c = 1.5: offsets -0.5, 0.5, 1.5, so the profile is
    # exp(-1/36) = 0.9726045, the same, and exp(-1/4) = 0.7788008.
    mask = modulation_mask([torch.tensor(3.0)] * 2, [3, 3])
    a, b = 0.9726045, 0.7788008
    expected = torch.tensor([[a * a, a * a, a * b], [a * a, a * a, a * b], [a * b, a * b, b * b]])
    torch.testing.assert_close(mask, expected)


def test_aligned_mask_by_hand():
    # v = 3, s = 3, c = 2: the profile is exp(-1/9) = 0.8948393, 1, exp(-1/9).
    profile = torch.tensor([0.8948393, 1.0, 0.8948393])
    mask = modulation_mask([torch.tensor(3.0)] * 2, [3, 3], "aligned")
    torch.testing.assert_close(mask, torch.outer(profile, profile))


@pytest.mark.parametrize("centre", ["paper", "aligned"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7])
def test_equals_the_equation_tap_by_tap(size, centre):
    soft_size = torch.tensor(size + 0.3, dtype=torch.float64)
    torch.testing.assert_close(
        modulation_mask([soft_size] * 2, [size] * 2, centre),
        mask_reference(soft_size, size, centre),
    )


@pytest.mark.parametrize("centre", ["paper", "aligned"])
def test_gradcheck(centre):
    soft_size = torch.tensor(3.7, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda v: modulation_mask([v, v], [4, 4], centre), soft_size)


def test_papers_mask_leans_towards_the_origin_and_the_aligned_one_does_not():
    paper = modulation_mask([torch.tensor(5.0)] * 2, [5, 5])
    aligned = modulation_mask([torch.tensor(5.0)] * 2, [5, 5], "aligned")
    assert paper[0, 0] > paper[-1, -1]
    torch.testing.assert_close(aligned, aligned.flip(0, 1))


def test_ring_by_hand():
    # v = 3.3: the ring of size 4 is on with probability 0.3. The window of 3 starts at the first
    # tap in that of 4, since an even window has its middle left of the centre.
    v = torch.tensor(3.3)
    inner = torch.zeros(4, 4)
    inner[:3, :3] = 1
    assert torch.equal(ring_mask(v, 4, torch.tensor(0.29)), torch.ones(4, 4))
    assert torch.equal(ring_mask(v, 4, torch.tensor(0.31)), inner)
    # v = 4.5, size 5: the window of 4 starts one tap in.
    inner = torch.zeros(5, 5)
    inner[1:, 1:] = 1
    assert torch.equal(ring_mask(torch.tensor(4.5), 5, torch.tensor(0.6)), inner)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7])
def test_a_ring_is_what_the_next_smaller_window_lacks(size):
    k = 3

    def window(s):
        first = k - (s - 1) // 2  # as "same" padding places it
        taps = torch.zeros(7, 7)
        taps[first : first + s, first : first + s] = 1
        return taps

    off = ring_mask(torch.tensor(size - 0.5), size, torch.tensor(0.9))
    first = k - (size - 1) // 2
    placed = torch.zeros(7, 7)
    placed[first : first + size, first : first + size] = off
    assert torch.equal(placed, window(size - 1))


def test_a_rings_mean_gradient_is_the_trapezoidal_rule_for_the_loss_between_two_sizes():
    weights = torch.arange(16.0, dtype=torch.float64).view(4, 4)
    on, off = torch.ones(4, 4, dtype=torch.float64), torch.zeros(4, 4, dtype=torch.float64)
    off[:3, :3] = 1

    def loss(mask):  # quadratic in the mask, so that the rule is exact
        return (weights * mask).sum() + 0.01 * (weights * mask).sum() ** 2

    def expected_slope(soft_size):
        slopes = []
        for draw in (0.0, 0.999999):
            v = torch.tensor(soft_size, dtype=torch.float64, requires_grad=True)
            loss(ring_mask(v, 4, torch.tensor(draw))).backward()
            slopes.append(v.grad.item())
        probability = soft_size - 3
        return probability * slopes[0] + (1 - probability) * slopes[1]

    middles = [3 + (i + 0.5) / 100 for i in range(100)]
    mean = sum(map(expected_slope, middles)) / 100
    assert mean == pytest.approx((loss(on) - loss(off)).item())
    # At one v alone it is another number.
    assert expected_slope(3.1) < 0.9 * mean


def test_the_ring_between_two_odd_sizes_by_hand():
    # v = 3.5 between 3 and 5: the ring, one tap on either side, is on with probability 0.25.
    v, inner = torch.tensor(3.5), torch.zeros(5, 5)
    inner[1:4, 1:4] = 1
    assert torch.equal(ring_mask(v, 5, torch.tensor(0.24), step=2), torch.ones(5, 5))
    assert torch.equal(ring_mask(v, 5, torch.tensor(0.26), step=2), inner)
    # A step of two sizes in v is the whole difference of the loss.
    v.requires_grad_()
    ring_mask(v, 5, torch.tensor(0.24), step=2).sum().backward()
    assert v.grad.item() == 16 / 2


def test_the_ring_between_two_even_sizes_by_hand():
    # A window of 6 has two taps before the pixel, one of 4 has one.
    off = ring_mask(torch.tensor(4.5), 6, torch.tensor(0.3), axes=[True], step=2)
    assert off.tolist() == [0, 1, 1, 1, 1, 0]


def test_a_ring_along_one_axis_leaves_the_others_alone():
    off, on = (
        ring_mask(torch.tensor(3.5), 4, torch.tensor(draw), axes=[False, True, False])
        for draw in (0.6, 0.4)
    )
    assert off.shape == on.shape == (1, 4, 1)
    assert off.flatten().tolist() == [1, 1, 1, 0]
    assert on.flatten().tolist() == [1, 1, 1, 1]


def test_a_mask_with_a_width_an_axis_by_hand():
    # v = (2, 4), s = (2, 3), c = (1, 2): exp(-(i - 1)^2 / 4) exp(-(j - 2)^2 / 16).
    mask = modulation_mask([torch.tensor(2.0), torch.tensor(4.0)], [2, 3])
    a, b = 0.7788008, 0.9394131
    torch.testing.assert_close(mask, torch.tensor([[b, 1.0, b], [a * b, a, a * b]]))
    v = torch.tensor([2.2, 3.7, 1.4], dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda v: modulation_mask(list(v), [2, 4, 1]), v)


def test_a_ring_at_an_integer_size_is_on_in_bfloat16_too():
    draw = torch.tensor(0.99999)  # 1 in bfloat16
    assert ring_mask(torch.tensor(3.0, dtype=torch.bfloat16), 3, draw).min() == 1
