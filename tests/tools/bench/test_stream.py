"""A search over a stream of generated images."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from tools.bench import generated_shard

ROOT = Path(__file__).parents[3]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def test_a_generated_shard_holds_its_numbers():
    command = [sys.executable, generated_shard.__file__, "70000", "3", "10"]
    written = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(written)) as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar}
    assert list(content) == [
        f"000{n}.{kind}" for n in (70000, 70001, 70002) for kind in ("png", "cls")
    ]
    image = Image.open(io.BytesIO(content["00070001.png"]))
    assert (image.size, image.mode) == ((32, 32), "RGB")
    assert image.tobytes() == generated_shard.pixels_of(70001)
    assert image.getpixel((0, 0)) == (1, 17, 113)
    assert content["00070002.cls"] == b"2"


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
