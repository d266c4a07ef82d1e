"""Short trainings side by side: the same batches for all, one part held out, DDP's average."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from effconv_core import apply_plan, recipe
from effconv_core.engine.race import PARTS, Trials, checked_validation
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

SIZES = {"2": 3}
ALL_IGNORED = torch.full((8,), -100)


def net(*, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 1),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Dropout(dropout),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


class Recorded:
    """Ten batches an epoch; keeps the numbers of the batches that it gave."""

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.images = torch.randn(10, 8, 1, 6, 6, generator=generator)
        self.labels = torch.randint(0, 3, (10, 8), generator=generator)
        self.given, self.epoch = [], None

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        for number in range(10):
            self.given.append((self.epoch, number))
            yield self.images[number], self.labels[number]

    def __len__(self):
        return 10


def trials(loader=None, model=None, **changes) -> Trials:
    values = {
        "model": net() if model is None else model,
        "config": recipe("bank", cnn_lr=0.01),
        "loader": Recorded() if loader is None else loader,
        "criterion": F.cross_entropy,
        "epoch_steps": 10,
        "epochs": 3,
        "device": torch.device("cpu"),
    }
    return Trials(**values | changes)


@pytest.mark.parametrize("given", range(1, PARTS))
def test_an_epoch_that_is_too_short_all_of_a_sudden_is_told(given):
    loader = Recorded()
    batches = list(zip(loader.images[:given], loader.labels[:given], strict=True))
    for seed in range(PARTS):
        with pytest.raises(ValueError, match=rf"gave {given} batch.* and 10 in one before"):
            trials(batches).run([SIZES], steps=2, seed=seed, epoch=0)


def trained_by_a_loop(model, loader, numbers, seed) -> nn.Sequential:
    """Train on batches of these numbers with AdamW at a rate that falls to zero."""
    network = apply_plan(model, SIZES, generator=torch.Generator().manual_seed(seed)).train()
    optimizer = torch.optim.AdamW(network.parameters(), 0.01, weight_decay=1e-3)
    for step, number in enumerate(numbers):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / len(numbers))
        loss = F.cross_entropy(network(loader.images[number]), loader.labels[number])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    network[1].train()
    return network


def test_a_result_is_that_of_a_loop_written_out():
    loader, given = Recorded(), trials()
    (result,) = given.run([SIZES], steps=6, seed=2, epoch=0, paired=True)
    # Parts of five: batches 2 and 7 are held out by seed 2.
    network = trained_by_a_loop(given.model, loader, [0, 1, 3, 4, 5, 6], seed=2)
    with torch.no_grad():
        outputs = [network(loader.images[number]) for number in (2, 7)]
    labels = [loader.labels[number] for number in (2, 7)]
    losses = [F.cross_entropy(*pair) for pair in zip(outputs, labels, strict=True)]
    hits = [(o.argmax(1) == y).float().mean() for o, y in zip(outputs, labels, strict=True)]
    assert result.loss == pytest.approx(torch.stack(losses).mean().item(), abs=1e-6)
    assert result.accuracy == pytest.approx(torch.stack(hits).mean().item(), abs=1e-6)
    means = [o.mean(0).repeat(len(o), 1) for o in outputs]
    losses = [F.cross_entropy(*pair) for pair in zip(means, labels, strict=True)]
    assert result.constant == pytest.approx(torch.stack(losses).mean().item(), abs=1e-6)


@pytest.mark.parametrize("error", [ValueError, AssertionError, LookupError, TypeError])
def test_constant_outputs_are_tried_where_asked_and_where_the_criterion_takes_them(error):
    def centred(outputs, labels):
        spread = outputs.detach().var(0).min()
        if spread == 0:
            raise error("no variance")
        return F.cross_entropy(outputs, labels) + 0 * spread

    (plain,) = trials().run([SIZES], steps=2, seed=2, epoch=0)
    (odd,) = trials(criterion=centred).run([SIZES], steps=2, seed=2, epoch=0, paired=True)
    (asked,) = trials().run([SIZES], steps=2, seed=2, epoch=0, paired=True)
    assert plain.constant is odd.constant is None
    assert asked.constant is not None
    assert plain.loss == asked.loss == pytest.approx(odd.loss)


@pytest.mark.parametrize("outputs", ["a dict", "one sample"])
def test_outputs_without_a_mean_have_no_constant_loss(outputs):
    class Few(Recorded):
        def __iter__(self):
            for images, labels in super().__iter__():
                yield images[:1], labels[:1]

    class InDict(nn.Sequential):
        def forward(self, x):
            return {"scores": super().forward(x)}

    if outputs == "one sample":
        given = trials(Few())
    else:
        model = InDict(*net())
        given = trials(model=model, criterion=lambda o, y: F.cross_entropy(o["scores"], y))
    (result,) = given.run([SIZES], steps=2, seed=2, epoch=0, paired=True)
    assert math.isfinite(result.loss)
    assert result.constant is None


def test_each_part_is_held_out_by_some_seed_and_never_trained_on():
    for seed in range(PARTS):
        loader = Recorded()
        seen = []
        generator = iter(trials(loader)._training(0, seed))
        for _ in range(16):
            images, _ = next(generator)
            seen.append(int((loader.images == images).flatten(1).all(1).nonzero()))
        assert len(set(seen)) == 8
        assert {number % PARTS for number in seen} == set(range(PARTS)) - {seed}
        assert seen[:8] == seen[8:]


def test_the_epochs_are_those_after_the_search():
    loader = Recorded()
    trials(loader).run([SIZES], steps=2, seed=0, epoch=1)
    assert {epoch for epoch, _ in loader.given} == {4}


def test_plans_do_not_change_each_others_results():
    other = {"2": 5}
    model = net(dropout=0.3)
    both = trials(model=model).run([SIZES, other], steps=5, seed=1, epoch=0)
    alone = [
        trials(model=model).run([plan], steps=5, seed=1, epoch=0)[0] for plan in (SIZES, other)
    ]
    assert both == alone


@pytest.mark.parametrize("of_sampler", [False, True])
def test_model_generators_and_loader_are_as_before(of_sampler):
    model = net(dropout=0.5)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    own = torch.Generator().manual_seed(5)
    data = TensorDataset(torch.randn(40, 1, 6, 6), torch.randint(0, 3, (40,)))
    drawn = {"shuffle": True, "generator": own}, {"sampler": RandomSampler(data, generator=own)}
    loader = DataLoader(data, batch_size=4, **drawn[of_sampler])
    state, own_state = torch.get_rng_state(), own.get_state()
    trials(loader, model).run([SIZES], steps=3, seed=0, epoch=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(own.get_state(), own_state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("own", [False, True])
def test_a_shuffling_loader_gives_the_same_order_each_time(own):
    data = TensorDataset(torch.randn(40, 1, 6, 6), torch.arange(40) % 3)
    generator = torch.Generator().manual_seed(5) if own else None
    loader = DataLoader(data, batch_size=4, shuffle=True, generator=generator)
    first, second = (trials(loader).run([SIZES], steps=5, seed=0, epoch=0) for _ in range(2))
    assert first == second
    assert trials(loader).run([SIZES], steps=5, seed=0, epoch=1) != first


def test_outputs_without_classes_have_a_loss_alone():
    for model in (net(), net()[:5]):
        given = trials(model=model, criterion=lambda o, y: (o**2).mean())
        (result,) = given.run([SIZES], steps=2, seed=0, epoch=0)
        assert result.accuracy is None
        assert math.isfinite(result.loss)


def test_what_is_no_score_of_each_sample_has_no_accuracy():
    class Halves(Recorded):
        def __iter__(self):
            return ((images, labels[:4]) for images, labels in super().__iter__())

    class Complex(nn.Sequential):
        def forward(self, x):
            return torch.complex(super().forward(x), torch.ones(8, 3))

    halved = trials(Halves(), criterion=lambda o, y: F.cross_entropy(o.view(4, 2, 3).mean(1), y))
    turned = trials(model=Complex(*net()), criterion=lambda o, y: F.cross_entropy(o.abs(), y))
    for given in (halved, turned):
        (result,) = given.run([SIZES], steps=2, seed=0, epoch=0, paired=True)
        assert math.isfinite(result.loss)
        assert result.accuracy is None


@pytest.mark.parametrize("kind", [tuple, dict])
def test_outputs_of_autocast_are_float32_wherever_they_are(kind):
    class Several(nn.Sequential):
        def forward(self, x):
            scores = super().forward(x)
            assert scores.dtype == torch.bfloat16
            return (scores, [scores]) if kind is tuple else {0: scores, 1: [scores]}

    def strict(outputs, labels):
        assert outputs[0].dtype == outputs[1][0].dtype == torch.float32
        return F.cross_entropy(outputs[0], labels)

    config = recipe("bank", precision="bfloat16")
    (result,) = trials(model=Several(*net()), criterion=strict, config=config).run(
        [SIZES], steps=2, seed=0, epoch=0
    )
    assert math.isfinite(result.loss)


def test_a_loss_that_is_not_finite_is_infinite():
    broken = trials(criterion=lambda o, y: F.cross_entropy(o, y) * float("nan"))
    (result,) = broken.run([SIZES], steps=1, seed=0, epoch=0)
    assert result.loss == math.inf


def test_a_loss_of_one_number_in_a_vector_is_taken():
    (plain,) = trials().run([SIZES], steps=2, seed=0, epoch=0, paired=True)
    (vector,) = trials(criterion=lambda o, y: F.cross_entropy(o, y)[None]).run(
        [SIZES], steps=2, seed=0, epoch=0, paired=True
    )
    assert vector == plain


def test_frozen_normalisation_stays_frozen():
    class Frozen(nn.Sequential):
        def train(self, mode=True):
            super().train(mode)
            self[1].eval()
            return self

    model = Frozen(*net())
    model[1].running_mean.fill_(0.7)
    given = trials(model=model)
    network = given._network(SIZES, 0)
    assert not network[1].training
    (result,) = given.run([SIZES], steps=1, seed=0, epoch=0)
    (live,) = trials().run([SIZES], steps=1, seed=0, epoch=0)
    assert result != live


def held_out_of(validation) -> dict:
    return {"validation": validation, "validation_steps": len(validation)}


def test_with_a_validation_loader_all_batches_train_and_only_its_own_are_tested():
    loader, validation = Recorded(), Recorded()
    validation.images = validation.images.flip(0) + 0.5
    given = trials(loader, **held_out_of(validation))
    (result,) = given.run([SIZES], steps=3, seed=2, epoch=0)
    (part,) = given.run([SIZES], steps=3, seed=2, epoch=0, paired=True)
    assert [number for _, number in loader.given][:3] == [0, 1, 2]
    network = trained_by_a_loop(given.model, loader, [0, 1, 2], seed=2)
    with torch.no_grad():
        losses = [
            F.cross_entropy(network(validation.images[n]), validation.labels[n]).item()
            for n in range(10)
        ]
    assert result.loss == pytest.approx(sum(losses) / 10, abs=1e-6)
    assert part.loss == pytest.approx((losses[2] + losses[7]) / 2, abs=1e-6)


def test_three_batches_an_epoch_suffice_beside_a_validation_loader():
    loader = Recorded()
    batches = list(zip(loader.images[:3], loader.labels[:3], strict=True))
    given = trials(batches, **held_out_of(Recorded()), epoch_steps=3)
    (result,) = given.run([SIZES], steps=7, seed=0, epoch=0)
    assert math.isfinite(result.loss)
    assert given.cost(3, 7) == 3 * (7 + 4)  # ten batches are tested
    assert given.cost(3, 7, paired=True) == 3 * (7 + 1)  # two of ten


@pytest.mark.parametrize("of_sampler", [False, True])
def test_a_validation_loader_has_its_generator_again_and_the_same_order_each_time(of_sampler):
    data = TensorDataset(torch.randn(40, 1, 6, 6), torch.arange(40) % 3)
    own, model = torch.Generator().manual_seed(5), net(dropout=0.5)
    orders = {"shuffle": True, "generator": own}, {"sampler": RandomSampler(data, generator=own)}
    validation = DataLoader(data, batch_size=4, **orders[of_sampler])
    before, everywhere = own.get_state(), torch.get_rng_state()
    assert checked_validation(model, validation, F.cross_entropy) == 10
    given = trials(model=model, **held_out_of(validation))
    first, second = (given.run([SIZES], steps=2, seed=0, epoch=0) for _ in range(2))
    assert first == second
    assert torch.equal(own.get_state(), before)
    assert torch.equal(torch.get_rng_state(), everywhere)


def test_each_pair_has_samples_of_its_own_of_a_shuffling_validation_loader():
    data = TensorDataset(torch.randn(40, 1, 6, 6), torch.arange(40.0))
    loader = DataLoader(data, batch_size=4, shuffle=True)
    tested = []

    def criterion(outputs, targets):
        tested.extend([] if outputs.requires_grad else targets.tolist())
        return outputs.square().mean()

    given = trials(**held_out_of(loader), criterion=criterion)
    for part in range(PARTS):
        given.run([SIZES], steps=1, seed=part, epoch=part, paired=True)
    assert sorted(tested) == sorted([*range(40)] * 2)  # with constant outputs too


def test_a_validation_loader_that_is_that_of_the_training_too_must_stay_as_long():
    loader = Recorded()
    batches = list(zip(loader.images, loader.labels, strict=True))[:7]
    given = trials(batches, validation=batches, validation_steps=10)
    with pytest.raises(ValueError, match=r"validation loader gave 7 batch.* at least 10"):
        given.run([SIZES], steps=2, seed=4, epoch=0, paired=True)


def test_of_a_long_validation_loader_batches_from_all_of_it_are_tested():
    assert checked_validation(net(), None, F.cross_entropy) is None
    many = [(torch.zeros(2, 1, 6, 6), torch.zeros(2, dtype=torch.int64))] * 480
    assert checked_validation(net(), many, F.cross_entropy) == 480
    given = trials(**held_out_of(many))
    assert given.held_out(0, paired=False) == list(range(0, 480, 20))
    parts = [given.held_out(part, paired=True) for part in range(PARTS)]
    assert sorted(number for part in parts for number in part) == list(range(0, 480, 4))
    assert {len(part) for part in parts} == {24}


def test_validation_batches_of_one_label_each_are_refused():
    loader = Recorded()
    alone = [(images, torch.full((8,), n % 3)) for n, images in enumerate(loader.images)]
    ordered = loader.labels.flatten().sort().values.view(10, 8)  # some batches have two labels
    for given in (alone, list(zip(loader.images, ordered, strict=True))):
        with pytest.raises(ValueError, match="shuffle"):
            checked_validation(net(), given, F.cross_entropy)
    same = [(images, torch.zeros(8, dtype=torch.int64)) for images in loader.images]
    assert checked_validation(net(), same, F.cross_entropy) == 10


class Fewer(list):
    """Gives seven batches from the third time on that it is read."""

    times = 0

    def __iter__(self):
        self.times += 1
        return iter(self[: 10 if self.times < 3 else 7])


@pytest.mark.parametrize(
    ("change", "kind", "what"),
    [
        (lambda batches: batches[:4], ValueError, "4 batch"),
        (lambda batches: iter(batches), TypeError, "iterator"),
        (lambda batches: [*batches[:-1], (batches[-1][0], torch.full((8,), 3))], ValueError, "3"),
        (lambda batches: [*batches[:-1], (batches[-1][0][:, :0], batches[-1][1])], ValueError, "0"),
        (lambda batches: [(x.double(), y) for x, y in batches], TypeError, "float64"),
        (lambda batches: [(x[:, 0], y) for x, y in batches], ValueError, "channels"),
        (lambda batches: DataLoader(dict(enumerate(batches, 1)), None), ValueError, "KeyError: 0"),
        (lambda batches: [*batches, (batches[0][0] / 0, batches[0][1])], ArithmeticError, "nan"),
        (lambda batches: [*batches, (batches[0][0], ALL_IGNORED)], ArithmeticError, "nan"),
        (Fewer, ValueError, "10 batch.* 7 when"),
    ],
)
def test_a_validation_loader_that_does_not_fit_is_told_beforehand(change, kind, what):
    loader, model = Recorded(), net(dropout=0.5)
    before = copy.deepcopy(model.state_dict())
    batches = change(list(zip(loader.images, loader.labels, strict=True)))
    with pytest.raises(kind, match=f"validation.*{what}"):
        checked_validation(model, batches, F.cross_entropy)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_cost_counts_a_pass_as_a_third():
    # Two batches of ten are held out, which is one step in all.
    assert trials().cost(3, 7) == 3 * 8
