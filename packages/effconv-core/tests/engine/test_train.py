"""The training of the found CNN."""

import math
import os

import pytest
import torch
from effconv_core.engine.train import (
    TRAIN_RECIPES,
    TrainConfig,
    evaluate,
    make_optimizer,
    rate_factor,
    train,
    training_of,
)
from torch import nn


def network(seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential()
    model.see = nn.Conv2d(1, 8, 3, padding=1, bias=False)
    model.norm, model.relu = nn.BatchNorm2d(8), nn.ReLU()
    model.pool, model.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model.classifier = nn.Linear(8, 4)
    for parameter in (model.see.weight, model.classifier.weight):
        nn.init.normal_(parameter, std=0.3, generator=generator)
    nn.init.zeros_(model.classifier.bias)
    return model


class Batches:
    """Noise whose strength is the class, in another order in each epoch."""

    def __init__(self, samples: int, batch_size: int):
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.arange(samples) % 4
        strength = 1.0 + self.labels.view(-1, 1, 1, 1)
        self.images = strength * torch.randn(samples, 1, 8, 8, generator=generator)
        self.batch_size, self.epoch = batch_size, 0

    def set_epoch(self, epoch: int):
        self.epoch = epoch

    def __len__(self):
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.epoch)
        order = torch.randperm(len(self.labels), generator=generator)
        for places in order.split(self.batch_size):
            yield self.images[places], self.labels[places]


def batches(samples: int = 256, batch_size: int = 64):
    return Batches(samples, batch_size)


def test_recipes_are_those_of_the_papers():
    resnet = TRAIN_RECIPES["resnet"]
    assert (resnet.epochs, resnet.batch_size, resnet.optimizer) == (200, 128, "sgd")
    assert (resnet.lr, resnet.weight_decay, resnet.schedule) == (0.1, 1e-4, "steps")
    flexconv = TRAIN_RECIPES["flexconv"]
    assert (flexconv.epochs, flexconv.batch_size, flexconv.optimizer) == (350, 64, "adam")
    assert (flexconv.lr, flexconv.weight_decay, flexconv.schedule) == (1e-3, 0.0, "cosine")
    assert training_of("paper") == training_of("literal") == flexconv
    assert training_of("bank") == training_of("default") == resnet


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_an_optimizer_has_the_settings(optimizer):
    config = TrainConfig(optimizer=optimizer, lr=0.3, weight_decay=0.01)
    (group,) = make_optimizer(network().parameters(), config).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.01)
    assert group.get("momentum") == (0.9 if optimizer == "sgd" else None)
    assert group.get("betas") == (None if optimizer == "sgd" else (0.9, 0.999))


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
    slow.train()
    # Four steps an epoch: a tenth after a half of the eight, a hundredth after three quarters.
    rates = iter([0.05] * 4 + [0.005] * 2 + [0.0005] * 2)
    for epoch in range(2):
        data.set_epoch(epoch)
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
    optimizer = make_optimizer(groups, config)
    train(trained, data, config, optimizer=optimizer, penalty=lambda: 3 * slowed.square().sum())
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


def test_a_relative_checkpoint_stays_where_it_was(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)

    def leave(step):
        os.chdir(tmp_path / "elsewhere")

    train(network(), batches(), TrainConfig(epochs=2), checkpoint="t.safetensors", on_step=leave)
    assert (tmp_path / "t.safetensors").is_file()
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    checkpoint = tmp_path / "train.safetensors"
    train(network(), batches(), TrainConfig(epochs=1), checkpoint=checkpoint)
    with pytest.raises(ValueError, match="train.safetensors"):
        train(network(), batches(), TrainConfig(epochs=2), checkpoint=checkpoint)


class Keeps(nn.Module):
    """Changes what its state holds in each pass in training."""

    def __init__(self, how: str):
        super().__init__()
        self.how, self.inner = how, network()
        if how != "made":
            self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        if how == "grows":
            self.seen = torch.zeros(0)

    def forward(self, images):
        mean = images.mean().reshape(1)
        if self.how == "made" and not hasattr(self, "seen"):
            self.register_buffer("seen", mean)
        elif self.how == "grows":
            self.seen = torch.cat([self.seen, mean])
        elif self.how == "turns":
            self.seen = self.seen + mean[0]
        return self.inner(images)


@pytest.mark.parametrize("how", ["made", "grows", "turns"])
def test_a_state_that_no_file_gives_back_is_refused_in_the_first_step(how, tmp_path):
    path, steps = tmp_path / "t.safetensors", []
    config = TrainConfig(epochs=1, lr=0.01)
    with pytest.raises(ValueError, match="'seen' of the network's state"):
        train(Keeps(how), batches(), config, checkpoint=path, on_step=steps.append)
    assert not steps
    assert not path.exists()
    train(Keeps(how), batches(), config, on_step=steps.append)
    assert len(steps) == len(batches())


class Noting(torch.optim.SGD):
    """Keeps a list of each parameter."""

    def step(self, closure=None):
        super().step(closure)
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["norms"] = [torch.zeros(2), "text"]


@pytest.mark.parametrize("odd", ["slot", "setting"])
def test_an_optimizer_that_no_file_holds_is_refused_in_the_first_step(odd, tmp_path):
    model, steps = network(), []
    kind = Noting if odd == "slot" else torch.optim.SGD
    optimizer = kind([{"params": list(model.parameters()), "names": {"a"}}], lr=0.1)
    if odd == "slot":
        del optimizer.param_groups[0]["names"]
    options = {"optimizer": optimizer, "checkpoint": tmp_path / "t.safetensors"}
    with pytest.raises(TypeError, match=f"the {kind.__name__} keeps what no file"):
        train(model, batches(), TrainConfig(epochs=1), on_step=steps.append, **options)
    assert not steps


def test_a_network_whose_shapes_its_first_pass_makes_goes_on(tmp_path):
    def lazy():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(4))

    path, config, models = tmp_path / "t.safetensors", TrainConfig(epochs=1, lr=0.01), []
    for model in (lazy(), lazy()):
        train(model, batches(), config, checkpoint=path)
        models.append(model)
    assert torch.equal(models[0][1].weight, models[1][1].weight)


def test_a_loss_that_is_not_finite_stops_the_training():
    with pytest.raises(FloatingPointError, match=r"nan.* step \d of epoch 1.*layer '\w+'"):
        train(network(), batches(), TrainConfig(epochs=1, lr=1e30))


def test_accuracy_counts_the_samples_of_a_short_last_batch():
    class SaysZero(nn.Module):
        def forward(self, images):
            return torch.tensor([[1.0, 0, 0, 0]]).expand(len(images), 4)

    data = batches(samples=100)
    assert len(data) == 2
    assert evaluate(SaysZero(), data) == 0.25


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epochs": 0}, "epochs .* 0"),
        ({"batch_size": 0}, "batch_size .* 0"),
        ({"lr": 0.0}, r"lr .* 0\.0"),
        ({"weight_decay": -1.0}, r"weight_decay .* -1\.0"),
        ({"warmup_epochs": -1.0}, r"warmup_epochs .* -1\.0"),
        ({"precision": "float16"}, "precision .* 'float16'"),
        ({"schedule": "linear"}, "schedule .* 'linear'"),
        ({"optimizer": "lion"}, "optimizer .* 'lion'"),
        ({"weight_decay": math.inf}, "weight_decay .* inf"),
        ({"epochs": 2.5}, r"epochs .* 2\.5"),
        ({"batch_size": True}, "batch_size .* True"),
    ],
)
def test_a_bad_setting_is_refused_by_name(change, named):
    with pytest.raises((ValueError, TypeError), match=named):
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
