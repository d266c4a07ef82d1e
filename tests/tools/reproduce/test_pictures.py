"""The figures of the reproduction."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.tools.reproduce.made_up_result import compared
from tools.reproduce import pictures
from tools.reproduce.rows import SCALES, Row
from tools.reproduce.run import run_name


def test_accuracy_is_drawn_over_depth_and_budget():
    def result(model, budget, accuracy, seed=0):
        made = compared("found", accuracy, seed)
        made["row"] |= {"model": model, "budget": budget}
        return made

    deep = [result(f"cifar_resnet{depth}", 0.66e6, depth / 100) for depth in (20, 32)]
    wide = [result("cifar_resnet20", 0.1e6, 0.1, seed) for seed in (0, 1)]
    drawn = list(pictures.course_pictures("gpu", deep + wide))
    assert len(drawn) == 2
    over_budget, over_depth = (draw() for _, _, draw in drawn)
    accuracies, seconds = over_budget.axes
    assert accuracies.lines[0].get_xydata().tolist() == pytest.approx(
        np.array([[0.1, 10], [0.66, 20]])
    )
    assert seconds.lines[0].get_xydata().tolist() == pytest.approx(
        np.array([[0.1, 1.5], [0.66, 1]])
    )
    assert over_depth.axes[0].lines[0].get_xydata()[:, 0].tolist() == [20, 32]
    assert not list(pictures.course_pictures("gpu", deep[:1]))
    moved = pictures.course_pictures("gpu", [*deep, *wide[:1]])
    assert {name for name, _, _ in moved} != {name for name, _, _ in drawn}


def test_kernels_are_drawn_from_the_first_seed(tmp_path):
    rows = [compared("found", 0.5, seed) for seed in (0, 1)]
    for row in rows:
        row["row"]["budget"] = SCALES["gpu"]["cifar10"].kernels_of
        row["sizes"] = {"b": 3, "a": 2}
        place = tmp_path / "kernels" / "cifar10-gpu"
        place.mkdir(parents=True, exist_ok=True)
        kernels = {"a": torch.ones(10, 1, 2, 2), "b": torch.ones(10, 1, 3, 3)}
        save_file(kernels, place / f"{run_name(Row(**row['row']), row['seed'])}.safetensors")
    ((name, caption, draw),) = pictures.kernel_pictures(tmp_path, "cifar10", "gpu", rows)
    assert name.startswith("kernels-gpu-found-")
    assert "EffConv-20" in caption
    labels = [text.get_text() for cell in draw().axes for text in cell.texts]
    assert labels == ["b\n3x3", "a\n2x2"]


def test_sizes_of_all_seeds_are_drawn_side_by_side():
    rows = [compared("found", 0.5, seed) for seed in (0, 1)]
    for row in rows:
        row["row"]["budget"] = SCALES["gpu"]["cifar10"].kernels_of
    ((name, caption, draw),) = pictures.size_pictures("gpu", rows)
    assert name.startswith("plans-gpu-found-")
    assert "EffConv-20 of 0.66 M" in caption
    heights = [[bar.get_height() for bar in seed] for seed in draw().axes[0].containers]
    assert heights == [[3, 3], [3, 4]]
    rows[1]["sizes"] = {"a": 3, "b": 5}
    assert next(pictures.size_pictures("gpu", rows))[0] != name
    assert not list(pictures.size_pictures("gpu", []))
