"""The cut search step is the whole one, and its page is what its result gives."""

import itertools
import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from effconv_core import SearchableCNN

from tools import efficiency, efficiency_page

ROOT = Path(__file__).parents[1]


def searchable(size):
    model = efficiency.network(efficiency.Point(), 3)
    return SearchableCNN(model, efficiency.held_at(size)).double().train()


def test_the_cut_step_has_the_gradients_of_the_whole_one():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 16, 16, generator=generator, dtype=torch.float64)
    labels = torch.arange(4)
    whole, cut = searchable(4), searchable(4)
    budget = 0.9 * whole.cost([4] * len(whole.layers))
    loss = F.cross_entropy(whole(images), labels) + whole.budget_loss(budget)
    loss.backward()
    ticks = itertools.count()
    step = efficiency.CutStep(cut, budget, images, labels)
    spent = step(lambda: float(next(ticks)))
    # A clock that ticks at each reading: twice for what has a part before and one after.
    assert spent == {
        "size predictor": 2,
        "unroll": 2,
        "assembly": 2,
        "network": 1,
        "optimizer": 1,
    }
    theirs = dict(whole.named_parameters())
    for name, parameter in cut.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-9, atol=1e-12)
    assert any(p.grad.abs().max() > 0 for p in cut.size_predictor.parameters())


def test_sizes_are_held():
    for size in (3, 5, 9, 13):
        held = SearchableCNN(efficiency.network(efficiency.Point(), 3), efficiency.held_at(size))
        assert held.plan().sizes == dict.fromkeys(held.layers, size)


def test_a_point_is_measured():
    options = efficiency.Options(pairs=10, warmups=0, device="cpu")
    small = efficiency.Point(batch_size=2, image_size=8, size=3)
    row = efficiency.measure(small, options)
    assert row["layers"] == 18
    assert set(row["seconds"]) == {"plain", "search", *efficiency.PARTS}
    assert all(told["median"] > 0 for told in row["seconds"].values())


@pytest.mark.parametrize(("name", "value"), [("pairs", 1), ("warmups", -1), ("threads", 0)])
def test_what_cannot_be_timed_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be at least"):
        efficiency.Options(**{name: value})


def test_a_page_without_a_result_is_refused(tmp_path, monkeypatch):
    out = str(tmp_path / "none.json")
    monkeypatch.setattr(sys, "argv", ["bench:efficiency", "--report", "--out", out])
    with pytest.raises(FileNotFoundError, match="does not exist; leave out --report to measure it"):
        efficiency.main()


def test_the_page_is_what_the_result_gives():
    result = Path("results/efficiency-cpu.json")
    if not (ROOT / result).exists():
        pytest.skip("not measured yet")
    text = (ROOT / result).read_text()
    link = "../results/efficiency-cpu.json"
    places = {d: ROOT / f"results/throughput-{d}.json" for d in efficiency_page.DEVICES}
    steps = {device: place.read_text() for device, place in places.items() if place.exists()}
    page = efficiency_page.page(result, text, link, steps)
    assert (ROOT / "docs/efficiency.md").read_text() == page
    content = json.loads(text)
    content["rows"][0]["seconds"]["network"]["median"] *= 1.5
    assert efficiency_page.page(result, json.dumps(content), link, steps) != page
