"""The picture of the README is of the committed rows, and its name changes with them."""

import json

import pytest

from tools.docs import picture


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Write rows of two searches, and of others that are not shown."""

    def write(size=7):
        shown = {"space": picture.SPACE, "settings": picture.SETTINGS}
        found = [
            {**shown, "seed": 1, "plan": {"a": 3, "b": 9}},
            {**shown, "seed": 0, "plan": {"a": size, "b": 5}},
            {**shown, "space": "other", "seed": 0, "plan": {"a": 1, "b": 1}},
            {**shown, "settings": "other", "seed": 0, "plan": {"a": 1, "b": 1}},
        ]
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in found))
        monkeypatch.setattr(picture, "ROWS", path)

    write()
    return write


def test_plans_are_those_of_the_settings_by_seed_behind_the_original(rows):
    sizes = [dict(plan) for plan in picture.found_plans().values()]
    assert sizes == [{"a": 5, "b": 5}, {"a": 7, "b": 5}, {"a": 3, "b": 9}]


def test_other_sizes_have_another_name(rows):
    first = picture.front_picture()
    assert picture.front_picture() == first
    rows(11)
    assert picture.front_picture() != first


def test_a_line_or_bar_is_drawn_for_each_plan(rows):
    (axes,) = picture.draw_front_picture().axes
    assert len(axes.get_legend().get_texts()) == 3
