"""Sequences: views of images against plain indexing, and recordings whose speakers are apart."""

import os
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from effconv_data import ResidentBatches, load, normalize
from effconv_data.sequences import VIEWS, flat, noise_padded, permuted, read_spoken_digits

SPEAKERS = ("anna", "bob", "cem", "dora")


def images(B=3, C=2, H=28, W=28):
    return torch.randn(B, C, H, W, generator=torch.Generator().manual_seed(0))


def test_a_flat_image_is_read_row_by_row():
    x = images()
    assert flat(x)[1, 1, 28 * 5 + 9] == x[1, 1, 5, 9]
    pooled = flat(x, pool=2)
    assert pooled.shape == (3, 2, 196)
    torch.testing.assert_close(pooled[2, 0, 14 * 3 + 4], x[2, 0, 6:8, 8:10].mean())


def test_the_permutation_moves_each_step_and_is_the_same_for_all_images():
    x = images()
    once, again = permuted(x), permuted(x[:1])
    assert torch.equal(once[:1], again)
    assert not torch.equal(once, flat(x))
    assert torch.equal(once.sort(2).values, flat(x).sort(2).values)


def test_noise_follows_the_rows_and_is_the_same_for_all_images():
    x = images(C=3, H=32, W=32)
    padded = noise_padded(x)
    assert padded.shape == (3, 96, 1000)
    assert padded[1, 2 * 32 + 7, 5] == x[1, 2, 5, 7]  # channel 2, column 7, of row 5
    noise = padded[:, :, 32:]
    assert torch.equal(noise[0], noise[2])
    assert abs(noise[0].std() - 1) < 0.02
    assert torch.equal(noise_padded(-x)[:, :, 32:], noise)


def record(folder, digit, speaker, number, samples, rate=8000):
    folder.mkdir(parents=True, exist_ok=True)
    with wave.open(str(folder / f"{digit}_{speaker}_{number}.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, "<i2").tobytes())


def spoilt_arrays(path):
    """Write packed arrays of which some bytes are damaged."""
    names = [f"{part}_{what}" for part in ("train", "test") for what in ("audio", "digit")]
    np.savez_compressed(path, **{name: np.arange(4096) for name in names})
    data = path.read_bytes()
    path.write_bytes(data[:400] + b"\xff" * 100 + data[500:])


@pytest.fixture
def recorded(tmp_path):
    """A folder of recordings in the public layout, each of constant samples that tell which."""
    for who, speaker in enumerate(SPEAKERS):
        for digit in range(10):
            length = 5000 if digit == 0 else 1001
            record(
                tmp_path / "fsdd/recordings", digit, speaker, 0, [100 * who + digit + 1] * length
            )
    return tmp_path


def test_speakers_of_recordings_are_apart(recorded):
    train, test = (read_spoken_digits(recorded, split) for split in ("train", "test"))
    assert train.speakers == ("anna", "bob")
    assert test.speakers == ("cem", "dora")
    for split, people in ((train, (0, 1)), (test, (2, 3))):
        middle = split.audio[:, 0, 2048]
        assert split.audio.shape == (20, 1, 4096)
        assert {int(value) // 100 for value in middle} == set(people)
        assert torch.equal((middle % 100 - 1).long(), split.labels)
        assert torch.equal(middle.long() // 100 - people[0], split.by)
    # A long recording is cut on both sides, a short one padded on both.
    short = train.audio[train.labels == 3][0, 0]
    assert short.ne(0).nonzero().flatten()[[0, -1]].tolist() == [1547, 2547]
    assert train.audio[train.labels == 0].ne(0).all()


def test_arrays_and_recordings_are_read_alike(recorded, tmp_path):
    train, test = (read_spoken_digits(recorded, split) for split in ("train", "test"))
    arrays = {"speakers": np.array(SPEAKERS)}
    for name, part in (("train", train), ("test", test)):
        arrays[f"{name}_audio"] = part.audio[:, 0].numpy()
        arrays[f"{name}_digit"] = part.labels.numpy()
        arrays[f"{name}_speaker"] = part.audio[:, 0, 2048].numpy().astype(np.int64) // 100
    other = tmp_path / "other/fsdd"
    other.mkdir(parents=True)
    np.savez(other / "fsdd.npz", **arrays)
    for split, expected in (("train", train), ("test", test)):
        got = read_spoken_digits(other.parent, split)
        assert got.speakers == expected.speakers
        key = torch.argsort(got.audio[:, 0, 2048]), torch.argsort(expected.audio[:, 0, 2048])
        assert torch.equal(got.audio[key[0]], expected.audio[key[1]])


def test_loaded_digits_are_normalised_with_the_training_speakers(recorded):
    batches = load("spoken-digits", root=recorded, batch_size=20)
    (x, y), *rest = batches
    assert not rest
    assert batches.image_shape == x.shape[1:] == (1, 4096)
    assert x.dtype == torch.float32
    assert y.unique().tolist() == list(range(10))
    assert abs(x.mean()) < 1e-4
    assert abs(x.std(correction=0) - 1) < 1e-4
    test = load("spoken-digits", split="test", root=recorded, batch_size=7)
    assert (test.mean, test.std) == (batches.mean, batches.std)
    assert [len(x) for x, _ in test] == [7, 7, 6]
    assert load("spoken-digits", split="test", root=recorded, batch_size=5, limit=9).samples == 9


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: record(f, 3, "anna", 1, [1], rate=16000), "8000"),
        (lambda f: record(f, 3, "anna", 1, []), "empty"),
        (lambda f: record(f, 12, "anna", 1, [1]), "12_anna_1"),
        (lambda f: (f / "3_anna_1.wav").write_bytes(b"no sound"), "3_anna_1"),
        (lambda f: (f.parent / "fsdd.npz").write_bytes(b"PK no arrays"), "fsdd.npz"),
        (lambda f: (f.parent / "fsdd.npz").write_bytes(b"PK\3\4 no arrays"), "fsdd.npz"),
        (lambda f: spoilt_arrays(f.parent / "fsdd.npz"), "fsdd.npz"),
        (lambda f: np.savez(f.parent / "fsdd.npz", train_audio=np.zeros(3)), "fsdd.npz"),
    ],
)
def test_spoilt_recordings_are_refused_by_name(recorded, spoil, words):
    spoil(recorded / "fsdd/recordings")
    with pytest.raises(ValueError, match=words):
        load("spoken-digits", root=recorded, batch_size=2)


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="free-spoken-digit-dataset"):
        load("spoken-digits", root=tmp_path, batch_size=2)
    with pytest.raises(ValueError, match="valid"):
        read_spoken_digits(tmp_path, "valid")
    monkeypatch.delenv("EFFCONV_DATA", raising=False)
    with pytest.raises(ValueError, match="EFFCONV_DATA"):
        load("spoken-digits", batch_size=2)


