"""What a loader says of its epochs and its length, and what it gives that is no batch."""

import itertools
from collections import namedtuple

import pytest
import torch
from effconv_core import SearchableCNN, frontier, probe, recipe, search, tournament
from effconv_core.engine.loader import (
    batch_count,
    check_read_again,
    read_before,
)
from effconv_core.engine.train import TrainConfig, evaluate, train
from torch import nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    Subset,
)

BUDGET = 280


def net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 4),
    )


def images(count):
    return [(torch.full((3, 8, 8), float(i)) / count, i % 4) for i in range(count)]


def searched(loader, epochs, on_step=None):
    config = recipe("paper", epochs=epochs)
    search(net(), loader, budget=BUDGET, config=config, on_step=on_step)


def trained(loader, epochs, on_step=None):
    train(net(), loader, TrainConfig(epochs=epochs, lr=1e-4), on_step=on_step)


def orders(use, loader, epochs=3):
    seen = [[] for _ in range(epochs)]
    use(loader, epochs, lambda step: seen[step.epoch].append(step.targets.tolist()))
    return seen


class Moving(Dataset):
    """A data set that gives other labels in each epoch, as one with curriculum does."""

    epoch = 0

    def __len__(self):
        return 8

    def __getitem__(self, place):
        return torch.zeros(3, 8, 8), (place + self.epoch) % 4

    def set_epoch(self, epoch):
        self.epoch = epoch


class Stream(IterableDataset):
    epoch = 0

    def __iter__(self):
        return iter([(torch.zeros(3, 8, 8), (i + self.epoch) % 4) for i in range(8)])

    def set_epoch(self, epoch):
        self.epoch = epoch


class Sized(Stream):
    def __len__(self):
        return 8


