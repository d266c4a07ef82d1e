"""What the files of a run may hold: one schema for each, with the limits of every value.

Each is read through `read_json.py`. Whatever a program makes itself is held to the same limits
where that is cheap, so that what is written can be read.
"""

from typing import Annotated, Any, TypedDict

from msgspec import Meta, Struct, field

LARGEST_SIZE = 1000
"""Taps of a kernel along an axis."""
MOST_AXES = 3
"""Axes of a kernel: `torch.nn` has convolutions of up to three."""
MOST_LAYERS = 10_000
"""Layers of a network whose sizes are learned."""
LONGEST_NAME = 500
"""Characters of the name of a layer, or of anything else that is named."""
MOST_WEIGHTS = 2**28
"""Weights of one layer: 1 GiB in float32."""
MOST_CLASSES = 10_000
"""Class names that a run keeps."""
LARGEST_NUMBER = 2**63 - 1
"""Of costs and budgets."""
LARGEST_VALUE = 1e39
"""Of what is measured in float32, such as a loss."""

Name = Annotated[str, Meta(max_length=LONGEST_NAME)]
Count = Annotated[int, Meta(ge=0, le=LARGEST_NUMBER)]
Amount = Annotated[float, Meta(ge=0, le=LARGEST_NUMBER)]
Taps = Annotated[int, Meta(ge=1, le=LARGEST_SIZE)]
Channels = Annotated[int, Meta(ge=1, le=10**7)]
Axes = Meta(min_length=1, max_length=MOST_AXES)
Layers = Meta(max_length=MOST_LAYERS)
Epoch = Annotated[int, Meta(ge=0, le=10**9)]
Seconds = Annotated[float, Meta(gt=0, le=10**6)]


class PlanFile(Struct, forbid_unknown_fields=True):
    """A plan; `SizePlan` looks at what is in the mappings, and names the layer."""

    schema: int
    sizes: dict[str, Any]
    soft_sizes: dict[str, Any] = {}
    cost: Any = None
    budget: Any = None
    allowed: dict[str, Any] = {}
    budgets: list[Any] = []
    model: Any = None
    versions: Any = {}
    evidence: Any = None
    filled_in: Any = None


class OldBudgetRecord(TypedDict):
    """What a plan before 0.5.0 keeps of a budget."""

    counts: Name
    amount: Amount
    at_most: bool
    weight: Annotated[float, Meta(ge=0, le=LARGEST_VALUE)]
    cost: Amount


class BudgetRecord(OldBudgetRecord, total=False):
    """What a plan keeps of a budget."""

    rounded: Amount


BudgetRecords = Annotated[list[BudgetRecord], Meta(max_length=100)]
Versions = Annotated[dict[Name, Name], Meta(max_length=100)]


class ConfigFile(Struct):
    """`config.json` of a run; each command has its own settings."""

    settings: dict[str, Any] = {}
    environment: Annotated[dict[Name, Any], Meta(max_length=1000)] = {}
    network: dict[str, Any] = {}
    inputs: dict[str, Any] = {}


class Inputs(Struct):
    """What the network of a run takes, in `config.json`; mean and std are on the scale 0..1."""

    shape: Annotated[list[Channels], Meta(min_length=1, max_length=4)]
    num_classes: Channels | None = None
    classes: Annotated[list[Annotated[str, Meta(max_length=1000)]], Meta(max_length=10_000)] = []
    mean: Annotated[list[float], Meta(min_length=1, max_length=4)] | None = None
    std: Annotated[list[Annotated[float, Meta(gt=0)]], Meta(max_length=4)] | None = None


class LayerShape(TypedDict):
    """A layer that was searched."""

    channels: tuple[Channels, Channels]
    groups: Channels
    kernel_size: Annotated[list[Taps], Axes]


class Network(TypedDict, total=False):
    """The network of a search, in `config.json`, beside its `class`."""

    parameters: Count
    layers: Annotated[dict[Name, LayerShape], Layers]
    left_alone: Annotated[dict[Name, Annotated[str, Meta(max_length=2000)]], Layers]


class Moment(TypedDict):
    """When a reading was taken."""

    phase: Name
    global_step: Annotated[int, Meta(ge=0, le=10**12)]


