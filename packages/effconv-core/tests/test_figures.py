"""What figures show, read from the drawn artists."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from effconv_core import SizePlan, apply_plan, recipe, search
from effconv_core.figures import draw_course, draw_kernels, draw_sizes, kernels_of, save_figure
from torch import nn

PLAN = SizePlan({"a": 3, "b": 5}, {"a": 2.75, "b": 5.25})


def bars(figure):
    axes = figure.axes[0]
    return [(round(b.get_x() + b.get_width() / 2, 6), b.get_height()) for b in axes.patches]


def ticks(figure):
    return [label.get_text() for label in figure.axes[0].get_xticklabels()]


def test_sizes_of_a_plan():
    figure = draw_sizes({"found": PLAN})
    assert bars(figure) == [(0, 3), (1, 5)]
    assert ticks(figure) == ["a", "b"]
    (dots,) = figure.axes[0].lines
    assert dots.get_xydata().tolist() == [[0, 2.75], [1, 5.25]]
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["soft size", "found"]


def test_sizes_of_several_plans_side_by_side():
    other = SizePlan({"b": (1, 7), "a": 4})
    figure = draw_sizes({"one": PLAN, "two": other})
    assert ticks(figure) == ["a", "b", "b axis 0", "b axis 1"]
    # 0.8 of a place for two bars: 0.2 to the left of it and 0.2 to the right.
    assert bars(figure) == [(-0.2, 3), (0.8, 5), (2.2, 1), (3.2, 7), (0.2, 4)]


def test_course_from_steps_of_a_search_and_from_numbers():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1), nn.Flatten(), nn.LazyLinear(2)
    )
    model(torch.zeros(1, 3, 6, 6))
    loader = [(torch.randn(2, 3, 6, 6), torch.tensor([0, 1]))] * 3
    steps = []
    config = recipe("bank", epochs=1, least_steps=0)
    plan = search(model, loader, budget=768, config=config, on_step=steps.append)
    numbers = [step.soft_sizes.tolist() for step in steps]
    for rows in (steps, numbers, np.array(numbers)):
        (line,) = draw_course(rows, plan).axes[0].lines
        assert line.get_label() == "1"
        np.testing.assert_allclose(
            line.get_xydata(), [[n + 1, v] for n, (v,) in enumerate(numbers)]
        )
    by_axis = draw_course([[2.5, 3.5, 4.5]] * 2, SizePlan({"a": 3, "b": (3, 5)})).axes[0]
    assert [line.get_label() for line in by_axis.lines] == ["a", "b axis 0", "b axis 1"]
    with pytest.raises(ValueError, match=r"soft sizes are \(3, 1\) and there are 2 names"):
        draw_course(numbers, ["a", "b"])
    with pytest.raises(ValueError, match=r"soft sizes are \(0,\)"):
        draw_course([], plan)


def test_kernels_of_a_found_network():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Flatten()
    )
    cnn = apply_plan(model, {"0": 3, "1": 4})
    assert cnn[1].kernel_size == (4, 4)
    kernels = kernels_of(cnn, ["0", "1"])
    assert kernels["1"] is cnn[1].weight
    figure = draw_kernels(kernels, columns=5)
    assert len(figure.axes) == 2 * 5
    images = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(images) == 4 + 5  # the first layer has four outputs
    np.testing.assert_array_equal(images[1], kernels["0"][1, 0].detach())
    np.testing.assert_array_equal(images[4], kernels["1"][0, 0].detach())
    low, high = figure.axes[0].images[0].get_clim()
    assert high == -low == kernels["0"][0, 0].detach().abs().max()
    # A pixel is equally large in all.
    assert {tuple(np.diff(axes.get_xlim())) for axes in figure.axes if axes.images} == {(4.0,)}
    for name in ("2", "3"):
        with pytest.raises(
            ValueError, match=f"layer '{name}' is not a convolution of the Sequential"
        ):
            kernels_of(cnn, [name])


def test_kernels_of_one_and_three_axes():
    line, block = torch.randn(2, 3, 5), torch.randn(2, 3, 3, 4, 5)
    figure = draw_kernels({"line": line, "block": block})
    pictures = [axes.images[0].get_array() for axes in figure.axes]
    np.testing.assert_array_equal(pictures[0], line[0, 0][None])
    np.testing.assert_array_equal(pictures[2], block[0, 0, 1])


@pytest.mark.parametrize(("name", "begins"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml")])
def test_files(tmp_path, name, begins):
    save_figure(draw_sizes({"found": PLAN}), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_nothing_to_draw_and_no_format():
    with pytest.raises(ValueError, match="there is no plan to draw"):
        draw_sizes({})
    with pytest.raises(ValueError, match="there is no kernel to draw"):
        draw_kernels({})
    with pytest.raises(ValueError, match=r"figure a\.gif is to be '\.gif'; name a \.png or \.svg"):
        save_figure(draw_sizes({"found": PLAN}), "a.gif")


def test_pyplot_is_not_touched_and_matplotlib_is_asked_for():
    script = """
import sys
for name in ("matplotlib", "tyro", "rich"):
    sys.modules[name] = None
import effconv_core
from effconv_core.cli import main
assert main(["plan", "show", "plan.json"]) == 2
try:
    import effconv_core.figures
except ImportError as error:
    print(error, file=sys.stderr)
del sys.modules["matplotlib"]
import effconv_core.figures
assert "matplotlib.pyplot" not in sys.modules
"""
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    first, *_, last = process.stderr.splitlines()
    assert re.fullmatch(r"effconv: .* needs (tyro|rich); pip install 'effconv-core\[cli\]'", first)
    assert last.endswith("effconv_core.figures needs matplotlib; pip install 'effconv-core[cli]'")
