"""A file in the place of another is named by what it is."""

import json

import pytest
from effconv_core import Frontier, SizePlan
from effconv_core.distributed.stages import remembering
from effconv_core.io.kinds import KINDS, check_kind

POINT = {"sizes": {"a": 3}, "cost": 9, "loss": 1.0}
FILES = {
    "the settings of a run": {"settings": {}, "environment": {}, "network": {}},
    "the result of a run": {"networks": {"learned": {}}},
    "a plan": {"schema": 1, "sizes": {"a": 3}},
    "a frontier": {"schema": 1, "points": [POINT], "original": POINT, "allowed": {"a": [1, 3, 2]}},
    "the progress of a command": {"schema": 1, "of": {}, "stages": {}},
    "a latency table": {"schema": 1, "seconds": {}, "seconds of the rest": {}, "layers": {}},
    "the marker of a run's folder": {"kind": "run", "schema": 1, "id": "0"},
}
READERS = {
    "a plan": SizePlan.load,
    "a frontier": Frontier.load,
    "the progress of a command": lambda path: remembering(path, {"sizes": [3]}),
}


def test_every_kind_is_tried():
    assert FILES.keys() == KINDS.keys()


@pytest.mark.parametrize("needed", READERS)
@pytest.mark.parametrize("given", FILES)
def test_a_reader_names_the_file_that_it_got(given, needed, tmp_path):
    if given == needed:
        return
    path = tmp_path / "file.json"
    path.write_text(json.dumps(FILES[given]))
    with pytest.raises(ValueError, match=rf"file\.json: .*{given}.*{needed}"):
        READERS[needed](path)


@pytest.mark.parametrize("content", [{}, {"b": 1, "a": 2}, [1], 3, None, "text"])
def test_what_is_none_of_ours_is_described(content):
    what = "'a', 'b'" if isinstance(content, dict) and content else type(content).__name__
    if content == {}:
        what = r"\[\]"
    with pytest.raises(ValueError, match=f"{what}.*a plan"):
        check_kind(content, "a plan", (1, 2))


@pytest.mark.parametrize("schema", [0, 9, "1", 1.0, True])
def test_another_schema_of_the_needed_kind_is_named(schema):
    with pytest.raises(ValueError, match=rf"{schema}.*1 and 2"):
        check_kind({"schema": schema, "sizes": {}}, "a plan", (2, 1))
    check_kind({"schema": 2, "sizes": {}}, "a plan", (2, 1))