@pytest.mark.parametrize("options", [{"resident": False}, {"normalized": False}])
@pytest.mark.parametrize("name", ["spoken-digits", "smnist"])
def test_sequences_are_in_memory_and_normalised(tmp_path, name, options):
    with pytest.raises(ValueError, match=name):
        load(name, root=tmp_path, batch_size=2, **options)


def test_own_sequences_in_batches():
    samples = torch.randint(-3000, 3000, (10, 2, 50), dtype=torch.int16)
    batches = ResidentBatches(
        samples, torch.arange(10) % 2, classes=("a", "b"), batch_size=4, training=False
    )
    x = torch.cat([x for x, _ in batches]).double()
    values = samples.double() / 32768
    expected = (values - values.mean((0, 2), keepdim=True)) / values.std(
        (0, 2), correction=0, keepdim=True
    )
    torch.testing.assert_close(x, expected, atol=1e-5, rtol=1e-5)
    part, other = batches.viewed(lambda x: x[:, :, ::2]).divide(0.5)
    assert part.image_shape == other.image_shape == (2, 25)
    assert next(iter(part))[0].shape == (4, 2, 25)


def test_other_kinds_of_samples_are_refused():
    labels = torch.zeros(4, dtype=torch.int64)
    for samples, error, words in (
        (torch.zeros(4, 1, 8, dtype=torch.int32), TypeError, "int32"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.int16), ValueError, r"\(N, C, T\)"),
        (torch.zeros(4, 1, 8, dtype=torch.uint8), ValueError, r"\(N, C, H, W\)"),
    ):
        with pytest.raises(error, match=words):
            ResidentBatches(samples, labels, classes=("a",), batch_size=2)
    with pytest.raises(TypeError, match="float32"):
        normalize(torch.zeros(1, 1, 8), [0.0], [1.0])


ROOT = Path(os.environ.get("EFFCONV_DATA", ""))


@pytest.mark.skipif(not (ROOT / "mnist/index.json").is_file(), reason="EFFCONV_DATA has no mnist")
def test_sequential_mnist_is_mnist():
    options = {"split": "test", "batch_size": 8, "limit": 8}
    (pictures, labels), *_ = load("mnist", **options)
    for name, (kind, view) in VIEWS.items():
        if kind == "mnist":
            batches = load(name, **options)
            (x, y), *_ = batches
            assert torch.equal(x, view(pictures))
            assert torch.equal(y, labels)
            assert batches.name == name
            assert batches.image_shape == x.shape[1:] == (1, 196 if "196" in name else 784)


@pytest.mark.skipif(not (ROOT / "cifar10/index.json").is_file(), reason="EFFCONV_DATA has no sets")
def test_sequential_cifar10_is_not_augmented():
    (x, _), *_ = load("scifar10", batch_size=4, limit=4)
    kept = {"augment": lambda images, generator: images, "batch_size": 4, "limit": 4}
    (pictures, _), *_ = load("cifar10", **kept)
    assert torch.equal(x, pictures.flatten(2))
    assert load("npcifar10", batch_size=4, limit=4).image_shape == (96, 1000)


@pytest.mark.skipif(not (ROOT / "fsdd").is_dir(), reason="EFFCONV_DATA has no fsdd")
def test_the_real_recordings():
    train, test = (read_spoken_digits(ROOT, split) for split in ("train", "test"))
    assert (len(train.labels), len(test.labels)) == (2000, 1000)
    assert not set(train.speakers) & set(test.speakers)
    assert test.labels.bincount().tolist() == [100] * 10
