"""What a run keeps of its tests is read as it was written."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from effconv_core.engine.by_class import MOST_CONFUSED, ByClass, Mistake
from effconv_core.runs.tests import (
    FILE,
    LONGEST_SIDE,
    read_tests,
    record,
    write_tests,
)
from PIL import Image


def outcome(classes=2, image=None):
    image = torch.zeros(1, 2, 3) if image is None else image
    confusion = 3 * torch.eye(classes, dtype=torch.int64)
    confusion[0, 1] = 1
    counts = torch.stack([confusion.sum(1), confusion.diagonal()], 1)
    confusion = confusion if classes <= MOST_CONFUSED else confusion[:0, :0]
    return ByClass(0.5, 7, counts, confusion, [Mistake(4, image, 0, 1, 0.75)])


def pixels(kept):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(kept))))


def test_counts_and_mistakes_come_back(tmp_path):
    kept = record(outcome(), ["cat", "dog"], [0.5], [0.5])
    assert kept.counts == [(4, 3), (3, 3)]
    assert kept.confusion == [[3, 1], [0, 3]]
    write_tests(tmp_path, {"learned": kept})
    assert read_tests(tmp_path) == {"learned": kept}


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_the_image_before_it_was_normalised(channels):
    shown = torch.arange(channels * 6).view(channels, 2, 3) * 10
    mean, std = [0.4] * channels, [0.2] * channels
    (mistake,) = record(outcome(image=(shown / 255 - 0.4) / 0.2), [], mean, std).mistakes
    expected = shown.permute(1, 2, 0).numpy()
    assert np.array_equal(pixels(mistake.png).reshape(expected.shape), expected)


def test_a_large_picture_is_made_smaller_and_what_is_none_is_left_out():
    large = torch.zeros(1, 4 * LONGEST_SIDE, 2 * LONGEST_SIDE)
    (mistake,) = record(outcome(image=large), [], [0.0], [1.0]).mistakes
    assert pixels(mistake.png).shape == (LONGEST_SIDE, LONGEST_SIDE // 2)
    for image in (torch.zeros(1, 9), torch.zeros(2, 4, 4)):
        (mistake,) = record(outcome(image=image), [], [0.0], [1.0]).mistakes
        assert mistake.png is None
    assert record(outcome(), [], None, None).mistakes[0].png is None


def test_many_classes_have_no_matrix():
    kept = record(outcome(MOST_CONFUSED + 1), [], None, None)
    assert (len(kept.counts), kept.confusion) == (MOST_CONFUSED + 1, [])


def test_a_run_of_an_earlier_release_has_none_and_a_damaged_file_is_named(tmp_path):
    assert read_tests(tmp_path) == {}
    (tmp_path / FILE).write_text('{"learned": {"counts": [[-1, 0]]}}')
    with pytest.raises(ValueError, match=FILE):
        read_tests(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"counts": [[1, 5]], "confusion": []},
        {"counts": [[3, 1]], "confusion": [[1], [1, 2]]},
        {"counts": [[3, 1], [0, 0]], "confusion": [[1, 2, 9]]},
    ],
)
def test_counts_that_no_test_gives_are_refused(change, tmp_path):
    (tmp_path / FILE).write_text(json.dumps({"learned": {"classes": ["a"], **change}}))
    with pytest.raises(ValueError, match=FILE):
        read_tests(tmp_path)
