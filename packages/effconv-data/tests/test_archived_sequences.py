"""Readers of official archives of sequences, on small ones that are built to their layout."""

import bz2
import gzip
import io
import lzma
import re
import shutil
import tarfile
import wave

import numpy as np
import pytest
import torch
from effconv_data import load
from effconv_data.archived_sequences import read_characters, read_speech_commands

WORDS = ("go", "no", "yes")
VAL, TEST = ("go/b_nohash_0.wav", "yes/b_nohash_0.wav"), ("no/c_nohash_0.wav",)


def sound(samples, rate=16_000, channels=1):
    file = io.BytesIO()
    with wave.open(file, "wb") as made:
        made.setnchannels(channels)
        made.setsampwidth(2)
        made.setframerate(rate)
        made.writeframes(np.asarray(samples, "<i2").tobytes())
    return file.getvalue()


def speech():
    """Return the files of a small archive: a second each, but one that is shorter."""
    files = {"README.md": b"words", "LICENSE": b"CC BY", "_background_noise_/pink.wav": b"noise"}
    for place, word in enumerate(WORDS):
        for number, speaker in enumerate("abcd"):
            steps = 15_000 if (word, speaker) == ("go", "a") else 16_000
            samples = np.full(steps, 100 * place + number + 1)
            files[f"{word}/{speaker}_nohash_0.wav"] = sound(samples)
    files["validation_list.txt"] = "\n".join([*VAL, ""]).encode()
    files["testing_list.txt"] = "\n".join([*TEST, ""]).encode()
    return files


def write(root, files, packed):
    folder = root / "speech-commands"
    folder.mkdir()
    if packed:
        with tarfile.open(folder / "speech_commands_v0.02.tar.gz", "w:gz") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(f"./{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    else:
        for name, data in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
    return root


@pytest.mark.parametrize("packed", [True, False], ids=["archive", "folder"])
def test_the_lists_are_the_splits_of_speech_commands(packed, tmp_path):
    write(tmp_path, speech(), packed)
    seen = {}
    for split, number in (("train", 9), ("val", 2), ("test", 1)):
        samples, labels, classes = read_speech_commands(tmp_path, split)
        assert classes == WORDS
        assert samples.shape == (number, 1, 16_000)
        assert samples.dtype == torch.int16
        middle = samples[:, 0, 8_000].tolist()
        assert [value // 100 for value in middle] == labels.tolist()
        seen[split] = middle
    assert sorted(seen["val"]) == [2, 202]
    assert seen["test"] == [103]
    assert not set(seen["train"]) & {2, 202, 103}
    assert sorted(seen["train"]) != seen["train"]  # a limit takes samples of all words
    train, _, _ = read_speech_commands(tmp_path, "train")
    [short] = [one[0] for one in train if one[0, 8_000] == 1]
    assert (short[:500] == 0).all()
    assert (short[500:15_500] == 1).all()
    assert (short[15_500:] == 0).all()


def test_load_gives_batches_of_speech_commands(tmp_path):
    write(tmp_path, speech(), True)
    train = load("speech-commands", batch_size=4, root=tmp_path, limit=8)
    assert train.image_shape == (1, 16_000)
    assert (train.samples, train.classes) == (8, WORDS)
    whole = load("speech-commands", split="val", batch_size=2, root=tmp_path)
    assert whole.mean == load("speech-commands", batch_size=2, root=tmp_path).mean
    [(batch, labels)] = list(whole)
    assert batch.shape == (2, 1, 16_000)
    assert sorted(labels.tolist()) == [0, 2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"validation_list.txt": b"go/z_nohash_0.wav"}, "go/z_nohash_0.wav"),
        ({"testing_list.txt": b"go/b_nohash_0.wav"}, "both lists"),
        ({"testing_list.txt": b""}, "split test"),
        ({"no/c_nohash_0.wav": b"RIFF"}, "no/c_nohash_0.wav"),
        ({"no/c_nohash_0.wav": sound([1] * 9, rate=8_000)}, "8000"),
        ({"no/c_nohash_0.wav": sound([1] * 8, channels=2)}, r"\(2, 2, 16000\)"),
    ],
)
@pytest.mark.parametrize("packed", [True, False], ids=["archive", "folder"])
def test_speech_that_is_not_of_the_layout_is_refused(change, words, packed, tmp_path):
    write(tmp_path, {**speech(), **change}, packed)
    with pytest.raises(ValueError, match=words):
        read_speech_commands(tmp_path, "test")


