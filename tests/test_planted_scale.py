"""A search on a set whose right direction is known: the scale that carries the class."""

import dataclasses

import pytest
from effconv_core import SizePlan, search

from tools.presets import make_batches, make_network, preset


def plan_at(scale: float, seed: int) -> SizePlan:
    demo = preset("demo", "default")
    batches = make_batches(
        "demo", "train", batch_size=demo.batch_size, device="cpu", seed=seed, scale=scale
    )
    network = make_network(demo.model, batches, seed)
    config = dataclasses.replace(demo.search, seed=seed)
    return search(network, batches, budget=demo.budget, config=config)


@pytest.mark.slow
def test_a_larger_planted_scale_gives_larger_kernels_in_nine_of_ten_seeds():
    larger = 0
    for seed in range(10):
        small, large = plan_at(2.0, seed), plan_at(8.0, seed)
        # `see` alone looks at the pixels. Its size may be the same: trained from scratch, size 5 is
        # among the best at the small scale too.
        larger += (
            large.soft_sizes["see"] > small.soft_sizes["see"] + 0.25
            and large["see"] >= small["see"]
        )
        for plan in (small, large):
            assert abs(plan.cost / plan.budget - 1) <= 0.02
    assert larger >= 9
