import pytest
import torch
from effconv_core.space.search_space import Layer, SizeSpace, flat


def test_a_layers_shape():
    assert Layer("row", (1, 1), axes=(None, 0)).shape([5]) == (1, 5)
    assert Layer("cube", (1, 1), axes=(0, 0, 0)).shape([2]) == (2, 2, 2)
    assert Layer("apart", (1, 1), axes=(0, 1)).shape([3, 4]) == (3, 4)


def test_plans_values_are_written_as_one_list():
    assert flat([3, (4, 5), [6], 7]) == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("ties", [[], [[0, 2]], [[0, 1, 2]]])
def test_expanding_passes_the_gradients_of_tied_entries_on_together(ties):
    space = SizeSpace([Layer(str(i), (1, 1)) for i in range(3)], ties)
    values = torch.ones(len(space.variable_ranges), requires_grad=True)
    space.expand(values).backward(torch.tensor([1.0, 10.0, 100.0]))
    assert (
        values.grad.tolist()
        == {
            0: [1.0, 10.0, 100.0],
            2: [101.0, 10.0],
            3: [111.0],
        }[len(ties[0]) if ties else 0]
    )
