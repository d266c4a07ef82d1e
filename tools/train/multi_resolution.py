"""`hatch run train:multi-resolution`: filter sizes learned as a mixture of resolutions.

Convolutional Neural Networks without Pooling or Fixed Filter Sizes, anonymous WACV submission 832:
filters and mixing weights are trained alternately on two parts of the training set (Section 3.4);
then the network is pruned by thresholds and to one resolution per layer, and each is fine-tuned.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from effconv_core.cli.errors import check_device
from effconv_core.engine.train import TrainConfig, TrainStep, evaluate, train
from effconv_core.io.atomic import write_tensors
from effconv_core.io.progress_bar import progress_bar
from effconv_core.report import finish_run
from effconv_core.runs.loggers import LoggerName, check_logger
from effconv_core.runs.metrics import Metrics
from effconv_core.runs.names import check_name, name_of
from effconv_core.runs.progress import step_meter
from effconv_core.runs.writer import begun
from effconv_data import Batches, ResidentBatches
from effconv_models import (
    MultiResolutionNet,
    best_resolutions,
    effective_sizes,
    mixing_parameters,
    mixing_weights,
    multiply_accumulates,
    one_resolution,
    pooled_cnn,
    predefined_resolutions,
    prune,
)
from effconv_models.multi_resolution.network import BlockKind
from rich.console import Console
from torch import Tensor, nn

from tools.presets import data_note, make_batches
from tools.support.console import run_and_report
from tools.train.alternating import alternating
from tools.train.multi_resolution_report import (
    Outcome,
    draw_grids,
    draw_learning,
    table,
    write_outcomes,
)


@dataclass(frozen=True)
class MixingConfig:
    """Settings of the learning of mixing weights; the defaults are the paper's."""

    lr: float = 1e-4
    """Learning rate of Adam. Short runs need more: 100 steps move a logit by at most 0.01."""
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 3e-4
    share: float = 0.2
    """Fraction of the training images that the filters never see."""

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr of the mixing is {self.lr}; it must be above 0, so raise it")
        if not self.weight_decay >= 0:
            raise ValueError(
                f"weight_decay of the mixing is {self.weight_decay}; it must be at least 0"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas of the mixing are {self.betas}; each must be in 0..1")


@dataclass(frozen=True)
class MultiResolutionOptions:
    """Learn filter sizes as a mixture of resolutions, prune, fine-tune, and report.

    The defaults are the paper's network and training where it gives them.
    """

    data: Literal["cifar10", "mnist", "stl10", "imagenet32", "demo"] = "cifar10"
    layers: int = 10
    """Number of blocks and the classifier."""
    channels: int = 64
    resolutions: int = 4
    block: BlockKind = "conv"
    learned_depth: bool = False
    """Learn a softmax over the layers' outputs too."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(400, 128, "sgd", 0.1, 1e-4, "cosine")
    )
    """Training of the filters, on their part of the data. The paper has epochs, SGD and cosine."""
    mixing: MixingConfig = field(default_factory=MixingConfig)
    tune_epochs: int = 40
    """Epochs of fine-tuning pruned networks, with fixed mixing weights. Not in the paper."""
    tune_lr: float = 0.01
    """Learning rate of fine-tuning; all else is as in the training. Not in the paper."""
    thresholds: tuple[float, ...] = (0.1, 0.2)
    """Resolutions of a lower weight are dropped."""
    baselines: bool = False
    """Train the paper's three baselines alike: no pooling, predefined pooling, scale invariant."""
    limit: int | None = None
    """Largest number of training images, both parts together; None takes all."""
    test_limit: int | None = None
    """Largest number of test images; None takes all."""
    seed: int = 0
    """Seed of initial values, parts, order and augmentation."""
    scale: float = 8.0
    """Width in pixels of the pattern that carries the class in the demo's images."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """`cpu`, `cuda` or one of several, such as `cuda:1`."""
    runs: Path = Path("runs")
    """Folder of all runs."""
    name: str = ""
    """Name of the run's folder; if empty, derived from data, layers and channels."""
    logger: LoggerName | None = None
    """Where curves go; by default to TensorBoard, in the run's folder, if it is installed."""
    overwrite: bool = False
    """Delete a run of this name and start again."""

    @property
    def tune(self) -> TrainConfig:
        """The settings of fine-tuning."""
        return replace(self.train, epochs=self.tune_epochs, lr=self.tune_lr)


@dataclass(frozen=True)
class Phases:
    """State shared by the phases of a run."""

    options: MultiResolutionOptions
    parts: tuple[ResidentBatches, ResidentBatches]
    test: Batches
    folder: Path
    metrics: Metrics
    console: Console

    def trained(
        self,
        phase: str,
        network: nn.Module,
        config: TrainConfig,
        *,
        second: tuple[torch.optim.Optimizer, Batches] | None = None,
        extra: Callable[[], dict] | None = None,
    ) -> float:
        """Train a network in place, or resume its training; return its test accuracy.

        Args:
            phase: names the checkpoint and the readings.
            network: it is tested at the end.
            config: settings.
            second: an optimizer that alternates with that of the config, and its batches.
            extra: returns more for each reading.
        """
        with progress_bar(self.console) as progress:
            steps = len(self.parts[0])
            meter = step_meter(
                progress,
                self.metrics,
                phase,
                epochs=config.epochs,
                steps_per_epoch=steps,
                extra=extra,
            )
            checkpoint = self.folder / f"{phase}.safetensors"
            optimizer, take_turn = None, None
            if second is not None:
                optimizer, take_turn = alternating(network, config, *second, steps)

            def on_step(step: TrainStep) -> None:
                if take_turn is not None:
                    take_turn(step)
                meter(step)

            options = {"optimizer": optimizer, "checkpoint": checkpoint, "on_step": on_step}
            train(network, self.parts[0], config, **options)
        return evaluate(network, self.test)

    def outcome(
        self, title: str, network: nn.Module, grid: Tensor, accuracy: float, before: float | None
    ) -> Outcome:
        """Collect the report's values for a network."""
        return Outcome(
            title,
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            macs=multiply_accumulates(network, self.test.image_shape),
            accuracy=accuracy,
            accuracy_before=before,
            grid=[[round(weight, 4) for weight in row] for row in grid.tolist()],
            effective_sizes=effective_sizes(network),
        )


def run(options: MultiResolutionOptions, console: Console) -> Path:
    """Train, prune, fine-tune and report; return the run's folder.

    Raises:
        FileExistsError: if the run is finished or has other settings.
        ValueError: as the networks, the training or the data do.
    """
    if options.name:
        check_name(options.name)
    check_device(options.device)
    check_logger(options.logger)
    test = _batches("test", options, 500, options.test_limit)
    whole = _batches("train", options, options.train.batch_size, options.limit)
    parts = whole.divide(options.mixing.share, seed=options.seed)
    network = _network(options, test)
    # Raises for settings of later phases before the run writes anything.
    _ = options.tune
    for threshold in options.thresholds:
        prune(network, threshold)
    if options.baselines:
        predefined_resolutions(options.layers, options.resolutions)

    folder = options.runs / (
        options.name or name_of(options.data, f"multi{options.layers}", options.channels)
    )
    settings = asdict(options)
    for place in ("runs", "name", "logger", "overwrite"):
        del settings[place]
    note = data_note(options.data)
    with begun(folder, settings, note, overwrite=options.overwrite) as goes_on:
        if goes_on:
            console.print(f"going on with the interrupted run {folder}")
        metrics = Metrics(folder, options.logger)
        _do(Phases(options, parts, test, folder, metrics, console), network)
    return folder


def _do(here: Phases, network: MultiResolutionNet) -> None:
    """Do the remaining work of a run."""
    options, folder, parts = here.options, here.folder, here.parts
    outcomes = _baselines(here) if options.baselines else []
    accuracy = here.trained(
        "train",
        network,
        options.train,
        second=(mixing_optimizer(network, options.mixing), parts[1]),
        extra=lambda: _learned(network),
    )
    outcomes.append(here.outcome("learned", network, mixing_weights(network), accuracy, None))
    outcomes += _pruned(here, network)
    here.metrics.close()

    draw_grids(folder / "mixing.png", outcomes)
    draw_learning(folder / "course.png", network, here.metrics)
    write_outcomes(folder, network, outcomes, here.metrics)
    found = {outcome.title: outcome.accuracy for outcome in outcomes}
    learned = next(outcome for outcome in outcomes if outcome.title == "learned")
    networks = {"learned": {"parameters": learned.parameters, "test_accuracy": accuracy}}
    finish_run(folder, {"accuracy": accuracy, "accuracies": found, "networks": networks})
    here.console.print(table(outcomes))


def mixing_optimizer(network: nn.Module, config: MixingConfig) -> torch.optim.Adam:
    """Return the optimizer of the mixing weights, which alternates with that of the filters."""
    return torch.optim.Adam(
        mixing_parameters(network),
        config.lr,
        betas=tuple(config.betas),
        weight_decay=config.weight_decay,
    )


def _batches(split: str, options: MultiResolutionOptions, size: int, limit: int | None) -> Batches:
    return make_batches(
        options.data,
        split,
        batch_size=size,
        device=options.device,
        seed=options.seed,
        scale=options.scale,
        limit=limit,
    )


def _network(
    options: MultiResolutionOptions, batches: Batches, **changes: bool
) -> MultiResolutionNet:
    """Build the network of the options for the data's channels and classes."""
    network = MultiResolutionNet(
        options.layers,
        options.channels,
        resolutions=options.resolutions,
        block=options.block,
        **{"learned_depth": options.learned_depth, **changes},
        in_channels=batches.image_shape[0],
        num_classes=batches.num_classes,
        generator=torch.Generator().manual_seed(options.seed),
    )
    return network.to(options.device, memory_format=torch.channels_last)


def _learned(network: MultiResolutionNet) -> dict[str, list]:
    """Return the mixing weights' values for a row of metrics."""
    return {
        "mixing": [
            [round(weight, 5) for weight in row] for row in mixing_weights(network).tolist()
        ],
        "effective_sizes": [round(size, 3) for size in effective_sizes(network).values()],
        "exit_weights": [round(weight, 5) for weight in network.exit_weights().tolist()],
    }


def _baselines(here: Phases) -> list[Outcome]:
    """Train the three baselines like the network, on the same part of the data."""
    options, outcomes = here.options, []
    chosen = {
        "no pooling": [0] * (options.layers - 1),
        "predefined pooling": predefined_resolutions(options.layers, options.resolutions),
    }
    for title, resolutions in chosen.items():
        cnn = pooled_cnn(
            resolutions,
            options.channels,
            block=options.block,
            in_channels=here.test.image_shape[0],
            num_classes=here.test.num_classes,
            generator=torch.Generator().manual_seed(options.seed),
        ).to(options.device, memory_format=torch.channels_last)
        accuracy = here.trained(title.replace(" ", "-"), cnn, options.train)
        grid = nn.functional.one_hot(torch.tensor(resolutions), options.resolutions).float()
        outcomes.append(here.outcome(title, cnn, grid, accuracy, None))
    network = _network(options, here.test, learned=False, learned_depth=False)
    accuracy = here.trained("scale-invariant", network, options.train)
    grid = mixing_weights(network)
    return [*outcomes, here.outcome("scale invariant", network, grid, accuracy, None)]


def _pruned(here: Phases, network: MultiResolutionNet) -> list[Outcome]:
    """Prune by each threshold and to one resolution, and fine-tune each."""
    outcomes = []
    for threshold in here.options.thresholds:
        pruned = prune(network, threshold)
        for parameter in mixing_parameters(pruned):
            parameter.requires_grad_(False)
        before = evaluate(pruned, here.test)
        accuracy = here.trained(f"threshold-{threshold}", pruned, here.options.tune)
        grid, title = mixing_weights(pruned), f"threshold {threshold}"
        outcomes.append(here.outcome(title, pruned, grid, accuracy, before))
    cnn = one_resolution(network, smooth=False).to(memory_format=torch.channels_last)
    before = evaluate(cnn, here.test)
    accuracy = here.trained("one-resolution", cnn, here.options.tune)
    resolutions = best_resolutions(network)[: len(cnn.layers)]
    save_cnn(cnn, resolutions, here.folder / "cnn.safetensors")
    grid = nn.functional.one_hot(torch.tensor(resolutions), here.options.resolutions).float()
    outcome = here.outcome("one resolution", cnn, grid, accuracy, before)
    return [*outcomes, replace(outcome, resolutions=resolutions)]


def save_cnn(cnn: nn.Module, resolutions: list[int], path: Path) -> None:
    """Write the weights of a plain CNN, for `pooled_cnn(resolutions)`, atomically."""
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in cnn.state_dict().items()
    }
    write_tensors(path, tensors, {"resolutions": ",".join(map(str, resolutions))})


def command(arguments: list[str], console: Console) -> Path:
    """Run a command line."""
    return run(
        tyro.cli(MultiResolutionOptions, args=arguments, prog="train:multi-resolution"), console
    )


if __name__ == "__main__":
    sys.exit(run_and_report("train:multi-resolution", command))
