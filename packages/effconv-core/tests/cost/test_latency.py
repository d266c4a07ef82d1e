"""Latency with a clock that counts multiplications, so that nothing here depends on time."""

import json
import math
import os

import pytest
import torch
from effconv_core import Budget, Latency, Macs, SearchableCNN, apply_plan, recipe, search
from effconv_core.cost import latency as latency_module
from effconv_core.cost.latency import Stopwatch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

IMAGES = torch.randn(2, 3, 8, 10)


class Net(nn.Module):
    """A layer used twice, an even kernel with a stride, and a rest that takes time too."""

    def __init__(self, classes=7):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.strided = nn.Conv2d(6, 8, 4, stride=2, padding=1, groups=2)
        self.fc = nn.Linear(8, classes)

    def forward(self, images):
        return self.fc(self.strided(self.twice(self.twice(self.stem(images)))).mean((2, 3)))


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by 1000 with every multiplication, and the times it was read."""
    reads = []
    with FlopCounterMode(display=False) as counter:

        def mark():
            reads.append(None)
            return counter.get_total_flops() // 2 * 1000 + (10**9 if len(reads) > 80 else 0)

        watch = Stopwatch(mark, lambda start, end: end - start)
        monkeypatch.setattr(latency_module, "stopwatch", lambda device: watch)
        yield reads


def quick(**settings):
    return Latency(IMAGES, repetitions=5, warmups=1, **settings)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"allowed": {"twice": range(1, 10, 2), "strided": range(2, 5)}},
        {"allowed": range(1, 4), "per_axis": True},
        {"allowed": range(3, 4)},
    ],
    ids=["all", "ranges", "per axis", "one size"],
)
def test_times_are_those_of_the_network_that_is_built(clock, options):
    # The clock jumps once by a second, which medians do not see.
    searchable = SearchableCNN(Net(), **options)
    cost, macs = quick()(searchable), Macs(IMAGES)(searchable)
    assert cost.counts == "nanoseconds"
    assert cost.constant == 1000 * macs.constant
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        sizes = [
            allowed[int(torch.randint(len(allowed), (), generator=generator))]
            for allowed in searchable.space.ranges
        ]
        assert cost(sizes) == 1000 * macs(sizes)
        soft = cost.soft(torch.tensor(sizes, dtype=torch.float64))
        assert soft.item() == cost(sizes)


def test_measuring_changes_nothing(clock):
    searchable = SearchableCNN(Net(), recipe("bank")).train()
    before = {name: value.clone() for name, value in searchable.state_dict().items()}
    state = torch.get_rng_state()
    quick()(searchable)
    assert torch.equal(state, torch.get_rng_state())
    assert searchable.training
    assert searchable.model.fc.training
    assert not any(conv._forward_hooks for conv in searchable.convs)
    assert all(torch.equal(before[n], value) for n, value in searchable.state_dict().items())


def test_memory_format_reaches_the_layers(clock, monkeypatch):
    made = []
    original = latency_module._built
    monkeypatch.setattr(latency_module, "_built", lambda *a: made.append(original(*a)) or made[-1])
    searchable = SearchableCNN(Net()).to(memory_format=torch.channels_last)
    Latency(IMAGES.to(memory_format=torch.channels_last), repetitions=2)(searchable)
    weights = [conv.weight for _, convs in made for conv in convs if isinstance(conv, nn.Conv2d)]
    weights = [weight for weight in weights if weight.shape[-1] > 1]
    assert weights
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)


def test_the_table_is_kept_and_read_again(clock, tmp_path):
    path = tmp_path / "table.json"
    searchable = SearchableCNN(Net())
    cost = quick(table=path)(searchable)
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.json"]
    content = json.loads(path.read_text())
    twice = content["layers"]["twice"]
    assert [entry["shape"] for entry in twice["inputs"]] == [[2, 6, 8, 10]] * 2
    # 2 passes of 2 images of 80 pixels, 36 products a tap, at 1000 ns.
    expected = 2 * 2 * 80 * 36 * 9 * 1e-6
    assert content["seconds"]["twice"]["3"]["median"] == pytest.approx(expected)
    assert content["torch"] == torch.__version__
    assert content["threads"] == torch.get_num_threads()
    clock.clear()
    again = quick(table=path)(searchable)
    assert not clock  # nothing was measured
    assert again.constant == cost.constant
    for one, other in zip(again.tables, cost.tables):
        assert one.tolist() == other.tolist()
    odd = quick(table=path)(SearchableCNN(Net(), allowed=range(1, 8, 2)))
    assert not clock  # fewer sizes need no new table
    assert odd([5, 3]) == cost([5, 3])
    quick(table=path, anew=True)(searchable)
    assert clock


def test_a_relative_table_stays_where_it_was(clock, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counter = quick(table="table.json")
    monkeypatch.chdir("/")
    counter(SearchableCNN(Net()))
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.json"]


def changed(table, name, value):
    return {**table, name: value}


REFUSALS = {
    "device": (lambda t: changed(t, "device", "abacus"), "its device is 'abacus', and now it is"),
    "torch": (lambda t: changed(t, "torch", "0.4"), "its torch is '0.4', and now it is"),
    "threads": (lambda t: changed(t, "threads", 99), "its threads is 99, and now it is"),
    "model": (lambda t: changed(t, "model", "Other"), "its model is 'Other', and now it is 'Net'"),
    "schema": (
        lambda t: changed(t, "schema", 0),
        "this is a latency table of schema 0; this version reads 1",
    ),
    "cut off": (lambda t: {"schema": 1}, "the table .*`layers`"),
    "no mapping": (lambda t: [t], "a JSON list"),
    "a plan": (lambda t: {"schema": 1, "sizes": {"a": 3}}, "a plan"),
    "layer": (lambda t: changed(t, "layers", {}), "it has no layer 'twice'"),
    "sizes": (
        lambda t: changed(t, "seconds", {n: {"3": s["3"]} for n, s in t["seconds"].items()}),
        r"its layer 'twice' was not measured at size\(s\) \['1', '2', '4', '5', '6', '7'\]",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_table_of_something_else_is_refused(clock, tmp_path, case):
    path = tmp_path / "table.json"
    quick(table=path)(SearchableCNN(Net()))
    change, sentence = REFUSALS[case]
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=rf"table\.json.*{sentence}.*anew=True"):
        quick(table=path)(SearchableCNN(Net()))


@pytest.mark.parametrize("seconds", [-1e-3, 0, 0.0, 1e9, 1e308, 10**400, math.nan, "1", None, [1]])
def test_a_table_holds_times_that_something_can_take(clock, tmp_path, seconds):
    path = tmp_path / "table.json"
    quick(table=path)(SearchableCNN(Net()))
    table = json.loads(path.read_text())
    table["seconds"]["twice"]["3"]["median"] = seconds
    path.write_text(json.dumps(table))
    with pytest.raises(ValueError, match=r"table\.json does not serve.*anew=True"):
        quick(table=path)(SearchableCNN(Net()))


def test_what_noise_takes_from_the_rest_of_a_pass_is_read(clock, tmp_path):
    path = tmp_path / "table.json"
    quick(table=path)(SearchableCNN(Net()))
    table = json.loads(path.read_text())
    table["seconds of the rest"]["median"] = -1e-6
    path.write_text(json.dumps(table))
    assert quick(table=path)(SearchableCNN(Net())).constant == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_table_that_is_a_pipe_is_not_waited_for(clock, tmp_path):
    os.mkfifo(tmp_path / "table.json")
    with pytest.raises(ValueError, match="regular"):
        quick(table=tmp_path / "table.json")(SearchableCNN(Net()))


def test_a_table_of_other_inputs_or_another_network_is_refused(clock, tmp_path):
    path = tmp_path / "table.json"
    quick(table=path)(SearchableCNN(Net()))
    with pytest.raises(ValueError, match="'twice'"):
        Latency(IMAGES[:1], path)(SearchableCNN(Net()))
    with pytest.raises(ValueError, match="'twice' .*float64"):
        Latency(IMAGES.double(), path)(SearchableCNN(Net().double()))
    with pytest.raises(ValueError, match="its parameters of the rest is"):
        quick(table=path)(SearchableCNN(Net(classes=8)))
    path.write_text("not JSON")
    with pytest.raises(ValueError, match="does not serve"):
        quick(table=path)(SearchableCNN(Net()))


def test_a_layer_that_is_not_run_is_named():
    model = Net()
    model.idle = nn.Conv2d(3, 3, 3)
    with pytest.raises(ValueError, match="did not run its layer 'idle' on the example"):
        quick()(SearchableCNN(model))


def test_a_device_without_a_clock_is_refused():
    with pytest.raises(ValueError, match="meta"):
        latency_module.stopwatch(torch.device("meta"))


def test_a_search_meets_a_budget_of_time(clock):
    model = Net()
    latency = quick()
    cost = latency(SearchableCNN(model))
    wanted = cost([4, 4])
    budget = Budget(wanted, latency)
    loader = [(IMAGES, torch.tensor([0, 1]))]
    config = recipe("bank", epochs=20, least_steps=0, tolerance=0.2)
    plan = search(model, loader, budget=budget, config=config)
    with FlopCounterMode(display=False) as counter:
        apply_plan(model, plan)(IMAGES)
    achieved = counter.get_total_flops() // 2 * 1000
    assert plan.budgets[0]["counts"] == "nanoseconds"
    assert plan.budgets[0]["cost"] == achieved
    assert abs(achieved / wanted - 1) <= 0.2
    for form in ("paper", "smooth"):
        searchable = SearchableCNN(model, recipe("bank", budget_form=form))
        searchable(IMAGES)
        searchable.budget_loss(Budget(cost([7, 7]), latency)).backward()
        slope = searchable.size_predictor.head_bias.grad
        assert (slope < 0).all()  # sizes must grow
    with pytest.raises(ValueError, match=r"plans of this model cost from .* nanoseconds"):
        searchable.plan(Budget(cost([1, 1]) - 1, latency))


def test_a_larger_kernel_that_is_faster(monkeypatch):
    searchable = SearchableCNN(Net(), allowed=range(1, 5))
    times = {"1": 1, "2": 5, "3": 3, "4": 8}
    table = {
        "seconds": {
            name: {key: {"median": value / 1e6} for key, value in times.items()}
            for name in searchable.layers
        },
        "seconds of the rest": {"median": -1e-7},
    }
    monkeypatch.setattr(latency_module, "_measure", lambda *_: table)
    cost = quick()(searchable)
    assert [cost.part(0, {0: size}) for size in range(1, 5)] == [1000, 5000, 3000, 8000]
    soft = [cost.soft(torch.tensor([size, 1.0])).item() for size in (1, 1.5, 2, 2.7, 3, 4)]
    assert soft == pytest.approx([2000, 3500, 5000, 5000, 5000, 9000])
    # The dearest plan is not the one of the largest sizes, and the range says so.
    searchable = SearchableCNN(Net(), allowed=range(1, 4))
    latency = quick()
    assert searchable.plan(Budget(10_000, latency)).sizes == {"twice": 2, "strided": 2}
    with pytest.raises(ValueError, match=r"2,000 .*10,000 \(all sizes 2\) nan"):
        searchable.plan(Budget(10_500, latency))
    searchable = SearchableCNN(Net(), allowed={"twice": range(1, 3), "strided": range(2, 4)})
    with pytest.raises(ValueError, match=r"4,000 .*10,000 \(all sizes 2\)"):
        searchable.plan(Budget(100, latency))
    assert cost.constant == 0
