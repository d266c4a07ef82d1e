"""The arguments of `assemble_kernels` beyond square masked kernels."""

from math import prod

import pytest
import torch
from effconv_kernels import assemble_kernels, dispatch
from effconv_kernels.reference import assemble_kernels_reference

NAMES = ["hidden", "weight", "bias", "soft_sizes"]
# Kernels of 1 to 3 axes with soft sizes of their own, shared ones, and axes that none rules.
SIZES = [3, (2, 5), (4,), (2, 1, 3), (1, 4), [2, 2]]
CHANNELS = [(2, 3), (1, 4), (5, 1), (2, 2), (3, 1), (1, 2)]
AXES = [(0, 0), (1, 2), (0,), (3, None, 1), (None, 3), (None, None)]
CALLS = {
    "a soft size for each axis": (SIZES, AXES, 4),
    "a soft size for each layer": (SIZES, None, 6),
    "no mask": (SIZES, None, None),
    "axes in one layer alone": ([(1, 1, 1)], [(2, 0, 1)], 3),
}


def shape_of(size):
    return (size, size) if isinstance(size, int) else tuple(size)


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def inputs(sizes, channels, soft_count, H):
    rows = sum(c_out * c_in for c_out, c_in in channels)
    states = sum(prod(shape_of(size)) for size in sizes)
    tensors = [drawn(states, H, seed=1), drawn(rows, H, seed=2) / H**0.5, drawn(rows, seed=3)]
    if soft_count is not None:
        generator = torch.Generator().manual_seed(4)
        tensors.append(torch.rand(soft_count, dtype=torch.float64, generator=generator) * 3 + 1)
    return [tensor.requires_grad_() for tensor in tensors]


def called(name, H=3):
    sizes, axes, soft_count = CALLS[name]
    keywords = {"sizes": sizes, "channels": CHANNELS[: len(sizes)], "axes": axes}
    tensors = inputs(sizes, keywords["channels"], soft_count, H)
    return tensors, [] if soft_count is not None else [None], keywords


def grads_of(kernels, leaves):
    upstream = [drawn(*kernel.shape, seed=9).to(kernel) for kernel in kernels]
    return torch.autograd.grad(kernels, leaves, upstream, allow_unused=True)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("centre", ["paper", "aligned"])
@pytest.mark.parametrize("name", CALLS)
def test_kernels_and_gradients_equal_the_reference(name, centre, last):
    tensors, none, keywords = called(name)
    keywords["centre"] = centre
    memory_format = torch.channels_last if last else torch.contiguous_format
    ours = assemble_kernels(*tensors, *none, **keywords, memory_format=memory_format)
    slow = assemble_kernels_reference(*tensors, *none, **keywords)
    torch.testing.assert_close(ours, slow)
    for kernel in ours:
        assert (kernel.movedim(1, -1) if last else kernel).is_contiguous()
    for leaf, mine, theirs in zip(NAMES, grads_of(ours, tensors), grads_of(slow, tensors)):
        torch.testing.assert_close(mine, theirs, msg=lambda m, leaf=leaf: f"{leaf}: {m}")


@pytest.mark.parametrize("centre", ["paper", "aligned"])
@pytest.mark.parametrize("name", CALLS)
def test_gradcheck(name, centre):
    tensors, none, keywords = called(name, H=2)
    assert torch.autograd.gradcheck(
        lambda *t: assemble_kernels(*t, *none, **keywords, centre=centre), tensors
    )


@pytest.mark.usefixtures("unwritten_is_nan")
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("centre", ["paper", "aligned"])
@pytest.mark.parametrize("name", CALLS)
def test_the_triton_form_equals_the_reference(name, centre, last, triton_device):
    tensors, none, keywords = called(name, H=17)
    keywords["centre"] = centre
    slow = assemble_kernels_reference(*tensors, *none, **keywords)
    leaves = []
    for tensor in tensors:  # amid NaN, so that a read past the ends shows
        whole = torch.full((tensor.numel() + 512,), torch.nan, device=triton_device)
        part = whole[256:-256].view(tensor.shape).copy_(tensor.detach())
        leaves.append(part.requires_grad_())
    ours = assemble_kernels(
        *leaves,
        *none,
        **keywords,
        memory_format=torch.channels_last if last else torch.contiguous_format,
        backend="triton",
    )
    found, expected = [*ours, *grads_of(ours, leaves)], [*slow, *grads_of(slow, tensors)]
    for mine, theirs in zip(found, expected, strict=True):
        error = (mine.detach().double().cpu() - theirs.detach()).abs().max()
        assert error <= 3e-6 * theirs.detach().abs().max().clamp(min=1e-3)


