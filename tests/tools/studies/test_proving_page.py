"""The page of the proving ground."""

import json

from tools.studies.proving_page import facts, proving_page, summary


def rows(path):
    environment = {"commit": "abc", "device": "cpu", "torch": "2", "effconv-core": "1.2.3"}
    said = {"evidence": {"verdict": "better"}, "steps": 10, "environment": environment}
    accuracies = {
        "original": (0.5, 0.6, 0.7),
        "bank": (0.6, 0.8, 0.85),
        "random 0": (0.4, 0.7),
        "random 1": (0.5, 0.5),
    }
    made = [
        {
            "work": "search",
            "method": "bank",
            "seed": s,
            "plan": {"a": 3},
            "cpu_seconds": 1.0,
            **said,
        }
        for s in (0, 1, 2)
    ]
    made += [
        {"work": "training", "method": method, "seed": seed, "accuracy": accuracy}
        | {"plan": {"a": 3}, "cpu_seconds": 2.0, "environment": environment}
        for method, each in accuracies.items()
        for seed, accuracy in enumerate(each)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))


def test_the_page_pairs_seeds(tmp_path):
    path = tmp_path / "smnist196.jsonl"
    rows(path)
    lines = {line.split(" | ")[0].lstrip("| "): line for line in summary(path)[2:]}
    # 10, 20 and 15 points: mean 15, half the interval 4.303 * 5 / sqrt(3) = 12.42.
    assert "| 75.00 % | +15.00 ± 12.42 | 3 of 3 |" in lines["found by `bank`"]
    # Two seeds tell of no interval.
    assert "| 55.00 % | +0.00 | 1 of 2 |" in lines["best of 2 random plans"]
    # Seed 0 takes the best of seed 1, which is random 0; seed 1 that of seed 0, random 1.
    assert "| 45.00 % |" in lines["random plan, the best in the seed before"]
    assert facts(path)["said"] == {"better": ["+10.0", "+20.0", "+15.0"]}
    page = proving_page(tmp_path)
    assert "+10.0, +20.0, +15.0 points" in page
    assert "1.2.3: [3], [3], [3]" in page
    assert "Spoken digits" in page.split("## Not run")[1]
