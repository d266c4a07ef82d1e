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


class _Look(NamedTuple):
    """Properties of an image before it is decoded."""

    sha256: str
    width: int
    height: int
    grey: bool


def read(
    source: Path,
    name: str,
    *,
    splits: Sequence[str] | None,
    image_size: int | None,
    test_fraction: float | None,
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
        raise FileNotFoundError(f"{source} is no folder; pass a folder of images")
    classes, files, ignored = _list_files(source, splits, test_fraction, seed)

    looks: dict[Path, _Look] = {}
    every = [path for paths, _ in files.values() for path in paths]
    tasks = [(every[i : i + FILES_PER_TASK],) for i in range(0, len(every), FILES_PER_TASK)]
    with closing(in_order(_look_all, tasks, workers)) as results:
        for (paths,), found in zip(tasks, results, strict=True):
            looks |= dict(zip(paths, found, strict=True))
            on_progress(Progress("checking the images", len(looks), len(every), "samples"))

    sizes = Counter((look.width, look.height) for look in looks.values())
    if image_size is None and len(sizes) > 1:
        one, other = list(sizes)[:2]
        example = next(path for path in every if looks[path][1:3] == other)
        raise ValueError(
            f"{every[0]} has {one[0]} x {one[1]} pixels but {example} {other[0]} x {other[1]}; "
            "pass an image_size (--image-size) to which all are resized"
        )
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
    if ignored:
        notes.append(f"{ignored} files without the suffix of an image were left out")
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
    """Return a file's name as text; bytes of it that are no UTF-8 are escaped."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _list_files(
    source: Path, splits: Sequence[str] | None, test_fraction: float | None, seed: int
) -> tuple[tuple[str, ...], dict[str, tuple[list[Path], np.ndarray]], int]:
    """Return the classes, each split's files and labels, and the number of other files."""
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
                f"{source} has neither test nor val beside train; add one, or prepare train alone "
                "(splits=['train'], --splits train)"
            )
        classes = _classes(there.get("train", there[wanted[0]]))
        found = {split: _images(there[split], classes) for split in wanted}
        ignored = sum(count for _, count in found.values())
        return classes, {split: _labelled(paths) for split, (paths, _) in found.items()}, ignored

    classes = _classes(source)
    by_class, ignored = _images(source, classes)
    if splits is not None and list(splits) != ["train"] and set(splits) != {"train", "test"}:
        raise ValueError(
            f"splits are {', '.join(splits)} but {source} is not divided; its splits are train and "
            "test"
        )
    if splits is not None and list(splits) == ["train"]:
        if test_fraction is not None:
            raise ValueError(
                f"test_fraction is {test_fraction} but only train is to be prepared; leave one out"
            )
        return classes, {"train": _labelled(by_class)}, ignored
    if test_fraction is None:
        raise ValueError(
            f"{source} has no test split; pass a test_fraction (--test-fraction 0.1) to take one "
            "from every class, or prepare all as train (splits=['train'], --splits train)"
        )
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
    return classes, {"train": _labelled(train), "test": _labelled(test)}, ignored


def _holds_classes(folder: Path) -> bool:
    """Return whether this is a folder of class folders, not a class called `train`."""
    return (
        folder.is_dir()
        and any(path.is_dir() for path in folder.iterdir())
        and not any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())
    )


def _classes(folder: Path) -> tuple[str, ...]:
    names = (path.name for path in folder.iterdir() if path.is_dir())
    classes = tuple(sorted(name for name in names if not name.startswith(".")))
    if not classes:
        raise FileNotFoundError(f"{folder} has no folder for each class; put the images into some")
    return classes


def _images(folder: Path, classes: tuple[str, ...]) -> tuple[list[list[Path]], int]:
    """Return each class's images, sorted, and the number of other files."""
    strange = set(_classes(folder)) - set(classes)
    if strange:
        raise ValueError(
            f"{folder} has a class {min(strange)} that train does not have; remove or rename it"
        )
    by_class: list[list[Path]] = []
    ignored = 0
    for name in classes:
        files = [path for path in sorted((folder / name).rglob("*")) if path.is_file()]
        files = [path for path in files if not path.name.startswith(".")]
        by_class.append([path for path in files if path.suffix.lower() in SUFFIXES])
        ignored += len(files) - len(by_class[-1])
        if not by_class[-1]:
            raise ValueError(
                f"class {name} of {folder} has no images; add some or remove the class"
            )
    return by_class, ignored


def _labelled(by_class: list[list[Path]]) -> tuple[list[Path], np.ndarray]:
    counts = [len(paths) for paths in by_class]
    paths = [path for paths in by_class for path in paths]
    return paths, np.repeat(np.arange(len(counts)), counts)


def _look_all(paths: list[Path]) -> list[_Look]:
    return [_look(path) for path in paths]


def _look(path: Path) -> _Look:
    data = path.read_bytes()
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        # Only cameras rotate pictures, and only in JPEG is the orientation known without decoding.
        turned = image.format in ("JPEG", "MPO") and image.getexif().get(0x0112, 1) >= 5
    except Exception as error:  # Pillow raises many types on damaged input
        raise ValueError(_undecodable(path, error)) from error
    if image.mode not in GREY | COLOUR:
        raise ValueError(
            f"{path} is an image of mode {image.mode}, more than 8 bits a pixel; convert it to "
            "8-bit grey or colour"
        )
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
