"""The command `effconv predict`: classes of images by the network of a run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.table import Table

from effconv_core.cli.errors import check_device, run_command
from effconv_core.cli.found.network import found_in, scores_of
from effconv_core.io.console import PlainConsole, parsed, prints_aside
from effconv_core.io.schemas import Inputs
from effconv_core.io.terminal import printable, write_output
from effconv_core.runs.options import option

BATCH = 64
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"}
"""Those of at most 8 bits a channel, which effconv-data takes too."""
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
LONGEST = 100
"""Characters of a reason that an error shows."""
MOST_TOLD = 20
"""Files that cannot be read, which an error lists; of more it gives the number."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Predict the classes of images by the network of a run.

    Images are rotated, resized, cropped and normalised as the run's set was by

    effconv data prepare folder.
    """

    images: tyro.conf.Positional[option(tuple[Path, ...], metavar="IMAGE")]
    """Files of images."""
    run: option(Path, metavar="DIR")
    """Folder of the run."""
    top: int = 3
    """Number of the most probable classes that are printed."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """`cpu`, `cuda` or `cuda:1`, for example."""
    json: bool = False
    """Print files, classes, probabilities as JSON, nothing else."""


def predict_command(arguments: Sequence[str]) -> int:
    """Run `effconv predict`; return the exit status."""
    name, config = "effconv predict", (tyro.conf.FlagCreatePairsOff,)
    return run_command(
        name, lambda: _run(parsed(PredictOptions, arguments, prog=name, config=config))
    )


def _run(options: PredictOptions) -> None:
    check_device(options.device)
    if options.top < 1:
        raise ValueError(f"top is {options.top}; pass at least 1")
    if not options.images:
        raise ValueError("no image was passed; pass one or more image files")
    with prints_aside(options.json):
        found = found_in(options.run, options.device)
        images = read_images(options.images, found.inputs, str(options.run))
        scores = torch.cat([scores_of(found, part) for part in images.split(BATCH)])
    probabilities = scores.softmax(1)
    top = min(options.top, probabilities.shape[1])
    told = {
        str(path): {found.class_name(int(i)): float(v) for v, i in zip(*row, strict=True)}
        for path, row in zip(
            options.images, zip(*probabilities.topk(top), strict=True), strict=True
        )
    }
    if options.json:
        write_output(json.dumps(told) + "\n")
        return
    table = Table(title=f"predictions of {options.run.name}")
    for column in ("image", *(["class", "probability"] + [""] * (2 * top - 2))):
        table.add_column(column, overflow="fold")
    for path, classes in told.items():
        table.add_row(path, *(word for n, p in classes.items() for word in (n, f"{p:.1%}")))
    PlainConsole().print(table)


def read_images(paths: Sequence[Path], inputs: Inputs, run: str) -> torch.Tensor:
    """Return images as the network of a run takes them, `(N, C, H, W)`.

    Args:
        paths: files of images.
        inputs: what the network takes.
        run: names it in errors.

    Raises:
        ValueError: if the network takes no images, the run does not say how they are normalised, or
            some of the files cannot be read; the message names all of them.
    """
    if inputs.mean is None or inputs.std is None:
        raise ValueError(
            f"run {run} was trained on what a function gives, which does not say how images are "
            "normalised; load its network by effconv_core.load, and give it what that function does"
        )
    if len(inputs.shape) != 3 or inputs.shape[0] not in (1, 3):
        raise ValueError(
            f"the network of run {run} takes inputs of shape {tuple(inputs.shape)}, and an image "
            "has 1 or 3 channels, height and width; load the network by effconv_core.load"
        )
    channels, height, width = inputs.shape
    pixels, wrong = [], []
    for path in paths:
        try:
            pixels.append(_decoded(path, "L" if channels == 1 else "RGB", (width, height)))
        except Exception as error:  # Pillow raises many types on damaged input
            wrong.append(f"{path} ({_why(error)})")
    if wrong:
        more = f" and {len(wrong) - MOST_TOLD} more" if len(wrong) > MOST_TOLD else ""
        named = ", ".join(map(printable, wrong[:MOST_TOLD]))
        raise ValueError(
            f"{len(wrong)} of {len(paths)} files cannot be read as an image: {named}{more}; leave "
            "them out, or convert them to images of 8 bits a channel"
        )
    images = torch.from_numpy(np.stack(pixels)).reshape(-1, height, width, channels)
    images = images.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (inputs.mean, inputs.std))
    return (images - mean) / std


def _why(error: Exception) -> str:
    """Return in a few words why a file cannot be read as an image."""
    if isinstance(error, UnidentifiedImageError):
        return f"not an image in one of the formats {', '.join(FORMATS)}"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels"
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{why[:LONGEST]}..." if len(why) > LONGEST else why


def _decoded(path: Path, mode: str, size: tuple[int, int]) -> np.ndarray:
    """Return an image as a set of `effconv data prepare folder` holds it."""
    with Image.open(path, formats=FORMATS) as image:
        if image.mode not in MODES:
            raise ValueError(f"mode {image.mode}, not of 8 bits a channel")
        image.load()
        upright = ImageOps.exif_transpose(image) if image.format in ("JPEG", "MPO") else image
        upright = upright.convert(mode)
    if upright.size != size:
        upright = ImageOps.fit(upright, size, Image.Resampling.BICUBIC)
    return np.asarray(upright)
