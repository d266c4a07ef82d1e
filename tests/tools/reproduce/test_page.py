"""The page of the reproduction."""

import json
from pathlib import Path

from tests.tools.reproduce.made_up_result import measured
from tools.reproduce import page
from tools.reproduce.rows import rows_of

ROOT = Path(__file__).parents[3]


def test_the_page_changes_with_a_result(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    path = page.RESULTS / "cifar10-cpu.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["accuracy"] += 0.01
    (tmp_path / path.name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    assert page.results_page()[0] != page.PAGE.read_text(encoding="utf-8")


def test_what_only_a_figure_holds_is_on_the_page_with_its_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    rows = [row for row in rows_of("figure3", "gpu") if row.model == "cifar_resnet26"]
    text = "".join(json.dumps(measured(row, scale="gpu")) + "\n" for row in rows)
    (tmp_path / "cifar10-gpu.jsonl").write_text(text)
    text, _ = page.results_page()
    (section,) = [
        s for s in text.split("\n## ") if s.startswith("Figure 3: depth and budget, scale")
    ]
    assert section.count("EffConv-26 |") == 2
    assert "Not drawn yet" in section
    assert "cifar_resnet26 0.66 M  learned, the paper's recipe  seed 0  3 5" in section
    assert "`hatch run reproduce:figure3 --scale gpu`, commit c0, cpu" in section


def test_what_was_run_in_bfloat16_for_a_claim_is_not_in_the_tables_too(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    scale = "cpu-bfloat16"
    rows = rows_of("claim-cifar10", scale)
    text = "".join(json.dumps(measured(row, scale=scale)) + "\n" for row in rows)
    (tmp_path / f"cifar10-{scale}.jsonl").write_text(text)
    text, _ = page.results_page()
    told = [s.split("\n")[0] for s in text.split("\n## ") if s.split("\n")[0].endswith(scale)]
    titles = ["Figure 3: depth and budget", "Equal cost: CIFAR-10"]
    assert told == [f"{title}, scale {scale}" for title in titles]
    assert f"cifar10, scale {scale}, the paper's recipe: " in text.split("\n## ")[0]
    assert "for 10 epochs (sgd, batch 128, rate 0.1, cosine, in bfloat16)" in text
