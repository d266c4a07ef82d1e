"""Stages that are kept: what is done is not repeated, and files of others are left as they are."""

import json
import os

import pytest
from effconv_core.distributed.stages import remembering


def test_a_stage_is_computed_once(tmp_path):
    path, calls = tmp_path / "s.json", []

    def compute():
        calls.append(1)
        return [1.5, None]

    for _ in range(2):
        assert remembering(path, {"sizes": [3, 5]})("a", compute) == [1.5, None]
    assert len(calls) == 1
    remember = remembering(None, {})
    assert remember("a", compute) == remember("a", compute)
    assert len(calls) == 2


def test_a_relative_file_stays_where_it_was(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    remember = remembering("s.json", {})
    remember("a", lambda: os.chdir("elsewhere"))
    remember("b", lambda: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "s.json"]
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_stage_that_fails_leaves_those_before(tmp_path):
    path = tmp_path / "s.json"
    remember = remembering(path, {"sizes": [3]})
    remember("a", lambda: 1)
    before = path.read_bytes()
    with pytest.raises(KeyError):
        remember("b", lambda: {}["none"])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        "mine",
        "[]",
        json.dumps({"schema": 2, "of": {"sizes": [3]}, "stages": {}}),
        json.dumps({"schema": 1, "of": {"sizes": [5]}, "stages": {}}),
        json.dumps({"schema": 1, "of": {"sizes": [3], "more": 1}, "stages": {}}),
        json.dumps({"schema": 1, "of": {"sizes": [3]}, "stages": []}),
    ],
)
def test_the_file_of_something_else_is_refused_and_left(content, tmp_path):
    path = tmp_path / "s.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"s\.json"):
        remembering(path, {"sizes": [3]})
    assert path.read_text() == content


def test_a_place_that_cannot_be_written_is_refused_first(tmp_path):
    with pytest.raises((OSError, ValueError), match="none"):
        remembering(tmp_path / "none" / "s.json", {})