def test_archives_that_are_cut_off_or_missing_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="speech_commands_v0.02"):
        read_speech_commands(tmp_path, "train")
    write(tmp_path, speech(), True)
    archive = tmp_path / "speech-commands" / "speech_commands_v0.02.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(ValueError, match="cannot be read"):
        read_speech_commands(tmp_path, "train")
    with pytest.raises(ValueError, match="'valid'"):
        read_speech_commands(tmp_path, "valid")
    shutil.rmtree(tmp_path / "speech-commands")
    files = speech()
    del files["testing_list.txt"]
    write(tmp_path, files, True)
    with pytest.raises(ValueError, match="testing_list.txt"):
        read_speech_commands(tmp_path, "train")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_bytes_that_cannot_be_unpacked_are_refused(pack, tmp_path):
    write(tmp_path, speech(), True)
    archive = tmp_path / "speech-commands" / "speech_commands_v0.02.tar.gz"
    whole = pack(gzip.decompress(archive.read_bytes()))
    for at in range(20, len(whole) - 20, len(whole) // 20):
        archive.write_bytes(whole[:at] + b"\xff" * 16 + whole[at + 16 :])
        with pytest.raises(ValueError, match=re.escape(str(archive))):
            read_speech_commands(tmp_path, "train")


def characters(root, train=None, test=None):
    """Write both files; a case is its channels and its class."""
    folder = root / "character-trajectories"
    folder.mkdir()
    cases = {
        "TRAIN": train
        or [([[0.5, -1.0, 2.0], [1, 1, 1], [0, 0, 3.25]], "1"), ([[4.0], [-0.25], [0]], "2")],
        "TEST": test or [([[1.0, 2, 3, 4], [0] * 4, [-6.5, 0, 0, 0]], "2")],
    }
    for name, given in cases.items():
        lines = [
            "# pen strokes",
            "@problemName CharacterTrajectories",
            "@timeStamps false",
            "@missing false",
            "@univariate false",
            "@dimensions 3",
            "@equalLength false",
            "@classLabel true 1 2",
            "@data",
        ]
        for channels, label in given:
            lines.append(":".join([*(",".join(map(str, row)) for row in channels), label]))
        (folder / f"CharacterTrajectories_{name}.ts").write_text("\n".join([*lines, ""]))
    return root


def test_characters_are_read_with_zeros_at_their_ends(tmp_path):
    characters(tmp_path)
    samples, labels, classes = read_characters(tmp_path, "train")
    assert (classes, samples.shape) == (("1", "2"), (2, 3, 4))
    values = samples.double() * 6.5 / 32767  # 6.5 is the greatest of both files
    first = values[labels.tolist().index(0)]
    expected = torch.tensor([[0.5, -1, 2, 0], [1, 1, 1, 0], [0, 0, 3.25, 0]]).double()
    torch.testing.assert_close(first, expected, atol=6.5 / 65534 + 1e-9, rtol=0)
    [whole] = read_characters(tmp_path, "test").samples
    assert whole[2].tolist() == [-32767, 0, 0, 0]
    test = load("character-trajectories", split="test", batch_size=1, root=tmp_path)
    [(batch, label)] = list(test)
    assert (batch.shape, label.tolist()) == ((1, 3, 4), [1])


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ([([["a"], [1], [1]], "1")], "line 10"),
        ([([[1], [1], [1]], "3")], "line 10"),
        ([([[1, 2], [1], [1]], "1")], "line 10"),
        ([([["nan"], [1], [1]], "1")], "line 10"),
        ([([[1], [1]], "1")], "channels"),
    ],
)
def test_characters_that_are_not_of_the_layout_are_refused(train, words, tmp_path):
    characters(tmp_path, train)
    with pytest.raises(ValueError, match=words):
        read_characters(tmp_path, "test")


def test_characters_that_are_missing_or_empty_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="CharacterTrajectories_TRAIN.ts"):
        read_characters(tmp_path, "train")
    characters(tmp_path)
    path = tmp_path / "character-trajectories" / "CharacterTrajectories_TEST.ts"
    text = path.read_text()
    path.write_text(text.partition("@data")[0])
    with pytest.raises(ValueError, match="no case"):
        read_characters(tmp_path, "train")
    path.write_text(text.replace("@timeStamps false", "@timeStamps true"))
    with pytest.raises(ValueError, match="line 3"):
        read_characters(tmp_path, "train")
    with pytest.raises(ValueError, match="'val'"):
        read_characters(tmp_path, "val")
