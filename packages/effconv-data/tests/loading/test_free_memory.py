"""Streaming takes memory that does not grow with the set."""

import json
import os
import subprocess
import sys

import pytest
from effconv_data.loading import free_memory

# Memory of this process and of its worker after each batch, in KiB; windows are small, so that the
# set is many windows long.
EPOCH = """
import json, multiprocessing, os, sys
from pathlib import Path
from unittest.mock import patch
from effconv_data import StreamedBatches
from effconv_data.loading import order
from effconv_data.shards.index import Shard

def resident(pid):
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0])

taken = []
with patch.object(order, "WINDOW", 32):
    batches = StreamedBatches(
        [Shard(*row, None) for row in json.loads(sys.argv[1])], classes=("a", "b", "c"),
        image_shape=(3, 48, 48), batch_size=64, mean=(0.5,) * 3, std=(0.5,) * 3, workers=1,
    )
    for _ in batches:
        workers = multiprocessing.active_children()
        taken.append([resident(os.getpid()), *(resident(worker.pid) for worker in workers)])
print(json.dumps(taken))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
def test_memory_does_not_grow_with_the_set(small_set):
    made = small_set(shards={"train": [256] * 2}, shape=(48, 48, 3))
    folder = made.write()
    bytes_per_sample = sum(path.stat().st_size for path in folder.glob("*.tar.gz")) / 512
    # The same two shards again and again, each time under another name.
    rows = []
    for number in range(32):
        for shard in ("train-00000", "train-00001"):
            link = folder / f"{shard}-{number}.tar.gz"
            link.symlink_to(folder / f"{shard}.tar.gz")
            rows.append((str(link), 256))
    command = [sys.executable, "-c", EPOCH, json.dumps(rows)]
    # Batches have pages of their own: glibc's heap grows by 100 MiB at some moment, or does not.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    out = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout
    taken = [sum(processes) for processes in json.loads(out)[:-10]]  # the worker ends before us
    assert len(taken) == 32 * 512 // 64 - 10
    quarter = len(taken) // 4
    before, after = max(taken[quarter : 2 * quarter]), max(taken[3 * quarter :])
    # Half of the bytes of the samples read in between, all of which a leak would keep; less would
    # be in reach of the kernel, which joins small pages to huge ones as it finds time.
    assert (after - before) * 1024 < 0.5 * (16 * 512 * bytes_per_sample)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/job/step\n", {"job/step": ("max", "10"), "job": ("5000", "2000")}, 3000),
        ("0::/job\n", {"job": ("5000", "7000")}, 0),
        ("4:memory:/job\n1:cpu:/\n", {"memory/job": ("900", "100")}, 800),
        ("4:cpu,memory:/a/b\n", {"memory/a": ("70", "10"), "memory/a/b": ("80", "10")}, 60),
        ("0::/\n", {}, 1 << 62),
    ],
)
def test_limits_of_jobs_are_seen(tmp_path, monkeypatch, groups, files, expected):
    for group, (limit, used) in files.items():
        folder = tmp_path / group
        folder.mkdir(parents=True, exist_ok=True)
        old = group.startswith("memory")
        names = ("limit_in_bytes", "usage_in_bytes") if old else ("max", "current")
        for name, text in zip(names, (limit, used)):
            (folder / f"memory.{name}").write_text(text + "\n")
    listed = tmp_path / "cgroup"
    listed.write_text(groups)
    monkeypatch.setattr(free_memory, "CGROUP", tmp_path)
    monkeypatch.setattr(free_memory, "GROUPS", listed)
    assert free_memory._free_of_container() == expected
