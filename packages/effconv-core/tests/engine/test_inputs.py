"""Several inputs, inputs by name and losses within the network, in whatever runs a network."""

import math
from collections import OrderedDict, UserDict
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from effconv_core import (
    Budget,
    Latency,
    Macs,
    SearchableCNN,
    apply_plan,
    recipe,
    search,
)
from effconv_core.engine.loader import epoch_batches
from effconv_core.engine.train import TrainConfig, evaluate, train
from torch import nn
from torch.utils.data import DataLoader, Dataset

CPU = torch.device("cpu")


class Two(nn.Module):
    """Scores of an image and a mask."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.conv = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)

    def forward(self, image, mask):
        return self.fc((self.conv(self.stem(image).relu()) * mask).mean((2, 3)))


class WithLoss(Two):
    """Gives its losses, as detectors do, where it is given targets."""

    def forward(self, images, targets=None):
        scores = super().forward(torch.stack(images), torch.ones(()))
        if not self.training:
            return [{"scores": row} for row in scores]
        classes = torch.stack([target["class"] for target in targets])
        return {"classes": F.cross_entropy(scores, classes), "size": scores.square().mean()}


class Centring(Two):
    """Changes its inputs in place."""

    def forward(self, image, mask):
        return super().forward(image.sub_(3.0), mask.mul_(0.5))


def batches(put, count=6):
    generator = torch.Generator().manual_seed(1)
    return [
        put(
            torch.randn(4, 3, 8, 8, generator=generator),
            torch.rand(4, 1, 8, 8, generator=generator),
            torch.tensor([0, 1, 2, 0]),
        )
        for _ in range(count)
    ]


def in_detection(image, mask, labels):
    return (list(image), [{"class": label, "boxes": torch.empty(0, 4)} for label in labels]), None


PUT = {
    "tuple": (Two, lambda image, mask, labels: ((image, mask), labels)),
    "list": (Two, lambda image, mask, labels: [[image, mask], labels]),
    "dict": (Two, lambda image, mask, labels: ({"mask": mask, "image": image}, labels)),
    "mapping": (Two, lambda i, mask, labels: (UserDict({"mask": mask, "image": i}), labels)),
    "losses within": (WithLoss, in_detection),
    "changed in place": (Centring, lambda image, mask, labels: ((image, mask), labels)),
}


def total(outputs, targets):
    return F.cross_entropy(outputs, targets) if targets is not None else sum(outputs.values())


def quick(**changes):
    settings = {"least_steps": 0, "race_steps": 0, "finalists": 2, "exploration": 1.0}
    return recipe("bank", epochs=1, **{**settings, **changes})


@pytest.mark.parametrize("race_steps", [0, 1])
@pytest.mark.parametrize("way", PUT)
def test_a_network_is_searched_on_its_arguments(way, race_steps):
    make, put = PUT[way]
    searchable = SearchableCNN(make(), quick(race_steps=race_steps))
    loader = batches(put)
    plan = search(searchable, loader, criterion=total)
    assert list(plan) == ["conv"]
    cnn = searchable.warm_start(plan, example=loader[0][0])
    apply_plan(make(), plan, example=loader[0][0])
    assert sum(p.numel() for p in cnn.parameters()) == plan.cost


def test_positional_and_named_arguments_give_one_plan():
    plans = [
        search(Two(), batches(PUT[way][1]), config=quick(race_steps=1)) for way in ("tuple", "dict")
    ]
    assert plans[0].soft_sizes == plans[1].soft_sizes
    assert plans[0].evidence == plans[1].evidence


def test_a_plan_is_compared_on_the_same_inputs_however_often_they_are_used():
    seen = []

    class Watching(Centring):
        def forward(self, image, mask):
            seen.append(image.mean().item())
            return super().forward(image, mask)

    class Anew:
        def __iter__(self):
            return iter(batches(PUT["tuple"][1]))

    for race_steps in (0, 1):
        search(Watching(), Anew(), config=quick(race_steps=race_steps, finalists=4))
    assert min(seen) > -1.0  # a second pass over what a first one changed would begin at -3


@pytest.mark.parametrize("way", ["tuple", "dict"])
def test_costs_are_measured_on_several_arguments(way):
    (example, _), *_ = batches(PUT[way][1])
    searchable = SearchableCNN(Two(), quick(), example=example)
    assert Macs(example)(searchable)([3]) == 4 * (64 * 9 * (3 * 4 + 4 * 4) + 4 * 3)
    assert Latency(example, repetitions=1, warmups=0)(searchable)([3]) > 0
    budget = Budget(Macs(example)(searchable)([5]), Macs(example))
    assert searchable.plan(budget).values()


@pytest.mark.parametrize("way", ["tuple", "dict"])
def test_a_network_is_trained_and_tested_on_several_arguments(way):
    net, loader = Two(), batches(PUT[way][1])
    before = net.conv.weight.clone()
    train(net, loader, TrainConfig(epochs=1))
    assert not torch.equal(before, net.conv.weight)
    accuracy = evaluate(net, loader)
    net.eval()
    hits = torch.cat([net(*batch[0]).argmax(1) == batch[1] for batch in batches(PUT["tuple"][1])])
    assert accuracy == hits.float().mean()


@pytest.mark.parametrize("place", [0, 1])
def test_the_argument_that_is_not_finite_is_noticed(place):
    loader = batches(PUT["tuple"][1])
    loader[0][0][place][0, 0, 0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="inputs"):
        search(Two(), loader, config=quick())


class Samples(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, place):
        return {"image": torch.ones(3, 8, 8), "mask": torch.ones(1, 8, 8)}, place % 3


def test_a_loader_s_own_batches_are_inputs():
    loader = DataLoader(Samples(), batch_size=4)
    assert list(search(Two(), loader, config=quick())) == ["conv"]


def test_what_is_within_a_batch_goes_to_the_device():
    put = {"a": [torch.ones(1), "name"], "b": ({"c": torch.ones(1)}, 3)}
    (inputs, targets), *_ = epoch_batches([(put, [put])], 0, torch.device("meta"))
    for value in (inputs, targets[0]):
        assert value["a"][0].is_meta
        assert value["b"][0]["c"].is_meta
        assert (value["a"][1], value["b"][1]) == ("name", 3)


@dataclass
class Outputs(OrderedDict):
    """Outputs as libraries of models give them: by name, key and place."""

    loss: torch.Tensor
    logits: torch.Tensor

    def __post_init__(self):
        self.update(loss=self.loss, logits=self.logits)


class Named(Two):
    """Is given everything by name, the labels too."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, pixel_values, labels=None):
        scores = super().forward(pixel_values, torch.ones(()))
        loss = F.cross_entropy(scores, labels)
        return self.kind(loss=loss, logits=scores)


