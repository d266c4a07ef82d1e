"""Reports and figures of runs that hold odd values: whole pages, or one sentence."""

import importlib.util
import json
import math
import os
import re
from pathlib import Path

import pytest
import torch
from effconv_core import SizePlan
from effconv_core.cli import main
from effconv_core.figures import draw_course, draw_kernels, draw_sizes, save_figure
from effconv_core.runs.reader import read_run
from safetensors.torch import save_file

spec = importlib.util.spec_from_file_location(
    "report_pages", Path(__file__).with_name("test_report.py")
)
pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pages)
make_run, page_of, check_page = pages.make_run, pages.page_of, pages.check_page


def with_rows(*rows):
    def change(folder):
        text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
        (folder / "metrics.jsonl").write_text(text)

    return change


def with_config(**changes):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def with_weights(**changes):
    def change(folder):
        weights = {"1.weight": torch.ones(8, 8, 3, 3), "2.weight": torch.ones(16, 8, 3, 3)}
        save_file({**weights, **{k.replace("_", "."): v for k, v in changes.items()}}, folder / CNN)

    return change


CNN = "cnn.safetensors"
ROW = {"phase": "search", "epoch": 0, "global_step": 1, "loss": 1.0, "accuracy": 0.5}
DEEP = "[" * 100_000 + "]" * 100_000
HUGE = [{**ROW, "global_step": step} for step in (1, 2)]
# What is done to a run, and what its page says.
ODD = {
    "soft sizes 0": (with_rows({**ROW, "soft_sizes": [0, 0]}), "0.00"),
    "soft sizes below 0": (with_rows({**ROW, "soft_sizes": [-3, -1e30]}), "-3.00"),
    "soft sizes of float64": (with_rows({**ROW, "soft_sizes": [1e308, 1]}), "no soft sizes"),
    "no soft sizes": (with_rows({**ROW, "soft_sizes": []}), "no soft sizes"),
    "loss 1e308": (with_rows(*[{**ROW, "loss": 1e308}] * 3), "not finite from step 1"),
    "loss 1e38": (with_rows(*[{**ROW, "loss": 1e38}] * 300), "Loss in the search"),
    "losses far apart": (
        with_rows({**ROW, "loss": -1e38}, {**ROW, "global_step": 2, "loss": 1e-38}),
        "Loss in the search",
    ),
    "losses close together": (
        with_rows({**ROW, "loss": 1.0}, {**ROW, "global_step": 2, "loss": 1 + 2e-16}),
        "Loss in the search",
    ),
    "NaN": (with_rows(ROW, {**ROW, "global_step": 7, "loss": math.nan}), "from step 7"),
    "infinity": (with_rows({**ROW, "loss": math.inf}), "not finite from step 1"),
    "10^400": (with_rows(ROW, {**ROW, "loss": 10**400}), "1 of 2 lines"),
    "steps below 0": (with_rows(ROW, {**ROW, "global_step": -3}), "1 of 2 lines"),
    "epochs below 0": (with_rows(ROW, {**ROW, "epoch": -5}), "1 of 2 lines"),
    "steps of 10^12": (with_rows(ROW, {**ROW, "global_step": 10**12}), "1,000,000,000,000"),
    "step 0": (with_rows({**ROW, "global_step": 0}), "Loss in the search"),
    "times below 0": (with_rows({**ROW, "seconds": -9.0}), "-9.0 s"),
    "deep row": (with_rows(ROW, DEEP), "1 of 2 lines"),
    "half of a character": (with_rows(ROW, '{"phase": "\\ud800"}'), "1 of 2 lines"),
    "long line": (with_rows(ROW, "x" * (2 << 20), ROW), "1,048,576 bytes"),
    "nothing measured": (with_rows(), "no readings"),
    "many phases": (with_rows(*({**ROW, "phase": f"p{i}"} for i in range(3000))), "3,000 epochs"),
    "deep settings": (with_config(settings={"a": json.loads("[" * 40 + "]" * 40)}), "32 deep"),
    "settings that are none": (with_config(settings=[1]), "$.settings"),
    "budget NaN": (with_config(settings={"budget": math.nan, "model": None}), "nan"),
    "many settings": (
        with_config(settings={f"s{i}": i for i in range(5000)}),
        "Of 5,000 settings",
    ),
    "a layer of another network": (
        with_config(
            network={"layers": {"1": {"channels": [8, 8], "groups": 1, "kernel_size": [3]}}}
        ),
        "87.65%",
    ),
    "a layer without channels": (
        with_config(network={"layers": {"1": {"channels": [0, 8], "groups": 0}}}),
        "network in config.json is not known",
    ),
    "a name that turns": (
        with_config(environment={"device": "\u202ecpu\x1b[2J\u0007"}),
        "u202ecpu",
    ),
    "no taps": (with_weights(**{"1_weight": torch.ones(8, 8, 0, 3)}), "1 layers"),
    "five axes": (with_weights(**{"1_weight": torch.ones(8, 8, 3, 3, 3, 1)}), "1 layers"),
    "no axis": (with_weights(**{"1_weight": torch.ones(8)}), "1 layers"),
    "integers": (
        with_weights(**{"1_weight": torch.ones(8, 8, 3, 3, dtype=torch.int8)}),
        "1 layers",
    ),
    "half precision": (with_weights(**{"1_weight": torch.ones(8, 8, 3, 3).half()}), "3x3"),
    "weights NaN": (with_weights(**{"1_weight": torch.full((8, 8, 3, 3), math.nan)}), "3x3"),
    "weights of 1e30": (with_weights(**{"1_weight": torch.full((8, 8, 3, 3), 1e30)}), "3x3"),
    "weights infinite": (with_weights(**{"1_weight": torch.full((8, 8, 3, 3), math.inf)}), "3x3"),
    "weights that are text": (
        lambda folder: (folder / CNN).write_text("weights"),
        "cannot be read",
    ),
    "an accuracy of 300 %": (
        lambda folder: (folder / "result.json").write_text(
            '{"networks": {"learned": {"test_accuracy": 3}}}'
        ),
        "accuracies are not known",
    ),
    "a result that is none": (
        lambda folder: (folder / "result.json").write_text("[1]"),
        "accuracies are not known",
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_a_run_of_odd_values_is_reported(case, tmp_path):
    change, said = ODD[case]
    folder = make_run(tmp_path / "run")
    change(folder)
    text, page = page_of([folder], tmp_path / "r.html")
    check_page(text, page)
    assert said in page.text
    assert len(text) < 3_000_000
    for points in re.findall(r'(?:points|cx|cy|x1|y1)="([^"]*)"', text):
        assert all(-2000 < float(n) < 2000 for n in re.split("[ ,]+", points.strip()) if n)
    assert "nan%" not in page.text
    text, page = page_of([folder, make_run(tmp_path / "other")], tmp_path / "both.html")
    check_page(text, page)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "result.json", CNN])
