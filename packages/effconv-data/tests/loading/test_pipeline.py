"""The stream as a pipeline of WebDataset's: insertions, and each sample exactly once."""

import io
import random
from collections import Counter
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import webdataset
from effconv_data import ShardError, StreamedBatches, load
from effconv_data.loading import order as order_module
from effconv_data.loading.pipeline import _dealt, decode_sample
from effconv_data.shards.index import Shard
from PIL import Image
from webdataset import tariterators


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Shards of 23 samples or fewer, the number of each in its first two pixels."""
    folder, shards, number = tmp_path_factory.mktemp("numbered"), [], 0
    for count in (1, 17, 5, 23, 2, 11, 9, 3, 14):
        path = folder / f"{len(shards)}.tar"
        with webdataset.TarWriter(str(path)) as writer:
            for _ in range(count):
                png = io.BytesIO()
                pixels = np.array([[number // 256, number % 256]], np.uint8)
                Image.fromarray(pixels).save(png, "PNG")
                writer.write(
                    {"__key__": f"{number:05d}", "png": png.getvalue(), "cls": b"%d" % (number % 3)}
                )
                number += 1
        shards.append(Shard(str(path), count, None))
    return shards


def stream(shards, **options):
    options = {"batch_size": 4, "workers": 0, "normalized": False, **options}
    kind = {"classes": "abc", "image_shape": (1, 1, 2), "mean": (0.5,), "std": (0.5,)}
    return StreamedBatches(shards, **kind, **options)


def numbers(batches):
    found = []
    for images, labels in batches:
        own = (images[:, 0, 0, 0].long() * 256 + images[:, 0, 0, 1].long()).tolist()
        assert labels.tolist() == [number % 3 for number in own]
        found.append(own)
    return found


def joined(batches):
    return [number for own in batches for number in own]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("first", "cases"), [(0, 8), pytest.param(8, 348, marks=pytest.mark.long)])
def test_each_sample_comes_exactly_once(numbered, first, cases):
    for case in range(first, first + cases):
        source = random.Random(case)
        shards = source.sample(numbered, source.randint(1, len(numbered)))
        total = sum(shard.samples for shard in shards)
        ranks, training = source.randint(1, 4), source.random() < 0.6
        batch = source.randint(1, min(9, max(1, total // ranks)))
        if training and batch * ranks > total:
            ranks, batch = 1, 1
        options = {"batch_size": batch, "training": training, "seed": source.randrange(99)}
        shuffle = source.choice((0, 0, 3, 50))
        # Processes take their time; most cases read in this one.
        workers = source.choice((0, 0, 0, 0, 0, 0, 1, 2, 3, 8))
        epoch = source.randrange(5)
        seen = Counter()
        with patch.object(order_module, "WINDOW", source.randint(1, 40)):
            length = len(stream(shards, world_size=ranks, **options))
            # A shuffle holds samples back, so a resumed epoch is exact without one.
            stop = 0 if shuffle else source.randrange(length)
            for rank in range(ranks):
                whole = stream(shards, rank=rank, world_size=ranks, workers=workers, **options)
                if shuffle:
                    whole = whole.compose(webdataset.shuffle(shuffle))
                whole.set_epoch(epoch)
                begun = iter(whole)
                given = []
                for _ in range(stop):
                    given += numbers([next(begun)])
                resumed = stream(
                    shards, rank=rank, world_size=ranks, workers=source.choice((0, 0, 2)), **options
                )
                if shuffle:
                    resumed = whole
                else:
                    del begun
                    resumed.load_state_dict(whole.state_dict() | {"epoch": epoch, "batch": stop})
                given += numbers(resumed)
                assert len(given) == length, case
                assert all(len(own) <= batch for own in given), case
                if training:
                    assert all(len(own) == batch for own in given), case
                seen.update(number for own in given for number in own)
        assert set(seen.values()) <= {1}, case
        assert seen.total() == (length * batch * ranks if training else total), case


def test_pieces_are_dealt_so_that_each_worker_has_neighbours():
    for count in range(1, 12):
        for workers in range(1, 12):
            dealt = _dealt(list(range(count)), workers)
            hands = [dealt[worker::workers] for worker in range(workers)]
            assert [piece for hand in hands for piece in hand] == list(range(count))


def darker(sample):
    image = np.asarray(Image.open(io.BytesIO(sample["png"])))
    png = io.BytesIO()
    Image.fromarray(image // 2).save(png, "PNG")
    return {**sample, "png": png.getvalue()}


def has_label(sample, label):
    return sample["cls"] == label


@pytest.mark.parametrize("workers", [0, 2])
def test_a_map_before_decoding(numbered, workers):
    plain = stream(numbered, workers=workers)
    for (images, labels), (halves, same) in zip(
        plain, plain.compose(webdataset.map(darker)), strict=True
    ):
        assert torch.equal(images // 2, halves)
        assert torch.equal(labels, same)
    assert plain.stages == ()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shuffle_before_decoding_changes_the_order_alone(numbered, workers):
    plain = stream(numbered, workers=workers, training=False)
    shuffled = plain.compose(webdataset.shuffle(40, seed=1))
    before, after = numbers(plain), numbers(shuffled)
    assert before != after
    assert sorted(joined(before)) == sorted(joined(after))
    assert list(map(len, before)) == list(map(len, after))


def test_a_stage_may_leave_samples_out_but_not_add_any(numbered):
    plain = stream(numbered, training=False)
    ones = plain.compose(webdataset.select(partial(has_label, label=b"1")))
    found = joined(numbers(ones))
    assert found == [n for n in joined(numbers(plain)) if n % 3 == 1]

    def twice(samples):
        for sample in samples:
            yield sample
            yield sample

    with pytest.raises(ValueError, match="more samples than they take"):
        list(plain.compose(twice))


def test_stages_follow_each_other(numbered):
    first = stream(numbered).compose(webdataset.map(darker))
    both = first.compose(webdataset.map(darker), webdataset.map(darker))
    assert len(both.stages) == 3
    assert next(iter(both))[0].max() <= 255 // 8


@pytest.mark.parametrize("kind", [KeyError, RuntimeError, OSError])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_stage_is_its_own(numbered, kind, workers):
    def fails(sample):
        raise kind("my own")

    with pytest.raises(kind, match="my own") as raised:
        list(stream(numbered, workers=workers).compose(webdataset.map(fails)))
    assert "start again" not in str(raised.value)


def test_a_composed_epoch_resumes_where_it_was(numbered):
    def composed():
        return stream(numbered).compose(webdataset.map(darker))

    batches = composed()
    begun = iter(batches)
    for _ in range(5):
        next(begun)
    rest = list(begun)
    again = composed()
    again.load_state_dict(batches.state_dict() | {"epoch": 0, "batch": 5})
    for (a, b), (c, d) in zip(rest, again, strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)


@pytest.mark.parametrize("shuffle", [1, 60])
def test_what_cannot_be_read_goes_past_the_stages(numbered, tmp_path, shuffle):
    damaged = tmp_path / "damaged.tar"
    data = Path(numbered[3].url).read_bytes()
    damaged.write_bytes(data[: len(data) // 2])
    shards = [*numbered[:3], Shard(str(damaged), 23, None), *numbered[4:]]

    def sound(sample):
        assert set(sample) == {"__key__", "__url__", "png", "cls"}
        return sample

    def batches(**options):
        return stream(shards, training=False, **options).compose(
            webdataset.map(sound), webdataset.shuffle(shuffle)
        )

    skipping = batches(on_error="skip")
    found = numbers(skipping)
    assert len(skipping.problems) + sum(map(len, found)) == 85
    assert len(skipping.problems) > 5
    assert Counter(joined(found)).most_common(1)[0][1] == 1
    assert len(found) == len(skipping)
    with pytest.raises(ShardError, match=r"damaged.tar cannot be read"):
        list(batches())


@pytest.mark.parametrize("workers", [0, 2])
def test_the_pipeline_of_samples_goes_on_in_webdatasets_words(numbered, workers):
    batches = stream(numbered, workers=workers)
    order = numbers(stream(numbered))
    samples = batches.pipeline()
    assert isinstance(samples, webdataset.DataPipeline)
    assert webdataset.split_by_worker in samples.pipeline
    if not workers:
        assert [int(sample["__key__"]) for sample in samples] == joined(order)
    tuples = samples.shuffle(10).decode("l8").to_tuple("png", "cls").batched(5)
    loader = webdataset.WebLoader(tuples, batch_size=None, num_workers=workers)
    found = [int(i[0, 0]) * 256 + int(i[0, 1]) for images, _ in loader for i in images]
    assert sorted(found) == sorted(joined(order))


def test_the_pipeline_of_samples_begins_where_the_batches_do(numbered):
    batches = stream(numbered, seed=3)
    batches.set_epoch(2)
    whole = numbers(batches)
    batches = stream(numbered, seed=3)
    batches.load_state_dict(batches.state_dict() | {"epoch": 2, "batch": 4})
    keys = [int(sample["__key__"]) for sample in batches.pipeline()]
    assert keys == joined(whole[4:])


def test_the_pipeline_of_samples_raises_or_skips(numbered, tmp_path):
    shards = [*numbered, Shard(str(tmp_path / "none.tar"), 7, None)]
    with pytest.raises(ShardError, match=r"none.tar cannot be read"):
        list(stream(shards, training=False).pipeline())
    skipping = stream(shards, training=False, on_error="skip").pipeline()
    assert len(list(skipping)) == 85


def test_webdatasets_stages_do_the_work(numbered):
    calls = Counter()

    def counted(name, function):
        def call(*arguments, **options):
            calls[name] += 1
            return function(*arguments, **options)

        return call

    with (
        patch.object(webdataset, "split_by_worker", counted("split", webdataset.split_by_worker)),
        patch(
            "effconv_data.shards.stages.group_by_keys", counted("group", tariterators.group_by_keys)
        ),
        patch.object(webdataset, "map", counted("map", webdataset.map)),
        patch.object(
            webdataset.DataPipeline, "invoke", counted("stages", webdataset.DataPipeline.invoke)
        ),
    ):
        list(stream(numbered, training=False))
    assert calls == {"split": 1, "map": 1, "group": 9, "stages": 5 + 9 * 5}


def test_a_decoded_sample_is_its_image_and_label(numbered):
    sample = next(iter(stream(numbered, training=False).pipeline()))
    image, label = decode_sample(sample, image_shape=(1, 1, 2), num_classes=3)
    assert image.tolist() == [[[0, 0]]]
    assert label == 0
    problem = decode_sample({**sample, "cls": b"7"}, image_shape=(1, 1, 2), num_classes=3)
    assert "label 7" in problem.sentence
    assert problem.shard == numbered[0].url


def test_load_gives_what_can_be_composed(sets):
    batches = load("even", root=sets, batch_size=4, resident=False, workers=0)
    assert len(list(batches.compose(webdataset.shuffle(5)))) == len(batches)
