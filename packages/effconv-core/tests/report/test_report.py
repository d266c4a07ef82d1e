"""The report of runs: whole, self-contained, in words too, and honest about what is missing."""

import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from effconv_core import SizePlan, apply_plan, save
from effconv_core.cli import main
from effconv_core.report import write_report
from torch import nn

VOID = {"meta", "link", "br", "img", "input", "hr", "circle", "line", "path", "rect", "polyline"}
BAD = "<script>alert(1)</script>"


class Page(HTMLParser):
    """What a browser would find: elements, ids, links, pictures and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def make_run(folder, *, accuracy=0.8765, sizes=(5, 2), name=BAD):
    """Write a finished run's folder, with names that are no HTML."""
    folder.mkdir(parents=True)
    sizes = dict(zip(("1", "2"), sizes, strict=True))
    plan = SizePlan(sizes, soft_sizes={"1": 5.25, "2": 2.6}, cost=4321, budget=4300, model=name)
    plan.save(folder / "plan.json")
    config = {
        "settings": {"model": name, "data": "drawn", "recipe": "default", "budget": 4300},
        "environment": {"commit": "abcdef", "torch": "2", "device": "cpu", "data": "drawn"},
        "network": {
            "class": name,
            "parameters": 3000,
            "layers": {
                "1": {"channels": [8, 8], "groups": 1, "kernel_size": [3, 3]},
                "2": {"channels": [8, 16], "groups": 1, "kernel_size": [3, 3]},
            },
            "left_alone": {"0": "is the model's first convolution"},
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    rows = []
    for step in range(1, 21):
        reading = {
            "epoch": step // 11,
            "global_step": step,
            "loss": 2 / step,
            "accuracy": 0.04 * step,
        }
        soft = [3 + 0.1 * step, 3 - 0.02 * step]
        rows.append({"phase": "search", **reading, "parameters": 4000 + step, "soft_sizes": soft})
        rows.append({"phase": "train", **reading, "seconds": 1.5})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    networks = {
        "learned": {"parameters": 4321, "test_accuracy": accuracy},
        "original": {"parameters": 3000, "test_accuracy": 0.8},
    }
    (folder / "result.json").write_text(json.dumps({"networks": networks}))
    cnn = apply_plan(network(), sizes, generator=torch.Generator().manual_seed(0))
    save(cnn, plan, folder / "cnn.safetensors")
    return folder


def page_of(folders, path):
    write_report(folders, path)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def check_page(text, page):
    """Hold a page to what all of them promise."""
    assert not page.named("script")
    addresses = [a.get("href") or a.get("src") for _, a in page.tags if {"href", "src"} & a.keys()]
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert not re.search(r"url\((?!data:)", text)
    assert len(set(page.ids)) == len(page.ids)
    assert {a[1:] for a in addresses if a.startswith("#")} <= set(page.ids)
    for svg in page.named("svg"):
        if svg.get("aria-hidden") == "true":
            continue
        assert svg["role"] == "img"
        by = svg.get("aria-labelledby", "").split()
        assert len(svg.get("aria-label", "")) > 10 or (by and set(by) <= set(page.ids))
    for image in page.named("img"):
        assert "alt" in image  # empty, since what holds them all has the words
    for tiles in [a for tag, a in page.tags if "tiles" in a.get("class", "")]:
        assert len(tiles["aria-label"]) > 10
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert {"main", "nav"} <= {tag for tag, _ in page.tags}
    assert page.named("html")[0]["lang"] == "en"
    assert any(meta.get("name") == "viewport" for meta in page.named("meta"))
    for header in page.named("th"):
        assert header["scope"] in ("col", "row", "colgroup", "rowgroup")


def test_a_finished_run_is_told_whole(tmp_path):
    text, page = page_of([make_run(tmp_path / "run")], tmp_path / "r.html")
    check_page(text, page)
    for told in ("87.65%", "80.00%", "4,321", "4,300", "5.25", "2.60", "abcdef", "drawn"):
        assert told in page.text, told
    assert "is the model's first convolution" in page.text
    assert BAD in page.text  # shown, and so not run
    labels = " ".join(svg.get("aria-label", "") for svg in page.named("svg"))
    assert "Soft size of 1 over the search: 3.10 at step 1, 5.00 at step 20" in labels
    assert len(page.named("img")) >= 2 * 8  # the kernels themselves
    assert "no weights" not in page.text


def test_runs_are_compared(tmp_path):
    folders = [make_run(tmp_path / "a"), make_run(tmp_path / "b", accuracy=0.9012, sizes=(3, 4))]
    text, page = page_of(folders, tmp_path / "r.html")
    check_page(text, page)
    assert "87.65%" in page.text
    assert "90.12%" in page.text
    assert len(text) > 1.5 * len(page_of(folders[:1], tmp_path / "one.html")[0])


def test_runs_of_one_name_are_told_apart(tmp_path):
    folders = [make_run(tmp_path / where / "run") for where in ("a", "b")]
    text, page = page_of(folders, tmp_path / "r.html")
    check_page(text, page)
    assert "run (1)" in page.text
    assert "run (2)" in page.text


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("result.json", "no result.json, so test accuracies are not known"),
        ("cnn.safetensors", "no weights"),
        ("metrics.jsonl", "no metrics.jsonl"),
        ("plan.json", "no plan.json"),
        ("config.json", "no config.json"),
    ],
)
def test_what_is_missing_is_said(tmp_path, gone, told):
    folder = make_run(tmp_path / "run")
    (folder / gone).unlink()
    text, page = page_of([folder], tmp_path / "r.html")
    check_page(text, page)
    assert told in page.text


