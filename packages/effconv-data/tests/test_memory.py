"""Streaming takes memory that does not grow with the set."""

import json
import subprocess
import sys

import numpy as np
import pytest
from effconv_data import memory

# The most memory that a worker took for an epoch, in KiB; windows are small, so that both sets
# are many windows long.
EPOCH = """
import json, resource, sys
from pathlib import Path
from unittest.mock import patch
from effconv_data import StreamedBatches, order
from effconv_data.index import Shard

with patch.object(order, "WINDOW", 32):
    batches = StreamedBatches(
        [Shard(*row, None) for row in json.loads(sys.argv[1])], classes=("a", "b", "c"),
        image_shape=(3, 48, 48), batch_size=64, mean=(0.5,) * 3, std=(0.5,) * 3, workers=1,
    )
    given = sum(len(labels) for _, labels in batches)
# Not ru_maxrss of this process, which inherits what the process was before it became this one.
status = Path("/proc/self/status").read_text()
here = int(status.split("VmHWM:")[1].split()[0])
print(json.dumps([given, here, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_memory_does_not_grow_with_the_set(small_set):
    made = small_set(shards={"train": [256] * 2}, shape=(48, 48, 3))
    folder = made.write()
    bytes_per_sample = sum(path.stat().st_size for path in folder.glob("*.tar.gz")) / 512

    def peak(repeats):
        # The same two shards again and again, each time under another name.
        rows = []
        for number in range(repeats):
            for shard in ("train-00000", "train-00001"):
                link = folder / f"{shard}-{number}.tar.gz"
                if not link.exists():
                    link.symlink_to(folder / f"{shard}.tar.gz")
                rows.append((str(link), 256))
        command = [sys.executable, "-c", EPOCH, json.dumps(rows)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        given, *kibibytes = json.loads(out)
        assert given == 512 * repeats
        return np.array(kibibytes) * 1024

    # The first is large enough for all windows and queues to be full.
    small, large = peak(16), peak(64)
    grown = (large - small) / (48 * 512 * bytes_per_sample)
    # Parts of the bytes that were added to the set, in this process and in the worker.
    assert (grown < 0.1).all()


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
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    monkeypatch.setattr(memory, "GROUPS", listed)
    assert memory._free_of_container() == expected
