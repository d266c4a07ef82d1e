"""Sequences of official archives: Speech Commands, and CharacterTrajectories."""

import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from effconv_data._seeding import VIEW, seeded_generator
from effconv_data.io.packed import unpacked
from effconv_data.sequences import SPOKEN_DIGITS, fitted, read_spoken_digits, read_wave
from effconv_data.shards.tar import tar_members

__all__ = [
    "ARCHIVED",
    "CHARACTERS",
    "SPEECH_COMMANDS",
    "Sequences",
    "read_characters",
    "read_speech_commands",
]

SPEECH_COMMANDS = "speech-commands"
SPEECH_ARCHIVE = "speech_commands_v0.02.tar.gz"
SPEECH_LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}
SPEECH_RATE = 16_000  # samples a second, and steps to which recordings are centred
SPEECH_URL = "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz"

CHARACTERS = "character-trajectories"
CHARACTER_FILES = {
    "train": "CharacterTrajectories_TRAIN.ts",
    "test": "CharacterTrajectories_TEST.ts",
}
CHARACTER_URL = (
    "https://www.timeseriesclassification.com/description.php?Dataset=CharacterTrajectories"
)
LARGEST_FILE = 1 << 28


class Sequences(NamedTuple):
    """One split of a set of sequences, in a fixed random order."""

    samples: Tensor
    """`(N, C, T)` int16."""
    labels: Tensor
    """`(N,)` int64, indices into `classes`."""
    classes: tuple[str, ...]


def read_speech_commands(root: str | Path, split: str) -> Sequences:
    """Read one split of Speech Commands (Warden 2018, https://arxiv.org/abs/1804.03209).

    The official lists are the splits `"val"` and `"test"`, and what they do not name is `"train"`.
    Folders that begin with `_`, such as the background noise, are left out.

    Args:
        root: the folder of all sets. It holds `speech-commands` with the archive
            `speech_commands_v0.02.tar.gz`, or with what is in it: a folder of WAV files for each
            word, `validation_list.txt` and `testing_list.txt`.
        split: `"train"`, `"val"` or `"test"`.

    Returns:
        Recordings `(N, 1, 16000)`, a second each; shorter ones are centred between zeros.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: if the split is unknown, or the archive or a file is not of this layout.
    """
    if split not in ("train", *SPEECH_LISTS):
        raise ValueError(f"split {split!r} is not in {SPEECH_COMMANDS}; pass train, val or test")
    folder = Path(root) / SPEECH_COMMANDS
    archive = folder / SPEECH_ARCHIVE
    if archive.is_file():
        names, lists = _listed(archive)
    elif all((folder / name).is_file() for name in SPEECH_LISTS.values()):
        names = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("*/*.wav"))]
        lists = {name: (folder / name).read_bytes() for name in SPEECH_LISTS.values()}
    else:
        raise FileNotFoundError(
            f"{folder} holds neither {SPEECH_ARCHIVE} nor its content; download {SPEECH_URL} there"
        )
    spoken = [name for name in names if name.count("/") == 1 and not name.startswith("_")]
    chosen = _split_of(folder, spoken, lists, split)
    classes = tuple(sorted({name.partition("/")[0] for name in spoken}))
    order = _shuffled(sorted(chosen), 3)
    place = {name: number for number, name in enumerate(order)}
    audio = torch.zeros(len(order), 1, SPEECH_RATE, dtype=torch.int16)
    for name, data in _contents(archive if archive.is_file() else folder, place):
        sound = read_wave(io.BytesIO(data), f"{name} of {folder}", SPEECH_RATE)
        audio[place[name], 0] = torch.from_numpy(fitted(sound, SPEECH_RATE))
    labels = torch.tensor([classes.index(name.partition("/")[0]) for name in order])
    return Sequences(audio, labels, classes)


def _listed(archive: Path) -> tuple[list[str], dict[str, bytes]]:
    """Return the names of an archive's WAV files, and the contents of its two lists."""
    names: list[str] = []
    wanted = set(SPEECH_LISTS.values())

    def is_list(name: str) -> bool:
        name = name.removeprefix("./")
        if name.endswith(".wav"):
            names.append(name)
        return name in wanted

    lists = dict(_members(archive, is_list))
    missing = sorted(wanted - lists.keys())
    if missing:
        raise ValueError(f"archive {archive} has no {missing[0]}; get the official archive again")
    return sorted(names), lists


def _members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield names, without a leading `./`, and contents of an archive's wanted files."""
    try:
        with archive.open("rb") as file:
            _, stream = unpacked(file)
            for name, data in tar_members(stream, largest=LARGEST_FILE, wanted=wanted):
                yield name.removeprefix("./"), data
    except Exception as error:  # tar and what unpacks it each raise their own kinds
        raise ValueError(f"archive {archive} cannot be read ({error}); get it again") from error


def _contents(place: Path, names: dict[str, int]) -> Iterator[tuple[str, bytes]]:
    """Yield the names and the contents of files, of an archive or a folder."""
    if place.is_dir():
        yield from ((name, (place / name).read_bytes()) for name in names)
    else:
        yield from _members(place, lambda name: name.removeprefix("./") in names)


