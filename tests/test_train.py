"""The training of the found CNN."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from effconv_core.training import TRAIN_RECIPES, TrainConfig, evaluate, rate_factor, train
from effconv_data import synthetic
from rich.console import Console
from torch import nn

from tools import bench_training
from tools.presets import demo_network, preset


def network(seed: int = 0) -> nn.Module:
    return demo_network(1, 4, torch.Generator().manual_seed(seed))


def batches(**changes):
    settings = {"samples": 256, "batch_size": 64, "seed": 0, **changes}
    return synthetic(6, **settings)


def test_recipes_are_those_of_the_papers():
    resnet = TRAIN_RECIPES["resnet"]
    assert (resnet.epochs, resnet.batch_size, resnet.optimizer) == (200, 128, "sgd")
    assert (resnet.lr, resnet.weight_decay, resnet.schedule) == (0.1, 1e-4, "steps")
    flexconv = TRAIN_RECIPES["flexconv"]
    assert (flexconv.epochs, flexconv.batch_size, flexconv.optimizer) == (350, 64, "adam")
    assert (flexconv.lr, flexconv.weight_decay, flexconv.schedule) == (1e-3, 0.0, "cosine")
    assert preset("cifar10", "paper").train == flexconv
    assert preset("cifar10", "default").train == resnet


def test_rate_factor_by_hand():
    steps = TrainConfig(epochs=200)
    assert [rate_factor(steps, e) for e in (0, 99.9, 100, 149.9, 150, 199)] == [
        1.0,
        1.0,
        0.1,
        0.1,
        0.01,
        0.01,
    ]
    cosine = TrainConfig(epochs=25, schedule="cosine", warmup_epochs=5.0)
    # Warm-up takes a tenth of the training at most: 2.5 epochs, then 22.5 of half a cosine.
    factors = [rate_factor(cosine, e) for e in (0, 1.25, 2.5, 2.5 + 7.5, 2.5 + 11.25, 25)]
    assert factors == pytest.approx([0.0, 0.5, 1.0, 0.75, 0.5, 0.0], abs=1e-12)


class InDouble:
    """A set in float64, so that only a wrong rule can tell two trainings apart."""

    def __init__(self, **changes):
        self.data = batches(**changes)
        self.set_epoch = self.data.set_epoch

    def __len__(self):
        return len(self.data)

    def __iter__(self):
        return ((images.double(), labels) for images, labels in self.data)


def test_weights_follow_sgd_with_momentum_written_out():
    config = TrainConfig(epochs=2, batch_size=64, lr=0.05, weight_decay=0.01)
    data, trained, slow = InDouble(), network().double(), network().double()
    train(trained, data, config)

    parameters = list(slow.parameters())
    momenta = [torch.zeros_like(p) for p in parameters]
    data.set_epoch(0)
    slow.train()
    # Four steps an epoch: a tenth after a half of the eight, a hundredth after three quarters.
    rates = iter([0.05] * 4 + [0.005] * 2 + [0.0005] * 2)
    for _ in range(2):
        for images, labels in data:
            loss = nn.CrossEntropyLoss()(slow(images), labels)
            gradients = torch.autograd.grad(loss, parameters)
            rate = next(rates)
            with torch.no_grad():
                for p, m, g in zip(parameters, momenta, gradients, strict=True):
                    m.mul_(0.9).add_(g + 0.01 * p)
                    p.sub_(rate * m)
    for ours, theirs in zip(trained.parameters(), parameters, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path):
    config = TrainConfig(epochs=3, batch_size=64, lr=0.05)
    straight = network()
    train(straight, batches(), config)

    class StopError(Exception):
        pass

    def stop(step):
        if step.epoch == 1 and step.step == 2:
            raise StopError

    checkpoint = tmp_path / "train.safetensors"
    with pytest.raises(StopError):
        train(network(), batches(), config, checkpoint=checkpoint, on_step=stop)
    resumed, seen = network(seed=9), []
    train(resumed, batches(), config, checkpoint=checkpoint, on_step=lambda s: seen.append(s.epoch))

    assert set(seen) == {1, 2}
    for name, value in straight.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)


def test_groups_scale_the_rate_and_a_penalty_joins_the_loss():
    """One step of SGD: each parameter moves by its own rate times its own gradient."""
    config = TrainConfig(epochs=1, batch_size=256, lr=0.1, weight_decay=0.0)
    data, trained, slow = InDouble(batch_size=256), network().double(), network().double()
    slowed = trained.see.weight
    groups = [
        {"params": [p for p in trained.parameters() if p is not slowed], "factor": 1.0},
        {"params": [slowed], "factor": 0.25},
    ]
    train(trained, data, config, groups=groups, penalty=lambda: 3 * slowed.square().sum())
    data.set_epoch(0)
    ((images, labels),) = data
    parameters = dict(slow.train().named_parameters())
    loss = nn.CrossEntropyLoss()(slow(images), labels) + 3 * slow.see.weight.square().sum()
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    for (name, p), g in zip(parameters.items(), gradients, strict=True):
        rate = 0.025 if name == "see.weight" else 0.1
        ours = trained.get_parameter(name)
        torch.testing.assert_close(ours, p - rate * g, rtol=1e-9, atol=1e-12)


def test_a_seed_makes_an_interrupted_training_draw_what_it_would_have_drawn(tmp_path):
    config, drawn = TrainConfig(epochs=2, batch_size=64, lr=0.05), []

    def dropping() -> nn.Module:
        return nn.Sequential(nn.Dropout(0.5), network())

    def go(epochs_before: int, checkpoint=None, seed=7):
        model, seen = dropping(), []
        for _ in range(epochs_before):
            torch.rand(1)  # what else the process drew
        train(
            model,
            batches(),
            config,
            checkpoint=checkpoint,
            on_step=lambda step: seen.append(step.epoch),
            seed=seed,
        )
        drawn.append(seen)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    class StopError(Exception):
        pass

    def stop(step):
        if step.epoch == 1:
            raise StopError

    straight = go(0)
    checkpoint = tmp_path / "train.safetensors"
    with pytest.raises(StopError):
        train(dropping(), batches(), config, checkpoint=checkpoint, on_step=stop, seed=7)
    torch.testing.assert_close(go(3, checkpoint), straight, rtol=0, atol=0)
    assert set(drawn[1]) == {1}
    assert not torch.equal(go(0, seed=8), straight)


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    checkpoint = tmp_path / "train.safetensors"
    train(network(), batches(), TrainConfig(epochs=1), checkpoint=checkpoint)
    with pytest.raises(ValueError, match="other training settings"):
        train(network(), batches(), TrainConfig(epochs=2), checkpoint=checkpoint)


def test_a_loss_that_is_not_finite_stops_the_training():
    sentence = (
        r"the loss is nan in step 2 of epoch 1: .*layer 'see_?\w*'; lower the rates; no state"
    )
    with pytest.raises(FloatingPointError, match=sentence):
        train(network(), batches(), TrainConfig(epochs=1, lr=1e30))


def test_accuracy_counts_the_samples_of_a_short_last_batch():
    class SaysZero(nn.Module):
        def forward(self, images):
            return torch.tensor([[1.0, 0, 0, 0]]).expand(len(images), 4)

    data = batches(split="test", samples=100)
    assert len(data) == 2
    assert evaluate(SaysZero(), data) == 0.25


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 0}, "epochs of the training is 0; it must be at least 1"),
        ({"batch_size": 0}, "batch_size of the training is 0; it must be at least 1"),
        ({"lr": 0.0}, "lr of the training is 0.0; it must be above 0"),
        ({"weight_decay": -1.0}, "weight_decay of the training is -1.0; it must be at least 0"),
        ({"warmup_epochs": -1.0}, "warmup_epochs is -1.0; it must be 0 or more"),
        ({"precision": "float16"}, "precision is 'float16'; pass 'float32' or 'bfloat16'"),
    ],
)
def test_a_bad_setting_is_refused_by_name(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        TrainConfig(**change)


def losses(config):
    seen = []
    train(network(), batches(), config, on_step=lambda step: seen.append(step.task_loss.item()))
    return seen


def test_bfloat16_keeps_weights_in_float32_and_learns_alike():
    usual, lower = (
        TrainConfig(epochs=2, lr=0.02),
        TrainConfig(epochs=2, lr=0.02, precision="bfloat16"),
    )
    cnn, seen = network(), set()
    handle = cnn.see.register_forward_hook(lambda *args: seen.add(args[-1].dtype))
    train(cnn, batches(), lower)
    handle.remove()
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in cnn.parameters()} == {torch.float32}
    ours, theirs = losses(lower), losses(usual)
    assert ours != theirs
    assert ours == pytest.approx(theirs, rel=0.05)


@pytest.mark.long
def test_a_compiled_training_gives_the_same_losses():
    usual, compiled = TrainConfig(epochs=1, lr=0.02), TrainConfig(epochs=1, lr=0.02, compile=True)
    assert losses(compiled) == pytest.approx(losses(usual), rel=1e-4)


OPTIONS = bench_training.Options(batch_size=8, device="cpu")
STATIC = "_dynamo_static_input_type"


@pytest.mark.long
def test_every_way_of_the_training_benchmark_takes_a_step():
    plan, soft_size = bench_training.equal_plan(OPTIONS)
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
        assert stepped.turn([(images, labels)]) > 0
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
    options = bench_training.Options(budget=0.1e6, batch_size=2, device="cpu")
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
    epochs = bench_training.summary(bench_training.Options(batch_size=100), seconds)
    assert epochs["training"] == {"way": "training, bfloat16", "seconds": pytest.approx(2.5)}
    assert epochs["default"]["way"] == "search, default, padded, bfloat16"
    assert epochs["default"]["of_training"] == pytest.approx(1.2)
    assert epochs["paper"]["seconds"] == pytest.approx(5.0)
    del seconds["search, paper, exact, float32"]  # for which there was no time
    assert list(bench_training.summary(OPTIONS, seconds)) == ["training", "default"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rounds": 1}, "rounds is 1; it must be at least 2, so raise it"),
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"budget": 10.0}, "budget is 10; sizes 1 to 7 of cifar_resnet20 cost .* pass something"),
    ],
)
def test_the_training_benchmark_refuses_what_it_cannot_time(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        bench_training.equal_plan(replace(OPTIONS, **changes))


def test_the_training_benchmark_times_one_way_however_short_the_time(monkeypatch):
    batches = [(torch.zeros(1), torch.zeros(1))] * 9
    monkeypatch.setattr(bench_training, "endless", lambda _: iter(batches))
    stepped = SimpleNamespace(turn=lambda _: 1.0)
    monkeypatch.setattr(bench_training, "prepared", lambda *_: (stepped, 1.0, 0))
    options = replace(OPTIONS, minutes=1e-9, rounds=2)
    told = bench_training.measure(options, Console(quiet=True), began=-1.0)
    assert list(told["all_seconds"]) == ["batch", "training, bfloat16"]
    assert len(told["left_out"]) == 16


@pytest.mark.long
def test_processes_of_the_training_benchmark_step_side_by_side():
    if not (Path(os.environ.get("EFFCONV_DATA", "")) / "cifar10").is_dir():
        pytest.skip("EFFCONV_DATA names no folder with CIFAR-10")
    options = bench_training.Options(batch_size=8, rounds=3, steps=1, threads=1, device="cpu")
    told = bench_training.side_by_side(bench_training.Way(), options, 2)
    assert told["steps_a_second"] == pytest.approx(2 / told["step"], rel=0.5)
