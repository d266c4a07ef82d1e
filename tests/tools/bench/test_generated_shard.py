"""A shard of generated images."""

import io
import subprocess
import sys
import tarfile

from PIL import Image

from tools.bench import generated_shard


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


def test_any_image_can_be_made_again_from_its_number():
    first = dict(generated_shard.shard_members(7, 3, 2))
    assert list(first) == [f"{number:08}.{kind}" for number in (7, 8, 9) for kind in ("png", "cls")]
    assert dict(generated_shard.shard_members(8, 1, 2)) == {
        k: v for k, v in first.items() if k[:8] == "00000008"
    }
    assert first["00000009.cls"] == b"1"
    assert generated_shard.pixels_of(70_000)[:3] == (70_000).to_bytes(3, "big")
    assert len(generated_shard.pixels_of(1)) == 32 * 32 * 3
    image = Image.open(io.BytesIO(generated_shard.png(generated_shard.pixels_of(5))))
    assert image.tobytes() == generated_shard.pixels_of(5)
