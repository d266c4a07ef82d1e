"""The order of a loop over timesteps, against one that is written out."""

import torch
from effconv_kernels.device_tables import ready
from effconv_kernels.eager.ragged import last_rows, last_table, ragged
from hypothesis import given
from hypothesis import strategies as st

CPU = torch.device("cpu")
STEPS = st.lists(st.integers(1, 6), min_size=1, max_size=6)


def values(table):
    return ready(table).tolist()


def test_by_hand():
    # Rows 0 and 1 of the first layer, 2 to 4 of the second, 5 of the third.
    found = ragged((2, 3, 1), False, CPU)
    assert values(found.order) == [1, 0, 2]
    assert values(found.rank) == [1, 0, 2]
    assert values(found.natural) == [2, 0, 5, 3, 1, 4]
    assert values(found.layer) == [0, 0, 1, 1, 1, 2]
    assert values(found.first) == [0, 2, 5]
    assert found.active == [3, 2, 1]
    assert not found.is_sorted
    found = ragged((2, 3, 1), True, CPU)
    assert values(found.natural) == [4, 1, 5, 3, 0, 2]
    assert values(found.first) == [1, 4, 5]
    assert ragged((3, 3, 1), False, CPU).is_sorted


@given(steps=STEPS, reverse=st.booleans())
def test_each_step_visits_the_layers_that_still_run_the_longest_first(steps, reverse):
    found = ragged(tuple(steps), reverse, CPU)
    starts = [sum(steps[:layer]) for layer in range(len(steps))]
    expected = []
    for t in range(max(steps)):
        running = [layer for layer in values(found.order) if steps[layer] > t]
        assert found.active[t] == len(running)
        for layer in running:
            place = steps[layer] - 1 - t if reverse else t
            expected.append(starts[layer] + place)
    assert values(found.natural) == expected
    assert [expected[row] for row in values(found.looped)] == list(range(sum(steps)))
    lengths = [steps[layer] for layer in values(found.order)]
    assert lengths == sorted(steps, reverse=True)


@given(steps=STEPS, reverse=st.booleans())
def test_the_last_step_is_the_other_end_of_the_first(steps, reverse):
    first = values(ragged(tuple(steps), not reverse, CPU).first)
    assert last_rows(steps, reverse) == first
    assert values(last_table(tuple(steps), reverse, CPU)) == first


def test_a_repeated_call_copies_nothing():
    assert ragged((2, 3), False, CPU) is ragged((2, 3), False, CPU)
    assert last_table((2, 3), True, CPU) is last_table((2, 3), True, CPU)
