"""Sequences `(C, T)`: spoken digits from raw audio, and images read as sequences of pixels."""

import math
import wave
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from effconv_data._seeding import VIEW, seeded_generator

__all__ = ["SPOKEN_DIGITS", "VIEWS", "ImageView", "Recordings", "flat", "noise_padded", "permuted"]

SPOKEN_DIGITS = "spoken-digits"
RATE = 8000  # samples a second of the Free Spoken Digit Dataset
STEPS = 4096  # to which its recordings are centred and cut or padded
TEST_SPEAKERS = 2  # of six, the last by name
PADDED_STEPS = 1000

View = Callable[[Tensor], Tensor]
"""Maps normalised images `(B, C, H, W)` to sequences `(B, C', T)`."""


class ImageView(NamedTuple):
    """A set of images that is read as sequences."""

    images: str
    """Name of the set of images."""
    view: View
    """Maps its normalised images to sequences."""


class Recordings(NamedTuple):
    """Audio of one split, in a fixed random order."""

    audio: Tensor
    """`(N, 1, T)` int16."""
    labels: Tensor
    """`(N,)` int64."""
    speakers: tuple[str, ...]
    """Names of the speakers of this split."""
    by: Tensor
    """`(N,)` int64, the index in `speakers` of who speaks."""


def flat(images: Tensor, *, pool: int = 1) -> Tensor:
    """Return images `(B, C, H, W)` row by row as sequences `(B, C, H W / pool^2)`.

    Args:
        images: floating-point images.
        pool: height and width of the squares of pixels that are averaged first.
    """
    return F.avg_pool2d(images, pool).flatten(2)


def permuted(images: Tensor, *, pool: int = 1) -> Tensor:
    """Return `flat(images)` with its steps in a fixed random order, the same for all splits."""
    sequences = flat(images, pool=pool)
    order = torch.randperm(sequences.shape[2], generator=seeded_generator(0, VIEW, 0))
    return sequences[:, :, order.to(images.device)]


def noise_padded(images: Tensor) -> Tensor:
    """Return images as sequences of their rows that end in noise, `(B, C W, 1000)`.

    Step t < H holds the C W values of row t; the other steps hold Gaussian noise of standard
    deviation 1, drawn once for all images and splits (Chang et al. 2019, Section 4.3,
    https://arxiv.org/abs/1902.09689).

    Args:
        images: `(B, C, H, W)` normalised images.
    """
    B, C, H, W = images.shape
    rows = images.permute(0, 1, 3, 2).reshape(B, C * W, H)
    noise = torch.randn(C * W, PADDED_STEPS - H, generator=seeded_generator(0, VIEW, 1))
    return torch.cat([rows, noise.to(rows).expand(B, -1, -1)], 2)


VIEWS = {
    "smnist": ImageView("mnist", flat),
    "pmnist": ImageView("mnist", permuted),
    "smnist196": ImageView("mnist", partial(flat, pool=2)),
    "pmnist196": ImageView("mnist", partial(permuted, pool=2)),
    "scifar10": ImageView("cifar10", flat),
    "npcifar10": ImageView("cifar10", noise_padded),
}
"""Sequential, permuted (`p`), 2x2-pooled (`196`) and noise-padded (`np`) forms by name."""


