"""The reproduction: what its tables consist of, that it resumes, and what its page says."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.reproduce import page
from tools.reproduce.rows import SCALES, TABLES, rows_of
from tools.reproduce.run import run_name

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("table", TABLES)
def test_every_run_has_a_folder_of_its_own(table, scale):
    rows = rows_of(table, scale)
    assert rows
    assert len({run_name(row, 0) for row in rows}) == len(rows)


def test_table2_holds_the_papers_networks_and_the_controls():
    rows = rows_of("table2", "paper")
    learned = {(row.label, row.budget) for row in rows if row.sizes == "paper"}
    assert {budget for label, budget in learned if label == "EffConv-20"} == {
        0.10e6,
        0.20e6,
        0.27e6,
        0.50e6,
        0.66e6,
    }
    assert {label for label, _ in learned} == {
        "EffConv-20",
        "EffConv-32",
        "EffConv-44",
        "EffConv-56",
        "Wide-EffConv-28-1",
    }
    at_066 = [row.sizes for row in rows if row.model == "cifar_resnet20" and row.budget == 0.66e6]
    assert sum(sizes.startswith("random") for sizes in at_066) == 10
    assert {"uniform", "reversed", "other seed", "found", "paper"} <= set(at_066)


def made_up(sizes, accuracy, seed, label="control"):
    row = {
        "table": "table2",
        "data": "cifar10",
        "model": "cifar_resnet20",
        "budget": 0.66e6,
        "sizes": sizes,
        "label": label,
    }
    return {"row": row, "seed": seed, "accuracy": accuracy}


def test_the_answer_is_a_paired_test():
    rows = []
    for seed, found in enumerate((0.80, 0.84, 0.82)):
        rows += [made_up("found", found, seed, "EffConv-20")]
        rows += [made_up(f"random {i}", 0.79 + 0.02 * i, seed) for i in range(2)]
    said = page.answer({("table2", "gpu"): rows})
    # Differences 0, 4 and 2 points: mean 2, standard error 2 / sqrt(3), t of two degrees 4.303.
    assert "no difference that counts: +2.00 points (95 % interval -2.97 to +6.97, 3 pairs" in said

    def moved(points):
        return [
            {**row, "accuracy": row["accuracy"] + points * (row["row"]["sizes"] == "found") / 100}
            for row in rows
        ]

    assert "yes: +12.00 points" in page.answer({("table2", "gpu"): moved(10)})
    assert "no: -18.00 points" in page.answer({("table2", "gpu"): moved(-20)})
    one = page.answer({("table2", "cpu"): rows[:3]})
    assert "+0.00 points against the mean of 2 random plans" in one
    assert "no interval" in one
    assert "Not measured yet" in page.answer({("table2", "cpu"): []})


def test_the_page_is_what_the_results_give():
    assert (ROOT / page.PAGE).read_text(encoding="utf-8") == page.page()


def test_the_page_changes_with_a_result(tmp_path, monkeypatch):
    (path,) = (ROOT / page.RESULTS).glob("table2-cpu.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["accuracy"] += 0.01
    (tmp_path / path.name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    assert page.page() != (ROOT / page.PAGE).read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path):
    data = os.environ.get("EFFCONV_DATA")
    if not data or not (Path(data) / "mnist" / "index.json").is_file():
        pytest.skip("EFFCONV_DATA holds no MNIST")

    def start(name):
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tools.reproduce",
                "table1",
                "--scale",
                "smoke",
                "--device",
                "cpu",
                "--runs",
                str(tmp_path / name / "runs"),
                "--out",
                str(tmp_path / name),
            ],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def outcome(name):
        lines = (tmp_path / name / "table1-smoke.jsonl").read_text().splitlines()
        keys = ("row", "seed", "sizes", "parameters", "accuracy")
        return [{key: json.loads(line)[key] for key in keys} for line in lines]

    assert start("whole").wait() == 0
    source, kills = random.Random(0), 0
    while True:
        process = start("killed")
        until = time.monotonic() + source.uniform(1.5, 5)
        while process.poll() is None and time.monotonic() < until and kills < 10:
            time.sleep(0.05)
        if process.poll() is None and kills < 10:
            process.send_signal(signal.SIGKILL)
            kills += 1
        if process.wait() == 0:
            break
    assert kills >= 4
    assert outcome("killed") == outcome("whole")
