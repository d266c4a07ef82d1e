"""The result of a search: a size for each layer, as a JSON file and as a CNN."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn.parameter import is_lazy

from effconv_core.evidence import Evidence
from effconv_core.io import schemas
from effconv_core.io.atomic import write_tensors, write_text
from effconv_core.io.extra_state import LARGEST_INT, state_of
from effconv_core.io.kinds import check_kind
from effconv_core.io.plan_checks import check_allowed, check_numbers, check_sizes
from effconv_core.io.read_json import LIMIT, conform, decode_json, in_brief, read_limited
from effconv_core.io.read_tensors import opened_tensors
from effconv_core.io.schemas import (
    MOST_WEIGHTS,
)
from effconv_core.io.state_checks import check_weights
from effconv_core.layers.contract import Batch, check_same_network
from effconv_core.layers.conv import predicted, resized_conv, take_places
from effconv_core.layers.copying import copy_network
from effconv_core.layers.geometry import kernel_shape_of
from effconv_core.layers.own_forward import plain_class, size_obstacle
from effconv_core.layers.parametrized import kernel_tensor
from effconv_core.scalars import plain
from effconv_core.space.rounding import nearest_size
from effconv_core.space.search_space import flat
from effconv_core.space.selection import obstacles

SCHEMA = 3
READ = (1, 2, SCHEMA)
RECORD = {"counts", "amount", "at_most", "weight", "cost"}  # fields of a budget's record

Size = int | tuple[int, ...]


@dataclass(frozen=True)
class SizePlan(Mapping[str, Size]):
    """The learned kernel sizes: a mapping of layer name to size.

    Args:
        sizes: layer name, as in `model.named_modules()`, to kernel size of at least 1, or to a
            tuple of them, one for each axis of the kernel.
        soft_sizes: layer name to soft size, or to a tuple; empty if no search made the plan.
        cost: parameter count at these sizes.
        budget: the target parameter count.
        allowed: layer name to `(smallest, largest, step)` of its allowed sizes.
        budgets: for each budget a mapping with the unit that it `counts`, the `amount`, whether it
            is `at_most` that, its `weight`, the `cost` of the plan, and from 0.5.0 on that of the
            `rounded` soft sizes.
        model: class name of the network.
        versions: package name to version.
        evidence: how it compares with the original sizes; None if the search did not look.
        filled_in: how many sizes had to be others than the rounded soft sizes, in the plan nearest
            to these within the budgets; None where that is not known.

    Raises:
        TypeError: if a size is not an integer, or a soft size, the cost or the budget no number.
        ValueError: if there is no layer or more than 10,000, a size is not from 1 to 1,000, a
            number is not finite or out of its range, or the soft sizes are of other layers.
    """

    sizes: dict[str, Size]
    soft_sizes: dict[str, float | tuple[float, ...]] = field(default_factory=dict)
    cost: int | None = None
    budget: float | None = None
    allowed: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    budgets: tuple[dict[str, Any], ...] = ()
    model: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    evidence: Evidence | None = None
    filled_in: int | None = None

    def __post_init__(self) -> None:
        for name in ("sizes", "soft_sizes"):
            numbers = {layer: _plain(size) for layer, size in getattr(self, name).items()}
            object.__setattr__(self, name, numbers)
        for name in ("cost", "budget"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        check_sizes(self.sizes)
        check_numbers(self)
        check_allowed(self.allowed)
        for record in self.budgets:
            if not isinstance(record, Mapping) or not record.keys() >= RECORD:
                raise TypeError(
                    f"a budget of the plan is {in_brief(record)}; it must be a mapping with "
                    f"{', '.join(sorted(RECORD))}"
                )
        what = "what the plan says beside its sizes"
        conform(list(map(dict, self.budgets)), schemas.BudgetRecords, what=what)
        conform(self.versions, schemas.Versions, what=what)
        conform(self.model, schemas.Name | None, what=what)
        if self.evidence is not None:
            conform(asdict(self.evidence), Evidence, what="the plan's evidence")
        conform(self.filled_in, schemas.Count | None, what=what)
        for mapping, title in ((self.soft_sizes, "soft sizes"), (self.allowed, "allowed sizes")):
            if mapping and mapping.keys() != self.sizes.keys():
                odd = sorted(mapping.keys() ^ self.sizes.keys())
                raise ValueError(
                    f"sizes and {title} must name the same layers; {in_brief(odd)} are in one"
                )
        for name, soft in self.soft_sizes.items():
            if len(flat([soft])) != len(flat([self.sizes[name]])):
                raise ValueError(
                    f"size of layer {name!r} is {self.sizes[name]} and its soft size {soft}; pass "
                    "as many numbers in both"
                )

    def __getitem__(self, name: str) -> Size:
        return self.sizes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def adjusted(self) -> dict[str, Size]:
        """Layers whose size is not the rounded soft size, with the rounded one.

        They were changed because the rounded sizes were outside of the budget's tolerance, or
        because a nearby plan did better at the end of the search (`SearchConfig.finalists`).
        """
        rounded = {name: self._rounded(name, soft) for name, soft in self.soft_sizes.items()}
        return {name: size for name, size in rounded.items() if size != self.sizes[name]}

    def _rounded(self, name: str, soft: float | tuple[float, ...]) -> Size:
        if isinstance(soft, tuple):
            return tuple(self._rounded(name, v) for v in soft)
        if name not in self.allowed:
            return round(soft)
        smallest, largest, step = self.allowed[name]
        return nearest_size(soft, range(smallest, largest + 1, step))

    def to_json(self) -> str:
        """Return the plan as JSON with a schema version.

        Raises:
            ValueError: if it is longer than what `from_json` reads, by the names of its layers.
        """
        text = json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2) + "\n"
        if len(text) > LIMIT:
            raise ValueError(
                f"the plan has {len(text):,} characters as JSON, and {LIMIT:,} are read; give its "
                "layers shorter names"
            )
        return text

    @classmethod
    def from_json(cls, text: str | bytes) -> "SizePlan":
        """Read a plan that `to_json` wrote.

        Raises:
            ValueError: if the text is not such a plan; the message says what is wrong.
            TypeError: if a size is not an integer or another entry not a number.
        """
        content = decode_json(text, Any, what="the plan")
        check_kind(content, "a plan", READ)
        conform(content, schemas.PlanFile, what="the plan")
        content = {name: value for name, value in content.items() if name != "schema"}
        for name in ("sizes", "soft_sizes", "allowed"):
            content[name] = {
                layer: tuple(value) if isinstance(value, list) else value
                for layer, value in content.get(name, {}).items()
            }
        content["budgets"] = tuple(content.get("budgets", ()))
        if content.get("evidence") is not None:
            content["evidence"] = conform(content["evidence"], Evidence, what="the plan's evidence")
        return cls(**content)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan to a JSON file, whole or not at all."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "SizePlan":
        """Read a plan from a JSON file.

        Raises:
            ValueError: if the file holds no plan; the message names the file.
            TypeError: if a size is not an integer.
        """
        if Path(path).is_dir():
            raise ValueError(f"{path} is a folder; pass a plan's file, such as plan.json of a run")
        text = read_limited(path, LIMIT)
        try:
            return cls.from_json(text)
        except (ValueError, TypeError) as error:
            raise type(error)(f"{path}: {error}") from None


def _plain(size: Any) -> Any:
    return tuple(map(plain, size)) if isinstance(size, tuple) else plain(size)


def in_words(size: float | tuple[float, ...], form: str = "d") -> str:
    """Format a size, soft or not: 3, or 3x5 if it has one for each axis."""
    return "x".join(format(n, form) for n in (size if isinstance(size, tuple) else (size,)))


def apply_plan(
    model: nn.Module,
    plan: Mapping[str, Size],
    *,
    generator: torch.Generator | None = None,
    example: Any = None,
) -> nn.Module:
    """Build the plain CNN of a plan: a copy of the model with convolutions of the planned sizes.

    The layers of the plan are new, with He's fan-out normal values; all others are copied as they
    are. The result holds only classes of `torch.nn` and of the model.

    Args:
        model: the network that was searched; it is not changed.
        plan: layer name to kernel size, such as a `SizePlan`. A number is the size of each axis
            along which the layer's own kernel has more than one tap.
        generator: source of the initial values; None uses the global one.
        example: an input of the network, a tuple of its arguments or a dict of keyword arguments,
            on which the CNN is checked to be the model with other kernels; None checks nothing.

    Raises:
        ValueError: if a layer is unknown or cannot get another kernel (see `left_alone`), a size
            is not from 1 to 1,000, or a layer would have more than 2**28 weights.
        TypeError: if a size is not an integer.
    """
    sizes = SizePlan(dict(plan)).sizes
    shapes = _kernel_shapes(model, sizes)
    cnn = copy_network(model)
    modules = dict(cnn.named_modules())
    take_places(
        {
            modules[name]: resized_conv(modules[name], shape, generator)
            for name, shape in shapes.items()
        }
    )
    if example is not None:
        _check(model, cnn, list(shapes), example)
    return cnn


def _check(model: nn.Module, cnn: nn.Module, names: list[str], example: Any) -> None:
    """Raise unless a CNN does what the model does with predicted kernels in its place."""
    reference, found = copy_network(model), copy_network(cnn)
    old, new = dict(reference.named_modules()), dict(found.named_modules())
    take_places({old[name]: predicted(old[name]) for name in names})
    for name in names:
        if old[name].bias is not None:
            old[name].bias.data.copy_(new[name].bias)
    kernels = {name: kernel_tensor(new[name]).detach() for name in names}
    check_same_network(reference, found, kernels, Batch(example), original=model)


def _kernel_shapes(model: nn.Module, sizes: Mapping[str, Size]) -> dict[str, tuple[int, ...]]:
    """Return the taps of each layer's kernels, and refuse what cannot be built."""
    modules = dict(model.named_modules())
    convs = [n for n, module in modules.items() if plain_class(type(module)) is not None]
    known, barred, shapes = set(convs), obstacles(model), {}
    for name, size in sizes.items():
        if name in barred:
            raise ValueError(
                f"layer {name!r} of the plan cannot get another kernel, because it {barred[name]}; "
                "leave it out of the plan"
            )
        if name not in known:
            kind = type(modules[name]).__name__ if name in modules else None
            raise ValueError(
                f"layer {name!r} of the plan is {f'a {kind}' if kind else 'not in the model'}; "
                f"a plan names convolutions of the model, which are {convs}"
            )
        conv = modules[name]
        if (reason := size_obstacle(conv, [size])) is not None:
            raise ValueError(f"layer {name!r} of the plan {reason}; pass another size")
        shapes[name] = kernel_shape_of(conv, size)
        weights = conv.out_channels * (conv.in_channels // conv.groups) * math.prod(shapes[name])
        if weights > MOST_WEIGHTS:
            raise ValueError(
                f"layer {name!r} would have {weights:,} weights at size {in_words(size)}; the most "
                f"is {MOST_WEIGHTS:,}, so pass a smaller size"
            )
    return shapes


def save(cnn: nn.Module, plan: Mapping[str, Size], path: str | os.PathLike[str]) -> None:
    """Write the weights of a plan's CNN, with the plan, as one safetensors file.

    Args:
        cnn: a CNN of `apply_plan`, trained or not.
        plan: its plan, or the sizes of one made by hand.
        path: the file; it is written whole or not at all.

    Raises:
        TypeError: if the plan is no mapping, or the network's state holds what is neither a tensor
            nor, as a module may give by `get_extra_state`, a JSON value.
        ValueError: if these values are too long to be read again.
        OSError: if the file cannot be written.
    """
    if not isinstance(plan, Mapping):
        raise TypeError(
            f"plan is of type {type(plan).__name__}; pass a SizePlan, or a mapping of layer names "
            "to sizes"
        )
    plan = plan if isinstance(plan, SizePlan) else SizePlan(dict(plan))
    weights, extra = state_of(cnn)
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in weights.items()
    }
    metadata = {"plan": plan.to_json()} | ({"extra": json.dumps(extra)} if extra else {})
    try:
        write_tensors(path, tensors, metadata)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written ({error}); name a file in a folder") from None


