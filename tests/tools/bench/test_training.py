"""Every way to run a step is timed in turns."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from tools.bench import training as bench_training

OPTIONS = bench_training.TrainingOptions(batch_size=8, device="cpu")
STATIC = "_dynamo_static_input_type"


@pytest.mark.long
def test_every_way_of_the_training_benchmark_takes_a_step():
    plan, soft_size = bench_training.plan_of(OPTIONS)
    assert abs(plan.cost / OPTIONS.budget - 1) <= 0.02
    assert max(plan.values()) - min(plan.values()) <= 1
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    names, taken = set(), []
    for way in bench_training.ways("cpu", OPTIONS.recipes):
        names.add(str(way))
        if way.compile:
            continue
        stepped = bench_training.Stepped(way, OPTIONS)
        weight = stepped.model.state_dict()[f"{'model.' * bool(way.recipe)}fc.weight"]
        before = weight.clone()
        stepped.turn([(images, labels)])
        assert not torch.equal(weight, before)
        taken.append(way)
        if way.recipe:
            assert stepped.model.soft_sizes.tolist() == pytest.approx([soft_size] * 18, abs=1e-4)
        else:
            assert sum(p.numel() for p in stepped.model.parameters()) == plan.cost
    assert len(taken) == 11
    assert len(names) == len(list(bench_training.ways("cpu", OPTIONS.recipes))) == 17
    on_a_gpu = list(bench_training.ways("cuda", OPTIONS.recipes))
    assert len({str(way) for way in on_a_gpu}) == len(on_a_gpu) == 19


def test_the_training_benchmark_hands_kernels_to_a_network_s_graph():
    way = bench_training.Way("paper", shapes="exact")
    options = bench_training.TrainingOptions(budget=0.1e6, batch_size=2, device="cpu")
    plain, compiled = (bench_training.Stepped(way, options) for _ in range(2))
    graphs = []

    def backend(graph, inputs):
        graphs.append([node for node in graph.graph.nodes if node.op == "placeholder"])
        return graph.forward

    bench_training.compile_network(compiled.model, backend=backend)
    images, labels = torch.randn(2, 3, 32, 32), torch.arange(2)
    for _ in range(3):
        plain.step(images, labels)
        compiled.step(images, labels)
    (graph,) = graphs
    kernels = [node for node in graph if "kernel" in node.name]
    # What lies where it lay at first is "unguarded" here, as parameters are; a kernel never is.
    assert [node.meta["tensor_dict"].get(STATIC) for node in kernels] == [None] * 18
    assert {node.meta["tensor_dict"].get(STATIC) for node in graph} == {None, "unguarded"}
    for one, other in zip(plain.model.parameters(), compiled.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_training_benchmark_tells_epochs_beside_the_targets():
    times = {"batch": 0.001, "training, float32": 0.02, "training, bfloat16": 0.004}
    times |= {"search, default, exact, float32": 0.03, "search, default, padded, bfloat16": 0.005}
    times |= {"search, paper, exact, float32": 0.009}
    seconds = {name: {"median": t, "p20": t, "p80": t} for name, t in times.items()}
    epochs = bench_training.epochs_of(bench_training.TrainingOptions(batch_size=100), seconds)
    assert epochs["training"] == {"way": "training, bfloat16", "seconds": pytest.approx(2.5)}
    assert epochs["default"]["way"] == "search, default, padded, bfloat16"
    assert epochs["default"]["of_training"] == pytest.approx(1.2)
    assert epochs["paper"]["seconds"] == pytest.approx(5.0)
    del seconds["search, paper, exact, float32"]  # for which there was no time
    assert list(bench_training.epochs_of(OPTIONS, seconds)) == ["training", "default"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rounds": 1}, "rounds is 1; it must be at least 2, so raise it"),
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"budget": 10.0}, "budget is 10; sizes 1 to 7 of CifarResNet cost"),
    ],
)
def test_the_training_benchmark_refuses_what_it_cannot_time(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        bench_training.plan_of(replace(OPTIONS, **changes))


def test_the_training_benchmark_times_one_way_however_short_the_time(monkeypatch):
    batches = [(torch.zeros(1), torch.zeros(1))] * 9
    monkeypatch.setattr(bench_training, "endless", lambda _: iter(batches))
    stepped = SimpleNamespace(turn=lambda _: 1.0)
    monkeypatch.setattr(bench_training, "prepared", lambda *_: (stepped, 1.0, 0))
    options = replace(OPTIONS, minutes=1e-9, rounds=2)
    told = bench_training.time_ways(options, Console(quiet=True), began=-1.0)
    assert list(told["all_seconds"]) == ["batch", "training, bfloat16"]
    assert len(told["left_out"]) == 16


@pytest.mark.long
def test_processes_of_the_training_benchmark_step_side_by_side():
    if not (Path(os.environ.get("EFFCONV_DATA", "")) / "cifar10").is_dir():
        pytest.skip("EFFCONV_DATA names no folder with CIFAR-10")
    options = bench_training.TrainingOptions(
        batch_size=8, rounds=3, steps=1, threads=1, device="cpu"
    )
    told = bench_training.side_by_side(bench_training.Way(), options, 2)
    assert told["steps_a_second"] == pytest.approx(2 / told["step"], rel=0.5)