def by_name(image, mask, labels):
    return {"pixel_values": image, "labels": labels}


@pytest.mark.parametrize("race_steps", [0, 1])
@pytest.mark.parametrize("kind", [Outputs, dict, SimpleNamespace])
def test_batches_by_name_need_no_targets(kind, race_steps):
    steps, loader = [], [UserDict(batch) for batch in batches(by_name)]

    def own_loss(outputs, targets):
        assert targets is None
        return outputs["loss"] if kind is dict else outputs.loss

    config = quick(race_steps=race_steps)
    plan = search(Named(kind), loader, config=config, criterion=own_loss, on_step=steps.append)
    assert list(plan) == ["conv"]
    assert len(steps) == len(loader)
    with pytest.raises(TypeError, match=r"lambda outputs, targets: outputs[.\[]'?loss"):
        search(Named(kind), loader, config=config)


def test_accuracy_needs_labels_beside_the_inputs():
    for loader in (batches(by_name), [(torch.zeros(2, 3, 8, 8), [0, 1])]):
        with pytest.raises(TypeError, match="class indices"):
            evaluate(Named(dict), loader)


def test_an_argument_without_an_image_is_refused():
    loader = [((torch.ones(0, 3, 8, 8), torch.ones(0, 1, 8, 8)), torch.ones(0))]
    with pytest.raises(ValueError, match="no image"):
        search(Two(), loader, config=quick())


def test_arguments_by_name_reach_the_network_of_a_process_group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/f", rank=0, world_size=1)
    try:
        for way in ("tuple", "dict", "losses within"):
            make, put = PUT[way]
            plan = search(
                make(), batches(put), config=quick(), criterion=total, group=dist.group.WORLD
            )
            assert list(plan) == ["conv"]
    finally:
        dist.destroy_process_group()
