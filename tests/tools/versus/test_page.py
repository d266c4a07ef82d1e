"""The page of the comparison, from rows that are made up and from the committed ones."""

import json
from pathlib import Path

from tools.versus import page

ROOT = Path(__file__).parents[3]

MEASURED = ROOT / page.RESULTS / "cpu.jsonl"


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
    assert page.highest(rows) == "The highest mean is that of EffConv, recipe bank: 52.00 %."
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
