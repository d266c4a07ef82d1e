"""A search over a stream of generated images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
def test_two_ranks_stream_every_generated_image_once_in_memory_that_stays(tmp_path):
    samples, out = 40_960, tmp_path / "stream.json"
    options = ["--samples", str(samples), "--shard-samples", "256", "--every", "2"]
    subprocess.run(
        [sys.executable, *TORCHRUN, "-m", "tools.bench.stream", *options, "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=400,
    )
    result = json.loads(out.read_text())
    assert result["images_seen"] == result["images_seen_once"] == samples
    assert result["environment"]["ranks"] == "2"
    for tenths in result["tenths_mib"]:
        # Of the 30 MiB that a rank reads in between, which a leak would keep. Two windows of each
        # of its four lanes are in memory by then.
        assert tenths[9] - tenths[4] < 12