@pytest.mark.parametrize("name", ["result.json", "metrics.jsonl", "plan.json", "cnn.safetensors"])
def test_what_is_damaged_is_said_and_the_rest_is_told(tmp_path, name):
    folder = make_run(tmp_path / "run")
    path = folder / name
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2] + b"\xff\n")
    text, page = page_of([folder], tmp_path / "r.html")
    check_page(text, page)
    assert name in page.text


def test_refusals_leave_nothing(tmp_path):
    out = tmp_path / "r.html"
    with pytest.raises(ValueError, match="no run to report"):
        write_report([], out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is not a run folder"):
        write_report([tmp_path / "empty"], out)
    run = make_run(tmp_path / "run")
    with pytest.raises(ValueError, match="same run is given twice"):
        write_report([run, tmp_path / "run" / ".." / "run"], out)
    assert not out.exists()


def test_the_command_writes_beside_the_run_and_replaces_nothing_unasked(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").exists()
    assert main(["report", str(run)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["report", str(run), "--overwrite"]) == 0
    other = make_run(tmp_path / "other")
    assert main(["report", str(run), str(other)]) == 0
    assert (tmp_path / "report.html").exists()


TESTS = {
    "learned": {
        "classes": [f"class of a long name {n}" for n in range(12)],
        "counts": [[123_456, 100_000 + n] for n in range(12)],
        "confusion": [[100_000 + 10 * row + n for n in range(12)] for row in range(12)],
        "mistakes": [{"index": 1_234_567, "label": 0, "guess": 1, "probability": 0.9876}],
    }
}
BROKEN_NUMBERS = """(() => {
  const broken = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walk.nextNode()); )
    for (const found of node.data.matchAll(/[+-]?[0-9][0-9.,]*%?/g)) {
      const range = document.createRange();
      range.setStart(node, found.index);
      range.setEnd(node, found.index + found[0].length);
      const lines = [...range.getClientRects()].filter(r => r.width).map(r => Math.round(r.top));
      const name = node.parentElement.closest(".name");  // names of layers may break anywhere
      if (new Set(lines).size > 1 && !name) broken.push(found[0]);
    }
  return broken;
})()"""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    places = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
    found = next((place for place in places if Path(place).exists()), None)
    if found is None:
        pytest.skip(f"there is no browser at {', '.join(places)}")
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=found, args=["--no-sandbox"])


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it(tmp_path, browser, width, scheme):
    folders = [make_run(tmp_path / "a"), make_run(tmp_path / "b", sizes=(3, 4))]
    for folder in folders:
        (folder / "test.json").write_text(json.dumps(TESTS))
    write_report(folders, tmp_path / "r.html")
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page, problems = context.new_page(), []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    outside = ("file:", "data:")
    page.on("request", lambda r: None if r.url.startswith(outside) else problems.append(r.url))
    page.goto((tmp_path / "r.html").as_uri())
    assert not problems
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wider) <= 0
    assert page.evaluate(BROKEN_NUMBERS) == []
    assert not page.evaluate("window.alerted === true")
    # What is drawn can be told from what it is drawn on, in either scheme.
    colours = page.evaluate(
        "['color', 'backgroundColor'].map(c => getComputedStyle(document.body)[c])"
    )
    ink, paper = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
    assert (paper > ink + 300) == (scheme == "light")
    # By keyboard: links and what can be opened come one after another, and show where one is.
    seen = []
    for _ in range(4):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.tagName"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
    assert set(seen) <= {"A", "SUMMARY", "DIV"}
    assert "A" in seen
    details = page.locator("summary").first
    details.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('details').open")
    context.close()