def read_spoken_digits(root: str | Path, split: str) -> Recordings:
    """Read one split of the Free Spoken Digit Dataset, whose speakers are apart.

    The last two speakers by name are the split `"test"`, the others `"train"`.

    Args:
        root: the folder of all sets. It holds `fsdd`, a checkout of
            https://github.com/Jakobovski/free-spoken-digit-dataset with its `recordings`, or
            `fsdd/fsdd.npz` with the recordings as arrays: `train_audio` and `test_audio` `(N, T)`
            int16, `_digit` and `_speaker` `(N,)`, and the names `speakers`.
        split: `"train"` or `"test"`.

    Returns:
        Recordings of 4096 steps, half a second at 8 kHz.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: if the split is unknown, or a file is not such a recording.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split {split!r} is not in {SPOKEN_DIGITS}; pass 'train' or 'test'")
    folder = Path(root) / "fsdd"
    arrays, files = folder / "fsdd.npz", sorted((folder / "recordings").glob("*.wav"))
    if arrays.is_file():
        audio, digits, speakers = _read_arrays(arrays)
    elif files:
        audio, digits, speakers = _read_recordings(files)
    else:
        raise FileNotFoundError(
            f"{folder} holds neither recordings/*.wav nor fsdd.npz; clone "
            "https://github.com/Jakobovski/free-spoken-digit-dataset there"
        )
    names = sorted(set(speakers))
    if len(names) <= TEST_SPEAKERS:
        raise ValueError(
            f"{folder} has recordings of {len(names)} speakers, and {TEST_SPEAKERS} are the test "
            "split; bring those of more speakers"
        )
    tested = names[-TEST_SPEAKERS:]
    chosen = tested if split == "test" else names[:-TEST_SPEAKERS]
    # In the archive's order the first recordings, which a limit takes, would be of one digit.
    order = torch.randperm(len(speakers), generator=seeded_generator(0, VIEW, 2)).numpy()
    order = order[np.isin(speakers[order], chosen)]
    return Recordings(
        torch.from_numpy(audio[order])[:, None],
        torch.from_numpy(digits[order]),
        tuple(chosen),
        torch.from_numpy(np.searchsorted(chosen, speakers[order])),
    )


def _read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return audio `(N, 4096)` int16, digits `(N,)` int64 and speakers' names `(N,)`."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            audio, digits, speakers = (
                np.concatenate([arrays[f"{part}_{what}"] for part in ("train", "test")])
                for what in ("audio", "digit", "speaker")
            )
            names = arrays["speakers"]
    except Exception as error:  # NumPy, zipfile and zlib each raise their own types
        raise ValueError(
            f"{path} is not an archive of recordings ({error}); copy it again"
        ) from error
    right = (
        audio.dtype == np.int16
        and audio.ndim == 2
        and audio.size
        and digits.shape == speakers.shape == audio.shape[:1]
        and digits.dtype.kind == speakers.dtype.kind == "i"
        and names.ndim == 1
        and names.dtype.kind == "U"
        and digits.min() >= 0
        and digits.max() <= 9
        and speakers.min() >= 0
        and speakers.max() < len(names)
    )
    if not right:
        raise ValueError(
            f"{path} holds audio {audio.dtype} {audio.shape} with digits {digits.dtype} "
            f"{digits.shape}; it must be int16 (N, T) with digits 0 to 9 and a speaker each, so "
            "copy it again"
        )
    fitted = audio if audio.shape[1] == STEPS else np.stack([fitted(one) for one in audio])
    return fitted, digits.astype(np.int64), names[speakers]


def _read_recordings(files: list[Path]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read files named DIGIT_SPEAKER_NUMBER.wav; returns as `_read_arrays`."""
    audio, digits, speakers = [], [], []
    for file in files:
        digit, _, rest = file.stem.partition("_")
        speaker = rest.rpartition("_")[0]
        if len(digit) != 1 or digit not in "0123456789" or not speaker:
            raise ValueError(
                f"{file} is not named DIGIT_SPEAKER_NUMBER.wav; rename it, or move it away"
            )
        audio.append(fitted(read_wave(str(file), str(file), RATE)))
        digits.append(int(digit))
        speakers.append(speaker)
    return np.stack(audio), np.array(digits, dtype=np.int64), np.array(speakers)


def read_wave(file: str | BinaryIO, where: str, rate: int) -> np.ndarray:
    """Return the samples `(T,)` int16 of a WAV file of one channel.

    Args:
        file: its path, or its content.
        where: its name, for messages.
        rate: samples a second that it must have.

    Raises:
        ValueError: if it is not such a file.
    """
    try:
        with wave.open(file) as sound:
            kind = sound.getnchannels(), sound.getsampwidth(), sound.getframerate()
            frames = sound.readframes(sound.getnframes()) if kind == (1, 2, rate) else b""
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{where} is not a WAV file ({error}); copy it again") from error
    if kind != (1, 2, rate):
        raise ValueError(
            f"{where} has (channels, bytes, rate) {kind}; it must be (1, 2, {rate}), so convert it"
        )
    if not frames or len(frames) % 2:
        raise ValueError(f"{where} is cut off or empty; copy it again")
    return np.frombuffer(frames, dtype="<i2").astype(np.int16)


def fitted(samples: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """Return samples `(T,)` centred, and cut or padded with zeros to `(steps,)`."""
    spare = len(samples) - steps
    if spare > 0:
        return samples[spare // 2 : spare // 2 + steps]
    return np.pad(samples, (-spare // 2, math.ceil(-spare / 2)))
