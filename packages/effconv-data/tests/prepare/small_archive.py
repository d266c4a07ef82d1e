"""A small archive, and processes that write it and die."""

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from effconv_data.prepare.types import Archive, Block, quiet
from effconv_data.prepare.writer import write_set

RANDOM = np.random.default_rng(0)
PIXELS = {
    "train": RANDOM.integers(256, size=(50, 4, 5, 3), dtype=np.uint8),
    "test": RANDOM.integers(256, size=(20, 4, 5, 3), dtype=np.uint8),
}
LABELS = {split: np.arange(len(pixels)) % 3 for split, pixels in PIXELS.items()}


def archive(**changes):
    """A set whose train split comes in two blocks."""

    def block(split, part):
        return Block(LABELS[split][part], lambda: PIXELS[split][part].__getitem__)

    made = Archive(
        "small",
        ("cat", "dog", "eel"),
        (3, 4, 5),
        {
            "train": [block("train", slice(0, 31)), block("train", slice(31, 50))],
            "test": [block("test", slice(None))],
        },
        [{"file": "small.tar", "sha256": "00"}],
    )
    return made._replace(**changes)


def write(out, made=None, **options):
    options = {
        "shard_samples": 10,
        "seed": 0,
        "workers": 1,
        "overwrite": False,
        "on_progress": quiet,
        **options,
    }
    return write_set(made or archive(), Path(out), **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an uninterrupted run writes."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    write(folder)
    return contents(folder)


def write_and_die(out, moment, options):
    """Write in this process until it is about to put something on the disk for the n-th time."""
    count = 0

    def before(function):
        def counting(*arguments, **options):
            nonlocal count
            count += 1
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return counting

    # What this changes dies with the process.
    os.fsync = before(os.fsync)
    Path.replace = before(Path.replace)
    Path.unlink = before(Path.unlink)
    write(out, **options)


def die_at(out, moment, **options):
    """Let a process write and die at a moment; give its exit code."""
    context = multiprocessing.get_context("fork")
    process = context.Process(target=write_and_die, args=(out, moment, options))
    process.start()
    process.join()
    return process.exitcode
