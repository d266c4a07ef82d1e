"""Shards without an index are read once for what one would say."""

import numpy as np
import pytest
from effconv_data import ShardError
from effconv_data.shards.index_shards import scan_shards


@pytest.fixture
def written(small_set):
    made = small_set()
    folder = made.write()
    return made, [str(folder / f"train-0000{number}.tar.gz") for number in range(2)]


def test_samples_classes_and_statistics_are_counted(written):
    made, urls = written
    index = scan_shards(urls, "all")
    assert index.classes == ("0", "1", "2")
    assert [(shard.url, shard.samples) for shard in index.splits["all"]] == list(zip(urls, [4, 3]))
    assert index.image_shape == (3, 6, 5)
    values = made.pixels["train"] / 255
    assert index.mean == pytest.approx(values.mean((0, 1, 2)))
    assert index.std == pytest.approx(values.std((0, 1, 2)))


def test_classes_go_up_to_the_largest_label(small_set):
    made = small_set()
    name, _ = made.members["train-00000.tar.gz"][1]
    made.members["train-00000.tar.gz"][1] = (name, b"5")
    url = made.write() / "train-00000.tar.gz"
    assert scan_shards([str(url)], "train").classes == tuple("012345")


@pytest.mark.parametrize("urls", [[], ["a.tar", "a.tar"]])
def test_no_shard_and_one_named_twice_are_refused(urls):
    with pytest.raises(ValueError, match="shards"):
        scan_shards(urls, "train")


@pytest.mark.parametrize("skip", [False, True])
def test_an_empty_shard_is_refused_or_left_out(skip, small_set):
    made = small_set()
    made.members["train-00001.tar.gz"] = []
    folder = made.write()
    urls = [str(folder / f"train-0000{number}.tar.gz") for number in range(2)]
    if skip:
        index = scan_shards(urls, "train", skip=True)
        assert [shard.url for shard in index.splits["train"]] == urls[:1]
    else:
        with pytest.raises(ValueError, match="train-00001"):
            scan_shards(urls, "train")


@pytest.mark.parametrize("skip", [False, True])
def test_a_damaged_sample_is_told_or_left_out_of_the_statistics(skip, small_set):
    made = small_set()
    name, _ = made.members["train-00000.tar.gz"][0]
    made.members["train-00000.tar.gz"][0] = (name, b"no image")
    url = str(made.write() / "train-00000.tar.gz")
    if not skip:
        with pytest.raises(ShardError, match="train-000000"):
            scan_shards([url], "train")
        return
    index = scan_shards([url], "train", skip=True)
    assert index.splits["train"][0].samples == 4
    assert index.mean == pytest.approx(made.pixels["train"][1:4].mean((0, 1, 2)) / 255)


def test_images_of_two_shapes_are_refused_by_shard(small_set):
    other = small_set("other", shape=(4, 4, 3)).write() / "train-00000.tar.gz"
    first = small_set().write() / "train-00000.tar.gz"
    with pytest.raises(ValueError, match=r"other.*\(3, 4, 4\)"):
        scan_shards([str(first), str(other)], "train")
    assert np.prod(scan_shards([str(other)], "train").image_shape) == 48
