"""Settings of a search; the defaults are those of the paper."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from effconv_core.scalars import plain


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
    b: float = -0.35
    """Sets the initial soft size: k tanh(b) + k + 1, which is 2.99."""
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
    finalists: int = 1
    """Number of plans near the learned sizes that are compared at the end, on the search's own
    kernels; with 1 the nearest plan is taken (the paper compares none)."""
    tolerance: float = 0.02
    """Relative tolerance of the plan's cost around the budget (0.02 is 2 %)."""
    seed: int = 0
    """Seed of the predictors' initial values and fixed inputs, of the draws in training steps, and
    of the finalists."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the CNN in training steps. bfloat16 is autocast: predictors, masks, kernels,
    losses and updates stay in float32, and so does the comparison of the finalists."""
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
                "compiled anew, so pass shapes='padded'"
            )
        if self.finalists > 1 and not self.exploration:
            raise ValueError(
                f"finalists is {self.finalists} and exploration is 0; finalists are drawn within "
                "the exploration of the learned sizes, so raise it or pass finalists=1"
            )

    @property
    def largest(self) -> int:
        """The largest size, 2k + 1."""
        return 2 * self.k + 1


RECIPES: dict[str, SearchConfig] = {
    "paper": SearchConfig(),
    "default": SearchConfig(
        kernel_form="bank",
        mask="ring",
        exploration=2.0,
        budget_form="smooth",
        budget_weight=20.0,
        size_lr=1e-2,
        kernel_lr=5e-3,
        cnn_lr=5e-3,
        epochs=2,
        finalists=24,
    ),
}
"""Named settings: `default` is what `search` uses; `paper` has the values of the EffConv paper.

`paper` has the `projected` kernel form; `recipe("paper", kernel_form="literal")` follows Eq. 5 to
the letter."""


def recipe(name: str, **changes: object) -> SearchConfig:
    """Return the settings of a named recipe, with some fields changed.

    Args:
        name: `"paper"` or `"default"`.
        **changes: fields of `SearchConfig` and their values.

    Raises:
        ValueError: if there is no such recipe.
        TypeError: if there is no such field.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r} does not exist; pass one of {sorted(RECIPES)}")
    return dataclasses.replace(RECIPES[name], **changes)
