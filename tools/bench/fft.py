"""`hatch run bench:fft`: from how many taps a convolution is faster by Fourier transform, here.

Both are timed in turns, forward and backward, so that whatever else the machine does falls on both.
What comes out is a value for `FlexConvConfig.fft_taps`.
"""

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import tyro
from effconv_core.io.atomic import write_text
from effconv_core.latency import stopwatch
from effconv_core.run_files import environment
from effconv_models import FlexConv, FlexConvConfig
from rich.console import Console
from rich.table import Table
from torch import Tensor


@dataclass(frozen=True)
class Options:
    """Time square kernels on FlexConv's way through a convolution, directly and by FFT."""

    sizes: tuple[int, ...] = (3, 5, 7, 9, 11, 13, 17, 21, 25, 33)
    """Of the kernels, in pixels; odd."""
    channels: tuple[int, ...] = (24, 48)
    """Into and out of the layer."""
    groups: int = 1
    batch_size: int = 64
    image_size: int = 32
    """Height and width of the images in pixels."""
    repetitions: int = 9
    """Counted passes of each."""
    warmups: int = 2
    seed: int = 0
    threads: int = torch.get_num_threads()
    """Threads of the CPU."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    out: Path | None = None
    """File for the result as JSON."""

    def __post_init__(self) -> None:
        even = [size for size in self.sizes if size % 2 == 0]
        if even:
            raise ValueError(
                f"sizes {even} are even; these kernels have a middle, so pass odd ones"
            )


def one_pass(
    layer: FlexConv, images: Tensor, kernel: Tensor, upstream: Tensor
) -> Callable[[], object]:
    """Give a function that goes forward and backward once."""
    padding = [(size // 2, size // 2) for size in kernel.shape[2:]]

    def run() -> object:
        outputs = layer.apply_kernel(images, kernel, padding)
        return torch.autograd.grad(outputs, (images, kernel), upstream)

    return run


def measure(options: Options, channels: int, size: int) -> dict:
    """Give the median seconds of both ways, and their least and greatest."""
    generator = torch.Generator().manual_seed(options.seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(options.device)

    lengths = [options.image_size] * 2
    images = random(options.batch_size, channels, *lengths).requires_grad_()
    kernel = random(channels, channels // options.groups, size, size).requires_grad_()
    upstream = random(options.batch_size, channels, *lengths)
    passes = {}
    for way, taps in {"direct": None, "fft": 1}.items():
        config = FlexConvConfig(fft_taps=taps)
        layer = FlexConv(channels, channels, 33, groups=options.groups, bias=False, config=config)
        passes[way] = one_pass(layer, images, kernel, upstream)
    watch = stopwatch(images.device)
    times: dict[str, list[float]] = {way: [] for way in passes}
    for repetition in range(options.warmups + options.repetitions):
        for way in passes if repetition % 2 else reversed(passes):
            start = watch.mark()
            passes[way]()
            seconds = watch.between(start, watch.mark()) / 1e9
            if repetition >= options.warmups:
                times[way].append(seconds)
    return {
        "channels": channels,
        "size": size,
        "taps": size**2,
        **{way: statistics.median(own) for way, own in times.items()},
        "spread": {way: [min(own), max(own)] for way, own in times.items()},
    }


def crossover(rows: list[dict]) -> int | None:
    """Give the fewest taps from which FFT was the faster way in this and every larger kernel."""
    fewest = None
    for row in sorted(rows, key=lambda row: -row["taps"]):
        if row["fft"] >= row["direct"]:
            break
        fewest = row["taps"]
    return fewest


def main() -> None:
    """Run the command line."""
    options, console = tyro.cli(Options, prog="bench:fft"), Console()
    torch.set_num_threads(options.threads)
    table = Table(title=f"forward and backward, batch {options.batch_size}, medians, ms")
    for column in ("channels", "size", "direct", "fft", "fft / direct"):
        table.add_column(column, justify="right")
    rows = [measure(options, c, s) for c in options.channels for s in options.sizes]
    for row in rows:
        ratio = f"{row['fft'] / row['direct']:.2f}"
        direct, fft = (f"{row[way] * 1e3:.1f}" for way in ("direct", "fft"))
        table.add_row(str(row["channels"]), str(row["size"]), direct, fft, ratio)
    console.print(table)
    found = {c: crossover([r for r in rows if r["channels"] == c]) for c in options.channels}
    for channels, taps in found.items():
        told = f"from {taps} taps on" if taps else "at no size"
        console.print(f"{channels} channels: FFT is faster {told}")
    if options.out is not None:
        settings = {k: v for k, v in asdict(options).items() if k != "out"}
        content = {
            "settings": settings,
            "environment": environment(options.device),
            "fft_faster_from_taps": {str(channels): taps for channels, taps in found.items()},
            "rows": rows,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.out, json.dumps(content, indent=1) + "\n")
        console.print(f"{options.out} written")


if __name__ == "__main__":
    main()
