"""`assemble_kernels` in batched PyTorch, called without the operator, against the plain form."""

import pytest
import torch
from effconv_kernels.eager import assemble
from effconv_kernels.reference import assemble_kernels_reference

SIZES, CHANNELS, AXES = [3, (1, 4), (2,)], [(3, 2), (2, 5), (4, 1)], [(0, 1), (None, 0), (2,)]
SHAPES = [1, 3, 3, 1, 1, 4, 1, 1, 2]
COUNTS, INNER = [6, 10, 4], [2, 5, 1]
RULES = [-1, 0, 1, -1, -1, 0, -1, -1, 2]


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def arguments(H=3):
    soft = torch.tensor([3.3, 2.8, 1.7], dtype=torch.float64)
    return [drawn(15, H, seed=1), drawn(20, H, seed=2), drawn(20, seed=3), soft]


def flat(kernels, last):
    if last:
        kernels = [kernel.movedim(1, -1) for kernel in kernels]
    return torch.cat([kernel.flatten() for kernel in kernels])


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("centre", ["paper", "aligned"])
@pytest.mark.parametrize("masked", [True, False])
def test_kernels_and_gradients_are_those_of_the_plain_form(masked, centre, last):
    *maps, soft = arguments()
    rules, axes = (RULES, AXES) if masked else ([-1] * 9, None)
    leaves = [t.clone().requires_grad_() for t in (*maps, soft)]
    expected = flat(
        assemble_kernels_reference(
            *leaves[:3],
            leaves[3] if masked else None,
            sizes=SIZES,
            channels=CHANNELS,
            axes=axes,
            centre=centre,
        ),
        last,
    )
    which = SHAPES, COUNTS, INNER, rules, centre, last
    given = soft if masked else None
    found = assemble.assemble_kernels(*maps, given, *which, torch.float64, "ieee")
    torch.testing.assert_close(found, expected.detach())
    grad, needs = drawn(len(found), seed=4), [True] * 3 + [masked]
    grads = assemble.assemble_kernels_backward(grad, *maps, given, *which, needs, "ieee")
    wanted = torch.autograd.grad(expected, leaves[: 3 + masked], grad)
    for mine, theirs in zip(grads, wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("needed", range(4))
def test_only_what_is_needed_is_returned(needed):
    which = SHAPES, COUNTS, INNER, RULES, "paper", False
    grad = drawn(54 + 40 + 8, seed=4)
    needs = [place == needed for place in range(4)]
    (one,) = assemble.assemble_kernels_backward(grad, *arguments(), *which, needs, "ieee")
    every = assemble.assemble_kernels_backward(grad, *arguments(), *which, [True] * 4, "ieee")
    torch.testing.assert_close(one, every[needed])


def test_soft_sizes_that_rule_nothing_have_no_slope():
    which = SHAPES, COUNTS, INNER, [-1] * 9, "paper", False
    grad = drawn(54 + 40 + 8, seed=4)
    *_, slope = assemble.assemble_kernels_backward(grad, *arguments(), *which, [True] * 4, "ieee")
    assert slope.tolist() == [0, 0, 0]


def test_kernels_are_computed_in_float32_and_written_as_asked_for():
    short = [tensor.bfloat16() for tensor in arguments()]
    which = SHAPES, COUNTS, INNER, RULES, "paper", False
    found = assemble.assemble_kernels(*short, *which, torch.float16, "ieee")
    wide = assemble.assemble_kernels(*(t.float() for t in short), *which, torch.float32, "ieee")
    assert found.dtype == torch.float16
    torch.testing.assert_close(found, wide.half())
