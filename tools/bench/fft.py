"""`hatch run bench:fft`: the number of taps from which convolution by Fourier transform is faster.

Both are timed alternately, forward and backward, so that other load affects both. The result
is a value for `FlexConvConfig.fft_taps`.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from effconv_models import FlexConv, FlexConvConfig
from rich.console import Console
from torch import Tensor

from tools.bench.core import BenchOptions, interleave, result, run_bench, write
from tools.support.console import show


@dataclass(frozen=True, kw_only=True)
class FftOptions(BenchOptions):
    """Time square kernels in FlexConv's convolution, directly and by FFT."""

    sizes: tuple[int, ...] = (3, 5, 7, 9, 11, 13, 17, 21, 25, 33)
    """Kernel sizes in pixels; odd."""
    channels: tuple[int, ...] = (24, 48)
    """Channels into and out of the layer."""
    groups: int = 1
    batch_size: int = 64
    image_size: int = 32
    """Height and width of the images in pixels."""
    repetitions: int = 9
    """Timed passes of each."""
    warmups: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        even = [size for size in self.sizes if size % 2 == 0]
        if even:
            raise ValueError(
                f"sizes {even} are even; these kernels have a middle, so pass odd ones"
            )


def one_pass(
    layer: FlexConv, images: Tensor, kernel: Tensor, upstream: Tensor
) -> Callable[[], object]:
    """Return a function that goes forward and backward once."""
    padding = [(size // 2, size // 2) for size in kernel.shape[2:]]

    def run() -> object:
        outputs = layer.apply_kernel(images, kernel, padding)
        return torch.autograd.grad(outputs, (images, kernel), upstream)

    return run


def time_kernel(options: FftOptions, channels: int, size: int) -> dict:
    """Time both ways for one size; return their median seconds, and their least and greatest."""
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
    times = interleave(passes, options.repetitions, device=options.device, warmups=options.warmups)
    return {
        "channels": channels,
        "size": size,
        "taps": size**2,
        **{way: statistics.median(own) for way, own in times.items()},
        "spread": {way: [min(own), max(own)] for way, own in times.items()},
    }


def crossover(rows: list[dict]) -> int | None:
    """Return the fewest taps from which FFT was the faster way in this and every larger kernel."""
    fewest = None
    for row in sorted(rows, key=lambda row: -row["taps"]):
        if row["fft"] >= row["direct"]:
            break
        fewest = row["taps"]
    return fewest


def run(options: FftOptions, console: Console) -> None:
    """Time all sizes, say where the ways cross, and write the result."""
    rows = [time_kernel(options, c, s) for c in options.channels for s in options.sizes]
    found = {c: crossover([r for r in rows if r["channels"] == c]) for c in options.channels}
    fewest = {str(channels): taps for channels, taps in found.items()}
    write(result(options, fft_faster_from_taps=fewest, rows=rows), options.out, console)
    show(
        console,
        f"forward and backward, batch {options.batch_size}, medians, ms",
        ("channels", "size", "direct", "fft", "fft / direct"),
        [
            (
                row["channels"],
                row["size"],
                *(f"{row[way] * 1e3:.1f}" for way in ("direct", "fft")),
                f"{row['fft'] / row['direct']:.2f}",
            )
            for row in rows
        ],
    )
    for channels, taps in found.items():
        told = f"from {taps} taps on" if taps else "at no size"
        console.print(f"{channels} channels: FFT is faster {told}")


if __name__ == "__main__":
    run_bench("bench:fft", FftOptions, run)
