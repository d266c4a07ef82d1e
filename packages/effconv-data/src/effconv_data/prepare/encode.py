"""Encoding shards in several processes, with the same bytes for any number of them."""

import io
import itertools
import multiprocessing
import os
import signal
import sys
import tarfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from effconv_data.prepare.parts import Pixels

__all__ = ["Encoded", "default_workers", "encode_shard", "in_order"]


class Encoded(NamedTuple):
    """A shard and what is counted of it."""

    tar: bytes
    class_counts: list[int]
    """Samples of each class."""
    histogram: list[list[int]]
    """For each channel, how many pixels have each of the 256 values."""


def encode_shard(
    pixels: Pixels, labels: np.ndarray, numbers: np.ndarray, num_classes: int
) -> Encoded:
    """Write samples as a plain ustar archive, two members each: `KEY.png` and `KEY.cls`.

    Args:
        pixels: `(N, H, W, C)` uint8, or a function that gives them.
        labels: `(N,)` int64.
        numbers: `(N,)` integers, which become the keys in eight digits.
        num_classes: number of classes.
    """
    pixels = pixels() if callable(pixels) else pixels
    out = io.BytesIO()
    # One format, no time and no owner, so that equal samples give equal bytes on every machine.
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for image, label, number in zip(pixels, labels.tolist(), numbers.tolist(), strict=True):
            png = io.BytesIO()
            Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(png, "PNG")
            for suffix, data in (("png", png.getvalue()), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{number:08d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    histogram = [
        np.bincount(pixels[..., channel].ravel(), minlength=256).tolist()
        for channel in range(pixels.shape[3])
    ]
    return Encoded(out.getvalue(), np.bincount(labels, minlength=num_classes).tolist(), histogram)


def default_workers() -> int:
    """Give the number of processors that this process may use; 1 where processes do not fork."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1


def in_order(
    function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], workers: int
) -> Iterator[Any]:
    """Give `function(*task)` for every task, in order, from so many processes on Linux.

    Only a few tasks are drawn ahead of the results, so that they may be large.

    Raises:
        ChildProcessError: if a process dies.
    """
    # By fork, because other ways start the user's script a second time; the children touch neither
    # torch nor the accelerator. Elsewhere fork is missing or unsafe.
    if workers == 1 or sys.platform != "linux":
        yield from itertools.starmap(function, tasks)
        return
    waiting: deque[Any] = deque()
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("fork"), initializer=_follow_parent
    ) as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(function, *task))
                if len(waiting) > workers + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a worker process was killed, perhaps for want of memory; run the same again, "
                "which goes on from the complete shards, or with fewer workers"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def _follow_parent() -> None:
    """Leave Ctrl-C to the parent, and do not outlive it when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
