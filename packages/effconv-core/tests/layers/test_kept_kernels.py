"""Layers that gradient checkpointing runs again in the backward pass have the kernels they had."""

import copy
import gc
import pickle

import pytest
import torch
from effconv_core import SearchableCNN, recipe, search
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

SEARCH = {"epochs": 2, "least_steps": 0, "race_steps": 0, "finalists": 1}


class Block(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.first, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.how = nn.Conv2d(4, 4, 5, padding=2), how

    def body(self, x):
        return x + self.second(torch.relu(self.norm(self.first(x))))

    def forward(self, x):
        return self.body(x) if self.how is None else checkpoint(self.body, x, **self.how)


class Blocks(nn.Module):
    def __init__(self, how, whole=False):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4, 3)
        self.blocks, self.whole, self.how = nn.Sequential(Block(how), Block(how)), whole, how

    def forward(self, x):
        x = self.stem(x)
        if self.whole and self.how is not None:
            x = checkpoint(self.blocks, x, **self.how)
        else:
            x = self.blocks(x)
        return self.head(x.mean((2, 3)))


class Parts(Blocks):
    def forward(self, x):
        if self.how is None:
            return super().forward(x)
        x = checkpoint_sequential(self.blocks, 2, self.stem(x), **self.how)
        return self.head(x.mean((2, 3)))


def data():
    generator = torch.Generator().manual_seed(1)
    labels = torch.tensor([0, 1, 2, 0])
    return [(torch.randn(4, 2, 9, 9, generator=generator), labels) for _ in range(2)]


def learned(model, **settings):
    searchable = SearchableCNN(model, recipe("bank", **SEARCH, **settings))
    losses = []
    search(searchable, data(), on_step=lambda step: losses.append(float(step.task_loss)))
    return losses, list(searchable.parameters())


# Batch normalisation counts a pass that is run again, but trains on the batch's own statistics.
@pytest.mark.parametrize("shapes", ["exact", "padded"])
@pytest.mark.parametrize(
    "net", [Blocks, lambda how: Blocks(how, whole=True), Parts], ids=["block", "nested", "parts"]
)
def test_a_search_learns_what_it_learns_without_checkpoints(net, shapes):
    losses, parameters = learned(net({"use_reentrant": False}), shapes=shapes)
    expected, others = learned(net(None), shapes=shapes)
    assert losses == expected
    assert len(losses) == 4
    torch.testing.assert_close(parameters, others)


def test_a_timm_network_with_checkpoints_is_searched():
    timm = pytest.importorskip("timm")
    gradients = []
    for checkpoints in (True, False):
        torch.manual_seed(0)
        model = timm.create_model("resnet10t", num_classes=3)
        model.set_grad_checkpointing(checkpoints)
        searchable = SearchableCNN(model, recipe("bank"))
        searchable(torch.ones(2, 3, 32, 32)).square().sum().backward()
        gradients.append([parameter.grad for parameter in searchable.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("whole", [False, True])
def test_reentrant_checkpoints_of_searched_layers_are_refused_before_the_first_step(whole):
    steps = []
    model = Blocks({"use_reentrant": True}, whole)
    with pytest.raises(ValueError, match=r"'blocks.0.first'.*use_reentrant"):
        search(model, data(), config=recipe("bank", **SEARCH), on_step=steps.append)
    assert not steps


def test_reentrant_checkpoints_of_layers_that_are_left_alone_are_searched():
    class Half(Block):
        def forward(self, x):
            return self.second(checkpoint(self.first, x, use_reentrant=True))

    model = nn.Sequential(nn.Conv2d(2, 4, 1), Half(None), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    plan = search(model, data(), config=recipe("bank", **SEARCH), searched=["1.second"])
    assert set(plan) == {"1.second"}


def searchable_blocks():
    return SearchableCNN(Blocks({"use_reentrant": False}), recipe("bank"))


def test_of_two_passes_without_a_backward_pass_none_is_taken_for_the_other():
    searchable, images = searchable_blocks(), data()[0][0]
    losses = [searchable(images).sum(), searchable(images).sum()]
    with pytest.raises(RuntimeError, match="2 forward passes"):
        sum(losses).backward()


def test_passes_that_are_over_or_forgotten_do_not_count():
    searchable, images = searchable_blocks(), data()[0][0]
    searchable(images)  # its graph is nobody's
    gc.collect()
    kept = [searchable(images).sum()]
    kept[0].backward()
    kept.append(searchable(images).sum())
    kept[1].backward()
    with torch.no_grad():
        searchable(images)
    assert all(p.grad is not None for p in searchable.kernel_predictor.parameters())
    for conv in searchable.convs:
        assert conv.kernel is None
        assert [p for p in conv.kept_kernels._passes if p() and p().kernel is not None] == []


def test_a_layer_has_no_kernel_outside_of_a_backward_pass():
    searchable, images = searchable_blocks(), data()[0][0]
    loss = searchable(images).sum()
    with pytest.raises(RuntimeError, match="only in forward passes"):
        searchable.convs[0](torch.zeros(1, 4, 9, 9))
    loss.backward()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_copy_has_none_of_the_kept_kernels(copied):
    searchable, images = searchable_blocks(), data()[0][0]
    loss = searchable(images).sum()
    other = copied(searchable)
    other(images).sum().backward()
    loss.backward()
    for network in (other, searchable):
        assert all(p.grad is not None for p in network.kernel_predictor.parameters())
