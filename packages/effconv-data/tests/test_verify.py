"""verify finds every kind of damage; the sheet shows what is there."""

import io
import json

import numpy as np
import pytest
from effconv_data import verify
from effconv_data.shards.contact_sheet import draw_sheet
from effconv_data.shards.index import read_index


def npy(array, **options):
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def test_a_good_set_has_no_problem(small_set):
    made = small_set()
    made.members["train-00000.tar.gz"][1:1] = [
        ("train-000000.txt", "a cat, größer".encode()),
        ("train-000000.json", json.dumps({"box": [1, 2]}).encode()),
        ("train-000000.npy", npy(np.arange(3))),
    ]
    folder = made.write()
    made.sign()
    seen = []
    reports = verify(folder, on_shard=lambda *arguments: seen.append(arguments))
    assert reports["train"].samples == 7
    assert reports["train"].class_counts == (3, 2, 2)
    assert reports["train"].image_shape == (3, 6, 5)
    assert reports["test"].samples == 2
    assert [report.problems for report in reports.values()] == [[], []]
    assert seen == [("train", 1, 2), ("train", 2, 2), ("test", 1, 1)]


def test_every_damage_is_named(small_set):
    made = small_set()
    members = made.members["train-00000.tar.gz"]
    members[0] = (members[0][0], b"no picture")
    members[3] = ("train-000001.cls", b"9")
    members.insert(5, ("train-000002.npy", npy(np.array([{}], dtype=object), allow_pickle=True)))
    members.append(("train-000003.json", b"{"))
    folder = made.write()
    made.sign()
    path = folder / "train-00001.tar.gz"
    path.write_bytes(path.read_bytes() + b"\0")
    report = verify(folder)["train"]
    assert report.samples == 0
    sentences = [problem.sentence for problem in report.problems]
    assert len(sentences) == 5
    for key, reason in (
        ("train-000000", ".png that cannot be decoded"),
        ("train-000001", "has label 9"),
        ("train-000002", ".npy that cannot be decoded"),
        ("train-000003", ".json that cannot be decoded"),
        ("train-00001.tar.gz", "sha256"),
    ):
        assert any(key in sentence and reason in sentence for sentence in sentences)


def test_a_missing_shard_is_one_problem(small_set):
    folder = small_set().write()
    (folder / "train-00001.tar.gz").unlink()
    report = verify(folder)["train"]
    assert report.samples == 4
    (problem,) = report.problems
    assert "train-00001.tar.gz" in problem.sentence


def test_a_split_of_which_nothing_can_be_read_is_reported(small_set):
    folder = small_set().write()
    (folder / "test-00000.tar.gz").write_bytes(b"")
    reports = verify(folder)
    assert reports["train"].samples == 7
    assert reports["test"].samples == 0
    assert "test-00000.tar.gz cannot be read" in reports["test"].problems[0].sentence


def test_arrays_that_unpack_to_too_much_are_refused(small_set):
    made, out = small_set(), io.BytesIO()
    np.savez_compressed(out, zeros=np.zeros((1 << 28) + 1, dtype=np.uint8))
    made.members["train-00000.tar.gz"].insert(2, ("train-000000.npz", out.getvalue()))
    report = verify(made.write())["train"]
    assert "unpacks to 268435" in report.problems[0].sentence


@pytest.mark.parametrize("shape", [(6, 5, 3), (4, 7, 1), (1, 1, 3), (1, 5, 1), (5, 1, 3)])
def test_the_sheet_holds_each_class_in_its_row(small_set, shape):
    made = small_set(shape=shape)
    sheet = np.asarray(draw_sheet(read_index(made.write()), "train", columns=3))
    scale = -(-64 // min(shape[:2]))
    height, width = shape[0] * scale + 4, shape[1] * scale + 4
    assert sheet.shape == (3 * height, 160 + 3 * width, 3)
    for label in range(3):
        (of_class,) = np.nonzero(made.labels["train"] == label)
        for column, sample in enumerate(of_class[:3]):
            top, left = label * height + 2, 160 + column * width
            drawn = sheet[top : top + height - 4 : scale, left : left + width - 4 : scale]
            assert np.array_equal(drawn, np.broadcast_to(made.pixels["train"][sample], drawn.shape))


@pytest.mark.parametrize(
    ("name", "train"),
    [
        pytest.param("mnist", 60_000, marks=pytest.mark.slow),
        pytest.param("cifar10", 50_000, marks=pytest.mark.long),
    ],
)
def test_a_real_set_is_whole(real_data, name, train):
    if not (real_data / name / "index.json").is_file():
        pytest.skip(f"{real_data / name} has no index.json")
    reports = verify(real_data / name)
    assert (reports["train"].samples, reports["test"].samples) == (train, 10_000)
    assert not any(report.problems for report in reports.values())
