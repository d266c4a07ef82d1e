"""`hatch run train:flexnet`: train a FlexNet, which learns its kernel sizes in training."""

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import effconv_models
import torch
import tyro
from effconv_core import SizePlan, figures
from effconv_core.cli.errors import check_device
from effconv_core.engine.train import (
    TRAIN_RECIPES,
    TrainConfig,
    TrainStep,
    evaluate,
    make_optimizer,
    train,
)
from effconv_core.io.atomic import write_tensors, write_text
from effconv_core.io.progress_bar import progress_bar
from effconv_core.report import finish_run
from effconv_core.report.markdown import made_with
from effconv_core.runs.loggers import LoggerName, check_logger
from effconv_core.runs.metrics import Metrics, seconds_per_epoch
from effconv_core.runs.names import check_name, name_of
from effconv_core.runs.progress import step_meter
from effconv_core.runs.reader import read_config
from effconv_core.runs.writer import REPORT, begun
from effconv_data import Batches
from effconv_data.archived_sequences import ARCHIVED
from effconv_data.sequences import VIEWS
from effconv_models import (
    FlexConvConfig,
    anti_aliasing,
    create_model,
    effective_sizes,
    flexnet3,
    flexnet5,
    flexnet16,
    flextcn2,
    flextcn4,
    flextcn6,
    flextcn7,
    left_alone,
    list_models,
    mask_parameters,
    to_plain,
    with_flexconv,
)
from effconv_models.flexconv.conv import FlexConv, flexconvs
from effconv_models.flexconv.variants import ckcnn16, ckcnn_magnet16, flexnet_gabor16
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table
from torch import nn

from tools.presets import PAPER_SETS, augments, data_note, make_batches
from tools.support.console import run_and_report

FLEXTCNS = {f.__name__: f for f in (flextcn2, flextcn4, flextcn6, flextcn7)}
_IMAGES = flexnet3, flexnet5, flexnet16, flexnet_gabor16, ckcnn16, ckcnn_magnet16
FLEXNETS = {f.__name__: f for f in _IMAGES} | FLEXTCNS

DataName = Literal[(*PAPER_SETS, "demo", *VIEWS, *ARCHIVED)]


@dataclass(frozen=True)
class FlexNetOptions:
    """Train a FlexNet, or another network with its convolutions replaced by FlexConv.

    The defaults are the paper's settings for CIFAR-10; `--data` sets those of training.
    """

    data: DataName = "cifar10"
    """Images, or sequences as `effconv_data.load` names them."""
    model: str = "flexnet16"
    """`flexnet3`, `flexnet5`, `flexnet16`, `flexnet_gabor16`, `ckcnn16` or `ckcnn_magnet16`; of
    sequences `flextcn2`, `flextcn4`, `flextcn6` or `flextcn7`; or a name of effconv_models. Where
    that has no FlexConvs yet, they replace all convolutions of several taps except the first."""
    channels: int | None = None
    """Channels of a FlexNet's first convolution, or of a FlexTCN; None takes the model's own."""
    dropout: float = 0.2
    """Dropout probability of a FlexNet's blocks."""
    conv: FlexConvConfig = field(default_factory=FlexConvConfig)
    train: TrainConfig = field(default_factory=lambda: replace(TRAIN_RECIPES["flexconv"], lr=1e-2))
    mask_lr_factor: float = 0.1
    """Learning rate of the masks relative to the rest."""
    aliasing: float = 0.0
    """Weight of the penalty on frequencies above those of the grids; the paper's is 0.1."""
    limit: int | None = None
    """Largest number of training images; None takes all. The test set is used whole."""
    seed: int = 0
    """Seed of data order, augmentation, initial values and dropout."""
    scale: float = 8.0
    """Width in pixels of the pattern that carries the class in the demo's images."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """`cpu`, `cuda` or one of several, such as `cuda:1`."""
    runs: Path = Path("runs")
    """Folder of all runs."""
    name: str = ""
    """Name of the run's folder; if empty, derived from data and model."""
    logger: LoggerName | None = None
    """Where curves go; by default to TensorBoard, in the run's folder, if it is installed."""
    overwrite: bool = False
    """Delete a run of this name and start again."""

    def __post_init__(self) -> None:
        for name in ("mask_lr_factor", "aliasing"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; pass 0 or more, and finite")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; pass 0 for none, or a number below 1")
        check_device(self.device)
        check_logger(self.logger)


