"""Scales of the comparison."""

from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

from effconv_core import SearchConfig, recipe
from effconv_core.engine.train import TRAIN_RECIPES, TrainConfig
from effconv_data import Batches, load

from tools.studies.small_spaces import ADAM, Space


@dataclass(frozen=True)
class AutoNas:
    """Settings of ModelOpt's AutoNAS; the defaults are its own, or its guide's."""

    epochs_factor: int = 2
    """Epochs of the supernet, as a multiple of a training's; the guide says 2 to 3."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Options of `mtn.search` that differ from its defaults."""
    calibration_pictures: int | None = None
    """Images of each of the 50 batches that calibrate a subnet's normalisation; None takes whole
    batches."""
    scored_batches: int = 8
    """Number of training batches whose loss ranks a subnet."""


@dataclass(frozen=True)
class VersusScale:
    """A network, its data and training, and the limits of each method."""

    network: dict[str, Any]
    """Options of `Space`."""
    train: TrainConfig
    seeds: int
    random_plans: int
    pictures: int = 50_000
    """Training images; there are 50,000."""
    test_pictures: int | None = None
    """Test images; None takes all 10,000."""
    search: dict[str, Any] = field(default_factory=dict)
    """Changes to the default recipe."""
    autonas: AutoNas = field(default_factory=AutoNas)

    def space(self, device: str) -> Space:
        """Return the network with its data, budget and training, on a device."""
        return Space(
            partial(cifar10, self.train.batch_size, self.test_pictures, device),
            self.train,
            samples=self.pictures,
            device=device,
            **self.network,
        )

    def config(self, seed: int) -> SearchConfig:
        """Return the settings of a search."""
        return recipe("bank", seed=seed, **self.search)


@lru_cache(maxsize=4)
def cifar10(
    batch_size: int, test_pictures: int | None, device: str, split: str, seed: int, pictures: int
) -> Batches:
    """Return the first images of a split."""
    limit = pictures if split == "train" else test_pictures
    return load(
        "cifar10", split=split, batch_size=batch_size, device=device, seed=seed, limit=limit
    )


SCALES = {
    "smoke": VersusScale(
        network={"depth": 8, "halve": True},
        train=TrainConfig(1, 32, "sgd", 0.1, 5e-4, "cosine"),
        seeds=2,
        random_plans=2,
        pictures=640,
        test_pictures=256,
        search={"epochs": 1, "least_steps": 0, "finalists": 4, "race_steps": 0},
        autonas=AutoNas(
            settings={"num_iters": 60, "population_size": 4, "candidate_size": 2},
            calibration_pictures=4,
            scored_batches=1,
        ),
    ),
    "cpu": VersusScale(
        network={"mixes": 5, "halve": True},
        train=ADAM,
        seeds=3,
        random_plans=3,
        pictures=4_000,
        autonas=AutoNas(
            settings={"num_iters": 600, "population_size": 6, "candidate_size": 3},
            calibration_pictures=8,
        ),
    ),
    "gpu": VersusScale({"depth": 20}, TRAIN_RECIPES["resnet"], seeds=3, random_plans=6),
}