def load(model: nn.Module, path: str | os.PathLike[str], *, example: Any = None) -> nn.Module:
    """Rebuild a CNN that `save` wrote.

    Args:
        model: the network that was searched; it is not changed.
        path: a file of `save`.
        example: as for `apply_plan`.

    Raises:
        ValueError: if the file holds no plan, the plan or the weights do not fit the model, or a
            tensor is of another kind than the model's (such as int8) or not finite.
    """
    with opened_tensors(path) as file:
        metadata = file.metadata() or {}
        if "plan" not in metadata:
            raise ValueError(f"{path} holds no plan; pass a file that effconv_core.save wrote")
        try:
            plan = SizePlan.from_json(metadata["plan"])
            text, kind = metadata.get("extra", "{}"), dict[str, Any]
            extra = decode_json(
                text, kind, what="its extra state", finite=False, largest=LARGEST_INT
            )
        except (ValueError, TypeError) as error:
            raise type(error)(f"{path}: {error}") from None
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    # The drawn weights are overwritten, so the global generator is not used.
    generator = torch.Generator()
    cnn = apply_plan(model, plan, generator=generator, example=example)
    tensors = _as_one_layer(tensors, plan)
    _size_empty_buffers(cnn, tensors)
    remedy = "pass a file that save wrote after a training of this model"
    check_weights(path, tensors, cnn, remedy)
    try:
        cnn.load_state_dict({**extra, **tensors})
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path} does not fit the model ({error}); pass the model searched"
        ) from None
    return cnn


def _size_empty_buffers(cnn: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Resize buffers without elements to the shapes that a file has, as a first pass does."""
    for prefix, module in cnn.named_modules():
        for name, own in module._buffers.items():
            found = tensors.get(f"{prefix}.{name}" if prefix else name)
            if found is not None and own is not None and not is_lazy(own) and not own.numel():
                module._buffers[name] = own.new_empty(found.shape)


def _as_one_layer(tensors: dict[str, torch.Tensor], plan: SizePlan) -> dict[str, torch.Tensor]:
    """Rename what was saved before 0.5.0, when padding layers stood before some convolutions."""
    renamed = {
        f"{name}.{place}.{own}": f"{name}.{own}"
        for name in plan
        for place in (1, 2)
        for own in ("weight", "bias")
        if f"{name}.weight" not in tensors
    }
    return {renamed.get(name, name): tensor for name, tensor in tensors.items()}