def make_network(options: FlexNetOptions, batches: Batches) -> tuple[nn.Module, dict[str, str]]:
    """Return the network, and the skipped convolutions with the reasons."""
    generator = torch.Generator().manual_seed(options.seed)
    channels, *size = batches.image_shape
    if options.model in FLEXNETS:
        if (options.model in FLEXTCNS) != (len(size) == 1):
            raise ValueError(
                f"model {options.model!r} does not fit {options.data}, samples of shape "
                f"{batches.image_shape}; FlexTCNs take sequences and FlexNets images"
            )
        extent = {"length": size[0]} if options.model in FLEXTCNS else {"image_size": size}
        widths = {} if options.channels is None else {"channels": options.channels}
        network = FLEXNETS[options.model](
            in_channels=channels,
            num_classes=batches.num_classes,
            **extent,
            dropout=options.dropout,
            config=options.conv,
            generator=generator,
            **widths,
        )
        return network, {}
    if options.model not in list_models():
        known = [*FLEXNETS, *list_models()]
        raise ValueError(f"model {options.model!r} is unknown; pass one of {', '.join(known)}")
    model = create_model(
        options.model,
        in_channels=channels,
        num_classes=batches.num_classes,
        input_size=size,
        generator=generator,
    )
    if any(isinstance(module, FlexConv) for module in model.modules()):
        return model, {}
    example = torch.zeros(1, *batches.image_shape)
    network = with_flexconv(model, example, config=options.conv, generator=generator)
    return network, left_alone(model)


def parameter_groups(network: nn.Module, mask_lr_factor: float = 0.1) -> list[dict[str, Any]]:
    """Return the groups for `train`: the masks have their own learning rate."""
    masks = mask_parameters(network)
    of_masks = {id(mask) for mask in masks}
    return [
        {"params": [p for p in network.parameters() if id(p) not in of_masks], "factor": 1.0},
        {"params": masks, "factor": mask_lr_factor},
    ]


def mask_meter(
    network: nn.Module, metrics: Metrics, steps_per_epoch: int
) -> Callable[[TrainStep], None]:
    """Return an `on_step` that writes masks and sizes at the end of each epoch."""

    def on_step(step: TrainStep) -> None:
        if step.step + 1 < steps_per_epoch:
            return
        masks = [masks_of(layer) for layer in flexconvs(network).values()]
        metrics.log(
            "masks",
            step.epoch,
            (step.epoch + 1) * steps_per_epoch,
            means=[[round(mean, 5) for mean, _ in mask] for mask in masks],
            widths=[[round(width, 5) for _, width in mask] for mask in masks],
            sizes=[list(layer.effective_size) for layer in flexconvs(network).values()],
        )

    return on_step


def run(options: FlexNetOptions, console: Console) -> Path:
    """Train, test and report; return the run's folder.

    Raises:
        FileExistsError: if the run is finished or has other settings.
        FloatingPointError: if the loss of an epoch is not finite.
        ValueError: as the network or the data do.
    """
    if options.name:
        check_name(options.name)

    def batches(split: str, batch_size: int, limit: int | None = None) -> Batches:
        return make_batches(
            options.data,
            split,
            batch_size=batch_size,
            device=options.device,
            seed=options.seed,
            scale=options.scale,
            limit=limit,
            augment=augments(options.data),
        )

    train_batches = batches("train", options.train.batch_size, options.limit)
    network, others = make_network(options, train_batches)
    network = network.to(options.device)
    folder = options.runs / (options.name or name_of(options.data, options.model))
    settings = asdict(options)
    for place in ("runs", "name", "logger", "overwrite"):
        del settings[place]
    note = data_note(options.data)
    with begun(folder, settings, note, overwrite=options.overwrite) as goes_on:
        if goes_on:
            console.print(f"going on with the interrupted run {folder}")
        _do(folder, options, network, others, train_batches, batches("test", 500), console)
    return folder


def _do(
    folder: Path,
    options: FlexNetOptions,
    network: nn.Module,
    others: dict[str, str],
    train_batches: Batches,
    test_batches: Batches,
    console: Console,
) -> None:
    """Do the remaining work of a run."""
    metrics, steps = Metrics(folder, options.logger), len(train_batches)
    groups = parameter_groups(network, options.mask_lr_factor)
    with progress_bar(console) as progress:
        meters = (
            step_meter(
                progress, metrics, "train", epochs=options.train.epochs, steps_per_epoch=steps
            ),
            mask_meter(network, metrics, steps),
        )
        train(
            network,
            train_batches,
            options.train,
            checkpoint=folder / "train.safetensors",
            on_step=lambda step: [meter(step) for meter in meters],
            optimizer=make_optimizer(groups, options.train),
            penalty=(lambda: options.aliasing * anti_aliasing(network))
            if options.aliasing
            else None,
            seed=options.seed,
        )
    accuracy = evaluate(network, test_batches)
    metrics.close()
    plan = SizePlan(
        effective_sizes(network),
        model=type(network).__name__,
        versions={"effconv-models": effconv_models.__version__, "torch": torch.__version__},
    )
    plan.save(folder / "plan.json")
    state = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_tensors(folder / "cnn.safetensors", state)
    draw(folder / "sizes.png", network, plan, metrics)
    write_report(folder, network, accuracy, others, metrics)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    networks = {"learned": {"parameters": parameters, "test_accuracy": accuracy}}
    finish_run(folder, {"accuracy": accuracy, "sizes": plan.sizes, "networks": networks})
    console.print(layer_table(network))
    console.print(f"test accuracy {accuracy:.2%}")


