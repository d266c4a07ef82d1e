import itertools
import math

import pytest
import torch
from effconv_core.config import SearchConfig
from effconv_core.method import kernel_predictor as module
from effconv_core.method.kernel_predictor import (
    LiteralKernelPredictor,
    ProjectedKernelPredictor,
    kernel_predictor,
)
from effconv_core.method.mask import modulation_mask
from effconv_core.method.static_shapes import Padding
from effconv_core.space.search_space import Layer, SizeSpace
from effconv_kernels import assemble_kernels
from torch import nn

CHANNELS = [(4, 3), (2, 6), (5, 2)]


def square(channels):
    return SizeSpace([Layer(str(place), pair) for place, pair in enumerate(channels)])


def torch_gru(grus, layer):
    gru = nn.GRU(64, grus.hidden).double()
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    gru.load_state_dict({f"{name}_l0": getattr(grus, name)[layer] for name in names})
    return gru, grus.z[layer]


def make(kind, seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    return kind(square(CHANNELS), SearchConfig(**changes), generator).double()


def soft(sizes):
    return (torch.tensor(sizes, dtype=torch.float64) + 0.2).requires_grad_()


def test_projected_form_equals_a_torch_gru_a_layer_row_major():
    predictor, sizes = make(ProjectedKernelPredictor, kernel_hidden=5), [3, 2, 4]
    soft_sizes = soft(sizes)
    kernels = predictor(soft_sizes, sizes)
    first = 0
    for layer, (c_out, c_in) in enumerate(CHANNELS):
        size = sizes[layer]
        gru, z = torch_gru(predictor.grus, layer)
        states, _ = gru(z.expand(size * size, 64))
        rows = slice(first, first + c_out * c_in)
        mask = modulation_mask([soft_sizes[layer]] * 2, [size] * 2)
        for t in range(size * size):
            raw = predictor.weight[rows] @ states[t] + predictor.bias[rows]
            position = (..., t // size, t % size)
            torch.testing.assert_close(
                kernels[layer][position], raw.view(c_out, c_in) * mask[t // size, t % size]
            )
        first += c_out * c_in


def test_literal_form_is_a_gru_whose_states_are_the_kernel():
    predictor, sizes = make(LiteralKernelPredictor), [3, 1, 2]
    # Layers of 12 and 12 values share one call, so order must survive the grouping.
    assert predictor.members == {10: [2], 12: [0, 1]}
    soft_sizes = soft(sizes)
    kernels = predictor(soft_sizes, sizes)
    for width, grus in zip(predictor.members, predictor.grus):
        for row, layer in enumerate(predictor.members[width]):
            size, (c_out, c_in) = sizes[layer], CHANNELS[layer]
            assert grus.hidden == c_out * c_in
            gru, z = torch_gru(grus, row)
            states, _ = gru(z.expand(size * size, 64))
            raw = torch.stack([s.view(c_out, c_in) for s in states], -1)
            expected = raw.view(c_out, c_in, size, size) * modulation_mask(
                [soft_sizes[layer]] * 2, [size] * 2
            )
            torch.testing.assert_close(kernels[layer], expected)


def test_projected_kernels_start_with_he_fan_out_deviation_at_size_three():
    channels = [(16, 16), (64, 32)]
    generator = torch.Generator().manual_seed(0)
    predictor = ProjectedKernelPredictor(square(channels), SearchConfig(), generator)
    # A huge soft size makes the mask 1 everywhere (aligned centre), so these are raw kernels.
    predictor.centre = "aligned"
    kernels = predictor(torch.full((2,), 1e6), [3, 3])
    for kernel, (c_out, _) in zip(kernels, channels):
        # 2304 and more values from a shared 64-wide state: 5 % covers their spread.
        assert kernel.std().item() == pytest.approx((2 / (9 * c_out)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("form", ["projected", "literal", "bank"])
def test_gradients_reach_every_parameter_and_every_soft_size(form):
    generator = torch.Generator().manual_seed(0)
    predictor = kernel_predictor(
        square(CHANNELS), SearchConfig(kernel_form=form), generator
    ).double()
    sizes = [3, 2, 4]
    soft_sizes = soft(sizes)
    sum(k.square().sum() for k in predictor(soft_sizes, sizes)).backward()
    assert soft_sizes.grad.abs().min() > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in predictor.parameters())


def test_a_taps_gradient_does_not_reach_a_smaller_kernel():
    predictor = make(ProjectedKernelPredictor)
    kernels = predictor(soft([1, 2, 3]), [1, 2, 3])
    assert [tuple(k.shape[2:]) for k in kernels] == [(1, 1), (2, 2), (3, 3)]
    # Growing a kernel leaves the timesteps before as they were: only positions and mask change.
    states = predictor.grus([1, 4, 9])
    longer = predictor.grus([4, 9, 16])
    torch.testing.assert_close(states[:1], longer[:1])
    torch.testing.assert_close(states[1:5], longer[4:8])


MIXED = SizeSpace(
    [
        Layer("line", (4, 3), range(1, 8), (0,)),
        Layer("square", (2, 6)),
        Layer("depthwise", (6, 1), range(1, 8), (0, 0), groups=6),
        Layer("cube", (2, 2), range(1, 6), (0, 0, 0)),
        Layer("row", (3, 2), range(1, 8), (None, 0)),
        Layer("apart", (2, 2), range(1, 8), (0, 1)),
        Layer("square too", (5, 2)),
    ]
)
MIXED_SIZES = [5, 3, 2, 3, 4, 2, 5, 2]
MIXED_SHAPES = [(5,), (3, 3), (2, 2), (3, 3, 3), (1, 4), (2, 5), (2, 2)]


def mixed(form, **changes):
    generator = torch.Generator().manual_seed(0)
    config = SearchConfig(kernel_form=form, **changes)
    return kernel_predictor(MIXED, config, generator).double()


def test_kernels_of_any_number_of_axes_tap_by_tap():
    predictor = mixed("projected", kernel_hidden=5)
    soft_sizes = soft(MIXED_SIZES)
    kernels = predictor(soft_sizes, MIXED_SIZES)
    states = predictor.grus([math.prod(shape) for shape in MIXED_SHAPES])
    first_row = first_state = 0
    for place, (layer, shape) in enumerate(zip(MIXED.layers, MIXED_SHAPES)):
        assert kernels[place].shape == (*layer.channels, *shape)
        rows = slice(first_row, first_row + math.prod(layer.channels))
        v = soft_sizes[MIXED.entries(place)]
        # Row-major, and Eq. 6 with one term for each axis that has a size.
        for t, taps in enumerate(itertools.product(*(range(1, n + 1) for n in shape))):
            raw = predictor.weight[rows] @ states[first_state + t] + predictor.bias[rows]
            widths = [(i, v[axis]) for i, axis in zip(taps, layer.axes) if axis is not None]
            mask = torch.exp(-sum((i - w / 2) ** 2 / w**2 for i, w in widths))
            tap = kernels[place][(..., *(i - 1 for i in taps))]
            torch.testing.assert_close(tap, raw.view(layer.channels) * mask)
        first_row, first_state = rows.stop, first_state + math.prod(shape)


@pytest.mark.parametrize("padded", [False, True])
def test_kernels_of_any_number_of_axes_are_assembled_in_one_call(padded, monkeypatch):
    predictor, sizes = mixed("projected"), soft(MIXED_SIZES)
    expected = predictor(sizes, MIXED_SIZES)
    calls = []

    def noted(*tensors, **keywords):
        calls.append(len(keywords["sizes"]))
        return assemble_kernels(*tensors, **keywords)

    monkeypatch.setattr(module, "assemble_kernels", noted)
    if padded:
        largest = predictor.padded(sizes, sizes.detach().round(), Padding(MIXED).double())
        assert [kernel.shape[:2] for kernel in largest] == [k.shape[:2] for k in expected]
    else:
        torch.testing.assert_close(predictor(sizes, MIXED_SIZES), expected)
    assert calls == [len(MIXED.layers)]


@pytest.mark.parametrize("form", ["projected", "literal", "bank"])
def test_every_source_gives_every_shape_with_gradients_for_every_size(form):
    predictor, soft_sizes = mixed(form), soft(MIXED_SIZES)
    kernels = predictor(soft_sizes, MIXED_SIZES)
    assert [tuple(k.shape) for k in kernels] == [
        (*layer.channels, *shape) for layer, shape in zip(MIXED.layers, MIXED_SHAPES)
    ]
    sum(k.square().sum() for k in kernels).backward()
    assert soft_sizes.grad.abs().min() > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in predictor.parameters())


def test_under_autocast_states_become_kernels_as_they_do_without():
    predictor, soft_sizes = mixed("projected").float(), soft(MIXED_SIZES).float()
    states = predictor.grus([math.prod(shape) for shape in MIXED_SHAPES])
    predictor.grus.forward = lambda steps: states
    expected = predictor(soft_sizes, MIXED_SIZES)
    with torch.autocast("cpu", torch.bfloat16):
        found = predictor(soft_sizes, MIXED_SIZES)
    for kernel, other in zip(found, expected):
        torch.testing.assert_close(kernel, other)
