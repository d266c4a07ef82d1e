"""The choice of a plan by short trainings: what wins, what stays, and what survives a kill."""

import dataclasses
import importlib.util
import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from effconv_core import (
    Budget,
    SearchableCNN,
    SizePlan,
    load_training_state,
    recipe,
    save_training_state,
    search,
)
from effconv_core.engine import choice
from effconv_core.engine.choice import STAY
from effconv_core.engine.proposals import BATCHES as BATCHES_OF_A_LOSS
from effconv_core.engine.proposals import GENERATIONS, POPULATION
from effconv_core.engine.race import MOST_NEEDED, Result, Trials
from effconv_core.evidence import sentences
from effconv_core.io.checkpoint import read_training_state

spec = importlib.util.spec_from_file_location("signs", Path(__file__).with_name("signs.py"))
signs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(signs)
ALLOWED, BATCHES, Signs, config, cost, net = (
    signs.ALLOWED,
    signs.BATCHES,
    signs.Signs,
    signs.config,
    signs.cost,
    signs.net,
)


@pytest.fixture(scope="module")
def found():
    """What a search with the settings of `config` finds."""
    return search(net(), Signs(), budget=cost(net()), config=config(), **ALLOWED)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The state of that search where nothing is left but to look at the evidence."""
    path = tmp_path_factory.mktemp("choice") / "s.safetensors"
    keywords = {"budget": cost(net()), "config": config(), "checkpoint": path, **ALLOWED}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "evidence_of", lambda *a, **k: (_ for _ in ()).throw(KeyError()))
        with pytest.raises(KeyError):
            search(net(), Signs(), **keywords)
    return path


@pytest.fixture
def undecided(made, tmp_path):
    """A copy of that state."""
    return shutil.copy(made, tmp_path / "s.safetensors")


def test_the_found_sizes_are_taken_where_they_are_better():
    # Neighbours must be compared before the square, so the first size must be above 1.
    model = net(sizes=(1, 5))
    keywords = {"budget": cost(model), "searched": ["1", "4"], **ALLOWED}
    plan = search(model, Signs(), config=config(race_steps=64), **keywords)
    assert plan.evidence.verdict == "better"
    assert plan.evidence.kept == "found"
    assert plan.sizes == plan.evidence.found
    assert plan["1"] > 1
    assert plan.evidence.loss_interval[1] < 0 < plan.evidence.accuracy


def test_plans_are_compared_on_the_validation_data(found):
    options = {"budget": cost(net()), "config": config(), **ALLOWED}
    validation, turned = Signs(), Signs()
    turned.labels = 1 - turned.labels
    plan = search(net(), Signs(), validation=validation, **options)
    blind = search(net(), Signs(), validation=turned, **options)
    assert plan.evidence.pairs == blind.evidence.pairs == 4
    assert plan.evidence.original_loss < 0.1 < 2 < blind.evidence.original_loss
    assert plan.evidence.original_loss != found.evidence.original_loss  # trained on all batches
    assert (plan.evidence.learned, blind.evidence.learned) == (True, False)
    few = [batch for batch, _ in zip(Signs(), range(2), strict=False)]
    assert search(net(), few, **options).evidence.pairs == 0
    assert search(net(), few, validation=validation, **options).evidence.pairs == 4


@pytest.mark.parametrize("changes", [{"finalists": 1}, {"race_steps": 0}])
def test_validation_data_that_nothing_is_compared_on_are_refused(changes):
    options = {"budget": cost(net()), "config": config(**changes), **ALLOWED}
    with pytest.raises(ValueError, match="validation"):
        search(net(), Signs(), validation=Signs(), **options)


def test_labels_of_chance_keep_the_original_sizes():
    for seed in range(3):
        loader = Signs()
        loader.labels = torch.randint(
            0, 2, loader.labels.shape, generator=torch.Generator().manual_seed(seed)
        )
        model = net()
        plan = search(model, loader, budget=cost(model), config=config(seed=seed), **ALLOWED)
        assert plan.evidence.verdict == "no difference shown"
        assert plan.evidence.kept == "original"
        assert plan.sizes == {"1": 3, "4": 3}
        assert plan.evidence.found != plan.sizes


def test_the_best_found_is_taken_anyway_if_asked_for():
    model, loader = net(), Signs()
    loader.labels = loader.labels[torch.randperm(BATCHES, generator=torch.Generator())]
    plan = search(model, loader, budget=cost(model), config=config(keep="best"), **ALLOWED)
    assert plan.evidence.kept == "found"
    assert plan.sizes == plan.evidence.found != {"1": 3, "4": 3}


def test_original_sizes_outside_of_the_budget_cannot_stay():
    model = net()
    budget = 0.7 * cost(model)
    plan = search(model, Signs(), budget=budget, config=config(tolerance=0.1), **ALLOWED)
    assert plan.evidence.kept == "found"
    assert abs(plan.cost / budget - 1) <= 0.1


def test_sizes_that_may_not_be_chosen_cannot_stay():
    model = net()
    plan = search(
        model, Signs(), budget=cost(model), config=config(tolerance=0.3), allowed=range(2, 9, 2)
    )
    assert plan.evidence.kept == "found"
    assert set(plan.values()) <= set(range(2, 9, 2))


@pytest.mark.parametrize("batches", [1, 2, 4])
def test_with_too_few_batches_nothing_is_shown_and_the_original_stays(batches):
    model = net()
    plan = search(model, Signs(batches=batches), budget=cost(model), config=config(), **ALLOWED)
    assert (plan.evidence.pairs, plan.evidence.verdict) == (0, "no difference shown")
    assert plan.sizes == {"1": 3, "4": 3}


def test_a_single_plan_within_the_budget_is_the_plan():
    model = net()
    plan = search(model, Signs(), budget=cost(model), config=config(), allowed=range(3, 4))
    assert plan.sizes == {"1": 3, "4": 3}
    assert (plan.evidence.pairs, plan.evidence.plans) == (0, 1)
    assert sentences(plan.evidence)[1] == "No other plan is within the budget."


def test_the_plan_and_its_evidence_are_read_back(found):
    assert SizePlan.from_json(found.to_json()) == found
    content = json.loads(found.to_json())
    content["evidence"]["verdict"] = "much better"
    with pytest.raises(ValueError, match="evidence"):
        SizePlan.from_json(json.dumps(content))


def test_steps_are_counted(found):
    spent = found.evidence.spent
    assert spent["kernels"] == 20  # two epochs of ten batches
    tried = found.evidence.plans
    assert tried > 4
    # Two batches are held out, which cost one step; in each round the original sizes are trained.
    assert spent["trainings"] == (tried + (3 + 1) + (1 + 1) + (1 + 1)) * (24 + 1)


def test_a_search_of_cifar10_takes_at_most_ten_epochs():
    epoch, settings = 391, recipe("bank")
    assert 128 * (epoch - 1) < 50_000 <= 128 * epoch
    options = net(), settings, Signs(), F.cross_entropy, MOST_NEEDED, 1, torch.device("cpu")
    steps, cost = settings.race_steps, Trials(*options).cost
    compared = POPULATION * (1 + GENERATIONS) + settings.finalists
    trained = settings.finalists + sum(stay + 1 for stay in STAY)
    spent = {
        "kernels": epoch * settings.epochs_of(epoch),
        "proposals": BATCHES_OF_A_LOSS * compared / 3,
        "trainings": cost(trained, steps, paired=True),
    }
    assert spent["kernels"] == epoch
    assert sum(spent.values()) <= 10 * epoch


def test_a_stopped_search_chooses_the_same_plan(tmp_path):
    keywords = {"budget": cost(net()), "config": config(race_steps=12), **ALLOWED}
    expected = search(net(), Signs(), **keywords)
    path, found, stages = tmp_path / "s.safetensors", None, []
    # After so many batches of each start: one stop in each stage, the last in the last round.
    for stop in (15, 20, *[34] * 4):
        with suppress(KeyboardInterrupt):
            found = search(net(), Signs(stop_at=stop), checkpoint=path, **keywords)
            break
        stages.append(len(read_training_state(path).progress.get("choice", ())))
    assert stages == [0, 1, 2, 3, 4]
    assert found == expected
    assert search(net(), Signs(stop_at=1), checkpoint=path, **keywords) == expected


def test_a_stage_that_is_done_is_not_done_again(undecided, found):
    again, keywords = Signs(), {"budget": cost(net()), "config": config(), **ALLOWED}
    assert search(net(), again, checkpoint=undecided, **keywords) == found
    assert again.taken == 0
    stages = read_training_state(undecided).progress["choice"]
    assert set(stages) == {"proposals", *(f"round {i}" for i in range(4))}


class Made:
    """In place of trainings, results that a test makes of the sizes and the number of the round."""

    def __init__(self, monkeypatch, result):
        self.rounds = []

        def run(trials, plans, *, epoch, **options):
            self.rounds.append([tuple(sizes.values()) for sizes in plans])
            return [result(sizes, epoch) for sizes in self.rounds[-1]]

        monkeypatch.setattr(Trials, "run", run)


def test_the_least_mean_loss_decides_who_stays(monkeypatch):
    """A plan that is best in the first round by chance is not the one found."""
    lucky, good, place = [], [], {}

    def result(sizes, number):
        if not number:
            place.setdefault(sizes, len(place))
        if sizes == (3, 3):
            return Result(1.0, 0.5)
        rank = place[sizes]
        if rank == 0:
            lucky.append(sizes)
            return Result((0.1, 1.3)[number], 0.5)
        if rank == 1:
            good.append(sizes)
            return Result(0.5, 0.9)
        return Result(0.8 + rank / 100, 0.5)

    made = Made(monkeypatch, result)
    plan = search(net(), Signs(), budget=cost(net()), config=config(), **ALLOWED)
    first, second, third, fourth = made.rounds
    assert len(first) == plan.evidence.plans
    assert [len(tried) for tried in (second, third, fourth)] == [4, 2, 2]
    assert all(tried[-1] == (3, 3) for tried in made.rounds)  # the original, always beside them
    assert second[0] == lucky[0]
    assert third == fourth == [good[0], (3, 3)]
    assert tuple(plan.evidence.found.values()) == good[0]
    assert plan.evidence.verdict == "better"
    assert plan.evidence.loss == pytest.approx(-0.5)


def test_chance_finds_better_sizes_in_less_than_one_of_twenty_searches(monkeypatch):
    """All plans are alike, and the one found was chosen by the trainings that are its evidence."""
    generator = torch.Generator().manual_seed(0)

    def result(sizes, number):
        one, other = torch.randn(2, generator=generator).tolist()
        return Result(1 + one / 10, 0.5 + 0.01 * (-0.7 * one + 0.51**0.5 * other))

    Made(monkeypatch, result)
    searchable, loader = SearchableCNN(net(), config(finalists=8), **ALLOWED), Signs()
    device = torch.device("cpu")
    trials = Trials(net(), config(), loader, F.cross_entropy, BATCHES, 2, device)
    plans = [[3, 3], [1, 7], [2, 5], [5, 1], [7, 1], [1, 5], [2, 3], [4, 2]]

    def remember(name, made):
        return [plans, [0.5] * len(plans), 8] if name == "proposals" else made()

    said = [
        choice.choose_plan(searchable, trials, Budget(cost(net())), remember=remember).evidence
        for _ in range(1000)
    ]
    better = sum(evidence.verdict == "better" for evidence in said)
    assert 20 < better < 50
    assert sum(evidence.verdict == "worse" for evidence in said) < 10


def test_where_no_loss_of_the_first_round_is_finite_an_error_is_raised(monkeypatch):
    Made(monkeypatch, lambda sizes, number: Result(float("inf"), 0.5))
    with pytest.raises(FloatingPointError, match="cnn_lr"):
        search(net(), Signs(), budget=cost(net()), config=config(), **ALLOWED)


def test_a_plan_that_diverges_in_a_later_round_does_not_stay(monkeypatch):
    bad = []

    def result(sizes, number):
        if sizes != (3, 3) and not bad:
            bad.append(sizes)
        loss = (0.1 if number == 0 else float("inf")) if sizes in bad else 0.5
        return Result(loss, 0.5)

    made = Made(monkeypatch, result)
    plan = search(net(), Signs(), budget=cost(net()), config=config(), **ALLOWED)
    assert made.rounds[1][0] == bad[0]
    assert bad[0] not in made.rounds[2]
    assert plan.evidence.loss is not None


def test_of_plans_that_diverge_later_the_one_of_the_least_loss_before_is_compared(monkeypatch):
    losses = {}

    def result(sizes, number):
        if number and sizes != (3, 3):
            return Result(float("inf"), 0.5)
        return Result(losses.setdefault(sizes, 1 - len(losses) / 10), 0.5)  # the last is the best

    made = Made(monkeypatch, result)
    plan = search(net(), Signs(), budget=cost(net()), config=config(), **ALLOWED)
    assert made.rounds[2][0] == made.rounds[0][-2]
    assert (plan.evidence.verdict, plan.evidence.kept) == ("worse", "original")


def test_the_choice_of_an_earlier_version_begins_again(undecided, found):
    keywords = {"budget": cost(net()), "config": config(), **ALLOWED}
    searchable = SearchableCNN(net(), config(), **ALLOWED)
    optimizer = torch.optim.AdamW(searchable.parameter_groups())
    progress = load_training_state(undecided, searchable, optimizer)
    stages = progress["choice"]
    stages |= {"first": [[0.1, 0.9]] * len(stages.pop("round 0")), "longer": stages.pop("round 1")}
    stages |= {f"pair {i}": stages.pop(f"round {i + 2}") for i in range(2)}  # of another plan
    save_training_state(undecided, searchable, optimizer, progress)
    assert search(net(), Signs(), checkpoint=undecided, **keywords) == found
    assert not {"first", "pair 0"} & read_training_state(undecided).progress["choice"].keys()


class ShuffledSigns(Signs):
    """Signs whose labels say nothing of the inputs."""

    def __iter__(self):
        generator = torch.Generator().manual_seed(5)
        for inputs, targets in super().__iter__():
            yield inputs, torch.randint(0, 2, targets.shape, generator=generator)


def test_shuffled_labels_teach_nothing():
    model = net()
    settings = dataclasses.replace(config(), race_steps=120)
    plan = search(model, ShuffledSigns(), budget=cost(model), config=settings, **ALLOWED)
    assert not plan.evidence.learned
    assert (plan.evidence.verdict, plan.evidence.kept) == ("no difference shown", "original")
    assert "nothing was learned" in " ".join(sentences(plan.evidence))


@pytest.mark.parametrize(
    ("stage", "content"),
    [
        ("proposals", [[[3, 3], [5]], [0.5, 0.6], 8]),  # a size too few
        ("proposals", [[[3, 3], [5, 99]], [0.5, 0.6], 8]),  # a size that is not allowed
        ("proposals", [[[3, 3], [5, 1]], [0.5], 8]),  # a loss too few
        ("proposals", [[], [], 0]),
        ("round 0", [[0.5, 0.5]]),  # fewer trainings than plans
        ("round 2", [[0.5, 0.5]]),
        ("round 2", [[0.5, 2.0], [0.5, 0.5]]),  # an accuracy above 1
        ("round 2", "text"),
    ],
)
def test_stages_that_no_search_makes_are_refused(stage, content, undecided):
    searchable = SearchableCNN(net(), config(), **ALLOWED)
    optimizer = torch.optim.AdamW(searchable.parameter_groups())
    progress = load_training_state(undecided, searchable, optimizer)
    progress["choice"][stage] = content
    save_training_state(undecided, searchable, optimizer, progress)
    before = undecided.read_bytes()
    keywords = {"budget": cost(net()), "config": config(), **ALLOWED}
    with pytest.raises(ValueError, match=r"state|s\.safetensors"):
        search(net(), Signs(), checkpoint=undecided, **keywords)
    assert undecided.read_bytes() == before


def test_searches_of_neighbouring_seeds_share_no_training(monkeypatch):
    seeds = {}
    run = Trials.run

    def spy(self, plans, *, seed, **options):
        seeds.setdefault(self.config.seed, set()).add(seed)
        return run(self, plans, seed=seed, **options)

    monkeypatch.setattr(Trials, "run", spy)
    for seed in (0, 1):
        search(net(), Signs(), budget=cost(net()), config=config(seed=seed), **ALLOWED)
    assert len(seeds[0]) == len(seeds[1]) == 4
    assert not seeds[0] & seeds[1]
    assert len({seed % 5 for seed in seeds[0]}) == 4  # each round holds out another part
