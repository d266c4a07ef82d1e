"""The page of the multi-resolution paper's tables, made only from the raw results."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.reproduce.mixtures import (
    COLUMNS,
    DEPTHS,
    ERRORS,
    OURS,
    PAPER,
    RESULTS,
    Found,
    Mixture,
    found_runs,
    narrow,
)
from tools.support.markdown import link, provenance, table

PAGE = Path("docs/multi-resolution.md")
NOT_RUN = "not run"


def multi_resolution_page() -> str:
    """Return the page, made of the runs that there are."""
    runs = list(found_runs())
    parts = [
        "# The multi-resolution paper's tables",
        "",
        "Convolutional Neural Networks without Pooling or Fixed Filter Sizes (anonymous WACV "
        "submission 832), CIFAR-10. The paper's figures stand in italics; accuracies and errors "
        "are of the test set in percent, one seed. Each of ours is of one run of `hatch run "
        "train:multi-resolution`, which `hatch run reproduce:multi-table1` to `multi-table4` start "
        "where they are missing; what was reduced stands beside. This page is made by "
        "`python -m tools.docs.check multi-resolution`.",
        "",
        "## Table 1: 10 layers of 64 channels",
        "",
        *table(
            ("network", "paper", "paper's MFLOPs", "ours", "M multiply-accumulates", "ours is of"),
            _table1(runs),
        ),
        "",
        f"{link(RESULTS)}.",
        "",
        "## Table 2: channels",
        "",
        *table(("network", "channels", "paper", "ours", "ours is of"), _table2(runs)),
        "",
        f"{link(RESULTS)}.",
        "",
        "## Table 3: learned depth",
        "",
        *table(
            ("depth learned", "layers", "paper", "paper's layers", "ours", "our layers", "of"),
            _table3(runs),
        ),
        "",
        f"{link(RESULTS)}.",
        "",
        "## Table 4: error",
        "",
        *table(
            ("network", "paper", "paper's parameters", "ours", "parameters", "ours is of"),
            _table4(runs),
        ),
        "",
        f"{link(RESULTS)}.",
        "",
        "## Runs",
        "",
    ]
    for run in runs:
        made = {"commit": "", **run.config.environment}
        settings = run.config.settings
        size = f"{settings['layers']} layers, {settings['channels']} channels"
        parts.append(
            f"- {run.path.name}: {size}; {run.reduced()}. Data: {made['data']}; "
            f"{provenance(made)}. {link(run.path / 'mixing.json')}."
        )
    return "\n".join([*parts, ""])


def _of(runs: Sequence[Found], mixture: Mixture, narrowed: bool = True) -> list[Found | None]:
    """Return the runs of a network, else those of one of few channels, or None in a list."""
    for wanted in (mixture, narrow(mixture)) if narrowed else (mixture,):
        if found := [run for run in runs if run.gives(wanted)]:
            return found
    return [None]


def _accuracy(run: Found | None, title: str) -> str:
    return NOT_RUN if run is None else f"{100 * run.outcomes[title]['accuracy']:.2f}"


def _table1(runs: Sequence[Found]) -> Iterator[tuple[object, ...]]:
    for stated in PAPER["table1_cifar10"]:
        title = OURS[stated["model"]]
        for run in _of(runs, COLUMNS[64]):
            macs = "" if run is None else f"{run.outcomes[title]['macs'] / 1e6:.1f}"
            paper = f"*{stated['accuracy']}*", f"*{stated['mflops']}*"
            reduced = run.reduced(64) if run else ""
            yield stated["model"], *paper, _accuracy(run, title), macs, reduced


def _table2(runs: Sequence[Found]) -> Iterator[tuple[object, ...]]:
    stated = PAPER["table2_channels"]
    for place, channels in enumerate(stated["columns"]):
        for model in ("No Pooling", "Scale Invariant", "Predefined Pooling", "Ours"):
            for run in _of(runs, COLUMNS[channels], narrowed=False):
                paper = f"*{stated[model][place]}*"
                ours = _accuracy(run, OURS[model])
                yield model, channels, paper, ours, run.reduced() if run else ""


def _table3(runs: Sequence[Found]) -> Iterator[tuple[object, ...]]:
    for (layers, learned), mixture in DEPTHS.items():
        stated = PAPER["table3_depth"]["Learning Depth" if learned else "No Learning Depth"]
        kept = stated.get(f"learned_layers_{layers}")
        for run in _of(runs, mixture):
            depth = "" if run is None or run.depth is None else run.depth
            yield (
                *("yes" if learned else "no", layers, f"*{stated[f'D={layers}']}*"),
                "" if kept is None else f"*{kept}*",
                *(_accuracy(run, "learned"), depth, run.reduced(mixture.channels) if run else ""),
            )


def _table4(runs: Sequence[Found]) -> Iterator[tuple[object, ...]]:
    for stated in PAPER["table4_error"]:
        paper = f"*{stated['error']}*", f"*{stated['params_m']} M*"
        if stated["model"] not in ERRORS:
            yield stated["model"], *paper, "no network here", "", ""
            continue
        mixture = ERRORS[stated["model"]]
        for run in _of(runs, mixture):
            if run is None:
                yield stated["model"], *paper, NOT_RUN, "", ""
            else:
                ours = run.outcomes["learned"]
                error, size = 100 * (1 - ours["accuracy"]), ours["parameters"] / 1e6
                reduced = run.reduced(mixture.channels)
                yield stated["model"], *paper, f"{error:.2f}", f"{size:.3f} M", reduced
