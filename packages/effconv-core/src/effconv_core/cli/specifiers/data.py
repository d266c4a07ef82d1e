"""Find the images that a DATA specifier names."""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from effconv_core.cli.announce import LARGEST_BATCH, SMALLEST_BATCH, fitting_batch
from effconv_core.cli.plugins import brought, loaded
from effconv_core.cli.specifiers.model import own_module
from effconv_core.engine.loader import batch_count, check_read_again, known_count, read_before
from effconv_core.engine.race import PARTS
from effconv_core.io.schemas import MOST_CLASSES
from effconv_core.rng import seeded

OFFICIAL = ("mnist", "cifar10", "stl10", "imagenet32")
"""Sets that `effconv data prepare` knows by name."""
OWN = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")  # package.module:function


@dataclass(frozen=True)
class Data:
    """The images of a run.

    Attributes:
        train: returns for a batch size the loader of the training split, an iterable of
            `(images, labels)`: `(B, C, H, W)` and `(B,)`.
        test: returns the loader of the test split.
        note: description of the data, for the report.
        image_shape: `(C, H, W)`.
        num_classes: number of classes; None if unknown.
        samples: number of training samples; None if unknown.
        first: the first training batch of a user's own loader; None of a set.
        val: returns for a batch size the loader of validation: the part of a set's training split
            that `train` leaves out, or the second of three loaders of a user's own; None if there
            is none.
        classes: class names in label order; empty if unknown.
        mean: `(C,)`, of the normalisation on the scale 0..1; None if unknown.
        std: as `mean`.
    """

    train: Callable[[int], Iterable[tuple[Any, Any]]]
    test: Callable[[], Iterable[tuple[Any, Any]]]
    note: str
    image_shape: tuple[int, ...]
    num_classes: int | None = None
    samples: int | None = None
    first: tuple[Any, Any] | None = None
    val: Callable[[int], Iterable[tuple[Any, Any]]] | None = None
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def comparison(self, batch_size: int) -> Iterable[tuple[Any, Any]] | None:
        """Return the loader on which a search compares plans; None holds out training batches.

        It is the validation of a user's own loaders. A part drawn from a set's training split says
        no more than batches held out do.

        Raises:
            ValueError: if it gives too few batches.
        """
        validation = None if self.val is None or self.first is None else self.val(batch_size)
        batches = known_count(validation)  # where it has no length, `search` counts its batches
        if batches is not None and batches < PARTS:
            raise ValueError(
                f"the validation loader gives {batches} batch(es), and plans are compared on at "
                f"least {PARTS}; let it give more and smaller ones, or return no such loader"
            )
        return validation

    @property
    def inputs(self) -> dict[str, Any]:
        """What a network takes of these data, as `schemas.Inputs` has it."""
        return {
            "shape": list(self.image_shape),
            "num_classes": self.num_classes,
            "classes": list(self.classes if len(self.classes) <= MOST_CLASSES else ()),
            "mean": self.mean,
            "std": self.std,
        }