def _split_of(folder: Path, spoken: list[str], lists: dict[str, bytes], split: str) -> set[str]:
    """Return the names of a split; raise where the lists and the files disagree."""
    listed: dict[str, set[str]] = {}
    for name, file in SPEECH_LISTS.items():
        listed[name] = set(lists[file].decode("utf-8", errors="replace").split())
        unknown = sorted(listed[name] - set(spoken))
        if unknown:
            raise ValueError(
                f"{file} of {folder} names {unknown[0]!r}, which is missing; get the archive again"
            )
    both = sorted(listed["val"] & listed["test"])
    if both:
        raise ValueError(f"{both[0]!r} of {folder} is in both lists; get the archive again")
    chosen = listed.get(split, set(spoken) - listed["val"] - listed["test"])
    if not chosen:
        raise ValueError(f"{folder} has no recording of the split {split}; get the archive again")
    return chosen


def read_characters(root: str | Path, split: str) -> Sequences:
    """Read one split of CharacterTrajectories, pen strokes of 20 letters.

    Values are scaled by the greatest magnitude of both files and rounded to 16 bits. Sequences end
    in zeros up to the length of the longest of both files, 182 in the official ones.

    Args:
        root: the folder of all sets. It holds `character-trajectories` with
            `CharacterTrajectories_TRAIN.ts` and `CharacterTrajectories_TEST.ts` as
            timeseriesclassification.com gives them.
        split: `"train"` or `"test"`.

    Returns:
        Sequences `(N, 3, T)`: velocities in x and y, and the pen's force.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the split is unknown, or a file is not of this layout.
    """
    if split not in CHARACTER_FILES:
        raise ValueError(f"split {split!r} is not in {CHARACTERS}; pass train or test")
    read = {}
    for name, file in CHARACTER_FILES.items():
        path = Path(root) / CHARACTERS / file
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; get it of {CHARACTER_URL}")
        read[name] = _read_ts(path)
    (classes, train), (others, test) = read["train"], read["test"]
    channels = {len(case) for case, _ in (*train, *test)}
    if classes != others or len(channels) != 1:
        raise ValueError(
            f"the files of {Path(root) / CHARACTERS} have classes {classes} and {others}, and "
            f"cases of {sorted(channels)} channels; get both again, from one set"
        )
    arrays = [case for case, _ in (*train, *test)]
    steps = max(case.shape[1] for case in arrays)
    greatest = max(float(np.abs(case).max()) for case in arrays) or 1.0
    cases = [(train, test)[split == "test"][i] for i in _shuffled(range(len(read[split][1])), 4)]
    samples = np.zeros((len(cases), *channels, steps), np.int16)
    for number, (case, _) in enumerate(cases):
        samples[number, :, : case.shape[1]] = np.rint(case / greatest * 32767)
    labels = torch.tensor([classes.index(label) for _, label in cases])
    return Sequences(torch.from_numpy(samples), labels, classes)


def _read_ts(path: Path) -> tuple[tuple[str, ...], list[tuple[np.ndarray, str]]]:
    """Return the classes of a file, and for each case its values `(C, T)` and its class."""
    classes: tuple[str, ...] = ()
    cases: list[tuple[np.ndarray, str]] = []
    in_data = False
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines()):
        line = line.strip()
        where = f"line {number + 1} of {path}"
        if not line or line.startswith("#"):
            continue
        if not in_data:
            words = line.split()
            in_data = words[0].lower() == "@data"
            if words[0].lower() == "@classlabel":
                classes = tuple(words[2:])
            elif words[0].lower() == "@timestamps" and words[1:] != ["false"]:
                raise ValueError(f"{where} has time stamps, and the official file has none")
            continue
        *parts, label = line.split(":")
        try:
            rows = [np.array(part.split(","), dtype=np.float64) for part in parts]
        except ValueError as error:
            raise ValueError(f"{where} is not numbers ({error}); get the file again") from error
        right = rows and len({len(row) for row in rows}) == 1 and label in classes
        if not right or not all(math.isfinite(value) for row in rows for value in row):
            raise ValueError(
                f"{where} is not channels of one length, finite, and one of the classes {classes}; "
                "get the file again"
            )
        cases.append((np.stack(rows), label))
    if not cases:
        raise ValueError(f"{path} holds no case; get the file again")
    return classes, cases


def _shuffled(items: object, number: int) -> list:
    """Return items in a fixed random order: a limit then takes samples of all classes."""
    items = list(items)
    order = torch.randperm(len(items), generator=seeded_generator(0, VIEW, number))
    return [items[place] for place in order.tolist()]


def _spoken_digits(root: str | Path, split: str) -> Sequences:
    recordings = read_spoken_digits(root, split)
    return Sequences(recordings.audio, recordings.labels, tuple("0123456789"))


ARCHIVED: dict[str, Callable[[str | Path, str], Sequences]] = {
    SPOKEN_DIGITS: _spoken_digits,
    SPEECH_COMMANDS: read_speech_commands,
    CHARACTERS: read_characters,
}
"""Readers of sets of sequences that are not views of images, by name."""
