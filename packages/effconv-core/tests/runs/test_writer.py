"""What a run's folder says of the code that it was made with."""

import math
from dataclasses import asdict

import pytest
from effconv_core import recipe
from effconv_core.runs.metrics import Metrics
from effconv_core.runs.writer import changed_settings, check_run, open_run, settings_of

ODD_ROWS = {
    "deep": "[" * 100_000,
    "no phase": '{"epoch": 0}',
    "epoch -5": '{"phase": "train", "epoch": -5, "global_step": 1}',
    "10^400": '{"phase": "train", "global_step": 1' + "0" * 400 + "}",
    "half of a character": '{"phase": "\\ud800", "global_step": 1}',
    "no mapping": "[1]",
}


@pytest.mark.parametrize("case", ODD_ROWS)
def test_a_run_that_goes_on_drops_no_row_that_it_cannot_read(case, tmp_path):
    metrics = Metrics(tmp_path)
    metrics.log("search", 0, 1, loss=math.nan, soft_sizes=[1.5], more="kept")
    row = metrics.rows()[0]
    assert math.isnan(row["loss"])
    assert row["more"] == "kept"
    with metrics.path.open("a", encoding="utf-8") as file:
        file.write(ODD_ROWS[case] + "\n")
    before = metrics.path.read_bytes()
    with pytest.raises(ValueError, match=r"metrics\.jsonl"):
        Metrics(tmp_path).log("train", 0, 1, loss=1.0)
    assert metrics.path.read_bytes() == before


def test_a_row_that_was_cut_off_is_left_out(tmp_path):
    metrics = Metrics(tmp_path)
    metrics.log("search", 0, 1, loss=1.0)
    with metrics.path.open("a", encoding="utf-8") as file:
        file.write('{"phase": "sea')
    assert len(metrics.rows()) == 1
    Metrics(tmp_path).log("train", 0, 1, loss=1.0)
    assert [row["phase"] for row in metrics.rows()] == ["search", "train"]


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[1]", '{"settings": [1]}', "{", '{"a": "\\ud800"}']
)
def test_a_config_that_is_none_is_one_sentence(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(FileExistsError, match=r"config\.json"):
        check_run(tmp_path, {"seed": 0}, overwrite=False)


def test_a_run_goes_on_when_its_recipe_has_been_renamed(tmp_path):
    before = {"recipe": "default", "seed": 0, "device": "cpu"}
    open_run(tmp_path, before, "drawn", overwrite=False)
    assert check_run(tmp_path, {**before, "recipe": "bank"}, overwrite=False)
    assert settings_of(tmp_path)["recipe"] == "bank"
    with pytest.raises(FileExistsError, match="recipe"):
        check_run(tmp_path, {**before, "recipe": "paper"}, overwrite=False)


def test_a_run_goes_on_when_the_default_of_b_has_changed(tmp_path):
    before = {"search": {"b": -0.35, "k": 3}, "seed": 0, "device": "cpu"}
    open_run(tmp_path, before, "drawn", overwrite=False)
    assert check_run(tmp_path, {**before, "search": {"b": None, "k": 3}}, overwrite=False)
    with pytest.raises(FileExistsError, match="search"):
        check_run(tmp_path, {**before, "search": {"b": 0.2, "k": 3}}, overwrite=False)


def test_a_run_goes_on_when_the_end_of_its_recipe_has_changed(tmp_path):
    present = asdict(recipe("bank"))
    former = {**present, "finalists": 10, "race_steps": 64}
    before = {"search": former, "seed": 0, "device": "cpu"}
    open_run(tmp_path, before, "drawn", overwrite=False)
    assert check_run(tmp_path, before, overwrite=False)
    assert check_run(tmp_path, {**before, "search": present}, overwrite=False)
    for changes in ({"race_steps": 100}, {"finalists": 7}, {"k": 5}):
        with pytest.raises(FileExistsError, match=next(iter(changes))):
            check_run(tmp_path, {**before, "search": {**present, **changes}}, overwrite=False)


def test_a_run_of_other_finalists_goes_on_when_the_length_of_its_trainings_has_changed(tmp_path):
    before = {"search": asdict(recipe("bank", finalists=2, race_steps=60)), "device": "cpu"}
    open_run(tmp_path, before, "drawn", overwrite=False)
    now = {**before, "search": asdict(recipe("bank", finalists=2))}
    assert check_run(tmp_path, now, overwrite=False)


def test_a_run_of_today_is_not_taken_for_one_of_former_numbers(tmp_path):
    present = asdict(recipe("bank"))
    before = {"search": present, "seed": 0, "device": "cpu"}
    open_run(tmp_path, before, "drawn", overwrite=False)
    former = {**present, "race_steps": 64}
    with pytest.raises(FileExistsError, match="race_steps was 195, now 64"):
        check_run(tmp_path, {**before, "search": former}, overwrite=False)


def test_other_settings_are_named_one_by_one():
    before = {"train": {"epochs": 30, "lr": 0.1}, "seed": 0, "left": None}
    now = {"train": {"epochs": 31, "lr": 0.1}, "seed": 0, "search": {"k": 3}}
    assert changed_settings(before, now) == [
        "left was None, now not set",
        "search.k was not set, now 3",
        "train.epochs was 30, now 31",
    ]


@pytest.mark.parametrize("finished", [False, True])
def test_more_epochs_are_refused_with_the_change_and_the_way_to_train_the_plan_longer(
    finished, tmp_path
):
    before = {"seed": 0, "device": "cpu", "train": {"epochs": 30, "lr": 0.1}}
    open_run(tmp_path, before, "drawn", overwrite=False)
    longer = {**before, "train": {"epochs": 31, "lr": 0.1}}
    if finished:
        (tmp_path / "result.json").write_text("{}")
    with pytest.raises(FileExistsError, match=r"train\.epochs was 30, now 31") as without_plan:
        check_run(tmp_path, longer, overwrite=False)
    assert "--plan" not in str(without_plan.value)
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(FileExistsError, match=r"--plan .*plan\.json"):
        check_run(tmp_path, longer, overwrite=False)
    both = {**longer, "seed": 1}
    with pytest.raises(FileExistsError, match="seed was 0, now 1.*30, now 31") as two_changes:
        check_run(tmp_path, both, overwrite=False)
    assert "--plan" not in str(two_changes.value)
    content = (tmp_path / "config.json").read_bytes()
    assert b'"epochs": 30' in content  # nothing was changed
