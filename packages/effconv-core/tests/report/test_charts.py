"""Where charts put their lines, dots and pictures."""

import base64
import io

import numpy as np
import pytest
import torch
from effconv_core.report.charts import (
    BOTTOM,
    LEFT,
    MOST_POINTS,
    PICTURES,
    RIGHT,
    TOP,
    averaged,
    dot_chart,
    kernel_pictures,
    line_chart,
    percent,
    short,
    small_course,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image


def test_a_line_spans_the_chart_between_its_ticks():
    chart = line_chart("loss", {"a": [(0, 1.0), (50, 2.0), (100, 0.0)]}, form=str)
    (line,) = chart.lines
    (x0, _), (x1, top), (x2, bottom) = line["points"]
    assert (x0, x1, x2) == (LEFT, (LEFT + RIGHT) / 2, RIGHT)
    assert (top, bottom) == (TOP, BOTTOM)
    assert line["end"] == (RIGHT, BOTTOM)
    ticks = {words: place for place, words in chart.x_ticks}
    assert (ticks["0"], ticks["100"]) == (LEFT, RIGHT)


def test_a_level_is_drawn_at_its_value_and_within_the_chart():
    chart = line_chart("cost", {"a": [(1, 10.0)]}, form=short, level=("budget", 30.0))
    assert chart.level["words"] == "30"
    assert TOP <= chart.level["y"] < chart.lines[0]["end"][1] <= BOTTOM


@pytest.mark.parametrize("values", [(100.0,), (0.0,), (0.0, 100.0), (98.0, 99.9), (12.5, 12.5)])
def test_an_axis_of_accuracies_stays_within_0_and_100_percent(values):
    line = line_chart("a", {"a": list(enumerate(values))}, form=percent)
    dots = {str(n): (1000 + n, y) for n, y in enumerate((*values, values[0]))}
    bars = {"0": (values[0], min(values[0] + 1, 100.0))}
    for chart in (line, dot_chart("a", dots, form=percent, bars=bars)):
        ticks = [float(words.rstrip("%")) for _, words in chart.y_ticks]
        assert len(ticks) > 1
        assert min(ticks) >= 0
        assert max(ticks) <= 100
        for drawn in chart.lines:
            assert TOP - 0.1 <= drawn["end"][1] <= BOTTOM + 0.1


def test_a_percentage_that_cannot_be_is_drawn_where_it_is():
    chart = line_chart("a", {"a": [(0, 50.0), (1, 500.0)]}, form=percent)
    assert TOP - 0.1 <= chart.lines[0]["end"][1] < BOTTOM


def test_what_has_no_points_has_no_chart():
    assert line_chart("loss", {"a": []}, form=str) is None
    chart = line_chart("loss", {"a": [], "b": [(1, 1.0)]}, form=str)
    assert [line["title"] for line in chart.lines] == ["b"]


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=20), st.integers(0, 10**9))
def test_every_point_lies_within_the_chart(values, first):
    chart = line_chart("a", {"a": [(first + i, y) for i, y in enumerate(values)]}, form=short)
    for x, y in chart.lines[0]["points"]:
        assert LEFT <= x <= RIGHT
        assert TOP - 0.1 <= y <= BOTTOM + 0.1


def test_a_dearer_dot_is_further_right_and_a_better_one_higher():
    dots = {"a": (1000, 90.0), "b": (2000, 80.0)}
    first, second = (line["end"] for line in dot_chart("t", dots, form=str, bars={}).lines)
    assert first[0] < second[0]
    assert first[1] < second[1]
    assert dot_chart("t", {"a": (1000, 90.0)}, form=str, bars={}) is None


def test_long_courses_are_means_of_equal_parts():
    assert averaged([(1, 2.0), (2, 4.0)]) == [(1, 2.0), (2, 4.0)]
    points = [(step, float(step)) for step in range(2 * MOST_POINTS)]
    found = averaged(points)
    assert len(found) == MOST_POINTS
    assert found[0] == (1, 0.5)
    assert found[-1] == (2 * MOST_POINTS - 1, 2 * MOST_POINTS - 1.5)
    assert len(averaged(points[: MOST_POINTS + 1])) <= MOST_POINTS


def test_a_small_course_fills_its_box():
    found = small_course([(0, 0.0), (5, 4.0), (10, 8.0)], 8.0)
    assert found["points"] == [(2.0, 46.0), (48.0, 24.0), (94.0, 2.0)]
    assert found["end"] == (94.0, 2.0)
    assert small_course([(0, 0.0)], 0.0)["points"] == [(2.0, 46.0)]


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0"), (999, "999"), (9000, "9k"), (-10_500, "-10.5k"), (1.2e6, "1.2M"), (3e9, "3G")],
)
def test_counts_are_short(number, said):
    assert short(number) == said


def pixels(url):
    data = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    return np.array(Image.open(io.BytesIO(data)))


def test_a_picture_has_a_pixel_for_each_tap_as_opaque_as_its_weight():
    weight = torch.zeros(2, 1, 1, 3)
    weight[0, 0, 0] = torch.tensor([-2.0, 0.0, 1.0])
    found = kernel_pictures(weight)
    assert (found["height"], found["width"], found["count"]) == (1, 3, 2)
    below, zero, above = pixels(found["some"][0])[0]
    assert (below[3], zero[3], above[3]) == (255, 0, 128)
    assert tuple(below[:3]) != tuple(above[:3])
    assert pixels(found["some"][1])[..., 3].tolist() == [[0, 0, 0]]
    assert pixels(found["mean"])[0, :, 3].tolist() == [255, 0, 128]
    assert len(kernel_pictures(torch.ones(50, 2, 3, 3))["some"]) == PICTURES


@pytest.mark.parametrize(
    ("weight", "taps", "share"),
    [
        (torch.ones(1, 1, 3, 3), 8 / 9, 8 / 9),
        (torch.ones(1, 1, 4), 1 / 2, 1 / 2),
        (torch.ones(1, 1, 1, 5), 2 / 5, 2 / 5),
        (torch.ones(2, 3, 1, 1), 1.0, 1.0),
        (torch.eye(3)[None, None], 8 / 9, 2 / 3),
        (torch.zeros(1, 1, 3, 3), 8 / 9, None),
        (torch.full((1, 1, 3, 3), torch.inf), 8 / 9, None),
    ],
)
def test_the_rims_share_of_taps_and_squared_weights(weight, taps, share):
    found = kernel_pictures(weight)
    assert found["rim_taps"] == pytest.approx(taps)
    assert found["rim_weight"] == (None if share is None else pytest.approx(share))
