"""The results of a multi-resolution run: tables, the paper's grid of weights, and a report."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from effconv_core import figures
from effconv_core.io.atomic import write_text
from effconv_core.report.markdown import made_with
from effconv_core.runs.metrics import Metrics, seconds_per_epoch
from effconv_core.runs.reader import read_config
from effconv_core.runs.writer import REPORT
from effconv_models import MultiResolutionNet, learned_depth
from matplotlib.figure import Figure
from rich.table import Table

COLUMNS = ("network", "parameters", "MACs", "test accuracy", "before tuning")


@dataclass(frozen=True)
class Outcome:
    """The results of a run for one network."""

    title: str
    parameters: int
    macs: int
    """Multiply-accumulates of one image."""
    accuracy: float
    """Test accuracy, from 0 to 1."""
    accuracy_before: float | None
    """The same before fine-tuning; None if nothing was pruned."""
    grid: list[list[float]]
    """Weight of each resolution, layer by layer, from fine to coarse."""
    effective_sizes: dict[str, float]
    """Kernel size of each layer in pixels of the image."""
    resolutions: list[int] | None = None
    """Resolution of each layer of the plain CNN."""

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        before = "" if self.accuracy_before is None else f"{self.accuracy_before:.2%}"
        count, macs = f"{self.parameters:,}", f"{self.macs / 1e6:,.1f} M"
        return self.title, count, macs, f"{self.accuracy:.2%}", before


def table(outcomes: Sequence[Outcome]) -> Table:
    """Build the terminal's table."""
    made = Table(title="learned resolutions")
    for column in COLUMNS:
        made.add_column(column, justify="left" if column == "network" else "right")
    for outcome in outcomes:
        made.add_row(*outcome.cells())
    return made


def draw_grids(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Draw the weights of each network like the paper's Fig. 3: layers by resolutions."""
    columns = min(3, len(outcomes))
    rows = -(-len(outcomes) // columns)
    depth, resolutions = len(outcomes[0].grid), len(outcomes[0].grid[0])
    size = (columns * (0.42 * depth + 1.2), rows * (0.5 * resolutions + 1.2))
    figure = Figure(figsize=size, layout="constrained")
    places = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in places[len(outcomes) :]:
        axes.set_axis_off()
    for axes, outcome in zip(places, outcomes, strict=False):
        weights = [list(row) for row in zip(*outcome.grid, strict=True)]
        axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for resolution, row in enumerate(weights):
            for layer, weight in enumerate(row):
                if weight:
                    colour = "white" if weight > 0.6 else "black"
                    text = f"{weight:.2f}".lstrip("0")
                    axes.text(
                        layer, resolution, text, ha="center", va="center", color=colour, fontsize=7
                    )
        axes.set_xticks(range(len(outcome.grid)), range(1, len(outcome.grid) + 1))
        sides = ["1" if r == 0 else f"1/{2**r}" for r in range(len(weights))]
        axes.set_yticks(range(len(weights)), sides)
        axes.set(title=outcome.title, xlabel="layer", ylabel="resolution")
    figures.save_figure(figure, path)


def draw_learning(path: Path, network: MultiResolutionNet, metrics: Metrics) -> None:
    """Draw the effective sizes over the steps of training."""
    rows = [row for row in metrics.rows() if row["phase"] == "train"]
    start = sum(3 * 2**r for r in network.layers[0].resolutions) / len(
        network.layers[0].resolutions
    )
    names = [f"layer {number}" for number in range(1, len(network.layers) + 1)]
    axes = Figure(figsize=(8, 4.5), layout="constrained").subplots()
    steps = [0, *(row["global_step"] for row in rows)]
    for number, name in enumerate(names):
        sizes = [start, *(row["effective_sizes"][number] for row in rows)]
        axes.plot(steps, sizes, label=name, linewidth=1)
    title = "effective kernel sizes while they are learned"
    axes.set(title=title, xlabel="step", ylabel="size (pixels)")
    axes.legend(fontsize=6, ncols=2)
    figures.save_figure(axes.figure, path)


def write_outcomes(
    folder: Path, network: MultiResolutionNet, outcomes: Sequence[Outcome], metrics: Metrics
) -> None:
    """Write `mixing.json`, with all outcomes, and then `report.md`.

    Args:
        folder: the run's folder, with its `config.json`.
        network: the trained network with all resolutions.
        outcomes: results of all networks; that with the title `learned` is the network's.
        metrics: the run's metrics.
    """
    text = json.dumps([asdict(outcome) for outcome in outcomes], indent=1)
    write_text(folder / "mixing.json", text + "\n")
    config = read_config(folder)
    settings = config.settings
    (learned,) = [outcome for outcome in outcomes if outcome.title == "learned"]
    parts = [
        f"# {folder.name}",
        "",
        f"Multi-resolution network of {settings['layers']} layers and {settings['channels']} "
        f"channels on {settings['data']}. Data: {config.environment['data']}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(f"| {' | '.join(outcome.cells())} |" for outcome in outcomes),
        "",
        moved_sentence(learned),
        *([depth_sentence(network), ""] if settings["learned_depth"] else [""]),
        times_sentence(settings, metrics),
        "",
        "![weights](mixing.png)",
        "",
        "![course](course.png)",
        "",
        *layer_lines(outcomes),
    ]
    write_text(folder / REPORT, "\n".join(parts + made_with(config)))


def moved_sentence(learned: Outcome) -> str:
    """Return a sentence on how far the weights moved from their equal start."""
    start = 1 / len(learned.grid[0])
    least, most = (pick(w for row in learned.grid for w in row) for pick in (min, max))
    return (
        f"The mixing weights started at {start:.3f} each and ended between {least:.3f} and "
        f"{most:.3f}."
    )


def depth_sentence(network: MultiResolutionNet) -> str:
    """Return a sentence on the layers that the classifier sees."""
    weights = ", ".join(f"{weight:.3f}" for weight in network.exit_weights().tolist())
    return (
        f"The outputs of the blocks reach the classifier with the weights {weights}: "
        f"{learned_depth(network)} layers with and below the heaviest."
    )


def times_sentence(settings: dict, metrics: Metrics) -> str:
    """Return a sentence on the time per epoch."""
    return (
        f"Training: {settings['train']['epochs']} epoch(s) of filters and mixing weights in turns, "
        f"{seconds_per_epoch(metrics, 'train'):.1f} s each. "
        f"Tuning: {settings['tune_epochs']} epoch(s)."
    )


def layer_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the table of effective sizes: layers down, networks across."""
    titles = [outcome.title for outcome in outcomes]
    layers = dict.fromkeys(name for outcome in outcomes for name in outcome.effective_sizes)
    lines = [
        "Effective kernel sizes in pixels of the image, averaged over the mixing weights:",
        "",
        f"| layer | {' | '.join(titles)} |",
        "|---" * (len(titles) + 1) + "|",
    ]
    for name in layers:
        sizes = [outcome.effective_sizes.get(name) for outcome in outcomes]
        cells = ["" if size is None else f"{size:.2f}" for size in sizes]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
