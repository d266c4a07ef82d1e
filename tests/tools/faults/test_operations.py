"""What an operation of the drill must leave, and what it tells of itself."""

import pytest

from tools.faults.operations import OPERATIONS, epochs_done, epochs_run, run_outcome, timeless


def test_a_page_is_compared_but_for_its_times():
    page_of = "<p>made 2026-01-02 03:04 UTC in {}, accuracy {}%</p>".format
    assert timeless(page_of("1 min 3 s", 25.0)) == timeless(page_of("2.3 s", 25.0))
    assert timeless(page_of("1 min 3 s", 25.0)) != timeless(page_of("1 min 3 s", 26.0))


def test_first_epochs_are_read_from_what_a_process_said():
    output = "search epoch 2/3: loss 1\nsearch epoch 3/3: loss 1\nnothing\ntrain epoch 1/3: loss\n"
    assert epochs_run(output) == {"search": 1, "train": 0}
    assert epochs_run("a search epoch 2/3") == {}


def test_without_states_no_epoch_is_done(tmp_path):
    (tmp_path / "run").mkdir()
    assert epochs_done(tmp_path) == {}


def test_what_is_done_is_counted_by_files(tmp_path):
    done = OPERATIONS["preparation"].done
    assert done(tmp_path) == {"shards": 0}
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / ".progress.jsonl").write_text("settings\nshard\nshard\n")
    assert done(tmp_path) == {"shards": 2}
    runs = OPERATIONS["list of runs"].done
    assert runs(tmp_path) == {"runs": 0}
    for name in ("run0", "run2", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").touch()
    assert runs(tmp_path) == {"runs": 2}


def test_a_run_without_its_files_has_no_outcome(tmp_path):
    with pytest.raises(OSError, match="report"):
        run_outcome(tmp_path)


def test_the_input_of_a_preparation_is_the_same_each_time(tmp_path):
    begin = OPERATIONS["preparation"].begin
    content = []
    for name in ("a", "b"):
        begin(tmp_path / name, tmp_path)
        files = sorted((tmp_path / name).rglob("*.png"))
        content.append([(path.name, path.read_bytes()) for path in files])
    assert content[0] == content[1]
    assert len(content[0]) == 240