class Reading(Moment, total=False):
    """A row of `metrics.jsonl`; NaN and infinity are what a run that diverges measures."""

    epoch: Epoch
    loss: float | None
    accuracy: float | None
    epoch_loss: float | None
    epoch_accuracy: float | None
    val_accuracy: float | None
    lr: float | None
    seconds: float | None
    parameters: float | None
    soft_sizes: Annotated[list[float], Meta(max_length=MOST_AXES * MOST_LAYERS)]


class Outcome(TypedDict, total=False):
    """A network that was trained."""

    parameters: Count
    test_accuracy: Annotated[float, Meta(ge=0, le=1)]
    val_accuracy: Annotated[float, Meta(ge=0, le=1)] | None
    best_val_accuracy: Annotated[float, Meta(ge=0, le=1)] | None
    best_epoch: Count | None


class ResultFile(TypedDict, total=False):
    """`result.json` of a run; what else is there is the command's own."""

    accuracy: float
    networks: Annotated[dict[Name, Outcome], Meta(max_length=100)]


class MistakeRecord(Struct):
    """A sample that a network took for another class."""

    index: Count
    label: Count
    guess: Count
    probability: Annotated[float, Meta(ge=0, le=1)]
    png: Annotated[str, Meta(max_length=400_000, pattern="^[A-Za-z0-9+/=]+$")] | None = None
    """The picture, in base 64."""


class TestRecord(Struct):
    """How a network did on the test, class by class."""

    classes: Annotated[list[Annotated[str, Meta(max_length=1000)]], Meta(max_length=10_000)] = []
    counts: Annotated[list[tuple[Count, Count]], Meta(max_length=10_000)] = []
    """Of each class the number of its samples, and of those that were right."""
    confusion: Annotated[
        list[Annotated[list[Count], Meta(max_length=100)]], Meta(max_length=100)
    ] = []
    mistakes: Annotated[list[MistakeRecord], Meta(max_length=10)] = []


class Spread(TypedDict):
    """Seconds that something took."""

    median: Seconds


class SpreadOfTheRest(TypedDict):
    """Seconds of a pass without its layers, which noise can take below zero."""

    median: Annotated[float, Meta(ge=-(10**6), le=10**6)]


class LatencyFile(Struct):
    """A latency table; its identity is compared, word for word, with that of today."""

    schema: int
    layers: Annotated[dict[Name, dict[str, Any]], Layers]
    seconds: Annotated[dict[Name, dict[Name, Spread]], Layers]
    rest: SpreadOfTheRest = field(name="seconds of the rest")


Plans = Annotated[
    list[Annotated[list[Taps], Meta(min_length=1, max_length=MOST_AXES * MOST_LAYERS)]],
    Meta(max_length=1000),
]
Losses = Annotated[list[float], Meta(max_length=1000)]
Training = Annotated[list[float | None], Meta(min_length=2, max_length=3)]
ShortTrainings = Annotated[list[Training], Meta(max_length=1000)]


ChoiceFile = TypedDict(
    "ChoiceFile",
    {
        "proposals": tuple[Plans, Losses, Count],
        **{f"round {number}": ShortTrainings for number in range(100)},
        "first": ShortTrainings,
        "longer": ShortTrainings,
        "children": tuple[Plans, Losses],
        "second": ShortTrainings,
        "last": ShortTrainings,
        **{f"pair {number}": ShortTrainings for number in range(100)},
    },
    total=False,
)
"""The stages of the choice of a plan that are done; a training has a loss, an accuracy, and
the loss of its mean outputs, which states of version 0.5.0 lack. Versions before 0.7.0 wrote
`children`, `second` and `last`, and before 0.9.0 `first`, `longer` and pairs: not read again."""


class Begun(TypedDict):
    """What every search and training keeps of itself in its state."""

    config: dict[str, Any]
    epoch: Epoch


class Progress(Begun, total=False):
    """How far a training state has come; a search compares the rest with its own."""

    plan: str | None
    layers: Annotated[list[Name], Layers]
    epoch_steps: Annotated[int, Meta(ge=1, le=10**12)]
    choice: ChoiceFile


class ParameterGroup(TypedDict):
    """A group of an optimizer; what else is there belongs to the optimizer."""

    params: list[Annotated[int, Meta(ge=0, le=10**7)]]


ParameterGroups = Annotated[list[ParameterGroup], Meta(min_length=1, max_length=1000)]
