"""The tables, figures and the report of a multi-resolution run."""

import json
from dataclasses import asdict

import pytest
import torch
from effconv_core.runs.metrics import Metrics
from effconv_models import MultiResolutionNet

from tools.train.multi_resolution_report import (
    Outcome,
    depth_sentence,
    draw_grids,
    draw_learning,
    layer_lines,
    moved_sentence,
    table,
    write_outcomes,
)


def outcome(title="learned", before=None, sizes=(4.5, 6.0)):
    names = ("layers.0.block.conv", "layers.1.block.conv")
    return Outcome(
        title,
        parameters=12345,
        macs=2_500_000,
        accuracy=0.875,
        accuracy_before=before,
        grid=[[0.25, 0.75], [0.5, 0.5]],
        effective_sizes=dict(zip(names, sizes)),
    )


def test_cells_of_a_network_by_hand():
    assert outcome().cells() == ("learned", "12,345", "2.5 M", "87.50%", "")
    assert outcome(before=0.5).cells()[-1] == "50.00%"
    assert table([outcome(), outcome("plain")]).row_count == 2


def test_sizes_stand_side_by_side_and_a_missing_layer_is_empty():
    short = outcome("short", sizes=(3.0,))
    lines = layer_lines([outcome(), short])
    assert "| layer | learned | short |" in lines
    assert lines[-2:] == [
        "| layers.0.block.conv | 4.50 | 3.00 |",
        "| layers.1.block.conv | 6.00 |  |",
    ]


def test_how_far_weights_moved_is_told():
    sentence = moved_sentence(outcome())
    assert all(number in sentence for number in ("0.500", "0.250", "0.750"))


def network(**options):
    return MultiResolutionNet(3, 4, resolutions=2, **options)


def test_the_layers_that_the_classifier_sees_are_told():
    learned = network(learned_depth=True)
    with torch.no_grad():
        learned.exit_mixing.copy_(torch.tensor([3.0, 1.0]).log())
    sentence = depth_sentence(learned)
    assert "0.750, 0.250" in sentence
    assert "2 layers" in sentence


@pytest.fixture
def metrics(tmp_path):
    made = Metrics(tmp_path)
    made.log("train", 0, 1, seconds=2.0, effective_sizes=[4.0, 5.0])
    made.log("train", 1, 2, seconds=4.0, effective_sizes=[4.5, 6.0])
    made.close()
    return made


@pytest.mark.parametrize("learned_depth", [True, False])
def test_a_run_has_outcomes_and_a_report(tmp_path, metrics, learned_depth):
    settings = {"layers": 2, "channels": 4, "data": "digits", "learned_depth": learned_depth}
    settings |= {"train": {"epochs": 2}, "tune_epochs": 1}
    config = {"settings": settings, "environment": {"data": "drawn", "torch": "2.9"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    outcomes = [outcome(), outcome("plain", before=0.5)]
    write_outcomes(tmp_path, network(learned_depth=learned_depth), outcomes, metrics)
    assert json.loads((tmp_path / "mixing.json").read_text()) == [asdict(o) for o in outcomes]
    text = (tmp_path / "report.md").read_text()
    for told in ("digits", "drawn", "3.0 s", "| plain | 12,345 | 2.5 M | 87.50% | 50.00% |"):
        assert told in text
    assert (depth_sentence(network(learned_depth=True)) in text) == learned_depth


def test_figures_are_drawn(tmp_path, metrics):
    draw_grids(tmp_path / "a.png", [outcome(title) for title in "abcd"])
    draw_learning(tmp_path / "b.png", network(), metrics)
    for name in ("a.png", "b.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
