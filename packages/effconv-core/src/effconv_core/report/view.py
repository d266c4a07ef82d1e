"""View model of the report of one run: plain values for its template."""

from collections.abc import Mapping
from itertools import islice
from math import prod
from types import SimpleNamespace
from typing import Any

from effconv_core.engine.by_class import interval
from effconv_core.evidence import sentences
from effconv_core.filling import filling_sentence
from effconv_core.io.schemas import TestRecord
from effconv_core.layers.geometry import kernel_shape_of
from effconv_core.plan import Size
from effconv_core.report.charts import (
    Chart,
    kernel_pictures,
    line_chart,
    percent,
    short,
    small_course,
)
from effconv_core.runs.reader import COMPARISON, Run, is_number
from effconv_core.runs.writer import dotted

MOST_PICTURES = 200  # of layers
MOST_CONFUSED = 25  # classes of a confusion matrix
MOST_LINES = 1000  # of a table that no plan limits
PHASES = {"search": "search", "train": "found CNN", "baseline": "original sizes"}


def describe(run: Run, title: str) -> dict[str, Any]:
    """Return the template's values for one run; unknown parts are empty."""
    layers, settings = layer_rows(run), flat(run.settings)
    search_seconds, comparison = run.search_seconds()
    return {
        "title": title,
        "run": run,
        "about": about(run),
        "evidence": sentences(run.plan.evidence) if run.plan and run.plan.evidence else [],
        "networks": network_rows(run),
        "search_epochs": len(search_seconds),
        "search_seconds": sum(search_seconds) + comparison,
        "search_parts": (sum(search_seconds), comparison),
        "layers": layers,
        "track": max((n for row in layers for n in (*row["taps"], *row["original"])), default=1),
        "courses": courses(run),
        "kernels": {
            name: kernel_pictures(weight)
            for name, weight in islice(run.kernels.items(), MOST_PICTURES)
        },
        "budgets": budget_rows(run),
        "cost": cost_chart(run),
        "curves": curves(run),
        "tests": [test_rows(kind, test) for kind, test in run.tests.items()],
        "epochs": epoch_rows(run),
        "settings": settings,
        "filling": "" if run.plan is None else filling_sentence(run.plan),
        "left_out": left_out(run, settings),
    }


def left_out(run: Run, settings: Mapping[str, str]) -> list[str]:
    """Return a sentence for each list of which the report shows a part, so that it stays short."""
    soft = max((len(row.get("soft_sizes", ())) for row in run.rows), default=0)
    counts = (
        ("layers", len(run.kernels), "kernels", MOST_PICTURES),
        ("soft sizes", soft, "course", MOST_PICTURES),
        ("epochs", len(_by_epoch(run)), "numbers", MOST_LINES),
        ("settings", len(settings), "values", MOST_LINES),
    )
    return [
        f"Of {count:,} {what} the {part} of the first {most:,} are shown."
        for what, count, part, most in counts
        if count > most
    ]


def about(run: Run) -> str:
    """Return a sentence that describes the run: model, data and recipe."""
    settings = run.settings
    model = settings.get("model") or run.network.get("class") or (run.plan and run.plan.model)
    words = [f"{model or 'A network'}"]
    if settings.get("data"):
        words.append(f"on {settings['data']}")
    if settings.get("recipe"):
        words.append(f"by the recipe {settings['recipe']}")
    return " ".join(words) + "."


def layer_rows(run: Run) -> list[dict[str, Any]]:
    """Return a row for each layer of the plan: sizes, and parameters if the channels are known."""
    if run.plan is None:
        return []
    rows, adjusted = [], {} if run.plan.evidence else run.plan.adjusted
    for name, size in run.plan.items():
        layer = run.network.get("layers", {}).get(name, {})
        weight = run.kernels.get(name)
        soft = run.plan.soft_sizes.get(name, ())
        rows.append(
            {
                "name": name,
                "size": size,
                "taps": as_tuple(size),
                "soft": as_tuple(soft),
                "original": tuple(layer.get("kernel_size", ())),
                "channels": layer.get("channels"),
                "parameters": parameters_of(layer, size) if weight is None else weight.numel(),
                "adjusted": adjusted.get(name),
            }
        )
    return rows


def parameters_of(layer: Mapping[str, Any], size: Size) -> int | None:
    """Return the number of weights of a layer's kernels at a size, None if unknown."""
    if not layer:
        return None
    if isinstance(size, tuple) and len(size) != len(layer["kernel_size"]):
        return None  # of another network than the plan
    taps = kernel_shape_of(SimpleNamespace(kernel_size=layer["kernel_size"]), size)
    return layer["channels"][0] // layer["groups"] * layer["channels"][1] * prod(taps)


