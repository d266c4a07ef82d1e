"""A split decoded into memory, and what is said of one that cannot be."""

import gzip

import pytest
import torch
from effconv_data import read_split


def image_of(pixels):
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("shape", [(6, 5, 3), (4, 7, 1)])
def test_reads_every_sample_in_order(small_set, split, shape):
    made = small_set(shape=shape)
    images, labels, classes = read_split(made.write(), split)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert torch.equal(images, image_of(made.pixels[split]))
    assert labels.tolist() == made.labels[split].tolist()
    assert classes == ("cat", "dog", "eel")


@pytest.mark.parametrize("limit", [1, 3, 4, 5, 7, 100])
def test_limit_takes_the_first_samples(small_set, limit):
    made = small_set()
    images, labels, _ = read_split(made.write(), "train", limit=limit)
    assert torch.equal(images, image_of(made.pixels["train"][:limit]))
    assert len(labels) == min(limit, 7)


def test_limit_leaves_later_shards_unread(small_set):
    made = small_set()
    folder = made.write()
    (folder / "train-00001.tar.gz").write_bytes(b"nothing of a tar")
    assert len(read_split(folder, "train", limit=4).labels) == 4


def test_plain_tar_and_more_shards_than_processors(small_set):
    made = small_set(shards={"train": [1] * 9})
    for number in range(9):
        name = f"train-{number:05d}.tar"
        made.members[name] = made.members.pop(f"{name}.gz")
        made.index["splits"]["train"]["shards"][number]["file"] = name
    assert torch.equal(read_split(made.write(), "train").images, image_of(made.pixels["train"]))


def test_right_sha256_is_accepted_and_a_wrong_one_refused(small_set):
    made = small_set()
    folder = made.write()
    made.sign()
    assert len(read_split(folder, "train").labels) == 7
    shard = folder / "train-00001.tar.gz"
    shard.write_bytes(gzip.compress(gzip.decompress(shard.read_bytes()), compresslevel=1) + b" ")
    with pytest.raises(ValueError, match=r"train-00001\.tar\.gz .*sha256"):
        read_split(folder, "train")


# Each of these changes shard 1 of the train split, whose samples are 4, 5 and 6.


@pytest.mark.parametrize(
    ("count", "problem"),
    [(2, "holds more than 2 samples but the index says 2"), (4, "holds only 3 samples")],
)
def test_wrong_count_is_named(small_set, count, problem):
    made = small_set()
    made.index["splits"]["train"]["shards"][1]["samples"] = count
    made.index["splits"]["train"]["samples"] = 4 + count
    with pytest.raises(ValueError, match=f"train-00001.tar.gz {problem}"):
        read_split(made.write(), "train")


@pytest.mark.parametrize("kept", [0, 1, 20, 0.3, 0.5, 0.9, 0.99, -1])
def test_truncated_shard_is_named(small_set, kept):
    made = small_set()
    folder = made.write()
    shard = folder / "train-00001.tar.gz"
    data = shard.read_bytes()
    shard.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(ValueError, match=r"train-00001\.tar\.gz"):
        read_split(folder, "train")


def test_flipped_bit_is_found_without_a_sha256(small_set):
    made = small_set()
    folder = made.write()
    shard = folder / "train-00001.tar.gz"
    # Stored, not compressed, so that the bit changes a pixel's byte and nothing of the format.
    data = bytearray(gzip.compress(gzip.decompress(shard.read_bytes()), compresslevel=0))
    data[data.index(b"IDAT") + 10] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=r"train-00001\.tar\.gz .*CRC"):
        read_split(folder, "train")


def test_first_shard_that_is_no_tar_is_named(small_set):
    folder = small_set().write()
    (folder / "train-00000.tar.gz").write_bytes(b"nothing of a tar")
    with pytest.raises(ValueError, match=r"train-00000\.tar\.gz"):
        read_split(folder, "train")


def test_empty_first_shard_is_named(small_set):
    made = small_set()
    made.members["train-00000.tar.gz"] = []
    with pytest.raises(ValueError, match=r"train-00000\.tar\.gz .* 0 "):
        read_split(made.write(), "train")


def test_name_twice_in_a_shard_is_refused(small_set):
    made = small_set()
    members = made.members["train-00001.tar.gz"]
    members.insert(2, members[0])
    with pytest.raises(ValueError, match=r"train-00001\.tar\.gz"):
        read_split(made.write(), "train")


def test_missing_shard_is_named(small_set):
    folder = small_set().write()
    (folder / "train-00001.tar.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 .*train-00001\.tar\.gz"):
        read_split(folder, "train")
    assert len(read_split(folder, "test").labels) == 2


def test_missing_folder_and_unknown_split_are_named(small_set, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"index\.json"):
        read_split(tmp_path / "nowhere", "train")
    with pytest.raises(ValueError, match=r"'val' .*\['test', 'train'\]"):
        read_split(small_set().write(), "val")


@pytest.mark.parametrize("limit", [0, -3])
def test_limit_below_one_is_refused(small_set, limit):
    with pytest.raises(ValueError, match="limit"):
        read_split(small_set().write(), "train", limit=limit)


@pytest.mark.parametrize("limit", [1.0, True, "2"])
def test_limit_of_another_kind_is_refused(small_set, limit):
    with pytest.raises(TypeError, match="limit"):
        read_split(small_set().write(), "train", limit=limit)