def masks_of(layer: FlexConv) -> list[list[float]]:
    """Return mean and width of a layer's mask on each axis, nothing if it has none."""
    return [] if layer.mask is None else layer.mask.tolist()


def layer_rows(network: nn.Module) -> list[tuple[str, ...]]:
    """Return for each FlexConv (layer, channels, grid, mask's mean, mask's width, size)."""

    def joined(numbers: tuple[float, ...], form: str) -> str:
        return " x ".join(format(number, form) for number in numbers)

    return [
        (
            name,
            f"{layer.c_in} → {layer.c_out}",
            joined(layer.grid, "d"),
            joined(tuple(mean for mean, _ in masks_of(layer)), "+.3f"),
            joined(tuple(width for _, width in masks_of(layer)), ".3f"),
            joined(layer.effective_size, "d"),
        )
        for name, layer in flexconvs(network).items()
    ]


COLUMNS = ("layer", "channels", "grid", "mask's mean", "mask's width", "size")


def layer_table(network: nn.Module) -> Table:
    """Build the terminal's table of masks and sizes."""
    table = Table(title="learned masks (height x width, or time) and effective kernel sizes")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "layer" else "right")
    for row in layer_rows(network):
        table.add_row(*row)
    return table


def draw(path: Path, network: nn.Module, plan: SizePlan, metrics: Metrics) -> None:
    """Draw the size of each layer, and the masks' widths over the training."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    figures.draw_sizes({"effective size": plan}, left)
    layers = {name: layer for name, layer in flexconvs(network).items() if masks_of(layer)}
    start = [layer.config.mask_width for layer in layers.values()]
    rows = [row["widths"] for row in metrics.rows() if row["phase"] == "masks"]
    courses = [start, *([sum(widths) / len(widths) for widths in row if widths] for row in rows)]
    for name, course in zip(layers, zip(*courses, strict=True), strict=True):
        right.plot(range(len(courses)), course, label=name, linewidth=1)
    right.set(
        title="width of the masks, mean of both axes",
        xlabel="epoch",
        ylabel="width (half the grid is 1)",
    )
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    if layers:
        right.legend(fontsize=5, ncols=2)
    figures.save_figure(figure, path)


def write_report(
    folder: Path,
    network: nn.Module,
    accuracy: float,
    others: dict[str, str],
    metrics: Metrics,
) -> None:
    """Write `report.md` from the run's measurements."""
    config = read_config(folder)
    settings = config.settings
    parameters, plain = (
        sum(p.numel() for p in model.parameters()) for model in (network, to_plain(network))
    )
    seconds = seconds_per_epoch(metrics, "train")
    limited = "" if settings["limit"] is None else f", the first {settings['limit']:,} pictures"
    told = "; ".join(f"`{name}` {reason}" for name, reason in others.items())
    lines = [
        f"# {folder.name}",
        "",
        f"{settings['model']} on {settings['data']}{limited}. Data: {config.environment['data']}.",
        "",
        "| network | parameters | test accuracy |",
        "|---|---|---|",
        f"| FlexConv | {parameters:,} | {accuracy:.2%} |",
        "",
        f"With plain convolutions of the learned sizes (`to_plain`) it has {plain:,} parameters.",
        "",
        f"Training: {settings['train']['epochs']} epoch(s), {seconds:.1f} s each.",
        "",
        f"Every mask started at mean 0 and width {settings['conv']['mask_width']}, on a grid from "
        "-1 to 1; numbers are height x width, or time."
        if mask_parameters(network)
        else "Kernels have no masks: each is its whole grid.",
        *(["", f"Left as they were: {told}."] if told else []),
        "",
        "![sizes](sizes.png)",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(f"| {' | '.join(row)} |" for row in layer_rows(network)),
    ]
    write_text(folder / REPORT, "\n".join([*lines, *made_with(config)]))


def parse(arguments: list[str]) -> FlexNetOptions:
    """Read the command line; the data are read first, because they set the defaults of training."""
    chosen = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chosen.add_argument("--data", default="cifar10")
    data, default = chosen.parse_known_args(arguments)[0].data, FlexNetOptions()
    if data in PAPER_SETS:
        default = FlexNetOptions(data=data, train=replace(PAPER_SETS[data].train, lr=1e-2))
    return tyro.cli(FlexNetOptions, default=default, args=arguments, prog="train:flexnet")


def command(arguments: list[str], console: Console) -> Path:
    """Run a command line."""
    return run(parse(arguments), console)


if __name__ == "__main__":
    sys.exit(run_and_report("train:flexnet", command))
