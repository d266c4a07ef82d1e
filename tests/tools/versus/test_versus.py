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
from effconv_core import SearchableCNN

from tools.studies import baselines as peers
from tools.support.rows import changed_since
from tools.versus import page
from tools.versus.__main__ import allowed_steps, open_results
from tools.versus.runs import train_found
from tools.versus.scales import SCALES

ROOT = Path(__file__).parents[3]
MEASURED = ROOT / page.RESULTS / "cpu.jsonl"
DATA = os.environ.get("EFFCONV_DATA")
needs_cifar10 = pytest.mark.skipif(
    not DATA or not (Path(DATA) / "cifar10" / "index.json").is_file(),
    reason="EFFCONV_DATA holds no CIFAR-10",
)


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


def test_results_of_other_settings_are_refused_and_failures_tried_again(tmp_path):
    path = tmp_path / "results" / "smoke.jsonl"
    open_results(path, "smoke")
    good, bad = {"run": "search", "plan": {}}, {"run": "search", "failed": "no"}
    text = path.read_text()
    path.write_text(text + json.dumps(bad) + "\n" + json.dumps(good) + "\n" + '{"cut')
    open_results(path, "smoke")
    assert path.read_text() == text + json.dumps(good) + "\n"
    with pytest.raises(ValueError, match=r"scale, network"):
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
