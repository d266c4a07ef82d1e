"""What each table consists of, and how much of it each scale runs."""

from dataclasses import dataclass, replace

from tools.train import TRAIN_RECIPES, TrainConfig


@dataclass(frozen=True)
class Row:
    """One line of a table: a network, and where its kernel sizes come from."""

    table: str
    data: str
    model: str
    """A name of effconv_models."""
    budget: float
    """Wanted number of parameters."""
    sizes: str
    """`found` (the default recipe), `paper` (the paper's recipe), `original` (the network's own),
    `uniform` (one size, nearest the budget), `random 0` and on, `reversed` (what was found, from
    the last layer to the first) or `other seed` (what the next seed found)."""
    label: str
    """As the paper calls it, where it has this row."""


@dataclass(frozen=True)
class Scale:
    """How much is run."""

    train: TrainConfig
    seeds: int
    random_plans: int
    pictures: int | None = None
    """Training pictures; None takes all."""
    test_pictures: int | None = None
    """None takes all."""
    search_epochs: int | None = None
    """None takes the recipe's."""
    finalists: int | None = None
    """Of the default recipe; None takes its own number."""
    budgets: tuple[float, ...] | None = None
    """Only rows of these budgets; None takes all."""


SHORT = TrainConfig(10, 128, "sgd", 0.1, 5e-4, "cosine", 1.0)
SCALES = {
    "smoke": {
        "mnist": Scale(replace(SHORT, epochs=1), 2, 1, 128, 128, 1, 2),
        "cifar10": Scale(replace(SHORT, epochs=1), 2, 1, 128, 128, 1, 2, budgets=(0.27e6,)),
    },
    "cpu": {
        "mnist": Scale(replace(SHORT, epochs=2), 1, 0),
        "cifar10": Scale(SHORT, 1, 4, 12_000, budgets=(0.27e6,)),
    },
    "gpu": {
        "mnist": Scale(replace(SHORT, epochs=30), 3, 0),
        "cifar10": Scale(TRAIN_RECIPES["resnet"], 3, 10),
    },
    "paper": {
        "mnist": Scale(TRAIN_RECIPES["flexconv"], 3, 0),
        "cifar10": Scale(TRAIN_RECIPES["flexconv"], 3, 10),
    },
}
"""By the data set's name."""

EFFCONV_20 = "cifar_resnet20"
ORIGINALS = {
    (EFFCONV_20, 0.27e6): "CIFARResNet-20",
    ("cifar_resnet32", 0.46e6): "CIFARResNet-32",
    ("cifar_resnet44", 0.66e6): "CIFARResNet-44",
    ("wide_resnet28_1", 0.37e6): "WRN-28-1",
}
"""Names in the papers of networks with their own sizes, 3x3, by model and size."""


def effconv(table: str, data: str, label: str, model: str, budget: float) -> list[Row]:
    """Give the rows of one network at one budget: both recipes."""
    return [Row(table, data, model, budget, sizes, label) for sizes in ("found", "paper")]


def controls(table: str, data: str, model: str, budget: float, random_plans: int) -> list[Row]:
    """Give the rows that tell whether learned sizes are worth anything at equal cost."""
    kinds = [*(f"random {i}" for i in range(random_plans)), "reversed", "other seed"]
    if (model, budget) not in ORIGINALS:  # whose sizes are the uniform ones
        kinds.insert(0, "uniform")
    return [Row(table, data, model, budget, sizes, "control") for sizes in kinds]


def table1(scale: Scale) -> list[Row]:
    """Give the rows of the paper's Table 1, MNIST."""
    return effconv("table1", "mnist", "EffConv-20", EFFCONV_20, 0.66e6)


def table2(scale: Scale) -> list[Row]:
    """Give the rows of the paper's Table 2, CIFAR-10, and the controls that it lacks."""
    rows = [
        Row("table2", "cifar10", model, size, "original", label)
        for (model, size), label in ORIGINALS.items()
    ]
    for budget in (0.10e6, 0.20e6, 0.27e6, 0.50e6, 0.66e6):
        rows += effconv("table2", "cifar10", "EffConv-20", EFFCONV_20, budget)
        rows += controls("table2", "cifar10", EFFCONV_20, budget, scale.random_plans)
    for depth in (32, 44, 56):
        model = f"cifar_resnet{depth}"
        rows += effconv("table2", "cifar10", f"EffConv-{depth}", model, 0.66e6)
    return rows + effconv("table2", "cifar10", "Wide-EffConv-28-1", "wide_resnet28_1", 0.66e6)


TABLES = {"table1": ("mnist", table1), "table2": ("cifar10", table2)}


def rows_of(table: str, scale: str) -> list[Row]:
    """Give the rows of a table that a scale runs."""
    data, make = TABLES[table]
    settings = SCALES[scale][data]
    return [
        row for row in make(settings) if settings.budgets is None or row.budget in settings.budgets
    ]
