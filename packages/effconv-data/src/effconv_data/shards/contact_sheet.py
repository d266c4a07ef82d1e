"""A contact sheet of samples, to inspect a set before training on it."""

import contextlib
import importlib.util
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from effconv_data._checks import check_integer
from effconv_data.io.atomic import written_whole
from effconv_data.io.terminal import printable
from effconv_data.shards.index import Index, Shard
from effconv_data.shards.problems import ShardError
from effconv_data.shards.samples import decode
from effconv_data.shards.stages import counted_samples
from effconv_data.split import first_shape, shards_of

__all__ = ["draw_sheet", "is_sheet", "save_sheet"]

SIDE = 64
"""Smallest size in pixels of a drawn image's shorter side."""
LONGEST_SIDE = 320
"""Pixels of a drawn image's longer side, at most."""
NAME_WIDTH, MARGIN = 160, 4
ROWS = 50
MARK = "effconv-data show"
FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf"),
    *("Arial Unicode.ttf", "Arial.ttf", "arial.ttf", "segoeui.ttf"),
)
"""Fonts of systems, found by Pillow, for names that are not ASCII."""
MISSING = "\uffff"
"""No character, which every font draws by its sign for a missing one."""


def draw_sheet(index: Index, split: str, *, columns: int = 10) -> Image.Image:
    """Draw the first samples of each class in its own row, beside the class's name.

    Of many classes the first 50 are drawn; images of more than 320 pixels a side are shrunk.

    Args:
        index: the set.
        split: one of its splits.
        columns: number of samples of each class.

    Raises:
        ValueError: if there is no such split, no image of it can be read, or `columns` is below 1.
    """
    check_integer("columns", columns, 1)
    shards = shards_of(index, split)
    C, H, W = first_shape(index, shards)
    classes = index.classes[:ROWS]
    scale = min(max(1, -(-SIDE // min(H, W))), LONGEST_SIDE / max(H, W))
    size = max(1, round(H * scale)), max(1, round(W * scale))
    rows: list[list[Image.Image]] = [[] for _ in classes]
    for image, label in _readable(shards, (C, H, W), len(index.classes)):
        if label < len(rows) and len(rows[label]) < columns:
            pixels = Image.fromarray(image[0] if C == 1 else image.transpose(1, 2, 0))
            way = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
            rows[label].append(pixels.resize((size[1], size[0]), way))
        if all(len(row) == columns for row in rows):
            break
    return _drawn(classes, rows, size, columns)


def _readable(
    shards: Sequence[Shard], shape: tuple[int, int, int], num_classes: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield image and label of each sample that can be read."""
    for shard in shards:
        with contextlib.suppress(ShardError):
            for sample in counted_samples(shard):
                with contextlib.suppress(ShardError):
                    yield decode(shard, sample, shape, num_classes)


def _drawn(
    classes: Sequence[str],
    rows: Sequence[Sequence[Image.Image]],
    size: tuple[int, int],
    columns: int,
) -> Image.Image:
    height, width = (side + MARGIN for side in size)
    sheet = Image.new("RGB", (NAME_WIDTH + columns * width, len(rows) * height), "white")
    draw, font = ImageDraw.Draw(sheet), _font("".join(map(printable, classes)))
    for number, (name, images) in enumerate(zip(classes, rows, strict=True)):
        middle = number * height + height // 2
        text = _drawable(printable(name)[:40], font)
        draw.text((MARGIN, middle), text, fill="black", anchor="lm", font=font)
        for column, image in enumerate(images):
            sheet.paste(image, (NAME_WIDTH + column * width, number * height + MARGIN // 2))
    return sheet


def _font(text: str) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the first font there is that has most letters of a text; Pillow's own has ASCII."""
    fonts = [ImageFont.load_default(14)]
    places = list(FONTS)
    spec = importlib.util.find_spec("matplotlib")  # which brings a font, where it is installed
    if spec is not None and spec.origin is not None:
        places.append(str(Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"))
    for place in places:
        with contextlib.suppress(OSError):
            fonts.append(ImageFont.truetype(place, 14))
    return max(fonts, key=lambda font: sum(_has(font, letter) for letter in set(text)))


def _has(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, letter: str) -> bool:
    if letter.isascii():
        return True
    if isinstance(font, ImageFont.ImageFont):  # Pillow without FreeType
        return False
    return bytes(font.getmask(letter)) != bytes(font.getmask(MISSING))


def _drawable(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return a text with those letters that a font lacks without their accents, or as `?`."""

    def letter(character: str) -> str:
        if _has(font, character):
            return character
        plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
        return plain or "?"

    return "".join(map(letter, text))


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a sheet whole or not at all, in the format that the name's suffix says.

    Raises:
        OSError: if it cannot be written.
        ValueError: if the suffix is that of no picture.
    """
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise ValueError(f"{path} has the suffix {path.suffix!r} of no picture; pass NAME.png")
    mark = PngImagePlugin.PngInfo()
    mark.add_text("Software", MARK)
    with written_whole(path) as temporary:
        sheet.save(temporary, kind, **({"pnginfo": mark} if kind == "PNG" else {}))


def is_sheet(path: Path) -> bool:
    """Return whether a file is a PNG that `save_sheet` wrote."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            return picture.info.get("Software") == MARK
    except (OSError, ValueError, SyntaxError):
        return False