def test_an_axis_without_a_soft_size_has_no_part_in_the_mask():
    tensors, _, _ = called("a soft size for each axis")
    hidden, weight, bias, v = (tensor.detach() for tensor in tensors)
    given = hidden[:15], weight[:6], bias[:6]
    (flat,) = assemble_kernels(*given, None, sizes=[(3, 5)], channels=[(2, 3)])
    (row,) = assemble_kernels(
        *given, v[:1], sizes=[(3, 5)], channels=[(2, 3)], axes=[(None, 0)], centre="aligned"
    )
    taps = torch.arange(1.0, 6, dtype=torch.float64)
    torch.testing.assert_close(row, flat * torch.exp(-(((taps - 3) / v[0]) ** 2)))
    # A soft size that is not finite, of another layer, does no harm.
    both = [torch.cat([tensor, tensor]) for tensor in given]
    for bad in (0.0, torch.inf, torch.nan):
        soft = torch.tensor([bad, 2.0], dtype=torch.float64, requires_grad=True)
        kernels = assemble_kernels(
            *both, soft, sizes=[(3, 5)] * 2, channels=[(2, 3)] * 2, axes=[(None, None), (1, None)]
        )
        assert torch.equal(kernels[0], flat)
        (grad,) = torch.autograd.grad(sum(k.sum() for k in kernels), soft)
        assert grad[0] == 0
        assert grad[1].isfinite()


@pytest.mark.parametrize("which", range(4))
def test_only_the_gradients_that_are_needed_are_computed(which, monkeypatch):
    asked, backward = [], dispatch.eager.assemble_kernels_backward

    def noted(*arguments):
        found = backward(*arguments)
        asked.append((list(arguments[-2]), len(found)))
        return found

    monkeypatch.setattr(dispatch.eager, "assemble_kernels_backward", noted)
    tensors, _, keywords = called("a soft size for each axis")
    expected = grads_of(assemble_kernels(*tensors, **keywords), tensors)[which]
    given = [tensor if place == which else tensor.detach() for place, tensor in enumerate(tensors)]
    (ours,) = grads_of(assemble_kernels(*given, **keywords), given[which : which + 1])
    assert torch.equal(ours, expected)
    assert asked[-1] == ([place == which for place in range(4)], 1)


@pytest.mark.usefixtures("unwritten_is_nan")
@pytest.mark.parametrize("which", range(4))
def test_so_are_those_of_the_triton_form(which, triton_device):
    tensors, _, keywords = called("a soft size for each axis")
    leaves = [tensor.detach().float().to(triton_device) for tensor in tensors]
    whole = [leaf.clone().requires_grad_() for leaf in leaves]
    expected = grads_of(assemble_kernels(*whole, **keywords, backend="triton"), whole)[which]
    leaves[which].requires_grad_()
    kernels = assemble_kernels(*leaves, **keywords, backend="triton")
    assert torch.equal(grads_of(kernels, leaves[which])[0], expected)


@pytest.mark.parametrize("name", ["a soft size for each axis", "no mask"])
def test_opcheck(name):
    tensors, none, _ = called(name)
    shapes = [extent for size in SIZES for extent in (1, 1, *shape_of(size))[-3:]]
    counts, inner = [a * b for a, b in CHANNELS], [b for _, b in CHANNELS]
    rules = [-1] * 18
    if not none:
        padded = [(None, None, *axes)[-3:] for axes in AXES]
        rules = [-1 if axis is None else axis for axes in padded for axis in axes]
    which = shapes, counts, inner, rules, "aligned", True
    arguments = *tensors, *none, *which, torch.float64, "ieee", "auto"
    torch.library.opcheck(torch.ops.effconv.assemble_kernels.default, arguments)
    grad = drawn(sum(a * prod(shape_of(s)) for a, s in zip(counts, SIZES)))
    leaves = [tensor.detach() for tensor in tensors]
    torch.library.opcheck(
        torch.ops.effconv.assemble_kernels_backward.default,
        (grad, *leaves, *none, *which, [True, False, True, not none], "ieee", "auto"),
        test_utils=("test_schema", "test_faketensor"),
    )


