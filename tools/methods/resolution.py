"""`hatch run bench:resolution`: train a FlexNet on small images, and test it on larger ones."""

import copy
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from effconv_core.cli.errors import check_device, run_command
from effconv_core.engine.train import TrainConfig, evaluate, make_optimizer, train
from effconv_core.io.console import PlainConsole
from effconv_core.runs.environment import environment
from effconv_data import Batches, load
from effconv_models import (
    FlexConvConfig,
    anti_aliasing,
    flexnet3,
    refine,
    resolution_errors,
)
from effconv_models.flexconv.flexnet import covering_grid
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from tools.methods.networks import parameters
from tools.presets import as_they_are, check_set, data_note
from tools.support.rows import run_grid
from tools.train.flexnet import parameter_groups

OUT = Path("results/methods/resolution.jsonl")
FACTOR = 2
PENALTY = 0.1
"""Weight of the penalty on frequencies, where there is one: that of the authors' code."""
SETTINGS = {
    "paper": "the paper's numbers",
    "paper, penalty": "the paper's numbers, and its penalty on frequencies",
    "grid": "the paper's numbers in taps (`on_grid`)",
    "grid, penalty": "the paper's numbers in taps, and its penalty",
}


@dataclass(frozen=True)
class ResolutionOptions:
    """Train FlexNet-3 on images of half the side, and test it on whole ones."""

    data: str = "mnist"
    channels: int = 12
    """Channels of the network's first convolution."""
    epochs: int = 3
    pictures: int | None = 6_000
    """Training images; None takes all."""
    test_pictures: int | None = 2_000
    """Test images; None takes all."""
    seeds: int = 2
    settings: tuple[str, ...] = ("paper", "grid")
    """Some of `paper`, `paper, penalty`, `grid` and `grid, penalty`."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    out: Path = OUT
    """File of the rows; finished trainings are not repeated."""

    def __post_init__(self) -> None:
        strange = [name for name in self.settings if name not in SETTINGS]
        if strange:
            raise ValueError(f"settings {strange} are unknown; pass some of {list(SETTINGS)}")
        check_set(self.data)
        check_device(self.device)


def halved(images: Tensor) -> Tensor:
    """Return images of half the side, by means of 2x2 pixels."""
    return F.avg_pool2d(images, FACTOR)


def network_for(name: str, batches: Batches, channels: int, seed: int) -> nn.Module:
    """Build a FlexNet-3 for halved images, with a name of `SETTINGS`."""
    size = [side // FACTOR for side in batches.image_shape[1:]]
    config = FlexConvConfig()
    if name.startswith("grid"):
        config = config.on_grid(max(covering_grid(size)))
    return flexnet3(
        channels=channels,
        image_size=size,
        in_channels=batches.image_shape[0],
        num_classes=batches.num_classes,
        config=config,
        generator=torch.Generator().manual_seed(seed),
    )


def measure(options: ResolutionOptions, name: str, seed: int) -> dict[str, Any]:
    """Train at half the side; return the row of accuracies there and at the whole side."""

    def split(what: str, limit: int | None) -> Batches:
        return load(
            options.data,
            split=what,
            batch_size=64 if what == "train" else 500,
            limit=limit,
            seed=seed,
            device=options.device,
            augment=as_they_are,
        )

    batches, test = split("train", options.pictures), split("test", options.test_pictures)
    network = network_for(name, batches, options.channels, seed).to(options.device)
    config = TrainConfig(options.epochs, 64, "adam", 1e-2, 0.0, "cosine", 0.0)
    train(
        network,
        batches.viewed(halved),
        config,
        optimizer=make_optimizer(parameter_groups(network), config),
        penalty=(lambda: PENALTY * anti_aliasing(network)) if "penalty" in name else None,
        seed=seed,
    )
    with warnings.catch_warnings():  # the row says more than the warning
        warnings.simplefilter("ignore", UserWarning)
        fine = refine(network, FACTOR)
    estimated = copy.deepcopy(fine)
    update_bn(batches, estimated, device=options.device)
    return {
        "settings": name,
        "seed": seed,
        "data": options.data,
        "channels": options.channels,
        "pictures": options.pictures,
        "test_pictures": options.test_pictures,
        "train": asdict(config),
        "steps": options.epochs * len(batches),
        "parameters": parameters(network),
        "trained_side": batches.image_shape[-1] // FACTOR,
        "accuracy": evaluate(network, test.viewed(halved)),
        "accuracy_refined": evaluate(fine, test),
        "accuracy_estimated": evaluate(estimated, test),
        "largest_error": max(resolution_errors(network, FACTOR).values()),
        "environment": {"data": data_note(options.data), **environment(options.device)},
    }


def main() -> int:
    """Run the command line."""
    options, console = tyro.cli(ResolutionOptions, prog="bench:resolution"), PlainConsole()
    same = ("data", "channels", "pictures", "test_pictures")
    key = {name: getattr(options, name) for name in same} | {"train": {"epochs": options.epochs}}
    grid = [
        (options.out, {**key, "settings": name, "seed": seed}, (options, name, seed))
        for seed in range(options.seeds)
        for name in options.settings
    ]
    run_grid(console, "trainings", measure, grid, 1)
    console.print(f"{options.out} written; `hatch run bench:methods page` writes the page")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("bench:resolution", main))
