"""The cut search step is the whole one, and its page is what its result gives."""

import itertools
from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
from effconv_core import SearchableCNN
from rich.console import Console

from tests.tools.bench.made_up_efficiency import made_up
from tools.bench import efficiency
from tools.bench.steps import held_at


def searchable(size, recipe):
    model = efficiency.network(efficiency.EfficiencyPoint(), 3)
    return SearchableCNN(model, held_at(size, recipe, k=max(3, size - 1))).double().train()


@pytest.mark.parametrize(("recipe", "unrolled"), [("paper", {"unroll": 2}), ("default", {})])
def test_the_cut_step_has_the_gradients_of_the_whole_one(recipe, unrolled):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 16, 16, generator=generator, dtype=torch.float64)
    labels = torch.arange(4)
    whole, cut = searchable(4, recipe), searchable(4, recipe)
    budget = 0.9 * whole.cost([4] * len(whole.layers))
    loss = F.cross_entropy(whole(images), labels) + whole.budget_loss(budget)
    loss.backward()
    ticks = itertools.count()
    step = efficiency.CutStep(cut, budget, images, labels)
    spent = step(lambda: float(next(ticks)))
    # A clock that ticks at each reading: twice for what has a part before and one after.
    assert spent == {
        "size predictor": 2,
        "unroll": 0,
        "assembly": 2,
        "network": 1,
        "optimizer": 1,
        **unrolled,
    }
    theirs = dict(whole.named_parameters())
    for name, parameter in cut.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-9, atol=1e-12)
    assert any(p.grad.abs().max() > 0 for p in cut.size_predictor.parameters())


def test_a_point_is_measured():
    options = efficiency.EfficiencyOptions(pairs=10, warmups=0, device="cpu")
    small = efficiency.EfficiencyPoint(batch_size=2, image_size=8, size=3)
    row = efficiency.time_efficiency_point(small, options)
    assert row["layers"] == 18
    assert set(row["seconds"]) == {"plain", "search", *efficiency.PARTS}
    assert all(told["median"] > 0 for told in row["seconds"].values())


def test_the_command_writes_its_device_and_the_page(tmp_path, monkeypatch):
    told = {key: made_up("")["rows"][0][key] for key in ("parameters", "seconds")}
    measured = []

    def time_efficiency_point(point, options):
        measured.append(point)
        return {"point": asdict(point), **told}

    monkeypatch.setattr(efficiency, "time_efficiency_point", time_efficiency_point)
    options = efficiency.EfficiencyOptions(
        results=tmp_path / "results", page=tmp_path / "page.md", device="cpu"
    )
    efficiency.run(options, Console(quiet=True))
    assert len(measured) == 22
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["efficiency-cpu.json"]
    assert "ResNet-20, 5x5 kernels" in (tmp_path / "page.md").read_text()