def test_a_pipe_in_a_run_is_not_waited_for(name, tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert name in page_of([folder], tmp_path / "r.html")[1].text


def test_a_run_of_thousands_of_layers_has_a_page_and_figures_that_can_be_looked_at(tmp_path):
    names = [f"features.{i}.conv" for i in range(3000)]
    folder = tmp_path / "run"
    folder.mkdir()
    SizePlan(dict.fromkeys(names, 3), dict.fromkeys(names, 3.75)).save(folder / "plan.json")
    with_rows({**ROW, "soft_sizes": [3.75] * 3000})(folder)
    text, page = page_of([folder], tmp_path / "r.html")
    check_page(text, page)
    assert "Of 3,000 soft sizes the course of the first 200" in page.text
    assert len(text) < 3_000_000
    assert main(["plan", "show", str(folder / "plan.json"), "--out", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").stat().st_size < 2_000_000


def test_what_a_report_reads_of_a_file_is_limited(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run")
    monkeypatch.setattr("effconv_core.runs.reader.MOST_ROWS", 5)
    run = read_run(folder)
    assert len(run.rows) == 5
    assert any("first 5 readings" in sentence for sentence in run.missing)


@pytest.mark.parametrize("name", ["$\\frac{$", "\x1b[2J", "a" * 500])
def test_names_are_no_formulas_in_figures(name, tmp_path):
    plan = SizePlan({name: 3, "other": 5}, {name: 3.5, "other": 4.5})
    save_figure(draw_sizes({name: plan}), tmp_path / "a.svg")
    save_figure(draw_course([[1.0, 2.0]], plan), tmp_path / "b.svg")
    save_figure(draw_kernels({name: torch.ones(2, 2, 3, 3)}), tmp_path / "c.svg")
    assert "\x1b" not in "".join(p.read_text() for p in tmp_path.iterdir())
