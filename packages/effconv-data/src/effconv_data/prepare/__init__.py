"""Convert official archives, or an image folder, to a set of shards with an index.

    from effconv_data.prepare import prepare
    prepare("cifar10", "downloads", out="data/cifar10")

The samples of a split are written in a shuffled order that depends only on `seed`, so that a
streaming reader sees all classes mixed. A sample's key is its index in the archive's own order.
The same archives, options and versions give the same bytes, on any number of processors.
"""

from collections.abc import Sequence
from pathlib import Path

from effconv_data.prepare import cifar10, folder, imagenet32, mnist, stl10
from effconv_data.prepare.download import download
from effconv_data.prepare.types import OnProgress, Prepared, Progress, quiet
from effconv_data.prepare.writer import check_writing, write_set

__all__ = ["SETS", "OnProgress", "Prepared", "Progress", "prepare", "prepare_folder"]

READERS = {"mnist": mnist, "cifar10": cifar10, "stl10": stl10, "imagenet32": imagenet32}
SETS = tuple(READERS)


def prepare(
    name: str,
    source: str | Path | None = None,
    *,
    out: str | Path,
    splits: Sequence[str] | None = None,
    image_size: int | None = None,
    shard_samples: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    checksum: bool = True,
    overwrite: bool = False,
    downloads: str | Path | None = None,
    on_progress: OnProgress = quiet,
) -> Prepared:
    """Convert the official archives of a set to shards.

    A run that was killed resumes from its complete shards when it is repeated. The index is
    written last: a folder with an `index.json` is a complete set.

    Args:
        name: one of `SETS`.
        source: folder with the official archives, or with their content; None downloads them.
        out: folder for the shards, new or empty.
        splits: `"train"`, `"test"` or both; None is both. ImageNet's test split is the authors'
            validation split.
        image_size: 16, 32 or 64 pixels, only for ImageNet; None is 32.
        shard_samples: largest number of samples per shard; None makes shards of up to 12 MB, and at
            least 8 of a split if each then has 100 samples.
        seed: seed of the order in which samples are written, 0 or more.
        workers: number of processes; None takes all processors of this process. No effect where
            processes do not fork, as on macOS and Windows.
        checksum: whether an official archive whose checksum is not the published one is an error.
        overwrite: replace a finished set, or an interrupted run with other settings.
        downloads: where to keep downloaded archives; None is `downloads` beside `out`.
        on_progress: called with the progress of each piece of work.

    Returns:
        Counts and notes of the prepared set.

    Raises:
        ChildProcessError: if a worker process is killed.
        ConnectionError: if a download fails.
        FileExistsError: if `out` holds a finished set and `overwrite` is not set, an interrupted
            run with other settings, or anything else.
        FileNotFoundError: if an archive or a file of it is missing.
        TypeError: if a number is not an integer.
        ValueError: if an option is out of its range, or an archive is damaged or not the official
            one.
    """
    if name not in READERS:
        raise ValueError(f"set {name!r} is unknown; pass one of {', '.join(SETS)}")
    reader, out = READERS[name], Path(out)
    if image_size is not None and reader is not imagenet32:
        raise ValueError(f"image_size is {image_size}, but {name} has one size; leave it out")
    if source is not None and downloads is not None:
        raise ValueError(
            f"both source {source} and downloads {downloads} are given; leave one out, since "
            "nothing is downloaded where there is a source"
        )
    splits = _check_splits(splits, reader.SPLITS)
    check_writing(out, shard_samples=shard_samples, seed=seed, workers=workers, overwrite=overwrite)
    if source is None:
        source = out.absolute().parent / "downloads" if downloads is None else Path(downloads)
        for published in reader.downloads(splits):
            download(published, source, on_progress=on_progress)
    elif not Path(source).is_dir():
        raise FileNotFoundError(
            f"{source} is not a folder; pass the folder that holds the archives"
        )
    size = {} if image_size is None else {"image_size": image_size}
    archive = reader.read(Path(source), splits, checksum=checksum, on_progress=on_progress, **size)
    return write_set(
        archive,
        out,
        shard_samples=shard_samples,
        seed=seed,
        workers=workers,
        overwrite=overwrite,
        on_progress=on_progress,
    )


def prepare_folder(
    source: str | Path,
    *,
    out: str | Path,
    splits: Sequence[str] | None = None,
    image_size: int | None = None,
    test_fraction: float | None = None,
    skip_broken: bool = False,
    shard_samples: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    overwrite: bool = False,
    on_progress: OnProgress = quiet,
) -> Prepared:
    """Convert a folder of images, one folder for each class, to shards.

    `source` holds `train/CLASS/...` beside `test/CLASS/...`, `val/CLASS/...` or both, or just
    `CLASS/...`. Classes are numbered in the order of their names. The images become grey if all
    of them are, else RGB; photographs are turned upright; transparency is dropped. Hidden files and
    folders, and those that systems put beside images, such as `@eaDir` and `__MACOSX`, are left
    out. All images are decoded before anything is written, and all that is wrong is told at once.

    Args:
        source: the folder.
        out: folder for the shards, new or empty; its name is the set's.
        splits: which of `"train"`, `"val"` and `"test"`; None takes all that exist.
        image_size: pixels; each image is cropped to its middle square and resized to this. None
            the images as they are, which must then have one size.
        test_fraction: fraction of each class of an undivided folder that becomes the test split.
        skip_broken: leave out images that cannot be decoded or have more than 8 bits a channel, and
            name them in the notes; False refuses the folder.
        shard_samples: see `prepare`.
        seed: seed of the choice of test samples and of the order of writing, 0 or more.
        workers: see `prepare`.
        overwrite: see `prepare`.
        on_progress: called with the progress of each piece of work.

    Returns:
        Counts and notes of the prepared set.

    Raises:
        ChildProcessError: if a worker process is killed.
        FileExistsError: as `prepare`.
        FileNotFoundError: if there is no such folder, split or class.
        TypeError: if a number is not an integer.
        ValueError: if an option is out of its range, an image cannot be decoded or has more than
            8 bits a channel, a class is empty, or the images have several sizes and no
            `image_size` is given.
    """
    out = Path(out)
    if splits is not None:
        splits = _check_splits(splits, folder.SPLITS)
    check_writing(out, shard_samples=shard_samples, seed=seed, workers=workers, overwrite=overwrite)
    archive = folder.read(
        Path(source),
        out.resolve().name,
        splits=splits,
        image_size=image_size,
        test_fraction=test_fraction,
        skip_broken=skip_broken,
        seed=seed,
        workers=workers,
        on_progress=on_progress,
    )
    return write_set(
        archive,
        out,
        shard_samples=shard_samples,
        seed=seed,
        workers=workers,
        overwrite=overwrite,
        on_progress=on_progress,
    )


def _check_splits(splits: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """Return the splits in their usual order."""
    if splits is None:
        return list(known)
    strange = [split for split in splits if split not in known]
    if strange or isinstance(splits, str) or not splits:
        raise ValueError(f"splits are {splits!r}; pass a list of some of {', '.join(known)}")
    return [split for split in known if split in splits]
