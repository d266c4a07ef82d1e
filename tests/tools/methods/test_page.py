"""The page of the comparison of methods: all rows, and the ratios that it prints."""

import json
from pathlib import Path

from tools.methods import page
from tools.methods.networks import METHODS

ROOT = Path(__file__).parents[3]


def made_up_cost():
    rows = []
    for image_size in (32, 96):
        for method in METHODS:
            names = {"effconv": ["search, paper recipe"], "multi-resolution": ["mixing"]}
            seconds = {"train": 2.0, **dict.fromkeys(names.get(method, []), 4.0)}
            if method == "flexnet":
                seconds["train"] = 10.0
            told = {n: {"median": s, "p20": s, "p80": s} for n, s in seconds.items()}
            rows.append(
                {
                    "method": method,
                    "size": "paper",
                    "image_size": image_size,
                    "batch_size": 50,
                    "parameters": 660_000,
                    "macs": 10**8,
                    "peak_memory_mib": 500,
                    "seconds": told,
                }
            )
    environment = {"commit": "c", "device": "cpu", "torch": "2"}
    return {"rounds": 3, "environment": environment, "rows": rows}


def test_the_page_tells_the_ratios_beside_the_papers(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    (tmp_path / "cost-cpu.json").write_text(json.dumps(made_up_cost()))
    said = page.methods_page()
    assert "5.0 times a training step, 2.5 times a step of the paper's search" in said
    # 127 / 17.77 and 1800 / 13.2.
    assert "The paper states 7.1 times" in said
    assert "The paper states 136.4 times" in said
    # 50,000 pictures in batches of 50 at 10 s.
    assert "| FlexNet | 0.66 M | 100 M | train | 10000 (10000 to 10000) | 10000 | 500 |" in said
    assert "- cost on cuda" in said
    assert "- cost on cpu" not in said


def test_the_page_is_what_the_results_give(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert page.PAGE.read_text(encoding="utf-8") == page.methods_page()