@pytest.mark.parametrize("name", ["a soft size for each axis", "no mask"])
def test_vmap_of_every_argument(name):
    tensors, none, keywords = called(name)

    def flat(*given):
        return torch.cat([k.flatten() for k in assemble_kernels(*given, *none, **keywords)])

    many = [torch.stack([tensor, 1.5 * tensor, 1.1 * tensor], -1) for tensor in tensors]
    places = range(len(tensors))
    for chosen in ([0], [1, 2], [len(tensors) - 1], list(places)):
        given = [many[i] if i in chosen else tensors[i] for i in places]
        ours = torch.vmap(flat, in_dims=tuple(-1 if i in chosen else None for i in places))(*given)
        each = [[many[i][..., k] if i in chosen else tensors[i] for i in places] for k in range(3)]
        slow = torch.stack([flat(*arguments) for arguments in each])
        torch.testing.assert_close(ours, slow)
        upstream = drawn(*ours.shape, seed=6)
        torch.testing.assert_close(
            torch.autograd.grad(ours, given, upstream), torch.autograd.grad(slow, given, upstream)
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend",  # that of every day takes long, and has a case in `test_assemble.py`
    ["aot_eager", pytest.param("inductor", marks=pytest.mark.long)],
)
def test_a_fullgraph_compile_of_all_arguments_whatever_the_sizes(backend):
    def energy(hidden, weight, bias, v, s):
        kernels = assemble_kernels(
            *(hidden, weight, bias, v),
            sizes=[(s, 3), (s,)],
            channels=[(2, 3), (4, 1)],
            axes=[(0, None), (1,)],
        )
        return sum(kernel.square().sum() for kernel in kernels)

    compiled = torch.compile(energy, fullgraph=True, backend=backend)
    for s in (3, 4, 6):
        leaves = inputs([(s, 3), (s,)], [(2, 3), (4, 1)], 2, 4)
        found, expected = compiled(*leaves, s), energy(*leaves, s)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(
            torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves)
        )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sizes": [()]}, r"sizes\[0\] is \(\); a kernel has 1 to 3 axes"),
        ({"sizes": [(1, 1, 1, 2)]}, r"sizes\[0\] is \(1, 1, 1, 2\); a kernel has 1 to 3 axes"),
        ({"sizes": ["2"]}, r"sizes\[0\] is '2'"),
        ({"sizes": [(2, 0)]}, r"sizes\[0\]\[1\] is 0"),
        ({"sizes": [(300, 300)]}, r"90,000 taps; a kernel may have at most 65,536"),
        ({"axes": [(0, 0)] * 2}, "axes has length 2 for 1 layers"),
        ({"axes": [(0,)]}, r"axes\[0\] is \(0,\); kernel 0 has 2 axes"),
        ({"axes": [(0, 1)]}, "there are 1 soft sizes"),
        ({"axes": [(0, -1)]}, "an index from 0 to 0, or None"),
        ({"axes": [(True, 0)]}, r"axes\[0\] is \(True, 0\)"),
        ({"axes": [(0, 0)], "soft_sizes": None}, "soft_sizes is None and axes is"),
        ({"channels": []}, "channels is empty"),
        ({"precision": "fp32"}, "precision is 'fp32'; pass 'ieee', 'tf32x3' or 'tf32'"),
        ({"backend": "cuda"}, "backend is 'cuda'; pass 'auto', 'triton' or 'torch'"),
    ],
)
def test_bad_arguments_name_the_value_and_the_rule(change, sentence):
    arguments = {
        "hidden": torch.zeros(4, 5),
        "weight": torch.zeros(6, 5),
        "bias": torch.zeros(6),
        "soft_sizes": torch.ones(1),
        "sizes": [(1, 4)],
        "channels": [(2, 3)],
    }
    with pytest.raises(ValueError, match=sentence):
        assemble_kernels(**(arguments | change))


def test_integers_are_checked_anew_when_only_their_kind_changes():
    given = torch.zeros(1, 5), torch.zeros(1, 5), torch.zeros(1)
    which = {"sizes": [(1, 1)], "channels": [(1, 1)], "axes": [(0, 0)]}
    soft = torch.ones(1)
    for _ in range(2):  # what is right is kept
        assert len(assemble_kernels(*given, soft, **which)) == 1
        for name, wrong in (
            ("sizes", [1.0]),
            ("sizes", [(True, 1)]),
            ("channels", [(1.0, 1)]),
            ("channels", [(1, True)]),
            ("axes", [(0.0, 0)]),
            ("axes", [(False, 0)]),
        ):
            with pytest.raises((TypeError, ValueError), match=name):
                assemble_kernels(*given, soft, **which | {name: wrong})
    with pytest.raises(ValueError, match="there are 2 soft sizes"):
        assemble_kernels(*given, torch.ones(2), **which | {"axes": [(0, 2)]})
    tensor = torch.tensor([1])
    assert len(assemble_kernels(*given, soft, sizes=tensor, channels=[(1, 1)])) == 1


def test_the_backend_is_the_arguments_or_else_the_environments(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    given = torch.zeros(4, 5), torch.zeros(6, 5), torch.zeros(6), None
    which = {"sizes": [2], "channels": [(2, 3)]}
    with pytest.raises(ValueError, match="backend is 'triton'"):
        assemble_kernels(*given, **which, backend="triton")
    monkeypatch.setenv("EFFCONV_KERNELS_BACKEND", "triton")
    with pytest.raises(ValueError, match="backend is 'triton'"):
        assemble_kernels(*given, **which)
    assert len(assemble_kernels(*given, **which, backend="torch")) == 1
