"""The user's own image folder: `train/CLASS/*` and `test/CLASS/*`, or `CLASS/*` to be split.

Photographs are turned upright by their EXIF orientation; transparency is dropped.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from effconv_data._checks import check_integer
from effconv_data.io.hidden import is_hidden
from effconv_data.ordered_map import in_order
from effconv_data.prepare.types import Archive, Block, OnProgress, Progress

__all__ = ["read"]

SPLITS = ("train", "val", "test")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
# JPEG includes MPO, which some cameras write.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
GREY = {"1", "L", "LA"}
COLOUR = {"P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"}
FILES_PER_TASK = 100
MOST_TOLD = 50
"""Problems that an error lists; of more it gives the number."""
MOST_NAMED = 20
"""Files that a note names; of more it gives the number."""


class _Look(NamedTuple):
    """Properties of an image before it is decoded."""

    sha256: str
    width: int
    height: int
    grey: bool


class _Layout(NamedTuple):
    """What lies in the folder."""

    classes: tuple[str, ...]
    files: dict[str, list[list[Path]]]
    """By split, the images of each class, sorted; an undivided folder has the split `""`."""
    other: int
    """Number of files without the suffix of an image."""
    hidden: int
    """Number of images in hidden folders."""
    loose: int
    """Number of images beside the class folders."""
    wrong: list[str]
    """What is wrong with the folders, a sentence each."""


def read(
    source: Path,
    name: str,
    *,
    splits: Sequence[str] | None,
    image_size: int | None,
    test_fraction: float | None,
    skip_broken: bool,
    seed: int,
    workers: int | None,
    on_progress: OnProgress,
) -> Archive:
    """Read an image folder; see `prepare_folder` for the arguments and errors."""
    if image_size is not None:
        check_integer("image_size", image_size, 1)
    if test_fraction is not None and not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction is {test_fraction}; pass a number between 0 and 1")
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is not a folder; pass a folder of images")
    layout = _layout(source, splits, test_fraction)
    classes, wrong = layout.classes, list(layout.wrong)

    looks: dict[Path, _Look] = {}
    broken: dict[Path, str] = {}
    every = [path for paths in layout.files.values() for own in paths for path in own]
    tasks = [(every[i : i + FILES_PER_TASK],) for i in range(0, len(every), FILES_PER_TASK)]
    with closing(in_order(_look_all, tasks, workers)) as results:
        for (paths,), found in zip(tasks, results, strict=True):
            for path, look in zip(paths, found, strict=True):
                if isinstance(look, str):
                    broken[path] = look
                else:
                    looks[path] = look
            on_progress(
                Progress("checking the images", len(looks) + len(broken), len(every), "samples")
            )
    if not skip_broken:
        wrong += broken.values()
    every = list(looks)
    found_files = {
        split: [[path for path in paths if path in looks] for paths in by_class]
        for split, by_class in layout.files.items()
    }
    if skip_broken:
        told = _empty(source, classes, layout.files)
        lost = [each for each in _empty(source, classes, found_files) if each not in told]
        wrong += [f"{each} that can be used; add some or remove the class" for each in lost]
    sizes = Counter((look.width, look.height) for look in looks.values())
    if image_size is None and len(sizes) > 1:
        one, other = list(sizes)[:2]
        example = next(path for path in every if looks[path][1:3] == other)
        wrong.append(
            f"{every[0]} has {one[0]} x {one[1]} pixels but {example} {other[0]} x {other[1]}; "
            f"there are {len(sizes)} sizes in all, so pass an image_size (--image-size) to which "
            "all are resized"
        )
    if wrong:
        raise ValueError(_told(source, wrong, bool(broken) and not skip_broken))
    files = {split: _labelled(by_class) for split, by_class in found_files.items()}
    if "" in found_files:
        files = _divided(source, found_files[""], splits, test_fraction, seed)

    width, height = (image_size, image_size) if image_size is not None else next(iter(sizes))
    mode = "L" if all(look.grey for look in looks.values()) else "RGB"

    def block(paths: list[Path], labels: np.ndarray) -> Block:
        def select(indices: np.ndarray) -> partial[np.ndarray]:
            return partial(_decode_all, [paths[i] for i in indices], mode, (width, height))

        return Block(labels, lambda: select)

    listing = hashlib.sha256()
    for path in sorted(every):
        line = f"{looks[path].sha256}  {path.relative_to(source).as_posix()}\n"
        # File names need not be UTF-8.
        listing.update(line.encode(errors="surrogateescape"))
    notes = []
    if len(sizes) > 1 or (width, height) not in sizes:
        notes.append(f"images were resized and cropped to {width} x {height} pixels")
    if layout.other:
        notes.append(f"{layout.other} files without the suffix of an image were left out")
    if layout.hidden:
        notes.append(f"{layout.hidden} images in hidden folders were left out")
    if layout.loose:
        notes.append(f"{layout.loose} images that lie in no class folder were left out")
    if broken:
        named = _named([path.relative_to(source).as_posix() for path in broken])
        notes.append(f"{len(broken)} images that cannot be used were left out: {_text(named)}")
    notes += _copies(source, files, looks)
    return Archive(
        _text(name),
        tuple(map(_text, classes)),
        (1 if mode == "L" else 3, height, width),
        {split: [block(paths, labels)] for split, (paths, labels) in files.items()},
        [
            {
                "folder": _text(source.resolve().name),
                "files": len(every),
                "sha256": listing.hexdigest(),
            }
        ],
        tuple(notes),
    )


def _text(name: str) -> str:
    """Return a file's name as text; bytes of it that are not UTF-8 are escaped."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _layout(source: Path, splits: Sequence[str] | None, test_fraction: float | None) -> _Layout:
    """Return what lies in the folder; raise where options do not fit it."""
    if set(names := _classes(source)) <= set(SPLITS):
        for folder in (source / name for name in names):
            inside = list(folder.iterdir())
            if any(map(_is_image, inside)) and any(map(_is_class, inside)):
                raise ValueError(
                    f"{folder} has images beside its class folders, so that it could be a split "
                    "or a class; move the images into the class folders"
                )
    there = {split: source / split for split in SPLITS if _holds_classes(source / split)}
    if there:
        wanted = list(splits or there)
        missing = [split for split in wanted if split not in there]
        if missing or (splits is None and "train" not in there):
            raise FileNotFoundError(
                f"{source} has no folder {(missing or ['train'])[0]} with a folder for each class; "
                f"add it, or name the splits that are there: {', '.join(there)}"
            )
        if test_fraction is not None:
            raise ValueError(
                f"test_fraction is {test_fraction} but {source} is divided into "
                f"{', '.join(there)} already; leave it out"
            )
        if splits is None and len(there) == 1:
            raise FileNotFoundError(
                f"{source} has neither test nor val beside train; add one, or prepare only train "
                "(splits=['train'], --splits train)"
            )
        classes = _classes(there.get("train", there[wanted[0]]))
        return _listed(source, classes, {split: there[split] for split in wanted})

    classes = _classes(source)
    if splits is not None and list(splits) != ["train"] and set(splits) != {"train", "test"}:
        raise ValueError(
            f"splits are {', '.join(splits)} but {source} is not divided; its splits are train and "
            "test"
        )
    alone = splits is not None and list(splits) == ["train"]
    if alone and test_fraction is not None:
        raise ValueError(
            f"test_fraction is {test_fraction} but only train is to be prepared; leave one out"
        )
    if not alone and test_fraction is None:
        raise ValueError(
            f"{source} has no test split; pass a test_fraction (--test-fraction 0.1) to take one "
            "from every class, or prepare all as train (splits=['train'], --splits train)"
        )
    return _listed(source, classes, {"": source})


