"""Settings of a search; the defaults are those of the paper."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from effconv_core.scalars import plain

LARGEST_SEED = 2**32 - 1  # that SciPy takes


def check_seed(seed: Any) -> None:
    """Raise a TypeError or ValueError unless a seed is an integer from 0 to 2**32 - 1."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed is {seed!r}; it must be an integer, so pass one")
    if not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"seed is {seed}; pass one from 0 to {LARGEST_SEED}")


@dataclass(frozen=True)
class SearchConfig:
    """Settings of one search.

    The defaults here are those of the EffConv paper, `recipe` has others; a field says so where the
    paper gives no value.
    """

    k: int = 3
    """Sizes run from 1 to 2k + 1."""
    tau: float = 3.0
    """Widens the active region of tanh in EffConv Eq. 1."""
    b: float | None = None
    """Sets the initial soft size, k tanh(b) + k + 1. None: each layer starts close to its own size,
    as the paper has it, a 3x3 one with the paper's b of -0.35 at 2.99."""
    size_hidden: int = 64
    """Hidden size of the size predictor's GRU (the paper gives none)."""
    kernel_form: Literal["projected", "literal", "bank"] = "projected"
    """literal: each layer's GRU has c_in * c_out hidden units, as EffConv Eq. 5 says to the letter;
    projected: a small GRU, then a linear map to c_in * c_out; bank: no GRU, but one kernel of the
    largest size per layer, learned directly and cropped (not in the paper)."""
    kernel_hidden: int = 64
    """Hidden size of the projected form (the paper gives none)."""
    mask: Literal["gaussian", "ring"] = "gaussian"
    """gaussian: EffConv Eq. 6; ring: the outermost ring of taps is on or off, drawn in each step
    with the soft size's fraction as its probability (not in the paper; only for the bank)."""
    centre: Literal["paper", "aligned"] = "paper"
    """Centre of the Gaussian mask: v / 2, as in EffConv Eq. 6, or the middle of the kernel."""
    exploration: float = 0.0
    """Noise on the soft sizes of each training step, uniform within this many sizes of zero; the
    budget term is computed without it (the paper has none)."""
    budget_form: Literal["paper", "smooth"] = "paper"
    """paper: |log(P(round v) / budget)| with a straight-through gradient (EffConv Eq. 4);
    smooth: log(P(v) / budget)^2."""
    budget_weight: float = 2.0
    """Weight of the budget term (lambda in EffConv Eq. 8)."""
    count: Literal["model", "searched"] = "model"
    """What the budget counts: all parameters of the CNN, or the searched kernels (Eq. 3)."""
    size_lr: float = 1e-4
    """Learning rate of the size predictor."""
    kernel_lr: float = 1e-3
    """Learning rate of the kernel predictor."""
    cnn_lr: float = 1e-4
    """Learning rate of the CNN's other parameters."""
    weight_decay: float = 1e-3
    """Weight decay of all three."""
    epochs: int = 10
    """Epochs of the search (the paper uses 5 for ImageNet-32)."""
    least_steps: int = 0
    """Training steps of the search at least: with few batches an epoch there are more epochs than
    `epochs`, so that sizes have the time to cross their range (not in the paper)."""
    finalists: int = 1
    """Number of plans that are compared at the end, the original sizes among them where plans are
    trained (`race_steps`); with 1 the plan nearest to the learned sizes is taken (the paper
    compares none)."""
    race_steps: int = 0
    """Steps of each training of a finalist from fresh kernels, of which the best have several; 0
    compares plans near the learned sizes on the search's own kernels instead (neither is in the
    paper)."""
    keep: Literal["original", "best"] = "original"
    """original: after such trainings the plan has the network's own sizes, if they are within the
    budget, unless the best plan found is shown to be better; best: it has those found anyway."""
    tolerance: float = 0.02
    """Relative tolerance of the plan's cost around the budget (0.02 is 2 %)."""
    seed: int = 0
    """Seed of the predictors' initial values and fixed inputs, of the draws in training steps, and
    of the finalists; from 0 to 2**32 - 1."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the CNN in training steps, also of those that compare plans. bfloat16 is
    autocast: predictors, masks, kernels, losses and updates stay in float32. It is slower than
    float32 on a processor without instructions for bfloat16."""
    shapes: Literal["exact", "padded"] = "exact"
    """Shapes of the kernels in training steps. exact: the step's sizes; padded: the largest sizes,
    with zeros around the step's kernels: the same convolution, in shapes that never change and
    without copying sizes to the host."""
    compile: bool = False
    """Run training steps through `torch.compile`, with CUDA graphs on a GPU; needs padded shapes.
    The first step compiles, which takes a while."""

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            object.__setattr__(self, entry.name, plain(getattr(self, entry.name)))
        for name in ("k", "size_hidden", "kernel_hidden", "epochs", "finalists"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} is {value!r}; it must be an integer, so pass one")
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1, so raise it")
        check_seed(self.seed)
        for name in ("race_steps", "least_steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} is {value!r}; it must be an integer, so pass one")
            if value < 0:
                raise ValueError(f"{name} is {value}; it must be 0 or more, so raise it")
        if self.b is not None and not -float("inf") < self.b < float("inf"):
            raise ValueError(f"b is {self.b}; it must be finite, or None for each layer's own")
        for name in ("tau", "size_lr", "kernel_lr", "cnn_lr"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value}; it must be above 0 and finite, so change it")
        for name in ("budget_weight", "weight_decay", "exploration"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} is {value}; it must be 0 or more and finite")
        if not 0 < self.tolerance < 1:
            raise ValueError(
                f"tolerance is {self.tolerance}; it is a part of the budget, so pass a value "
                "between 0 and 1, such as 0.02"
            )
        for name, allowed in {
            "kernel_form": ("projected", "literal", "bank"),
            "mask": ("gaussian", "ring"),
            "centre": ("paper", "aligned"),
            "budget_form": ("paper", "smooth"),
            "count": ("model", "searched"),
            "keep": ("original", "best"),
            "precision": ("float32", "bfloat16"),
            "shapes": ("exact", "padded"),
        }.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; pass {' or '.join(map(repr, allowed))}"
                )
        if self.mask == "ring" and self.kernel_form != "bank":
            raise ValueError(
                f"mask is 'ring' and kernel_form is {self.kernel_form!r}; a ring needs taps that "
                "keep their place when the size changes, so pass kernel_form='bank'"
            )
        if self.compile and self.shapes != "padded":
            raise ValueError(
                f"compile is True and shapes is {self.shapes!r}; each step of other sizes would be "
                "compiled again, so pass shapes='padded'"
            )
        if self.finalists > 1 and not self.race_steps and not self.exploration:
            raise ValueError(
                f"finalists is {self.finalists} and exploration is 0; finalists are drawn within "
                "the exploration of the learned sizes, so raise it or pass finalists=1"
            )

    def epochs_of(self, steps: int) -> int:
        """Return the number of epochs of a search whose epochs have this many steps."""
        return max(self.epochs, -(-self.least_steps // steps))

    @property
    def trains_plans(self) -> bool:
        """Whether plans are trained from scratch and compared at the end of a search."""
        return self.finalists > 1 and self.race_steps > 0

    @property
    def largest(self) -> int:
        """The largest size, 2k + 1."""
        return 2 * self.k + 1


FORMER_B = -0.35
"""The default of b before 0.5.0: that of 3x3 layers, for all layers."""


RENAMED = {"default": "bank"}
"""Former names of recipes, which go on working, and the present ones."""

RECIPES: dict[str, SearchConfig] = {
    "bank": SearchConfig(
        kernel_form="bank",
        mask="ring",
        exploration=2.0,
        budget_form="smooth",
        budget_weight=20.0,
        size_lr=1e-2,
        kernel_lr=5e-3,
        cnn_lr=5e-3,
        epochs=1,
        least_steps=300,
        finalists=8,
        race_steps=195,
    ),
    "paper": SearchConfig(),
    "literal": SearchConfig(kernel_form="literal"),
}
"""Named settings of a search, also under their former names.

`bank` measured best and is what `search` uses: kernels are windows of a bank, sizes are explored,
and plans compared at the end. `paper` has the values of the EffConv paper and kernels that GRUs
predict, in the projected form of Eq. 5. `literal` is `paper` with Eq. 5 to the letter: a GRU with
c_in * c_out hidden units for each layer."""
RECIPES |= {former: RECIPES[name] for former, name in RENAMED.items()}

FORMER_DEFAULTS: tuple[dict[str, Any], ...] = (
    {"b": FORMER_B},
    {"finalists": 10, "race_steps": 64},
    {"finalists": 8, "race_steps": 64},
    {"finalists": 8, "race_steps": 60},
    {"race_steps": 64},
    {"race_steps": 60},
)
"""What the recipe `bank` had before: b before 0.5.0, and how it ended from 0.5.0 to 0.8.1,
with any other `finalists` too."""


def with_present_defaults(fields: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a config as a file holds them, with former defaults as they are now.

    Args:
        fields: of a config, or another mapping.
        given: those of today; where they have another value than the default of today, what the
            file holds stays.
    """
    fields, present = dict(fields), RECIPES["bank"]
    for former in FORMER_DEFAULTS:
        today = {name: getattr(present, name) for name in former}
        if former.items() <= fields.items() and today.items() <= given.items():
            fields |= today
    return fields


def recipe_name(name: str) -> str:
    """Return the present name of a recipe.

    Args:
        name: a key of `RECIPES`.

    Raises:
        ValueError: if there is no such recipe.
    """
    if name not in RECIPES:
        known = ", ".join(known for known in RECIPES if known not in RENAMED)
        raise ValueError(f"recipe {name!r} does not exist; pass one of {known}")
    return RENAMED.get(name, name)


def recipe(name: str, **changes: object) -> SearchConfig:
    """Return the settings of a named recipe, with some fields changed.

    Args:
        name: `"bank"`, `"paper"` or `"literal"`, see `RECIPES`.
        **changes: fields of `SearchConfig` and their values.

    Raises:
        ValueError: if there is no such recipe.
        TypeError: if there is no such field.
    """
    return dataclasses.replace(RECIPES[recipe_name(name)], **changes)
