"""The command `effconv-data`: a subcommand, then its options."""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich import filesize
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from effconv_data.io.addresses import is_remote
from effconv_data.io.terminal import make_outputs_total, printable
from effconv_data.ordered_map import HangupError, hangup_interrupts
from effconv_data.prepare import OnProgress, Prepared, Progress, prepare, prepare_folder
from effconv_data.shards.contact_sheet import draw_sheet, is_sheet, save_sheet
from effconv_data.shards.index import read_index
from effconv_data.verify import verify

__all__ = ["main"]


@dataclass(frozen=True)
class Writing:
    """Options of writing shards."""

    out: Path
    """Folder for the shards and their index, new or empty."""
    shard_samples: int | None = None
    """Largest number of samples per shard; by default shards of up to 12 MB, 8 or more a split."""
    seed: int = 0
    """Seed of the order in which samples are written."""
    workers: int | None = None
    """Processes that encode; by default one per processor."""
    overwrite: bool = False
    """Replace a finished set, or an interrupted run with other settings."""


@dataclass(frozen=True)
class Official(Writing):
    """Options of sets that have official archives."""

    source: Path | None = None
    """Folder with the official archives, or with their content; by default they are downloaded."""
    downloads: Path | None = None
    """Where to keep downloaded archives; by default `downloads` beside the shards' folder."""
    splits: tuple[Literal["train", "test"], ...] = ("train", "test")
    """Splits to prepare; name one if the other's archives are missing."""
    checksum: bool = True
    """Whether an archive whose checksum is not the published one is an error."""


@dataclass(frozen=True)
class Mnist(Official):
    """MNIST from its four idx files, compressed or not."""


@dataclass(frozen=True)
class Cifar10(Official):
    """CIFAR-10 from its python or binary version, packed or unpacked."""


@dataclass(frozen=True)
class Stl10(Official):
    """STL-10 from its binary version; the unlabelled images are left out."""


@dataclass(frozen=True)
class Imagenet32(Official):
    """ImageNet of 32, 16 or 64 pixels from its npz files or pickles.

    Get them at https://image-net.org/download-images.php under "Download downsampled image data"
    and unpack them into one folder. The test split is the authors' validation split.
    """

    image_size: Literal[16, 32, 64] = 32
    """Height and width of the images in pixels."""


@dataclass(frozen=True, kw_only=True)
class Folder(Writing):
    """Your own images: SOURCE/train/CLASS/* and SOURCE/test/CLASS/*, or SOURCE/CLASS/*."""

    source: Path
    """The folder of images."""
    splits: tuple[Literal["train", "val", "test"], ...] | None = None
    """Splits to prepare; by default all that exist."""
    image_size: int | None = None
    """Crop each image to its middle square and resize it to this many pixels."""
    test_fraction: float | None = None
    """Fraction of each class of an undivided folder that becomes the test split."""
    skip_broken: bool = False
    """Leave out images that cannot be used, and name them, instead of refusing the folder."""


Set = (
    Annotated[Mnist, tyro.conf.subcommand("mnist")]
    | Annotated[Cifar10, tyro.conf.subcommand("cifar10")]
    | Annotated[Stl10, tyro.conf.subcommand("stl10")]
    | Annotated[Imagenet32, tyro.conf.subcommand("imagenet32")]
    | Annotated[Folder, tyro.conf.subcommand("folder")]
)


def prepare_command(arguments: Sequence[str], console: Console) -> int:
    """Convert official archives, or a folder of images, to shards."""
    options = tyro.cli(
        Set,
        args=arguments,
        prog="effconv-data prepare",
        description=prepare_command.__doc__,
    )
    given = dict(vars(options))
    with _bars(console) as on_progress:
        if isinstance(options, Folder):
            made = prepare_folder(given.pop("source"), **given, on_progress=on_progress)
        else:
            name = type(options).__name__.lower()
            made = prepare(name, **given, on_progress=on_progress)
    _summarise(made, console)
    return 0


@dataclass(frozen=True)
class Show:
    """Print a set's index and draw the first samples of each class."""

    folder: tyro.conf.Positional[str]
    """The set: a folder, or the http(s) address of one."""
    split: str = "train"
    """The split whose samples are drawn."""
    columns: int = 10
    """Number of samples of each class."""
    out: Path | None = None
    """The image file; by default NAME-SPLIT.png in the set's folder, or, for a set on a server, in
    the current one."""


