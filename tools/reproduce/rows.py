"""Rows of each table and figure, and how much each scale runs."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from effconv_core.engine.train import TRAIN_RECIPES, TrainConfig

from tools.presets import PAPER_SETS


@dataclass(frozen=True)
class Row:
    """One network, and the source of its kernel sizes; tables and figures share rows."""

    data: str
    model: str
    """A name of effconv_models."""
    budget: float
    """Target number of parameters."""
    sizes: str
    """`found` (the default recipe), `paper` (the paper's recipe), `original` (the network's own),
    `uniform` (one size, nearest the budget), `random 0` and on, `reversed` (the found plan, last
    layer first) or `other seed` (the next seed's plan); `reversed paper` and `other seed paper`
    take the plan of the paper's recipe. `even paper` (as equal as can be) and `random 0 paper` and
    on cost what the plan of the paper's recipe does, within 0.5 %. `trained` is a network that
    learns them in its training."""


@dataclass(frozen=True)
class Scale:
    """The amount of work."""

    train: TrainConfig
    seeds: int
    random_plans: int = 0
    pictures: int | None = None
    """Training images; None takes all."""
    test_pictures: int | None = None
    """Test images; None takes all."""
    search_epochs: int | None = None
    """Epochs; None takes the recipe's."""
    finalists: int | None = None
    """Plans that a search by the recipe `bank` compares; None takes the recipe's number."""
    augment: bool = True
    """The data set's usual augmentation in training."""
    budgets: tuple[float, ...] | None = None
    """Only rows of these budgets in tables; None takes all."""
    depths: tuple[int, ...] = tuple(range(20, 57, 6))
    """Depths of Figure 3(a)."""
    figure_budgets: tuple[float, ...] = (0.10e6, 0.20e6, 0.30e6, 0.40e6, 0.50e6)
    """Budgets of Figure 3(b)."""
    kernels_of: float = 0.66e6
    """Budget of the network whose kernels Figure 2 shows."""


def _of_the_paper(data: str, *amounts: int, **changes: int) -> Scale:
    theirs = PAPER_SETS[data]
    return Scale(theirs.train, *amounts, augment=theirs.augment, **changes)


SHORT = TrainConfig(10, 128, "sgd", 0.1, 5e-4, "cosine", 1.0)
LOWER = replace(SHORT, precision="bfloat16")
FAST = replace(TRAIN_RECIPES["resnet"], precision="bfloat16", compile=True)
FIRST = (0.27e6,)
SMOKE = Scale(
    replace(SHORT, epochs=1), 2, 1, 128, 128, 1, 2, True, FIRST, (20,), (0.20e6,), FIRST[0]
)
SCALES = {
    "smoke": {
        "mnist": replace(SMOKE, budgets=(0.66e6,)),
        "cifar10": SMOKE,
        "stl10": replace(
            SMOKE, train=replace(SMOKE.train, batch_size=32), seeds=1, budgets=(0.66e6,)
        ),
        "imagenet32": replace(SMOKE, budgets=(0.50e6,)),
    },
    "cpu": {
        "mnist": Scale(replace(SHORT, epochs=2), 3),
        "cifar10": Scale(
            SHORT, 3, 4, 12_000, None, None, None, True, FIRST, (20,), (0.10e6, 0.27e6), FIRST[0]
        ),
        "stl10": Scale(SHORT, 1, 2, budgets=(0.66e6,)),
        "imagenet32": Scale(SHORT, 1, 2, 100_000),
    },
    "cpu-bfloat16": {
        "mnist": Scale(replace(LOWER, epochs=5), 3, pictures=6_000),
        "cifar10": Scale(
            LOWER,
            *(3, 4, 12_000),
            budgets=(0.66e6,),
            depths=(20,),
            figure_budgets=(0.27e6, 0.66e6),
        ),
        "stl10": Scale(LOWER, 1, 2, budgets=(0.66e6,)),
        "imagenet32": Scale(LOWER, 1, 2, 100_000),
    },
    "gpu": {
        "mnist": Scale(replace(FAST, epochs=30, schedule="cosine"), 3),
        "cifar10": Scale(FAST, 3, 10),
        "stl10": Scale(replace(FAST, epochs=100), 3, 10),
        "imagenet32": Scale(replace(FAST, epochs=40, schedule="cosine"), 1, 4, search_epochs=5),
    },
    "paper": {
        "mnist": _of_the_paper("mnist", 3),
        "cifar10": _of_the_paper("cifar10", 3, 10),
        "stl10": _of_the_paper("stl10", 3, 10),
        "imagenet32": _of_the_paper("imagenet32", 3, 10, search_epochs=5),
    },
}
"""By the data set's name. `cpu-bfloat16` is for processors that multiply matrices of bfloat16,
where it is two to three times as fast as `cpu`; `paper` follows the commands that the FlexConv
repository gives."""

EFFCONV_20 = "cifar_resnet20"
LEARNED = {
    **{f"cifar_resnet{depth}": f"EffConv-{depth}" for depth in range(20, 57, 6)},
    "wide_resnet28_1": "Wide-EffConv-28-1",
}
ORIGINAL = {
    **{f"cifar_resnet{depth}": f"CIFARResNet-{depth}" for depth in range(20, 57, 6)},
    "wide_resnet28_1": "WRN-28-1",
    "resnet18": "CIFARResNet-18",
}


TRAINED = {
    "flexnet3": "FlexNet-3",
    "flexnet5": "FlexNet-5",
    "flexnet16": "FlexNet-16",
    "flexnet_gabor16": "FlexNet-Gabor-16",
    "ckcnn16": "CKCNN-16",
    "ckcnn_magnet16": "CKCNN-MAGNet-16",
    "cifar_resnet44_flexconv": "CIFARResNet-44 w/ FlexConv",
    "cifar_resnet44_ckconv": "CIFARResNet-44 w/ CKConv (k=3)",
    "njet_resnet32": "N-JetNet-CIFARResNet32",
}
"""Networks that learn their sizes as they are trained, and what the paper compares them with."""


TAKEN = {
    "reversed": ("found", 0),
    "other seed": ("found", 1),
    "reversed paper": ("paper", 0),
    "other seed paper": ("paper", 1),
    "even paper": ("paper", 0),
    **{f"random {i} paper": ("paper", 0) for i in range(4)},
}
"""Controls that take a plan or its cost from another run: its sizes, and how much higher its seed
is."""
EQUAL_COST = ("even paper", *(f"random {i} paper" for i in range(4)))
"""Controls of the paper's recipe that cost what its plan does."""


def name_of(row: Row) -> str:
    """Return a row's network as the papers call it."""
    if row.sizes in ("found", "paper"):
        return LEARNED[row.model]
    if row.sizes == "original":
        return ORIGINAL[row.model]
    if row.sizes == "trained":
        return TRAINED[row.model]
    return f"control ({row.model})"


def training_of(row: Row, settings: Scale) -> TrainConfig:
    """Return the settings of a row's training.

    Networks of FlexConvs take Adam and the rates of the commands that the FlexConv repository
    gives, and are not compiled, since their kernels change in size.
    """
    if row.sizes != "trained" or row.model.startswith("njet"):
        return settings.train
    low = row.model == "ckcnn16" or row.model.startswith("cifar_resnet44")
    decay = settings.train.weight_decay if settings.train.optimizer == "adam" else 0.0
    return replace(
        settings.train,
        optimizer="adam",
        lr=1e-3 if low else 1e-2,
        weight_decay=decay,
        compile=False,
    )


def trained(data: str, **budgets: float) -> list[Row]:
    """Return the rows of networks that learn their sizes in training, by name and parameters."""
    return [Row(data, model, budget, "trained") for model, budget in budgets.items()]


def learned(data: str, model: str, budget: float) -> list[Row]:
    """Return the rows of one network at one budget: both recipes."""
    return [Row(data, model, budget, sizes) for sizes in ("found", "paper")]


def with_controls(data: str, budget: float, scale: Scale, original: bool = False) -> list[Row]:
    """Return EffConv-20's rows, and the controls of the value of learned sizes.

    Args:
        data: the set's name.
        budget: target number of parameters.
        scale: sets the number of random plans.
        original: whether the network's own sizes, 3x3, already have this budget.
    """
    kinds = [f"random {i}" for i in range(scale.random_plans)]
    kinds += [kind for kind in TAKEN if kind not in EQUAL_COST]
    if not original:
        kinds.insert(0, "uniform")
    rows = learned(data, EFFCONV_20, budget)
    return rows + [Row(data, EFFCONV_20, budget, kind) for kind in kinds]


def table1(scale: Scale) -> Iterator[Row]:
    """Yield the rows of the paper's Table 1, MNIST."""
    yield from learned("mnist", EFFCONV_20, 0.66e6)
    yield from trained("mnist", flexnet16=0.67e6)


def table2(scale: Scale) -> Iterator[Row]:
    """Yield the rows of the paper's Table 2, CIFAR-10, and the controls that it lacks."""
    yield Row("cifar10", EFFCONV_20, 0.27e6, "original")
    yield Row("cifar10", "cifar_resnet32", 0.46e6, "original")
    yield Row("cifar10", "cifar_resnet44", 0.66e6, "original")
    yield Row("cifar10", "wide_resnet28_1", 0.37e6, "original")
    for budget in (0.10e6, 0.20e6, 0.27e6, 0.50e6, 0.66e6):
        yield from with_controls("cifar10", budget, scale, original=budget == 0.27e6)
    for depth in (32, 44, 56):
        yield from learned("cifar10", f"cifar_resnet{depth}", 0.66e6)
    yield from learned("cifar10", "wide_resnet28_1", 0.66e6)
    yield from trained("cifar10", flexnet3=0.27e6, flexnet5=0.44e6, flexnet16=0.67e6)
    yield from trained("cifar10", flexnet_gabor16=0.67e6, ckcnn16=0.63e6, ckcnn_magnet16=0.67e6)
    yield from trained("cifar10", cifar_resnet44_flexconv=2.58e6, cifar_resnet44_ckconv=2.58e6)
    yield from trained("cifar10", njet_resnet32=0.52e6)


def table3(scale: Scale) -> Iterator[Row]:
    """Yield the rows of the paper's Table 3, STL-10, with controls."""
    yield Row("stl10", "resnet18", 11.7e6, "original")
    yield from with_controls("stl10", 0.66e6, scale)
    for budget in (0.71e6, 0.78e6):
        yield from learned("stl10", EFFCONV_20, budget)
    yield from trained("stl10", flexnet16=0.67e6)


def table4(scale: Scale) -> Iterator[Row]:
    """Yield the rows of the paper's Table 4, ImageNet-32, with controls."""
    yield Row("imagenet32", "cifar_resnet32", 0.53e6, "original")
    yield Row("imagenet32", "wide_resnet28_1", 0.44e6, "original")
    yield from with_controls("imagenet32", 0.50e6, scale)
    yield from trained("imagenet32", flexnet5=0.44e6)


def figure2(scale: Scale) -> Iterator[Row]:
    """Yield the networks whose kernels the paper's Figure 2 shows."""
    yield from learned("cifar10", EFFCONV_20, scale.kernels_of)


def figure3(scale: Scale) -> Iterator[Row]:
    """Yield the networks of the paper's Figure 3: depths at 0.66 M, and budgets at depth 20."""
    budget = 0.66e6 if scale.budgets is None else scale.budgets[0]
    for depth in scale.depths:
        yield from learned("cifar10", f"cifar_resnet{depth}", budget)
    for budget in scale.figure_budgets:
        yield from learned("cifar10", EFFCONV_20, budget)


def claim(data: str, scale: Scale) -> Iterator[Row]:
    """Yield the paper's recipe at its main budget on a set, and controls of equal cost."""
    for kind in ("paper", *EQUAL_COST):
        yield Row(data, EFFCONV_20, 0.66e6, kind)


TABLES = {
    "table1": ("mnist", table1),
    "table2": ("cifar10", table2),
    "table3": ("stl10", table3),
    "table4": ("imagenet32", table4),
}
FIGURES = {"figure2": ("cifar10", figure2), "figure3": ("cifar10", figure3)}
CLAIMS = {f"claim-{data}": (data, partial(claim, data)) for data in ("mnist", "cifar10")}
"""Are learned sizes better than others of equal cost, at the paper's own budget?"""
ALL = {**TABLES, **FIGURES, **CLAIMS}


def rows_of(name: str, scale: str) -> list[Row]:
    """Return the rows of a table or a figure at a scale, without duplicates."""
    data, make = ALL[name]
    settings = SCALES[scale][data]
    wanted = settings.budgets if name in TABLES else None
    rows = (row for row in make(settings) if wanted is None or row.budget in wanted)
    return list(dict.fromkeys(rows))


def runs_of(name: str, scale: str) -> list[tuple[Row, int]]:
    """Return row and seed of each run of a table or a figure, in order of execution."""
    rows = rows_of(name, scale)
    seeds = SCALES[scale][rows[0].data].seeds
    runs = [
        (row, seed)
        for seed in range(seeds)
        for row in rows
        if row.sizes not in TAKEN or seed + TAKEN[row.sizes][1] < seeds
    ]
    # Runs that others need come first, and the long searches of the paper's recipe last.
    last = ("reversed", "other seed", "paper", "reversed paper", "other seed paper", *EQUAL_COST)
    return sorted(runs, key=lambda run: run[0].sizes in last and 1 + last.index(run[0].sizes))
