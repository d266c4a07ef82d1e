"""The networks of the comparison of methods: equal parameters, and their cost."""

import pytest

from tools.methods.networks import METHODS, SIZES, TRAIN, at_budget, macs, make, parameters


@pytest.mark.parametrize("size", SIZES)
def test_networks_have_about_as_many_parameters(size):
    counts = {method: parameters(make(method, SIZES[size], 32, 0)) for method in METHODS}
    counts["effconv"] = parameters(at_budget(SIZES[size], 0))
    for method, count in counts.items():
        assert abs(count / SIZES[size].parameters - 1) < 0.04, method
    assert set(TRAIN) == set(METHODS)


def test_macs_of_a_flexnet_are_those_of_its_kernels():
    network = make("flexnet", SIZES["small"], 32, 0)
    convs = [m for m in network.modules() if type(m).__name__ == "FlexConv"]
    # All kernels start at 5x5 taps, and every feature map has 32x32 pixels.
    taps = sum(m.c_in * m.c_out for m in convs) * 25 * 32 * 32
    shortcuts = macs(network, (3, 32, 32)) - taps - network.fc.in_features * 10
    assert 0 <= shortcuts < 0.02 * taps
