"""The networks behind the tables of the multi-resolution paper, and what their runs found."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from effconv_core.io.read_json import read_json
from effconv_core.io.schemas import ConfigFile
from effconv_core.runs.names import name_of
from effconv_core.runs.reader import read_config

from tools.reproduce.tables import PAPERS
from tools.support.rows import read_rows
from tools.train.multi_resolution import MixingConfig, MultiResolutionOptions

RESULTS = Path("results/multi-resolution")
PAPER = PAPERS["multi_resolution"]
OURS = {
    "No Pooling": "no pooling",
    "Predefined Pooling": "predefined pooling",
    "Scale Invariant": "scale invariant",
    "Ours": "learned",
    "Ours (thr 0.1)": "threshold 0.1",
    "Ours (thr 0.2)": "threshold 0.2",
    "Ours (one res.)": "one resolution",
}
"""Names of Table 1, and of the outcomes of a run of `train:multi-resolution`."""


@dataclass(frozen=True)
class Mixture:
    """One run of `train:multi-resolution`, which gives the cells of several tables."""

    layers: int
    channels: int
    block: str = "conv"
    learned_depth: bool = False
    baselines: bool = False

    @property
    def name(self) -> str:
        """The name of its run."""
        depth = ["depth"] if self.learned_depth else []
        block = [] if self.block == "conv" else [self.block]
        return name_of("cifar10", f"{self.layers}x{self.channels}", *block, *depth)


COLUMNS = {channels: Mixture(10, channels, baselines=True) for channels in (16, 32, 64)}
DEPTHS = {
    (10, False): COLUMNS[64],
    (10, True): Mixture(10, 64, learned_depth=True),
    (20, False): Mixture(20, 64),
    (20, True): Mixture(20, 64, learned_depth=True),
}
ERRORS = {
    "Ours Conv 64x10": COLUMNS[64],
    "Ours Conv 128x8": Mixture(8, 128),
    "Ours Eff-Conv 128x8": Mixture(8, 128, "mbconv6"),
}
NEEDED: dict[str, Sequence[Mixture]] = {
    "table1": [COLUMNS[64]],
    "table2": list(COLUMNS.values()),
    "table3": list(DEPTHS.values()),
    "table4": list(ERRORS.values()),
}
"""The runs behind each table."""
FEW = 16
"""Channels of reduced runs, but for the table that is about channels."""


def narrow(mixture: Mixture) -> Mixture:
    """Return the same network with few channels."""
    return replace(mixture, channels=FEW)


def needed(table: str, scale: str) -> list[Mixture]:
    """Return the networks that a table needs run at a scale, each once."""
    whole = scale == "paper" or table == "table2"
    return list(dict.fromkeys(each if whole else narrow(each) for each in NEEDED[table]))


_PAPER = MultiResolutionOptions()
_SHORT = replace(_PAPER.train, epochs=6, batch_size=64, lr=0.05)
SCALES = {
    "paper": _PAPER,
    # The paper's mixing rate of 1e-4 would have no effect in so few steps.
    "cpu": replace(
        _PAPER,
        train=_SHORT,
        tune_epochs=2,
        limit=4_000,
        test_limit=2_000,
        mixing=MixingConfig(lr=0.04),
    ),
    "smoke": replace(
        _PAPER,
        train=replace(_SHORT, epochs=1, batch_size=16),
        tune_epochs=1,
        limit=80,
        test_limit=40,
        mixing=MixingConfig(lr=0.04),
    ),
}


def options_of(mixture: Mixture, scale: str, runs: Path, device: str) -> MultiResolutionOptions:
    """Return the options of a run."""
    return replace(
        SCALES[scale],
        layers=mixture.layers,
        channels=mixture.channels,
        block=mixture.block,
        learned_depth=mixture.learned_depth,
        baselines=mixture.baselines,
        device=device,
        runs=runs,
        name=mixture.name,
    )


@dataclass(frozen=True)
class Found:
    """What a folder of a finished run holds."""

    path: Path
    config: ConfigFile
    outcomes: dict[str, dict[str, Any]]
    """By title."""
    exits: list[float]
    """The last weights of the exits; empty if depth was not learned."""

    def gives(self, mixture: Mixture) -> bool:
        """Return whether this is a run of a network of the tables."""
        settings = self.config.settings
        given = Mixture(
            settings["layers"],
            settings["channels"],
            settings["block"],
            settings["learned_depth"],
            mixture.baselines,
        )
        whole = settings["baselines"] or not mixture.baselines
        return settings["data"] == "cifar10" and given == mixture and whole

    @property
    def depth(self) -> int | None:
        """Layers up to the heaviest exit, with the classifier; None if depth was not learned."""
        return self.exits.index(max(self.exits)) + 2 if self.exits else None

    def reduced(self, channels: int | None = None) -> str:
        """Return what was less than the paper's or other than its, in words.

        Args:
            channels: those of the paper's network; None takes the run's own.
        """
        settings, paper = self.config.settings, SCALES["paper"]
        train, limit = settings["train"], settings["limit"]
        pictures = round((limit or 50_000) * (1 - settings["mixing"]["share"]))
        steps = train["epochs"] * (pictures // train["batch_size"])
        parts = [] if limit is None else [f"{limit:,} pictures"]
        if channels not in (None, settings["channels"]):
            parts.insert(0, f"{settings['channels']} of {channels} channels")
        if settings["test_limit"] is not None:
            parts.append(f"{settings['test_limit']:,} test pictures")
        if train["epochs"] != paper.train.epochs:
            parts.append(f"{train['epochs']} of {paper.train.epochs} epochs")
        if settings["tune_epochs"] != paper.tune_epochs:
            parts.append(f"{settings['tune_epochs']} of {paper.tune_epochs} tuning epochs")
        if train["batch_size"] != paper.train.batch_size:
            parts.append(f"batches of {train['batch_size']}")
        if train["lr"] != paper.train.lr:
            parts.append(f"learning rate {train['lr']:g}")
        if settings["mixing"]["lr"] != paper.mixing.lr:
            parts.append(f"mixing rate {settings['mixing']['lr']:g}")
        return ", ".join([*parts, f"{steps:,} steps"])


def read_found(folder: Path) -> Found:
    """Read a folder of a finished run."""
    outcomes = read_json(folder / "mixing.json", list[dict[str, Any]], finite=False)
    config = read_config(folder)
    trained = [row for row in read_rows(folder / "metrics.jsonl") if row["phase"] == "train"]
    exits = trained[-1]["exit_weights"] if config.settings["learned_depth"] else []
    return Found(folder, config, {one["title"]: one for one in outcomes}, exits)


def found_runs(results: Path = RESULTS) -> Iterator[Found]:
    """Yield what the folders of raw results hold, in the order of their names."""
    for path in sorted(results.glob("*/mixing.json")):
        yield read_found(path.parent)
