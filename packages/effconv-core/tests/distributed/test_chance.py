"""Ranks search networks whose layers run by chance, or by their own count."""

import pytest


@pytest.fixture(scope="module")
def told(two_ranks):
    """What each of two ranks says of the plans that they have found."""
    statuses, said = two_ranks("chance_program")
    assert statuses == [0, 0], said
    return [dict(line.split(" ", 1) for line in text.splitlines() if " " in line) for text in said]


@pytest.mark.parametrize("what", ["torch", "python", "passes", "told"])
def test_two_ranks_search_a_network_that_leaves_out_layers(what, told):
    one, other = told
    assert one[what] == other[what]
    assert "always" in one[what]