def make_data(
    name: str,
    *,
    batch_size: int,
    device: str,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    limit: int | None = None,
    val_fraction: float | None = None,
) -> Data:
    """Find the images that a name stands for.

    Args:
        name: a set that effconv-data has prepared: its folder, its name below EFFCONV_DATA, or an
            http(s) address; no other address is read, and no command run. `WORD:NAME` where an
            installed package brings the word (see `cli/plugins.py`). Or `package.module:function`:
            that is called with `batch_size` and `seed` by keyword, and gives loaders of batches
            `(images, labels)`: of training, of validation if it gives three, and of the test. All
            can be passed over again, and the first has a length. In several processes it is called
            in each, and gives each its part.
        batch_size: of the first training batches, and of the test of a function.
        device: where batches of sets are given.
        seed: of order and augmentation.
        rank: which part of every batch of a set is given.
        world_size: how many parts there are.
        limit: most images of each split of a set; all when None.
        val_fraction: share of a set's training split that is held out, drawn by the seed; None
            holds none out.

    Raises:
        ValueError: if there are none.
        FileNotFoundError: if there is no such set.
    """
    load, place = _loader_of(name)
    if load is None:
        fewer, loader = "give fewer images", "return a validation loader between the other two"
        for option, value, do in (("limit", limit, fewer), ("val_fraction", val_fraction, loader)):
            if value is not None:
                raise ValueError(
                    f"{option} is {value}, which is for sets, and data {name!r} is a function; "
                    f"leave it out, and let that function {do}"
                )
        return _of_a_function(name, batch_size, seed)
    options = {"device": device, "seed": seed, "rank": rank, "world_size": world_size}
    options |= {} if limit is None else {"limit": limit}
    parts = one_at_a_time(
        lambda size: _divided(
            load(place, split="train", batch_size=size, **options), val_fraction, seed
        )
    )
    first = parts(batch_size)[0]

    def test() -> Any:
        return load(place, split="test", batch_size=-(-500 // world_size), **options)

    kinds = first.image_shape, first.num_classes
    classes = tuple(getattr(first, "classes", ()))
    pixels = {name: getattr(first, name, None) for name in ("mean", "std")}
    note = f"the set {first.name}"
    return Data(
        lambda size: parts(size)[0],
        test,
        note,
        *kinds,
        first.samples,
        val=None if val_fraction is None else lambda size: parts(size)[1],
        classes=classes,
        **pixels,
    )


def _divided(batches: Any, val_fraction: float | None, seed: int) -> tuple[Any, Any]:
    """Return the batches of training and those held out, None without a fraction."""
    if val_fraction is None:
        return batches, None
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction is {val_fraction}; pass a number between 0 and 1")
    if not hasattr(batches, "divide"):
        raise ValueError(
            f"val_fraction is {val_fraction}, and {batches.name} is read from its shards in each "
            "epoch, since it takes more than half of the memory; leave it out"
        )
    return batches.divide(val_fraction, seed=seed, held_out=True)


def fitting_data(
    make: Callable[[int], Data], batch_size: int | None, epochs: int
) -> tuple[Data, int]:
    """Return data and their batch size: the one that was passed, or one that fits the set.

    Args:
        make: returns the data for a batch size.
        batch_size: None takes that of `fitting_batch`.
        epochs: of the search.
    """
    if batch_size is not None:
        return make(batch_size), batch_size
    data = small_where_needed(make, LARGEST_BATCH, SMALLEST_BATCH)
    return data, fitting_batch(data.samples, epochs)


def small_where_needed(make: Callable[[int], Data], batch_size: int, smallest: int) -> Data:
    """Return data of a batch size, or of the smallest where the set has fewer samples than that."""
    try:
        return make(batch_size)
    except ValueError:  # any other fault is one of the smallest, too
        return make(smallest)


def make_test(
    name: str, *, split: str = "test", batch_size: int, seed: int = 0, **options: Any
) -> Any:
    """Return the loader of one split of the data that a name stands for.

    Args:
        name: as for `make_data`.
        split: of a set; a function gives its last loader, of the test.
        batch_size: of the loader.
        seed: of a function, which may divide its images by it.
        options: of the function that loads a set, such as `device`.

    Raises:
        ValueError: if there is none.
        FileNotFoundError: if there is no such set.
    """
    load, place = _loader_of(name)
    if load is not None:
        return load(place, split=split, batch_size=batch_size, **options)
    if split != "test":
        raise ValueError(
            f"split is {split!r}, and of what the function {name!r} gives only the test is read; "
            "leave it out"
        )
    made = partial(_of_a_function, name, seed=seed)
    return small_where_needed(made, batch_size, SMALLEST_BATCH).test()


def _loader_of(name: str) -> tuple[Callable[..., Any] | None, str | Path]:
    """Return what loads a set, and its place; None for a function of the user's own."""
    loaders = brought("effconv.data")
    word, colon, rest = name.partition(":")
    theirs = bool(colon) and word in loaders
    if not theirs and OWN.fullmatch(name) and not Path(name).exists():
        return None, name
    entry = loaders.get(word if theirs else "effconv")
    load = None if entry is None else loaded(entry)
    if load is None:
        raise ValueError(
            f"data {name!r} is to be read by effconv-data, which is not installed; pip install "
            "--upgrade effconv-data, or pass package.module:function"
        )
    return load, rest if theirs else _place_of_a_set(name)


def _place_of_a_set(name: str) -> str | Path:
    """Return a set's folder, or its name or address as it is."""
    if (Path(name) / "index.json").is_file():
        return Path(name).resolve()
    root = os.environ.get("EFFCONV_DATA", "")
    if "://" in name or "://" in root:
        return name
    shards = re.search(r"[*?{:]|\.tar$|\.tar\.gz$|\.tgz$", name)  # effconv-data says what of them
    if root and (shards or (Path(root) / name / "index.json").is_file()):
        return name
    kind = name if name in OFFICIAL else "folder --source IMAGES"
    prepare = f"effconv data prepare {kind} --out {Path(root) / name}"
    among = f" and EFFCONV_DATA={root} has none of that name" if root else ""
    raise FileNotFoundError(
        f"data {name!r} is not a set, since no index.json lies there{among}; make it with "
        f"`{prepare}`, or let EFFCONV_DATA name the folder of all sets"
    )


def _of_a_function(name: str, batch_size: int, seed: int) -> Data:
    module, _, function = name.partition(":")
    contract = (
        "it is to take batch_size and seed, and give a loader of training, one of validation if "
        "there is one, and one of the test"
    )
    try:
        give = getattr(own_module(module), function)
    except Exception as error:  # of any kind, since it is the user's code
        raise ValueError(
            f"data {name!r} names no function ({type(error).__name__}: {error}); check its name, "
            "and that its package is installed"
        ) from error

    def loaders(size: int) -> tuple[Any, ...]:
        try:
            # Also a function that draws its parts from a global generator gives the same each time.
            with seeded(seed, torch.device("cpu")):
                made = give(batch_size=size, seed=seed)
        except Exception as error:  # of any kind, since it is the user's code
            raise ValueError(
                f"data {name!r} cannot be made ({type(error).__name__}: {error}); {contract}"
            ) from error
        if not isinstance(made, list | tuple) or len(made) not in (2, 3):
            count = f" of {len(made)}" if isinstance(made, list | tuple) else ""
            raise ValueError(f"data {name!r} gave a {type(made).__name__}{count}; {contract}")
        try:
            batch_count(made[0])
        except (TypeError, ValueError) as error:
            raise ValueError(f"data {name!r}, training: {error}") from None
        if len(made) == 3:
            with read_before(f"data {name!r}, validation,"):
                check_read_again(made[1])
        return tuple(made)

    of = one_at_a_time(loaders)
    training = of(batch_size)[0]
    with read_before(f"data {name!r}, training,"):
        first = next(iter(training), None)
    pair = isinstance(first, list | tuple) and len(first) == 2
    if not pair or not isinstance(first[0], torch.Tensor) or not len(first[0]):
        raise ValueError(
            f"data {name!r} gave batches that do not begin with a tensor of images; {contract}, of "
            "batches (images, labels)"
        )
    return Data(
        lambda size: of(size)[0],
        lambda: of(batch_size)[-1],
        f"what {name} gives",
        tuple(first[0].shape[1:]),
        samples=_samples_of(training),
        first=tuple(first),
        val=(lambda size: of(size)[1]) if len(of(batch_size)) == 3 else None,
    )


def _samples_of(loader: Any) -> int | None:
    """Return how many samples the data set of a DataLoader has, None where that is not known."""
    samples = getattr(loader, "dataset", None)
    return len(samples) if hasattr(samples, "__len__") else None


def one_at_a_time(load: Callable[[int], Any]) -> Callable[[int], Any]:
    """Cache the result of `load` for the last batch size; it is freed before the next load."""
    held: dict[int, Any] = {}

    def give(size: int) -> Any:
        if size not in held:
            held.clear()
            held[size] = load(size)
        return held[size]

    return give
