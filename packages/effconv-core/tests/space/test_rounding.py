import torch
from effconv_core.space.rounding import nearest_size, round_straight_through, size_above
from hypothesis import given
from hypothesis import strategies as st

ranges = st.builds(
    lambda first, count, step: range(first, first + count * step, step),
    st.integers(1, 9),
    st.integers(1, 15),
    st.integers(1, 3),
)


@given(allowed=ranges, part=st.floats(0, 1))
def test_nearest_size_equals_trying_every_size(allowed, part):
    v = allowed[0] + part * (allowed[-1] - allowed[0])
    found = nearest_size(v, allowed)
    assert found in allowed
    assert abs(found - v) == min(abs(size - v) for size in allowed)


@given(allowed=ranges, part=st.floats(0, 1))
def test_the_size_above_is_the_smallest_of_the_larger_ones(allowed, part):
    v = allowed[0] + part * (allowed[-1] - allowed[0])
    assert size_above(v, allowed) == min((s for s in allowed if s > v), default=allowed[-1])


@given(st.floats(1, 7))
def test_with_every_integer_allowed_rounding_is_that_of_equation_2(v):
    assert nearest_size(v, range(1, 8)) == torch.tensor(v, dtype=torch.float64).round().item()


def test_odd_sizes_alone_by_hand():
    odd = range(1, 8, 2)
    assert [nearest_size(v, odd) for v in (1.0, 1.9, 2.1, 3.9, 4.1, 6.9, 9.0)] == [
        1, 1, 3, 3, 5, 7, 7,
    ]  # fmt: skip
    assert [size_above(v, odd) for v in (1.0, 2.9, 3.0, 6.9, 7.0)] == [3, 3, 5, 7, 7]


def test_rounding_is_half_to_even_with_the_gradient_of_the_identity():
    soft = torch.tensor([1.2, 2.5, 3.5, 6.7], requires_grad=True)
    rounded = round_straight_through(soft)
    assert rounded.tolist() == [1.0, 2.0, 4.0, 7.0]
    upstream = torch.tensor([3.0, -1.0, 0.5, 2.0])
    rounded.backward(upstream)
    assert soft.grad.tolist() == upstream.tolist()