def _divided(
    source: Path,
    by_class: list[list[Path]],
    splits: Sequence[str] | None,
    test_fraction: float | None,
    seed: int,
) -> dict[str, tuple[list[Path], np.ndarray]]:
    """Return files and labels of each split of an undivided folder."""
    if test_fraction is None:
        return {"train": _labelled(by_class)}
    train, test = [], []
    for label, paths in enumerate(by_class):
        count = min(round(test_fraction * len(paths)), len(paths) - 1)
        sequence = np.random.SeedSequence(seed, spawn_key=(*b"test", label))
        order = np.argsort(np.random.PCG64(sequence).random_raw(len(paths)), kind="stable")
        test.append([paths[i] for i in sorted(order[:count])])
        train.append([paths[i] for i in sorted(order[count:])])
    if not any(test):
        raise ValueError(
            f"test_fraction is {test_fraction}, which is less than one image of any class of "
            f"{source}; pass a larger one"
        )
    return {"train": _labelled(train), "test": _labelled(test)}


def _holds_classes(folder: Path) -> bool:
    """Return whether this is a folder of class folders, not a class called `train`."""
    return (
        folder.is_dir()
        and any(map(_is_class, folder.iterdir()))
        and not any(map(_is_image, folder.iterdir()))
    )


def _classes(folder: Path) -> tuple[str, ...]:
    classes = tuple(sorted(path.name for path in folder.iterdir() if _is_class(path)))
    if not classes:
        raise FileNotFoundError(f"{folder} has no folder for each class; put the images into some")
    return classes


def _is_class(path: Path) -> bool:
    return path.is_dir() and not is_hidden([path.name])


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not is_hidden([path.name])


