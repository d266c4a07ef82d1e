"""The report's classes and mistakes, its error bars, and what a run keeps of its tests."""

import base64
import importlib.util
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from effconv_core.engine.by_class import evaluate_by_class, interval
from effconv_core.report.comparison import compare, over_seeds
from effconv_core.runs.reader import read_run
from effconv_core.runs.tests import record, write_tests
from PIL import Image
from torch import nn

spec = importlib.util.spec_from_file_location(
    "report_pages", Path(__file__).with_name("test_report.py")
)
pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pages)
BAD, check_page, make_run, page_of = pages.BAD, pages.check_page, pages.make_run, pages.page_of


class Means(nn.Module):
    """Scores of three classes: a pixel's value in each channel."""

    def forward(self, images):
        return images[:, :, 0, 0]


@pytest.fixture
def run(tmp_path):
    """A finished run with the test of a network on twelve images."""
    folder = make_run(tmp_path / "run")
    images = torch.randn(12, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(12) % 3
    outcome = evaluate_by_class(Means(), [(images, labels)], worst=4)
    names = ("ash", BAD, "cat")
    tests = {"learned": record(outcome, names, [0.5] * 3, [0.2] * 3)}
    write_tests(folder, tests)
    return folder, outcome, images


def test_classes_and_mistakes_are_told_above_the_kernels(run, tmp_path):
    folder, outcome, _ = run
    text, page = page_of([folder], tmp_path / "r.html")
    check_page(text, page)
    assert BAD in page.text
    for label in range(3):
        right = int(outcome.confusion[label, label])
        low, high = interval(right / 4, 4)
        assert f"4 {right} {right / 4:.1%} {low:.1%} to {high:.1%}" in page.text
    pictures = [a for a in page.named("img") if a["src"].startswith("data:image/png;base64,")]
    assert outcome.mistakes
    assert len(pictures) >= len(outcome.mistakes)
    for mistake in outcome.mistakes:
        assert f"{mistake.probability:.1%} sure, image {mistake.index + 1}" in page.text
    order = [page.ids.index(f"run-1-{part}") for part in ("curves", "classes", "kernels")]
    assert order == sorted(order)


def test_a_kept_picture_is_the_image_before_it_was_normalised(run):
    folder, outcome, images = run
    kept = read_run(folder).tests["learned"]
    for mistake, record_ in zip(outcome.mistakes, kept.mistakes, strict=True):
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(record_.png))))
        expected = (images[mistake.index] * 0.2 + 0.5).clamp(0, 1) * 255
        assert np.abs(picture - expected.permute(1, 2, 0).numpy()).max() <= 1
    assert kept.confusion == outcome.confusion.tolist()


def test_many_classes_have_counts_and_no_matrix():
    outcome = evaluate_by_class(nn.Identity(), [(torch.eye(150), torch.arange(150))])
    kept = record(outcome, (), None, None)
    assert (kept.confusion, len(kept.counts), kept.mistakes) == ([], 150, [])


@pytest.mark.parametrize(
    "content",
    [
        "{",
        '{"learned": {"counts": [[1, 2, 3]]}}',
        '{"learned": {"mistakes": [{"index": 1, "label": 0, "guess": 1, "probability": 2}]}}',
        json.dumps(
            {
                "learned": {
                    "mistakes": [
                        {"index": 1, "label": 0, "guess": 1, "probability": 0.5, "png": '"><b>'}
                    ]
                }
            }
        ),
    ],
)
def test_a_damaged_file_is_said_and_the_rest_is_told(run, tmp_path, content):
    folder, *_ = run
    (folder / "test.json").write_text(content)
    text, page = page_of([folder], tmp_path / "r.html")
    check_page(text, page)
    assert "test.json cannot be read" in page.text
    assert "87.65%" in page.text


def test_counts_and_labels_that_do_not_fit_together_are_shown_as_they_are(run, tmp_path):
    folder, *_ = run
    mistake = {"index": 1, "label": 7, "guess": 9, "probability": 0.5}
    odd = {"classes": ["a"], "counts": [[3, 1], [0, 0]], "confusion": [[1, 2, 9]]}
    (folder / "test.json").write_text(json.dumps({"else": {**odd, "mistakes": [mistake]}}))
    check_page(*page_of([folder], tmp_path / "r.html"))


def with_settings(folder, **changes):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["settings"] |= changes
    path.write_text(json.dumps(content))


def test_runs_that_are_seeds_of_one_another_have_a_mean_with_an_interval(tmp_path):
    accuracies, folders = [0.9, 0.92, 0.97], []
    for seed, accuracy in enumerate(accuracies):
        folders.append(make_run(tmp_path / str(seed), accuracy=accuracy))
        with_settings(folders[-1], seed=seed)
    runs = {folder.name: read_run(folder) for folder in folders}
    found = over_seeds(runs)
    assert found["mean"] == pytest.approx(0.93)
    # Student's two-sided 95 % quantile of two degrees of freedom is 4.3027.
    assert found["half"] == pytest.approx(4.3027 * found["deviation"] / 3**0.5, rel=1e-4)
    _, page = page_of(folders, tmp_path / "r.html")
    assert re.search(r"Over 3 seeds the test accuracy is 93\.00% ± ", page.text)
    with_settings(folders[0], budget=5000)
    assert over_seeds({folder.name: read_run(folder) for folder in folders}) is None
    with_settings(folders[0], budget=4300, seed=1)
    assert over_seeds({folder.name: read_run(folder) for folder in folders}) is None


def test_sizes_of_a_plan_are_not_repeated_among_the_settings(tmp_path):
    folders = [
        make_run(tmp_path / name, sizes=sizes) for name, sizes in (("a", (5, 2)), ("b", (3, 4)))
    ]
    for folder, size in zip(folders, (5, 3), strict=True):
        with_settings(folder, plan={"1": size}, epochs=size)
    values = compare({folder.name: read_run(folder) for folder in folders})
    assert [name for name, _ in values["settings"]] == ["epochs"]
