"""A FlexNet on larger images than it was trained on: the rows, and what the page says of them."""

import json

import pytest

from tools.methods import page, resolution
from tools.methods.resolution import SETTINGS, ResolutionOptions, measure


@pytest.fixture(scope="module")
def rows():
    options = ResolutionOptions(
        data="mnist", channels=2, epochs=1, pictures=64, test_pictures=20, device="cpu"
    )
    names = ("paper", "grid, penalty")
    return [json.loads(json.dumps(measure(options, name, 0))) for name in names]


def test_rows_hold_accuracies_of_both_sizes_and_the_error(rows):
    paper, grid = rows
    assert grid["largest_error"] < 0.1 < paper["largest_error"]
    for row in rows:
        assert (row["trained_side"], row["steps"], row["pictures"]) == (14, 1, 64)
        for key in ("accuracy", "accuracy_refined", "accuracy_estimated"):
            assert 0 <= row[key] <= 1


def test_a_training_is_the_same_twice(rows):
    options = ResolutionOptions(
        data="mnist", channels=2, epochs=1, pictures=64, test_pictures=20, device="cpu"
    )
    again = measure(options, "paper", 0)
    assert {**rows[0], "environment": 0} == {**json.loads(json.dumps(again)), "environment": 0}


def test_the_page_shows_them(rows, tmp_path, monkeypatch):
    path = tmp_path / "resolution.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {**rows[0], "seed": 1}]))
    monkeypatch.setattr(page, "RESOLUTION", path)
    told = page.methods_page()
    reached = f"{100 * rows[0]['accuracy_refined']:.1f} ± 0.0"
    [line] = [line for line in told.splitlines() if line.startswith(f"| {SETTINGS['paper']} |")]
    assert reached in line
    assert line.endswith("| 2 |")
    assert SETTINGS["grid"] + " |" not in told
    path.unlink()
    assert "Larger images than trained on" not in page.methods_page()


def test_settings_and_sets_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="papers"):
        ResolutionOptions(settings=("papers",))
    with pytest.raises(FileNotFoundError, match="nothing"):
        ResolutionOptions(data="nothing")
    assert resolution.FACTOR == 2