def _listed(source: Path, classes: tuple[str, ...], folders: dict[str, Path]) -> _Layout:
    """Return the images of each split's classes, and all that is wrong with the folders."""
    files: dict[str, list[list[Path]]] = {}
    other = hidden = 0
    wrong = []
    for split, folder in folders.items():
        wrong += [
            f"{folder} has a class {name} that train does not have; remove or rename it"
            for name in _classes(folder)
            if name not in classes
        ]
        files[split] = []
        for name in classes:
            paths = [path for path in sorted((folder / name).rglob("*")) if path.is_file()]
            seen = [p for p in paths if not is_hidden(p.relative_to(folder / name).parts)]
            files[split].append([path for path in seen if path.suffix.lower() in SUFFIXES])
            other += len(seen) - len(files[split][-1])
            hidden += sum(p.suffix.lower() in SUFFIXES for p in set(paths) - set(seen))
    empty = [f"{each}; add some or remove the class" for each in _empty(source, classes, files)]
    beside = (path for each in {source, *folders.values()} for path in each.iterdir())
    loose = sum(path.is_file() and _is_image(path) for path in beside)
    return _Layout(classes, files, other, hidden, loose, wrong + empty)


def _empty(source: Path, classes: tuple[str, ...], files: dict[str, list[list[Path]]]) -> list[str]:
    return [
        f"class {name} of {source / split} has no images"
        for split, by_class in files.items()
        for name, paths in zip(classes, by_class, strict=True)
        if not paths
    ]


def _told(source: Path, wrong: list[str], skippable: bool) -> str:
    """Return all that is wrong as one sentence."""
    wrong = list(dict.fromkeys(wrong))
    more = len(wrong) - MOST_TOLD
    told = "; ".join(wrong[:MOST_TOLD]) + (f"; and {more} more" if more > 0 else "")
    remedy = "; or leave out what is broken (skip_broken=True, --skip-broken)" if skippable else ""
    return (f"{source} has {len(wrong)} problems: " if len(wrong) > 1 else "") + told + remedy


def _named(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _copies(
    source: Path, files: dict[str, tuple[list[Path], np.ndarray]], looks: dict[Path, _Look]
) -> list[str]:
    """Return a note on each split that has files which train has too, byte for byte."""
    train = {looks[path].sha256 for path in files.get("train", ([], None))[0]}
    notes = []
    for split, (paths, _) in files.items():
        if split != "train" and (twice := [p for p in paths if looks[p].sha256 in train]):
            named = _text(_named([path.relative_to(source).as_posix() for path in twice]))
            notes.append(f"{len(twice)} images of {split} are also in train: {named}")
    return notes


def _labelled(by_class: list[list[Path]]) -> tuple[list[Path], np.ndarray]:
    counts = [len(paths) for paths in by_class]
    paths = [path for paths in by_class for path in paths]
    return paths, np.repeat(np.arange(len(counts)), counts)


def _look_all(paths: list[Path]) -> list[_Look | str]:
    return [_look(path) for path in paths]


def _look(path: Path) -> _Look | str:
    """Return an image's properties, or why it cannot be used; it is decoded to know that."""
    try:
        data = path.read_bytes()
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.mode not in GREY | COLOUR:
            return (
                f"{path} is an image of mode {image.mode}, more than 8 bits a pixel; convert it to "
                "8-bit grey or colour"
            )
        # Only cameras rotate pictures.
        turned = image.format in ("JPEG", "MPO") and image.getexif().get(0x0112, 1) >= 5
        image.load()
    except Exception as error:  # Pillow raises many types on damaged input
        return _undecodable(path, error)
    width, height = reversed(image.size) if turned else image.size
    return _Look(hashlib.sha256(data).hexdigest(), width, height, image.mode in GREY)


def _decode_all(paths: list[Path], mode: str, size: tuple[int, int]) -> np.ndarray:
    """Return images of one size (W, H): `(N, H, W, C)` uint8."""
    images = np.stack([_decode(path, mode, size) for path in paths])
    return images.reshape(len(paths), size[1], size[0], len(mode))


def _decode(path: Path, mode: str, size: tuple[int, int]) -> np.ndarray:
    try:
        image = Image.open(path, formats=FORMATS)
        image.load()
        if image.format in ("JPEG", "MPO"):
            image = ImageOps.exif_transpose(image)
    except Exception as error:  # Pillow raises many types on damaged input
        raise ValueError(_undecodable(path, error)) from error
    image = image.convert(mode)
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.BICUBIC)
    return np.asarray(image)


def _undecodable(path: Path, error: Exception) -> str:
    return f"{path} is an image that cannot be decoded ({type(error).__name__}); mend or remove it"
