"""The comparison: equal budgets, honest costs, resumption, and what its page says."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from effconv_core import SearchableCNN

from tools.studies import baselines as peers
from tools.support.rows import changed_since
from tools.versus import page
from tools.versus.__main__ import allowed_steps, open_results
from tools.versus.autonas import autonas
from tools.versus.count import Count
from tools.versus.runs import given_plans, train_found
from tools.versus.scales import SCALES

ROOT = Path(__file__).parents[3]
MEASURED = ROOT / page.RESULTS / "cpu.jsonl"
DATA = os.environ.get("EFFCONV_DATA")
needs_cifar10 = pytest.mark.skipif(
    not DATA or not (Path(DATA) / "cifar10" / "index.json").is_file(),
    reason="EFFCONV_DATA holds no CIFAR-10",
)


def test_a_forward_pass_counts_a_third_of_a_step():
    count = Count()
    outputs, targets = torch.zeros(4, 10, requires_grad=True), torch.zeros(4, dtype=torch.long)
    count.criterion(outputs, targets).backward()
    with torch.no_grad():
        for _ in range(3):
            count.criterion(outputs, targets)
    count.forward(0.5)
    assert (count.steps, count.forwards) == (1, 3.5)
    assert count.equivalent == pytest.approx(1 + 3.5 / 3)


def test_tpe_is_allowed_what_effconv_of_the_same_seed_cost():
    rows = [
        {"run": "search", "method": "EffConv", "seed": seed, "steps": 100 + seed, "forwards": 50.0}
        for seed in range(2)
    ]
    assert allowed_steps(rows, "TPE", 1) == 117  # 101 + 50 / 3, rounded down
    assert allowed_steps(rows, "AutoNAS", 1) is None


@needs_cifar10
def test_every_plan_that_tpe_trains_is_at_the_budget(monkeypatch):
    space, costs, steps = SCALES["smoke"].space("cpu"), [], []
    searchable = SearchableCNN(space.network(0))

    def train(trial, allowed):
        costs.append(searchable.cost(list(trial.plan.values())))
        steps.append(allowed)
        return float(len(costs))

    monkeypatch.setattr(peers.Trial, "train", train)
    plan = peers.tpe(space, 85, 0)
    assert len(set(costs)) > 1
    assert all(abs(cost / space.budget - 1) <= 0.02 for cost in costs)
    assert sum(steps) == 80  # eight trials of as many steps, within the 85
    assert searchable.cost(list(plan.values())) == costs[0]


@needs_cifar10
@pytest.mark.parametrize("scale", ["smoke", "cpu"])
def test_given_plans_are_at_the_budget_and_differ(scale):
    space, plans = SCALES[scale].space("cpu"), given_plans(scale)
    searchable = SearchableCNN(space.network(0))
    assert list(plans["uniform"].values()) == [3] * len(searchable.layers)
    assert len({tuple(plan.values()) for plan in plans.values()}) == len(plans)
    assert len(plans) == 1 + SCALES[scale].random_plans
    for plan in plans.values():
        assert abs(searchable.cost(list(plan.values())) / space.budget - 1) <= 0.02


def test_results_of_other_settings_are_refused_and_failures_tried_again(tmp_path):
    path = tmp_path / "results" / "smoke.jsonl"
    open_results(path, "smoke")
    good, bad = {"run": "search", "plan": {}}, {"run": "search", "failed": "no"}
    text = path.read_text()
    path.write_text(text + json.dumps(bad) + "\n" + json.dumps(good) + "\n" + '{"cut')
    open_results(path, "smoke")
    assert path.read_text() == text + json.dumps(good) + "\n"
    with pytest.raises(ValueError, match=r"made with another scale, network.* delete it"):
        open_results(path, "gpu")


@needs_cifar10
@pytest.mark.long
def test_a_killed_comparison_goes_on_and_treats_all_alike(tmp_path):
    path = tmp_path / "smoke.jsonl"
    command = [sys.executable, "-m", "tools.versus", "--scale", "smoke", "--seeds", "1"]
    command += ["--device", "cpu", "--out", str(tmp_path)]

    def start():
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    first = start()
    while first.poll() is None and (not path.exists() or len(page.read_rows(path)) < 4):
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = [row for row in page.read_rows(path) if "failed" not in row]
    assert {row["method"] for row in before[1:]} >= {"EffConv", "TPE"}
    with path.open("a") as file:
        file.write('{"run": "trai')
    second = start()
    said = second.communicate()[0]
    assert second.returncode == 0

    header, *rows = page.read_rows(path)
    assert [row for row in [header, *rows] if "failed" not in row][: len(before)] == before
    assert header["pictures"] == SCALES["smoke"].pictures
    runs = [(row["run"], row["method"]) for row in rows]
    assert len(set(runs)) == len(runs)
    found = {"EffConv", "TPE"} | ({"AutoNAS"} if ("training", "AutoNAS") in runs else set())
    trained = {method for run, method in runs if run == "training"}
    assert trained == {*found, "uniform", "random 0", "random 1"}
    for row in rows:
        if "failed" not in row:
            assert abs(row["parameters"] / row["budget"] - 1) <= 0.02
    ((line,), searched) = (
        [row for row in rows if (row["run"], row["method"]) == ("training", "uniform")],
        {row["method"]: row for row in rows if row["run"] == "search"},
    )
    alone = train_found("smoke", "uniform", line["plan"], 0, "cpu")
    assert (alone["accuracy"], alone["parameters"]) == (line["accuracy"], line["parameters"])
    # An epoch has 20 steps; 4 finalists see 2 batches each, then 2 see 4.
    mine, peer = searched["EffConv"], searched["TPE"]
    assert (mine["steps"], mine["forwards"], mine["epochs"]) == (20, 16, round(76 / 60, 4))
    assert peer["search"]["allowed_steps"] == 25
    assert (peer["steps"], peer["forwards"], peer["epochs"]) == (24, 0, 1.2)
    if importlib.util.find_spec("modelopt"):
        assert searched["AutoNAS"]["search"]["modelopt"]
    else:
        assert searched["AutoNAS"]["failed"] == "ModuleNotFoundError: No module named 'modelopt'"
        assert "AutoNAS did not run: ModuleNotFoundError: No module named 'modelopt'" in said
    for method in ("EffConv", "3x3", "random", "TPE", "AutoNAS"):
        assert method in said


@needs_cifar10
@pytest.mark.skipif(not importlib.util.find_spec("modelopt"), reason="ModelOpt is not installed")
def test_autonas_gives_odd_sizes_at_the_budget():
    torch.set_num_threads(1)
    space, settings, count = SCALES["smoke"].space("cpu"), SCALES["smoke"].autonas, Count()
    plan, told = autonas(space, settings, 0, count)
    searchable = SearchableCNN(space.network(0))
    assert list(plan) == searchable.layers
    assert set(plan.values()) <= {1, 3, 5, 7}
    assert abs(searchable.cost(list(plan.values())) / space.budget - 1) <= 0.02
    assert count.steps == 2 * 20
    assert count.forwards > told["subnets_scored"]
    assert told["iterations"] == settings.settings["num_iters"]


def training(method, seed, accuracy, plan=(3, 3)):
    return {
        "run": "training",
        "method": method,
        "seed": seed,
        "plan": dict(zip("ab", plan)),
        "parameters": 100,
        "accuracy": accuracy,
        "seconds": 10.0,
    }


def test_the_outcome_is_paired_by_seed():
    rows = [training("EffConv", seed, value) for seed, value in enumerate((0.50, 0.54, 0.52))]
    for seed in range(3):
        rows += [training("random 0", seed, 0.50), training("random 1", seed, 0.48)]
        rows += [training("uniform", seed, 0.30 + 0.02 * seed)]
    told = page.outcome(rows)
    # Differences of 20, 22 and 18 points: mean 20, standard error 2 / sqrt(3), t = 4.303.
    assert told[0] == (
        "EffConv against 3x3 everywhere: better beyond the interval, +20.00 points (95 % interval "
        "+15.03 to +24.97, 3 seeds)."
    )
    # 1, 5 and 3 points against the mean of the random plans.
    assert "no difference can be told, +3.00 points (95 % interval -1.97 to +7.97" in told[1]
    assert len(told) == 2
    assert page.highest(rows) == "The highest mean is that of EffConv, default recipe: 52.00 %."
    assert page.highest(rows[3:]) == "The highest mean is that of random plans: 49.00 %."
    assert "one pair, so no interval" in page.outcome([*rows[:1], training("TPE", 0, 0.4)])[0]


def test_a_methods_line_adds_its_search_to_its_training():
    rows = [training("TPE", 0, 0.5), training("TPE", 1, 0.6), training("random 0", 0, 0.4)]
    rows += [
        {"run": "search", "method": "TPE", "seed": seed, "plan": {}, "epochs": 2.0, "seconds": 5.0}
        for seed in range(2)
    ]
    rows += [{"run": "search", "method": "AutoNAS", "seed": 0, "failed": "ImportError: gone"}]
    cells = {line.method: line.cells() for line in page.lines(rows)}
    assert cells["TPE"][1:] == ["100", "55.00 ± 7.07", "2", "2.00", "5.0", "10.0", "15.0"]
    assert cells["random"][1:] == ["100", "40.00", "1", "0", "0.0", "10.0", "10.0"]
    assert cells["AutoNAS"][1] == "not run"
    assert page.failures(rows) == ["AutoNAS did not run: ImportError: gone"]


def test_the_note_says_what_autonas_could_choose_from():
    settings = {"train": {"epochs": 20}, "autonas": {"epochs_factor": 2, "settings": {"a": 1}}}
    rows = [
        {
            "run": "search",
            "method": "AutoNAS",
            "seed": seed,
            "plan": {},
            "search": {"subnets_scored": scored},
        }
        for seed, scored in ((1, 7), (0, 4))
    ]
    said = page.autonas_note(settings, rows)
    assert said.startswith("AutoNAS trained its supernet for 40 epochs and searched it with a 1. ")
    assert said.endswith("by seed: 4, 7.")
    settings["autonas"]["settings"] = {}
    assert page.autonas_note(settings, []).endswith("searched it with its defaults.")


def test_the_page_is_what_the_results_give():
    assert (ROOT / page.PAGE).read_text(encoding="utf-8") == page.versus_page()


def test_the_page_changes_with_a_result(tmp_path, monkeypatch):
    text = MEASURED.read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    next(row for row in rows if row.get("run") == "training")["accuracy"] += 0.01
    (tmp_path / "cpu.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    assert page.versus_page() != (ROOT / page.PAGE).read_text(encoding="utf-8")


def test_the_committed_results_keep_the_rules():
    header, *rows = page.read_rows(MEASURED)
    settings = {"scale": "cpu", **asdict(SCALES["cpu"])}
    del settings["seeds"]
    assert changed_since(header, settings) == []
    assert changed_since(header, {**settings, "pictures": 1}) == ["pictures"]
    searches = {(row["method"], row["seed"]): row for row in rows if row["run"] == "search"}
    for row in rows:
        if "failed" not in row:
            assert abs(row["parameters"] / row["budget"] - 1) <= 0.02
            assert not row["environment"]["commit"].endswith("-dirty")
    seeds = {seed for _, seed in searches}
    assert len(seeds) >= 2
    for seed in seeds:
        assert searches["TPE", seed]["epochs"] <= searches["EffConv", seed]["epochs"]
