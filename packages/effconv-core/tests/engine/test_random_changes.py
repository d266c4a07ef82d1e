"""Loaders that change each image by chance: comparisons of plans see the same images each time."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from effconv_core import SearchableCNN, frontier, recipe, search
from effconv_core.engine.probe import probe
from effconv_core.engine.proposals import KernelLosses
from effconv_core.engine.race import Trials
from effconv_core.rng import random_state
from torch import nn
from torch.utils.data import DataLoader, Dataset

DRAWS = {
    "torch": lambda: torch.rand(()).item(),
    "python": random.random,
    "numpy": lambda: float(np.random.rand()),  # noqa: NPY002
}
CONFIG = recipe("bank", least_steps=6, race_steps=3)
OPTIONS = {"epoch_steps": 6, "epochs": 1, "criterion": F.cross_entropy}


class Flipped(Dataset):
    """48 images, half of them mirrored and all of them brightened by chance; keeps what it gave."""

    def __init__(self, draw):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(48, 1, 6, 6, generator=generator)
        self.draw, self.given = draw, []

    def __len__(self):
        return 48

    def __getitem__(self, index):
        chance = self.draw()
        self.given.append((index, chance))
        image = self.images[index]
        return (image.flip(-1) if chance < 0.5 else image) + chance, index % 2


def loader(kind):
    return DataLoader(Flipped(DRAWS[kind]), 8, shuffle=True)


def network():
    torch.manual_seed(0)
    convs = [nn.Conv2d(1, 3, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        convs += [nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))


def seed_all(seed):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def at_seeds(compute):
    """Return what is computed at two states of the global generators, which must stay as it is."""
    found = []
    for seed in (1, 2):
        seed_all(seed)
        before = random_state(torch.device("cpu"))
        found.append(compute())
        assert random_state(torch.device("cpu")) == before
    return found


@pytest.mark.parametrize("kind", DRAWS)
def test_short_trainings_see_the_same_images_each_time(kind):
    data, searchable = loader(kind), SearchableCNN(network(), CONFIG)
    trials = Trials(searchable.source[0], CONFIG, data, device=torch.device("cpu"), **OPTIONS)
    plans = [dict.fromkeys(searchable.layers, 3)] * 2

    def compute():
        data.dataset.given.clear()
        results = trials.run(plans, steps=9, seed=4, epoch=0)  # two epochs of them
        return results, list(data.dataset.given)

    (results, given), again = at_seeds(compute)
    assert (results, given) == again
    assert results[0] == results[1]
    assert len({chance for _, chance in given}) == 48  # each image has a change of its own


@pytest.mark.parametrize("kind", DRAWS)
def test_losses_on_the_kernels_of_the_search_are_of_the_same_images(kind):
    searchable = SearchableCNN(network(), CONFIG)

    def compute():
        device = torch.device("cpu")
        trials = Trials(searchable.source[0], CONFIG, loader(kind), device=device, **OPTIONS)
        return KernelLosses(searchable, trials)((3, 3, 3))

    one, other = at_seeds(compute)
    assert one == other


@pytest.mark.parametrize("kind", DRAWS)
def test_a_probe_and_a_frontier_are_the_same_each_time_and_leave_the_generators(kind):
    model, data = network(), loader(kind)
    one, other = at_seeds(lambda: probe(model, data, config=CONFIG, plans=4, repeats=2))
    assert one == other
    searchable = SearchableCNN(model, CONFIG)
    one, other = at_seeds(lambda: frontier(searchable, data, amounts=[150, 400]))
    assert one == other


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("stopped", [2, 3])
def test_a_search_that_is_stopped_in_its_choice_ends_with_the_same_evidence(
    kind, stopped, tmp_path
):
    def stop(number, plans):
        if number == stopped:
            raise KeyboardInterrupt

    seed_all(1)
    whole = search(network(), loader(kind), config=CONFIG)
    given = {"config": CONFIG, "checkpoint": tmp_path / "search.safetensors"}
    seed_all(1)
    with pytest.raises(KeyboardInterrupt):
        search(network(), loader(kind), on_round=stop, **given)
    seed_all(2)
    assert search(network(), loader(kind), **given).to_json() == whole.to_json()
