"""What is read of a run's folder, and what is said of the parts that are not there."""

import json
import math

import pytest
import torch
from effconv_core import SizePlan
from effconv_core.runs import reader
from effconv_core.runs.reader import Run, is_number, read_config, read_result, read_rows, read_run
from safetensors.torch import save_file

ROWS = [
    {"phase": "search", "epoch": 0, "global_step": 1, "loss": 2.0, "soft_sizes": [3.0]},
    {"phase": "search", "epoch": 0, "global_step": 2, "loss": 1.0, "seconds": 4.0, "own": "x"},
    {"phase": "comparison", "global_step": 0, "seconds": 1.5},
    {"phase": "train", "global_step": 1, "loss": None},
]


def write(path, content):
    path.write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    layers = {"1": {"channels": [2, 4], "groups": 1, "kernel_size": [3, 3]}}
    config = {"settings": {"k": 7}, "environment": {"torch": "2"}, "network": {"layers": layers}}
    write(folder / "config.json", config)
    write(folder / "result.json", {"networks": {"learned": {"test_accuracy": 0.5}}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    SizePlan({"1": 5}).save(folder / "plan.json")
    save_file({"1.weight": torch.ones(4, 2, 5, 5)}, folder / "cnn.safetensors")
    return folder


def test_a_whole_run_lacks_nothing_but_the_number_that_was_none(folder):
    run = read_run(folder)
    assert (run.name, run.settings, run.environment) == ("run", {"k": 7}, {"torch": "2"})
    assert run.network["layers"]["1"]["groups"] == 1
    assert run.network["left_alone"] == {}
    assert dict(run.plan) == {"1": 5}
    assert run.networks == {"learned": {"test_accuracy": 0.5}}
    assert (run.kernels["1"].shape, run.kernels_from) == ((4, 2, 5, 5), "cnn.safetensors")
    (sentence,) = run.missing
    assert "train" in sentence
    assert "own" not in run.rows[1]


def test_courses_and_times_are_those_of_a_phase(folder):
    run = read_run(folder)
    assert run.course("search", "loss") == [(1, 2.0), (2, 1.0)]
    assert run.course("train", "loss") == run.course("none", "loss") == []
    assert run.search_seconds() == ([4.0], 1.5)
    assert Run("empty").search_seconds() == ([], 0)


@pytest.mark.parametrize(
    "name", ["config.json", "result.json", "metrics.jsonl", "plan.json", "cnn.safetensors"]
)
@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_each_missing_part_is_named_and_the_rest_is_read(folder, name, how):
    whole = read_run(folder)
    (folder / name).unlink()
    if how == "damaged":
        (folder / name).write_bytes(b"\xff{")
    run = read_run(folder)
    more = [sentence for sentence in run.missing if sentence not in whole.missing]
    if (name, how) == ("metrics.jsonl", "damaged"):
        assert more == []  # a line without an end is what an interruption leaves
    else:
        assert any(name in sentence for sentence in more)
    assert (run.settings == {}) == (name == "config.json")
    assert (run.networks == {}) == (name == "result.json")
    assert (run.rows == []) == (name == "metrics.jsonl")
    assert (run.plan is None) == (name == "plan.json")
    assert (run.kernels == {}) == (name in ("plan.json", "cnn.safetensors"))


def test_a_result_that_is_about_to_be_written_may_be_given(folder):
    (folder / "result.json").unlink()
    given = {"networks": {"original": {"parameters": 7}}}
    assert read_run(folder, result=given).networks == given["networks"]


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_what_is_no_run_is_refused_by_name(make, tmp_path):
    make(tmp_path / "other")
    with pytest.raises(ValueError, match="other"):
        read_run(tmp_path / "other")


def test_rows_that_are_no_readings_are_counted(folder):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "search"}\nno JSON\n{"phase": "search", "global_step": 3}\n')
    run = read_run(folder)
    assert len(run.rows) == 5
    assert any("2 of 7" in sentence for sentence in run.missing)
    kinds = [type(row) for row in read_rows(folder / "metrics.jsonl")]
    assert kinds.count(ValueError) == 2


def test_the_step_is_told_from_which_a_loss_was_not_finite(folder):
    lines = [{"phase": "search", "global_step": 7 + i, "loss": math.nan} for i in range(2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    assert any("step 7" in sentence for sentence in read_run(folder).missing)


@pytest.mark.parametrize(
    ("tensors", "kept", "said"),
    [
        ({"1.1.weight": torch.ones(4, 2, 5, 5)}, ["1"], None),
        ({"1.weight": torch.ones(4, 2, 5, 5, dtype=torch.bfloat16)}, ["1"], None),
        ({"1.parametrizations.weight.original": torch.ones(4, 2, 5, 5)}, ["1"], None),
        (
            {
                "1.parametrizations.weight.original0": torch.ones(4, 1, 1, 1),
                "1.parametrizations.weight.original1": torch.ones(4, 2, 5, 5),
            },
            ["1"],
            None,
        ),
        ({"1.weight": torch.ones(4, 2)}, [], "1"),
        ({"1.weight": torch.ones(4, 2, 5, 5, dtype=torch.int8)}, [], "1"),
        ({"1.weight": torch.ones(1, 1, 1, 1001)}, [], "1"),
        ({"2.weight": torch.ones(4, 2, 5, 5)}, [], "1"),
    ],
)
def test_only_kernels_are_shown(tensors, kept, said, folder):
    save_file(tensors, folder / "cnn.safetensors")
    before = len(read_run(folder, result={}).missing) if said is None else None
    run = read_run(folder)
    assert list(run.kernels) == kept
    assert all(kernel.dtype == torch.float32 for kernel in run.kernels.values())
    if said is None:
        assert len(run.missing) == before
    else:
        assert any("cnn.safetensors" in sentence and said in sentence for sentence in run.missing)


def test_the_weights_of_a_training_serve_where_the_cnn_was_not_kept(folder):
    (folder / "cnn.safetensors").unlink()
    save_file({"model.1.weight": torch.zeros(4, 2, 5, 5)}, folder / "train.safetensors")
    run = read_run(folder)
    assert run.kernels_from == "train.safetensors"
    assert run.kernels["1"].sum() == 0


def test_a_recipe_that_was_renamed_has_its_present_name(folder):
    write(folder / "config.json", {"settings": {"recipe": "default"}})
    assert read_config(folder).settings["recipe"] == reader.RENAMED["default"]


def test_a_result_keeps_what_is_its_commands_own(folder):
    write(folder / "result.json", {"networks": {}, "own": [1]})
    assert read_result(folder) == {"networks": {}, "own": [1]}
    write(folder / "result.json", {"networks": {"a": {"test_accuracy": 2}}})
    with pytest.raises(ValueError, match="test_accuracy"):
        read_result(folder)
    with pytest.raises(FileNotFoundError):
        read_result(folder.parent)


@pytest.mark.parametrize("value", [0, -1.5, 1e39])
def test_finite_numbers_are_numbers(value):
    assert is_number(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e40, 10**400, True, "1", None, [1]])
def test_nothing_else_is(value):
    assert not is_number(value)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("plan.json", {"schema": 3, "sizes": {"\x1b[2J" * 100: 0}}, "x1b"),
        ("config.json", {"settings": ["\x1b[2J" * 1000]}, "$.settings"),
    ],
)
def test_the_reason_is_told_in_brief_and_nothing_is_sent_to_a_terminal(folder, name, content, told):
    write(folder / name, content)
    (sentence,) = [s for s in read_run(folder).missing if name in s]
    assert told in sentence
    assert sentence.isprintable()
    assert len(sentence) < 1000