class Wrapped:
    """A loader around another, as those that move batches to a device are."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return iter(self.loader)

    def __len__(self):
        return len(self.loader)


def distributed(data):
    return DistributedSampler(data, num_replicas=2, rank=1, shuffle=True, seed=3)


LOADERS = {
    "a sampler": lambda: DataLoader(images(32), 4, sampler=distributed(images(32))),
    "the sampler of a batch sampler": lambda: DataLoader(
        images(32), batch_sampler=BatchSampler(distributed(images(32)), 4, False)
    ),
    "a data set": lambda: DataLoader(Moving(), 4),
    "the data set of a subset": lambda: DataLoader(Subset(Moving(), range(8)), 4),
    "one of several data sets": lambda: DataLoader(ConcatDataset([Moving(), Moving()]), 4),
    "a stream": lambda: DataLoader(Sized(), 4),
    "a loader within a loader": lambda: Wrapped(DataLoader(Moving(), 4)),
}


@pytest.mark.parametrize("use", [searched, trained])
@pytest.mark.parametrize("what", LOADERS)
def test_every_epoch_has_its_own_order(use, what):
    first, second, third = orders(use, LOADERS[what]())
    assert len({str(first), str(second), str(third)}) == 3


Pair = namedtuple("Pair", "images labels")
GOOD = torch.zeros(4, 3, 8, 8), torch.arange(4)


@pytest.mark.parametrize("use", [searched, trained])
@pytest.mark.parametrize("bad", [None, (None, GOOD[1]), [None, None], Pair(None, GOOD[1])])
def test_none_in_place_of_images_does_not_end_the_epoch(use, bad):
    with pytest.raises(TypeError, match="None as batch 2 of epoch 1|None as batch 2"):
        use([GOOD, bad, GOOD], 1)


def test_none_in_the_test_is_a_sentence_too():
    with pytest.raises(TypeError, match="None as batch 2 of the test"):
        evaluate(net(), [GOOD, None])


def test_a_named_tuple_is_a_pair():
    assert [len(epoch) for epoch in orders(searched, [Pair(*GOOD)] * 2, 1)] == [2]


def generator():
    yield GOOD


UNSIZED = {
    "a stream": lambda: DataLoader(Stream(), 4),
    "a generator": generator,
    "a length that is not implemented": lambda: type("Own", (Wrapped,), {"__len__": _no_length})(
        [GOOD]
    ),
}


def _no_length(self):
    raise NotImplementedError("unknown")


@pytest.mark.parametrize("what", UNSIZED)
def test_a_training_needs_a_length_and_says_so_before_it_begins(what, tmp_path):
    model, steps = net(), []
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(TypeError, match="has no length"):
        train(
            model,
            UNSIZED[what](),
            TrainConfig(epochs=1),
            checkpoint=tmp_path / "state.safetensors",
            on_step=steps.append,
        )
    assert not steps
    assert not list(tmp_path.iterdir())
    assert all(map(torch.equal, before, model.parameters()))


def test_a_search_needs_none():
    assert [len(epoch) for epoch in orders(searched, DataLoader(Stream(), 4), 2)] == [2, 2]


def test_a_length_of_zero_is_no_length():
    with pytest.raises(ValueError, match="length is 0"):
        batch_count(DataLoader([], 4))


def pairs(count=3):
    return [(torch.randn(4, 3, 8, 8), torch.arange(4)) for _ in range(count)]


ONCE = {
    "generator": lambda: (pair for pair in pairs()),
    "iterator of a list": lambda: iter(pairs()),
    "zip": lambda: zip([p[0] for p in pairs()], [p[1] for p in pairs()], strict=True),
    "map": lambda: map(tuple, pairs()),
    "islice": lambda: itertools.islice(pairs(), 2),
    "without an end": lambda: itertools.cycle(pairs()),
    "a DataLoader's": lambda: iter(DataLoader(images(8), 4)),
}


@pytest.mark.parametrize("loader", ONCE.values(), ids=ONCE)
@pytest.mark.parametrize("settings", [{"epochs": 2}, {"epochs": 1, "finalists": 4}])
def test_what_can_be_read_once_is_refused_before_the_first_step(loader, settings):
    config = recipe("bank", **{"least_steps": 0, "race_steps": 0, "finalists": 1, **settings})
    steps = []
    with pytest.raises(TypeError, match="starts again"):
        search(net(), loader(), config=config, on_step=steps.append)
    assert not steps


@pytest.mark.parametrize(
    "use",
    [
        lambda loader: probe(net(), loader),
        lambda loader: tournament(SearchableCNN(net(), recipe("bank")), loader, budget=BUDGET),
        lambda loader: frontier(SearchableCNN(net(), recipe("bank")), loader),
    ],
)
def test_nothing_else_reads_an_iterator_twice(use):
    with pytest.raises(TypeError, match="starts again"):
        use(iter(pairs()))


def test_a_search_of_one_epoch_takes_a_generator():
    config = recipe("bank", epochs=1, least_steps=0, race_steps=0, finalists=1)
    steps = []
    search(net(), (pair for pair in pairs()), config=config, on_step=steps.append)
    assert len(steps) == 3


def test_an_iterator_of_ones_own_may_start_again():
    class Prefetcher:
        def __iter__(self):
            self.rest = pairs()
            return self

        def __next__(self):
            if not self.rest:
                raise StopIteration
            return self.rest.pop()

    steps = []
    searched(Prefetcher(), 2, steps.append)
    assert len(steps) == 6


class Once:
    """An iterator that does not start again, of a class that nobody knows."""

    def __init__(self):
        self.rest = pairs()

    def __iter__(self):
        return self

    def __next__(self):
        if not self.rest:
            raise StopIteration
        return self.rest.pop()

    def __len__(self):
        return 3


class Kept(Once):
    """Gives a generator that it keeps."""

    def __init__(self):
        self.batches = (pair for pair in pairs())

    def __iter__(self):
        return self.batches


class Rewinding(Once):
    """Starts again by itself after its end, as loaders on GPUs do."""

    def __next__(self):
        if not self.rest:
            self.rest = pairs()
            raise StopIteration
        return self.rest.pop()


@pytest.mark.parametrize("kind", [Once, Kept])
@pytest.mark.parametrize("use", [searched, trained])
def test_an_iterator_that_does_not_start_again_is_refused_before_the_first_step(use, kind):
    steps = []
    with pytest.raises(TypeError, match=f"{kind.__name__}.*starts again"):
        use(kind(), 2, steps.append)
    assert not steps


@pytest.mark.parametrize("use", [searched, trained])
def test_an_iterator_that_starts_again_after_its_end_gives_all_its_batches(use):
    steps = []
    use(Rewinding(), 2, steps.append)
    assert len(steps) == 6


@pytest.mark.parametrize("length", [lambda self: 10**9, None])
def test_an_iterator_that_is_long_or_of_unknown_length_is_not_read_beforehand(length):
    loader = type("Own", (Once,), {"__len__": length})()
    check_read_again(loader)
    assert len(loader.rest) == 3


@pytest.mark.parametrize("loader", [Moving(), Subset(images(4), [0]), lambda: pairs(), 3])
def test_what_is_no_loader_is_refused(loader):
    with pytest.raises(TypeError, match="iterable of batches"):
        searched(loader, 1)


@pytest.mark.parametrize(
    ("batch", "error"),
    [
        (None, TypeError),
        ((None, torch.arange(4)), TypeError),
        ((torch.zeros(4, 3, 8, 8),), TypeError),
        ((torch.zeros(0, 3, 8, 8), torch.zeros(0).long()), ValueError),
        ((torch.zeros(1, 3, 8, 8), torch.zeros(1).long()), ValueError),
    ],
)
def test_a_later_batch_of_a_list_is_looked_at_before_the_first_step(batch, error, monkeypatch):
    monkeypatch.setitem(globals(), "net", normed)
    steps = []
    with pytest.raises(error):
        searched([*pairs(2), batch, *pairs(1)], 2, steps.append)
    assert not steps


def normed(plain=net):
    return nn.Sequential(plain(), nn.BatchNorm1d(4, affine=False))


@pytest.mark.parametrize("use", [searched, trained])
def test_a_last_batch_of_one_sample_is_refused_before_the_first_step(use, monkeypatch):
    monkeypatch.setitem(globals(), "net", normed)
    steps = []
    with pytest.raises(ValueError, match="one sample.*drop_last"):
        use(DataLoader(images(9), 4, shuffle=True), 2, steps.append)
    assert not steps
    use(DataLoader(images(9), 4, drop_last=True), 2, steps.append)
    assert len(steps) == 4


@pytest.mark.parametrize("use", [searched, trained])
def test_a_last_batch_of_one_sample_is_trained_where_the_network_takes_it(use):
    steps = []
    use(DataLoader(images(9), 4), 1, steps.append)
    assert [len(step.targets) for step in steps] == [4, 4, 1]


def test_a_batch_of_one_sample_of_another_loader_is_one_sentence(monkeypatch):
    monkeypatch.setitem(globals(), "net", normed)
    short = (torch.zeros(1, 3, 8, 8), torch.zeros(1).long())
    with pytest.raises(ValueError, match="one sample.*drop_last"):
        searched([*pairs(1), short], 1)


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        (torch.zeros(4, 3, 8, 8).numpy(), "ndarray"),
        ((torch.zeros(3, 8, 8).numpy(),), "ndarray"),
        (range(4), "range"),
    ],
)
def test_inputs_that_are_no_tensors_are_one_sentence(inputs, kind):
    with pytest.raises(TypeError, match=f"class {kind}"):
        searched([(inputs, torch.arange(4))], 1)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (KeyError("17"), ValueError),
        (RuntimeError("17"), ValueError),
        (UnicodeDecodeError("utf-8", b"17", 0, 1, "17"), ValueError),
        (TypeError("17"), TypeError),
        (FloatingPointError("17"), FloatingPointError),
        (FileNotFoundError(2, "none", "17.png"), FileNotFoundError),
    ],
)
def test_what_fails_before_a_run_is_told_of_its_loader(error, kind):
    with pytest.raises(kind) as raised, read_before("the test data"):
        raise error
    assert "17" in str(raised.value)
    if kind is not FileNotFoundError:
        assert str(raised.value).startswith("the test data")
        assert raised.value.__cause__ is error