def show_command(arguments: Sequence[str], console: Console) -> int:
    """Print a set's index and draw a sheet of samples."""
    options = tyro.cli(Show, args=arguments, prog="effconv-data show")
    index = read_index(options.folder)
    # The name may come from elsewhere, and must not lead out of the folder, nor to a file of it.
    name = re.sub(r"[^\w.-]", "_", index.name)[:100]
    split = re.sub(r"[^\w.-]", "_", options.split)
    folder = Path() if is_remote(options.folder) else Path(options.folder)
    out = options.out or folder / f"{name}-{split}.png"
    if options.out is None and out.exists() and not is_sheet(out):
        raise FileExistsError(f"{out} is there already and no sheet of samples; name another --out")
    save_sheet(draw_sheet(index, options.split, columns=options.columns), out)
    table = Table(title=Text(printable(index.name)))
    for heading in ("split", "samples", "shards", "with sha256"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for split, shards in index.splits.items():
        signed = sum(shard.sha256 is not None for shard in shards)
        samples = sum(shard.samples for shard in shards)
        table.add_row(Text(printable(split)), f"{samples:,}", f"{len(shards):,}", f"{signed:,}")
    console.print(table)
    console.print(f"classes: {', '.join(map(printable, index.classes))}", markup=False)
    for what, values in (("shape", index.image_shape), ("mean", index.mean), ("std", index.std)):
        if values is not None:
            console.print(f"{what}: {', '.join(f'{value:.4g}' for value in values)}")
    console.print(f"drew {printable(out)}", markup=False, soft_wrap=True)
    return 0


@dataclass(frozen=True)
class Verify:
    """Check all checksums and images of a set; the exit status is 1 if one is wrong."""

    folder: tyro.conf.Positional[str]
    """The set: a folder, or the http(s) address of one."""


def verify_command(arguments: Sequence[str], console: Console) -> int:
    """Check all checksums and images of a set; return 1 if one is wrong."""
    options = tyro.cli(Verify, args=arguments, prog="effconv-data verify")
    with _bars(console) as on_progress:
        reports = verify(
            options.folder,
            on_shard=lambda split, done, total: on_progress(Progress(split, done, total, "shards")),
        )
    index = read_index(options.folder)
    wrong = 0
    for split, report in reports.items():
        wrong += len(report.problems)
        classes = f"{min(report.class_counts):,} to {max(report.class_counts):,} a class"
        console.print(
            f"{printable(split)}: {report.samples:,} good samples, {classes}", markup=False
        )
        for problem in report.problems:
            console.print(printable(problem.sentence), markup=False, soft_wrap=True)
    unsigned = sum(s.sha256 is None for shards in index.splits.values() for s in shards)
    if unsigned:
        console.print(f"shards whose sum the index does not give: {unsigned:,}")
    console.print("everything is right" if not wrong else f"problems: {wrong:,}")
    return min(wrong, 1)


@dataclass(frozen=True)
class Prepare:
    """Convert official archives, or a folder of images, to shards."""

    set: Annotated[Set, tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes]


# All subcommands as one type, from which shell completion is derived.
Command = (
    Annotated[Prepare, tyro.conf.subcommand("prepare")]
    | Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
)

# Each takes the words after its name.
COMMANDS: dict[str, Callable[[Sequence[str], Console], int]] = {
    "prepare": prepare_command,
    "show": show_command,
    "verify": verify_command,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    0 is success, 1 is a set that is not right, 2 is an error of the user's, told in a sentence, and
    130 is Ctrl-C, and 129 a terminal that was closed.
    """
    make_outputs_total()
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    if command in ("--help", "-h"):
        console.print(_usage(), markup=False, soft_wrap=True)
        return 0
    if command not in COMMANDS:
        _complain(errors, f"command {command!r} is unknown; pass one of {', '.join(COMMANDS)}")
        return 2
    try:
        with hangup_interrupts():
            return COMMANDS[command](rest, console)
    except HangupError:
        with contextlib.suppress(OSError):  # where the terminal is gone nothing can be told
            _complain(errors, "stopped by SIGHUP; the same command goes on from what is complete")
        return 129
    except KeyboardInterrupt:
        _complain(errors, "interrupted; the same command goes on from what is complete")
        return 130
    except (OSError, ValueError) as error:
        _complain(errors, str(error))
        return 2


def _usage() -> str:
    lines = ["usage: effconv-data COMMAND ...", ""]
    lines += [f"  {name:10} {function.__doc__}" for name, function in COMMANDS.items()]
    return "\n".join([*lines, "", "effconv-data COMMAND --help tells more."])


def _complain(errors: Console, sentence: str) -> None:
    # Neither wrapped nor coloured, because it contains file names.
    errors.print(f"effconv-data: {printable(sentence)}", markup=False, soft_wrap=True)


def _summarise(made: Prepared, console: Console) -> None:
    for split, samples in made.samples.items():
        console.print(f"{split}: {samples:,} samples in {made.shards[split]:,} shards")
    if made.kept:
        console.print(f"{made.kept:,} shards of an interrupted run were kept")
    for note in made.notes:
        console.print(f"note: {printable(note)}", markup=False, soft_wrap=True)
    console.print(f"wrote {printable(made.folder)}", markup=False, soft_wrap=True)


@contextmanager
def _bars(console: Console) -> Iterator[OnProgress]:
    """Yield a callback that draws a bar per piece of work; off a terminal, one line when done."""
    if not console.is_terminal:

        def line(progress: Progress) -> None:
            if progress.done == progress.total:
                what = printable(progress.what)
                console.print(f"{what}: {_amount(progress)}", markup=False, soft_wrap=True)

        yield line
        return

    bars = Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
    tasks = {}

    def draw(progress: Progress) -> None:
        if progress.what not in tasks:
            tasks[progress.what] = bars.add_task(printable(progress.what), amount="")
        bars.update(
            tasks[progress.what],
            completed=progress.done,
            total=progress.total,
            amount=_amount(progress),
        )

    with bars:
        yield draw


def _amount(progress: Progress) -> str:
    amounts = [progress.done] if progress.total is None else [progress.done, progress.total]
    if progress.unit == "bytes":
        return " of ".join(filesize.decimal(amount) for amount in amounts)
    return " of ".join(f"{amount:,}" for amount in amounts) + f" {progress.unit}"


if __name__ == "__main__":
    sys.exit(main())