def courses(run: Run) -> list[dict[str, Any]]:
    """Return the trajectory of each soft size over the search."""
    rows = [
        (row["global_step"], row["soft_sizes"])
        for row in run.rows
        if row["phase"] == "search"
        and "soft_sizes" in row
        and all(is_number(v) for v in row["soft_sizes"])
    ]
    # Only rows of the last length, because a run resumed by another version may mix lengths.
    rows = [(step, values) for step, values in rows if len(values) == len(rows[-1][1])]
    if not rows or not rows[-1][1]:
        return []
    labels = _labels(run, len(rows[-1][1]))
    largest = max(max(map(abs, values)) for _, values in rows)
    every = max(1, -(-len(rows) // 6))
    shown = [*rows[0:-1:every], rows[-1]]
    return [
        {
            "label": label,
            "final": final,
            "first": rows[0][1][i],
            "last": rows[-1][1][i],
            "steps": (rows[0][0], rows[-1][0]),
            "line": small_course([(step, values[i]) for step, values in rows], largest),
            "some": [(step, values[i]) for step, values in shown],
        }
        for i, (label, final) in enumerate(labels[:MOST_PICTURES])
    ]


def _labels(run: Run, count: int) -> list[tuple[str, int | None]]:
    """Return labels of a search's soft sizes (layer, or layer and axis), with the found sizes."""
    if run.plan is not None:
        labels: list[tuple[str, int | None]] = []
        for name, size in run.plan.items():
            if isinstance(size, tuple):
                labels += [(f"{name} axis {axis}", n) for axis, n in enumerate(size)]
            else:
                labels.append((name, size))
        if len(labels) == count:
            return labels
    layers = run.network.get("layers", {})
    if len(layers) == count:
        return [(name, None) for name in layers]
    return [(f"soft size {i + 1}", None) for i in range(count)]


def network_rows(run: Run) -> list[dict[str, Any]]:
    """Return a row for the found and one for the original network, for comparison."""
    rows = []
    for kind, phase, title in (
        ("learned", "train", "learned sizes"),
        ("original", "baseline", "original sizes"),
    ):
        outcome = run.networks.get(kind, {})
        parameters = outcome.get("parameters")
        if parameters is None and kind == "learned" and run.plan is not None:
            parameters = run.plan.cost if not run.plan.budgets else None
        if parameters is None and kind == "original":
            parameters = run.network.get("parameters")
        accuracy = outcome.get("test_accuracy")
        seconds = [s for _, s in run.course(phase, "seconds")]
        rows.append(
            {
                "title": title,
                "parameters": parameters if is_number(parameters) else None,
                "accuracy": accuracy if is_number(accuracy) else None,
                "interval": _interval(accuracy, run.tests.get(kind)),
                "validation": outcome.get("best_val_accuracy"),
                "best_epoch": outcome.get("best_epoch"),
                "epochs": len(seconds),
                "seconds": sum(seconds),
                "trained": any(row["phase"] == phase for row in run.rows),
            }
        )
    return rows


def _interval(accuracy: Any, test: TestRecord | None) -> tuple[float, float] | None:
    """Return the 95 % interval of a test accuracy, None if it is not known of how many samples."""
    samples = 0 if test is None else sum(count for count, _ in test.counts)
    return interval(accuracy, samples) if samples and is_number(accuracy) else None


def test_rows(kind: str, test: TestRecord) -> dict[str, Any]:
    """Return the classes of a network's test, its confusion matrix and its worst mistakes."""
    classes = [
        test.classes[label] if label < len(test.classes) else str(label)
        for label in range(len(test.counts))
    ]

    def named(label: int) -> str:
        return classes[label] if label < len(classes) else str(label)

    rows = []
    for label, (samples, right) in enumerate(test.counts):
        row = test.confusion[label] if label < len(test.confusion) else []
        wrong = [(n, guess) for guess, n in enumerate(row) if n and guess != label]
        most = max(wrong, default=None, key=lambda entry: entry[0])
        rows.append(
            {
                "name": named(label),
                "samples": samples,
                "right": right,
                "accuracy": right / samples if samples else None,
                "interval": interval(right / samples, samples) if samples else None,
                "taken": None if most is None else (named(most[1]), most[0]),
            }
        )
    shown = len(test.confusion) <= MOST_CONFUSED
    return {
        "title": {"learned": "learned sizes", "original": "original sizes"}.get(kind, kind),
        "kind": kind,
        "classes": rows[:MOST_LINES],
        "names": classes,
        "confusion": [[(n, n / max(sum(row), 1)) for n in row] for row in test.confusion if shown],
        "mistakes": [
            {
                "png": mistake.png,
                "label": named(mistake.label),
                "guess": named(mistake.guess),
                "probability": mistake.probability,
                "index": mistake.index,
            }
            for mistake in test.mistakes
        ],
    }


def budget_rows(run: Run) -> list[dict[str, Any]]:
    """Return a row for each budget, with the plan's cost."""
    plan = run.plan
    if plan is None:
        return []
    budgets = [dict(b) for b in plan.budgets if isinstance(b, Mapping)]
    if not budgets and plan.budget is not None and plan.cost is not None:
        budgets = [{"counts": "parameters", "amount": plan.budget, "cost": plan.cost}]
    return [
        {
            "counts": str(b.get("counts", "")),
            "amount": b["amount"],
            "cost": b["cost"],
            "at_most": bool(b.get("at_most")),
            "off": b["cost"] / b["amount"] - 1 if b["amount"] else 0.0,
        }
        for b in budgets
        if is_number(b.get("amount")) and is_number(b.get("cost"))
    ]


def cost_chart(run: Run) -> Chart | None:
    """Draw the parameters over the search, with the budget if it counts parameters."""
    budget = run.plan.budget if run.plan is not None else run.settings.get("budget")
    level = ("budget", budget) if is_number(budget) else None
    series = {"parameters of the sizes learned so far": run.course("search", "parameters")}
    return line_chart("Parameters over the search", series, form=short, level=level)


def curves(run: Run) -> list[Chart]:
    """Draw loss and accuracy of the search, and of the trainings together."""
    charts = []
    for what, value, form in (
        ("Loss", "loss", lambda y: f"{y:.3g}"),
        ("Accuracy", "accuracy", percent),
    ):
        for title, phases in (("the search", ["search"]), ("training", ["train", "baseline"])):
            factor = 100 if value == "accuracy" else 1
            series = {
                PHASES[phase]: [(x, y * factor) for x, y in run.course(phase, value)]
                for phase in phases
            }
            if value == "accuracy":
                series |= {
                    f"{PHASES[phase]}, validation": [
                        (x, y * factor) for x, y in run.course(phase, "val_accuracy")
                    ]
                    for phase in phases
                }
            charts.append(line_chart(f"{what} in {title}", series, form=form))
    return [chart for chart in charts if chart is not None]


def epoch_rows(run: Run) -> list[dict[str, Any]]:
    """Return a row for each epoch: mean loss, mean accuracy, time in seconds, parameters."""

    def mean(rows: list[dict[str, Any]], value: str) -> float | None:
        values = [row[value] for row in rows if is_number(row.get(value))]
        return sum(values) / len(values) if values else None

    def first_of(value: float | None, otherwise: float | None) -> float | None:
        return otherwise if value is None else value

    return [
        {
            "phase": PHASES.get(phase, phase),
            "epoch": epoch,
            "loss": first_of(mean(rows, "epoch_loss"), mean(rows, "loss")),
            "accuracy": first_of(mean(rows, "epoch_accuracy"), mean(rows, "accuracy")),
            "validation": mean(rows, "val_accuracy"),
            "seconds": mean(rows, "seconds"),
            "parameters": next(
                (r["parameters"] for r in reversed(rows) if is_number(r.get("parameters"))), None
            ),
        }
        for (phase, epoch), rows in islice(_by_epoch(run).items(), MOST_LINES)
    ]


def _by_epoch(run: Run) -> dict[tuple[str, int], list[dict[str, Any]]]:
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in run.rows:
        if row["phase"] == COMPARISON:
            continue
        groups.setdefault((row["phase"], row.get("epoch", 0)), []).append(row)
    return groups


def flat(settings: Mapping[str, Any]) -> dict[str, str]:
    """Flatten nested settings to dotted names such as `search.epochs`, with values as text."""
    return {name: str(value) for name, value in dotted(settings).items()}


def duration(seconds: float) -> str:
    """Format a time, given in seconds, in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def size_words(size: Size) -> str:
    """Format a size: 3, or 1x7; one number if all axes are equal."""
    taps = as_tuple(size)
    return str(taps[0]) if len(set(taps)) == 1 else "x".join(map(str, taps))


def as_tuple(value: Any) -> tuple[Any, ...]:
    """Return a value that has one number, or one for each axis, as a tuple."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)
