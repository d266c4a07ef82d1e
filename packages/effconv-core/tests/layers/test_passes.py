"""Passes are told apart by what a network gave and by its layers, the earliest first."""

import pytest
import torch
from effconv_core.layers.passes import COARSE, TOLERANCE, Pass, Run, differ, leaves, tolerance_for


def run(layer="a", given=1.0, gave=2.0, shape=(2, 3)):
    size = torch.Size(shape)
    return Run(layer, torch.tensor(given), torch.tensor(gave), (size, size))


def made(outputs=None, loss=None, runs=None):
    outputs = torch.ones(2, 3) if outputs is None else outputs
    loss = None if loss is None else torch.tensor(loss)
    return Pass(outputs, loss, [run()] if runs is None else runs)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (made(torch.ones(2, 3) * 1.1), "outputs are others"),
        (made([torch.ones(2, 3), None]), "outputs are of shape"),
        (made(loss=1.0), None),
        (made(runs=[run(gave=2.1)]), "first at layer 'a'"),
        (made(runs=[run(given=1.1)]), "on the way to layer 'a'"),
        (made(runs=[run(shape=(2, 4))]), "on the way to layer 'a'"),
        (made(torch.ones(2, 3) * 1.1, runs=[]), "does not run ['a']"),
        (made(torch.ones(2, 3) * (1 + TOLERANCE / 10)), None),
    ],
)
def test_what_differs_is_told(other, told):
    reason = differ(made(), other, TOLERANCE)
    assert (reason is None) == (told is None)
    if told is not None:
        assert told in reason


def test_losses_are_compared_where_there_are_some():
    assert differ(made(loss=1.0), made(loss=1.0), TOLERANCE) is None
    assert "loss" in differ(made(loss=1.0), made(loss=1.5), TOLERANCE)


def test_values_that_are_not_finite_must_stand_in_the_same_places():
    values = torch.tensor([1.0, float("inf")])
    assert differ(made(values), made(values.clone()), TOLERANCE) is None
    assert differ(made(values), made(values.flip(0)), TOLERANCE) is not None


def test_leaves_are_found_in_whatever_holds_them():
    class Held:
        __slots__ = ("tensor",)

    held = Held()
    held.tensor = torch.ones(1)
    found = leaves({"a": [held, (torch.zeros(2),)]})
    assert [leaf.numel() for leaf in found if isinstance(leaf, torch.Tensor)] == [1, 2]


def test_outputs_of_few_bits_are_compared_coarsely():
    assert tolerance_for(made(), TOLERANCE) == TOLERANCE
    assert tolerance_for(made(torch.ones(2, dtype=torch.bfloat16)), TOLERANCE) == COARSE
