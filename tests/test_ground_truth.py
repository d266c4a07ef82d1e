"""The instruments that say how good a search is."""

import json

import numpy as np
import pytest
from effconv_core import SearchableCNN, apply_plan
from rich.console import Console

from tools.ground_truth import open_table, train_plan
from tools.jobs import read_rows, run_jobs
from tools.proxy import spearman, train_predicted
from tools.score_search import Options, noise_floor, summary, truth
from tools.spaces import SPACES


def square(number):
    if number < 0:
        raise ValueError(f"{number} is negative")
    return {"number": number, "square": number * number}


def test_jobs_append_their_rows_after_those_that_are_there(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"number": 1, "square": 1}\n{"number": 2, "squ')  # cut off by a kill
    assert read_rows(path) == [{"number": 1, "square": 1}]
    run_jobs(Console(quiet=True), "squares", square, [(path, (n,)) for n in (2, 3)], 2)
    rows = sorted(read_rows(path), key=lambda row: row["number"])
    assert rows == [{"number": n, "square": n * n} for n in (1, 2, 3)]


def test_a_failing_job_is_raised_and_loses_no_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    run_jobs(Console(quiet=True), "squares", square, [(path, (4,))], 1)
    with pytest.raises(ValueError, match="-1 is negative"):
        run_jobs(Console(quiet=True), "squares", square, [(path, (-1,)), (path, (5,))], 1)
    assert {"number": 4, "square": 16} in read_rows(path)


def test_a_space_holds_every_plan_near_its_budget_and_no_other():
    space = SPACES["planted-5"]
    network, plans = space.network(0), space.plans()
    assert space.budget == 10_684
    counted = [sum(p.numel() for p in apply_plan(network, plan).parameters()) for plan in plans]
    assert all(abs(count / 10_684 - 1) <= 0.02 for count in counted)
    # By hand: 128 a^2 + 256 (b^2 + c^2) + 512 d^2 + 316 parameters at sizes a, b, c, d.
    squares = np.arange(1, 8) ** 2
    a, b, c, d = np.meshgrid(*[squares] * 4, indexing="ij")
    cost = 128 * a + 256 * (b + c) + 512 * d + 316
    assert len(plans) == (np.abs(cost / 10_684 - 1) <= 0.02).sum() == 22
    assert SearchableCNN(network).layers == list(plans[0])


@pytest.mark.slow
def test_a_training_is_repeated_exactly():
    plan = SPACES["planted-8"].plans()[0]
    first, second = (train_plan("planted-8", plan, 1) for _ in range(2))
    del first["cpu_seconds"], second["cpu_seconds"]
    assert first == second
    assert first["plan"] == plan


@pytest.mark.slow
def test_predicted_kernels_of_a_size_that_covers_the_patch_learn_the_drawn_set():
    row = train_predicted("planted-8", "fast, bank", {"see": 5, "mix1": 1, "mix2": 3, "mix3": 3})
    assert row["accuracy"] > 0.5  # of four classes
    assert row["loss"] < 1.0


def test_a_table_of_other_settings_is_refused(tmp_path):
    path = tmp_path / "planted-5.jsonl"
    assert open_table(path, "planted-5") == []
    assert open_table(path, "planted-5") == []
    header = json.loads(path.read_text())
    header["settings"]["samples"] = 7
    path.write_text(json.dumps(header) + "\n")
    with pytest.raises(ValueError, match="delete it to train anew"):
        open_table(path, "planted-5")


def table(path, accuracies):
    plans = [{"a": 3, "b": 3}, {"a": 4, "b": 1}, {"a": 1, "b": 4}]
    rows = [{"space": "made"}]
    for plan, values in zip(plans, accuracies):
        rows += [{"plan": plan, "seed": s, "accuracy": value} for s, value in enumerate(values)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return plans


def test_truth_gathers_the_trainings_of_each_plan(tmp_path):
    path = tmp_path / "made.jsonl"
    plans = table(path, [[0.5, 0.6], [0.7, 0.8], [0.9, 1.0]])
    found, accuracies = truth(path)
    assert found == plans
    assert accuracies.tolist() == [[0.5, 0.6], [0.7, 0.8], [0.9, 1.0]]
    table(path, [[0.5, 0.6], [0.7]])
    with pytest.raises(ValueError, match="run bench:ground-truth to its end"):
        truth(path)


def test_noise_floor_by_hand():
    # What a seed does to all plans alike is no noise.
    assert noise_floor(np.array([[0.5, 0.6], [0.7, 0.8], [0.9, 1.0]])) == pytest.approx(0, abs=1e-9)
    # Residuals are +-0.05, so their variance is 4 * 0.0025 / 1 and that of a mean of two half.
    assert noise_floor(np.array([[0.5, 0.6], [0.7, 0.6]])) == pytest.approx(
        2 * (2 * 0.01 / 2) ** 0.5
    )


def test_spearman_by_hand():
    assert spearman(np.array([1, 2, 3]), np.array([10, 20, 15])) == pytest.approx(0.5)
    assert spearman(np.array([1, 2, 2, 4]), np.array([1, 2, 2, 9])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)


def test_the_summary_ranks_found_plans_against_the_table(tmp_path):
    plans = table(tmp_path / "made.jsonl", [[0.6, 0.6], [0.9, 0.9], [0.3, 0.3]])
    found = tmp_path / "found"
    found.mkdir()
    rows = [{"recipe": "paper", "seed": s, "plan": plans[s]} for s in (0, 1)]
    (found / "made.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = summary("made", Options(recipes=("paper",), tables=tmp_path, out=found))
    by_name = {line[1]: line[2:] for line in lines}
    # Uniform is the second of three; the best has 0.9 and the mean is 0.6.
    assert by_name["uniform 3x3"][1].startswith("50 ")
    assert by_name["uniform 3x3"][2] == "30.00"
    assert by_name["random (expected)"][2] == "30.00"
    assert by_name["paper"][0] == "2"
    assert by_name["paper"][1].startswith("75 ")
    assert by_name["paper"][2] == "15.00"
    assert by_name["paper"][3].startswith("+15.00 ")
