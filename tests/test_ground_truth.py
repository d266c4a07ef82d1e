"""The instruments that say how good a search is."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from effconv_core import SearchableCNN, apply_plan, recipe
from rich.console import Console

from tools.ground_truth import open_table, train_plan
from tools.jobs import current_rows, read_rows, run_jobs
from tools.peers import Trial, halving, steps_allowed, tpe
from tools.score_search import Options, noise_floor, reversed_plan, summary, truth
from tools.spaces import SPACES, TABLES


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


def test_rows_made_with_other_settings_are_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"recipe": "paper", "seed": 3, "config": asdict(recipe("paper", seed=3))}]
    rows += [{"recipe": "TPE", "seed": 3}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert current_rows(path, "recipe", {"paper": recipe("paper")}) == rows
    with pytest.raises(ValueError, match="a row of 'paper' made with another epochs; delete"):
        current_rows(path, "recipe", {"paper": recipe("paper", epochs=3)})


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
    """Write a table of the first plans of planted-5, and of one that is not near its budget."""
    plans = SPACES["planted-5"].plans()
    far = {"see": 7, "mix1": 7, "mix2": 7, "mix3": 7}
    rows = [{"table": "planted-5"}]
    for plan, values in zip([far, *plans], accuracies):
        rows += [
            {"plan": plan, "seed": s, "accuracy": value, "cpu_seconds": 4.0}
            for s, value in enumerate(values)
        ]
    path.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows[1:])))
    path.write_text(json.dumps(rows[0]) + "\n" + path.read_text())
    return plans


def test_truth_gathers_the_trainings_of_each_plan_near_the_budget(tmp_path):
    values = [[0.99, 0.99]] + [[0.01 * i, 0.02 * i] for i in range(22)]
    plans = table(tmp_path / "planted-5.jsonl", values)
    found, accuracies = truth("planted-5", tmp_path)
    assert found == plans
    assert accuracies.tolist() == values[1:]
    table(tmp_path / "planted-5.jsonl", [*values[:-1], [0.5]])
    with pytest.raises(ValueError, match="run bench:ground-truth to its end"):
        truth("planted-5", tmp_path)
    table(tmp_path / "planted-5.jsonl", values[:-1])
    with pytest.raises(ValueError, match="run bench:ground-truth to its end"):
        truth("planted-5", tmp_path)


def test_a_table_of_every_plan_serves_spaces_of_several_budgets():
    every = TABLES["every"].table_plans()
    assert len(every) == 7**3
    budgets = {SPACES[name].budget for name in ("every-4", "every-5", "every-6")}
    assert len(budgets) == 3
    for name in ("every-4", "every-5", "every-6"):
        plans = SPACES[name].plans()
        assert len(plans) > 1
        assert all(plan in every for plan in plans)
        assert dict.fromkeys(plans[0], SPACES[name].uniform) in plans


def test_noise_floor_by_hand():
    # What a seed does to all plans alike is no noise.
    assert noise_floor(np.array([[0.5, 0.6], [0.7, 0.8], [0.9, 1.0]])) == pytest.approx(0, abs=1e-9)
    # Residuals are +-0.05, so their variance is 4 * 0.0025 / 1 and that of a mean of two half.
    assert noise_floor(np.array([[0.5, 0.6], [0.7, 0.6]])) == pytest.approx(
        2 * (2 * 0.01 / 2) ** 0.5
    )


def test_the_summary_ranks_found_plans_against_the_table(tmp_path):
    values = [[0.99] * 2] + [[0.60] * 2] * 22
    uniform = SPACES["planted-5"].plans().index({"see": 3, "mix1": 3, "mix2": 3, "mix3": 3})
    values[1 + uniform], best, worst = [0.7] * 2, 0, 1
    values[1 + best], values[1 + worst] = [0.8] * 2, [0.5] * 2
    plans = table(tmp_path / "planted-5.jsonl", values)
    found = tmp_path / "found"
    found.mkdir()
    rows = [
        {"recipe": "paper", "seed": s, "plan": plans[p], "cpu_seconds": 3.0}
        for s, p in enumerate((best, worst))
    ]
    (found / "planted-5.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = summary("planted-5", Options(recipes=("paper",), tables=tmp_path, out=found))
    by_name = {line[1]: line[2:] for line in lines}
    # The table's mean is (0.8 + 0.7 + 0.5 + 19 * 0.6) / 22 = 0.6091.
    assert by_name["random (expected)"][2] == "19.09"
    assert by_name["uniform"][1].startswith("95 ")  # better than 20 of 21
    assert by_name["uniform"][2] == "10.00"
    # The best of either training is that of the other too.
    assert by_name["all trained once"] == [
        "2",
        "100 [100, 100]",
        "0.00",
        "+19.09 [+19.09, +19.09]",
        "22.00",
    ]
    assert by_name["paper"][0] == "2"
    assert by_name["paper"][1].startswith("50 ")
    assert by_name["paper"][2] == "15.00"
    assert by_name["paper"][3].startswith("+4.09 ")
    assert by_name["paper"][4] == "0.75"


@pytest.mark.slow
@pytest.mark.parametrize("peer", [tpe, halving])
def test_a_peer_finds_a_plan_near_the_budget_at_a_fifth_of_a_training(peer, monkeypatch):
    steps = 0

    def counted(trial, allowed, train=Trial.train):
        nonlocal steps
        steps += allowed
        return train(trial, allowed)

    monkeypatch.setattr(Trial, "train", counted)
    space = SPACES["every-4"]
    assert peer(space, steps_allowed(space), 0) in space.plans()
    # 20 epochs of 31 steps, divided by 5; what does not divide evenly is not used.
    assert steps_allowed(space) == 124
    assert 0.9 * 124 <= steps <= 124


def test_a_reversed_plan_is_the_nearest_within_the_budget():
    space = SPACES["every-5"]
    plan = {"see": 7, "mix1": 5, "mix2": 4}
    found = reversed_plan("every-5", plan)
    distances = [
        abs(other["see"] - 4) + abs(other["mix1"] - 5) + abs(other["mix2"] - 7)
        for other in space.plans()
    ]
    assert distances[space.plans().index(found)] == min(distances)
