import dataclasses

import pytest
import torch
from effconv_core import Budget, Macs, SearchableCNN, apply_plan, recipe, search
from effconv_core.io.checkpoint import put_training_state, read_training_state
from torch import nn

BUDGET = 1500


def net():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model


class Loader:
    """Batches that depend on the epoch alone, as a resumable loader's do."""

    def __init__(self, batches=4, fail_in_epoch=None):
        self.batches, self.fail_in_epoch, self.epoch = batches, fail_in_epoch, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.epoch)
        for index in range(self.batches):
            if self.epoch == self.fail_in_epoch and index == 2:
                raise KeyboardInterrupt
            labels = torch.randint(3, (8,), generator=generator)
            yield torch.randn(8, 1, 9, 9, generator=generator) + labels.view(-1, 1, 1, 1), labels


def config(**changes):
    kept_short = {"least_steps": 0, "race_steps": 0}
    return recipe("bank", **{"epochs": 3, "size_lr": 0.05, **kept_short, **changes})


def test_the_plan_is_within_two_percent_of_the_budget():
    plan = search(net(), Loader(), budget=BUDGET, config=config())
    assert list(plan) == ["2", "5"]
    assert abs(plan.cost - BUDGET) <= 0.02 * BUDGET
    assert plan.budget == BUDGET


def test_two_searches_of_one_seed_agree_and_another_seed_differs():
    def soft(seed):
        return search(net(), Loader(), budget=BUDGET, config=config(seed=seed)).soft_sizes

    assert soft(1) == soft(1)
    assert soft(1) != soft(2)


def test_the_global_seed_is_neither_used_nor_set():
    model = net()
    before = torch.random.get_rng_state()
    search(model, Loader(), budget=BUDGET, config=config())
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_model_handed_in_is_not_changed():
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    search(model, Loader(), budget=BUDGET, config=config())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_an_interrupted_search_goes_on_as_if_nothing_had_happened(tmp_path):
    checkpoint = tmp_path / "search.safetensors"
    whole, resumed = [], []
    expected = search(net(), Loader(), budget=BUDGET, config=config(), on_step=whole.append)
    with pytest.raises(KeyboardInterrupt):
        search(
            net(),
            Loader(fail_in_epoch=1),
            budget=BUDGET,
            config=config(),
            checkpoint=checkpoint,
        )
    plan = search(
        net(),
        Loader(),
        budget=BUDGET,
        config=config(),
        checkpoint=checkpoint,
        on_step=resumed.append,
    )
    assert plan == expected
    assert [s.epoch for s in resumed] == [1] * 4 + [2] * 4
    for mine, theirs in zip(resumed, whole[4:]):
        assert torch.equal(mine.task_loss, theirs.task_loss)


def test_a_finished_search_gives_its_plan_again_without_a_step(tmp_path):
    keywords = {"budget": BUDGET, "config": config(), "checkpoint": tmp_path / "s.safetensors"}
    plan, steps = search(net(), Loader(), **keywords), []
    assert search(net(), Loader(), on_step=steps.append, **keywords) == plan
    assert steps == []


def test_a_state_from_when_all_layers_had_one_b_goes_on_with_it(tmp_path):
    def wide():
        model = net()
        model[5] = nn.Conv2d(6, 8, 5, stride=2, padding=2, bias=False)
        return model

    path, before = tmp_path / "s.safetensors", config(b=-0.35)
    whole = search(wide(), Loader(), budget=BUDGET, config=before)
    with pytest.raises(KeyboardInterrupt):
        search(wide(), Loader(fail_in_epoch=1), budget=BUDGET, config=before, checkpoint=path)
    state = read_training_state(path)
    searchable = SearchableCNN(wide(), config())
    optimizer = torch.optim.AdamW(searchable.parameter_groups())
    former = {n: v for n, v in state.tensors.items() if n != "model.size_predictor.b"}
    assert len(former) < len(state.tensors)
    put_training_state(state._replace(tensors=former), searchable, optimizer)
    assert searchable.size_predictor.b.tolist() == pytest.approx([-0.35] * 2)
    # The settings of today say None where those of before said -0.35.
    assert search(wide(), Loader(), budget=BUDGET, config=config(), checkpoint=path) == whole
    with pytest.raises(ValueError, match="config"):
        search(wide(), Loader(), budget=BUDGET, config=config(b=0.1), checkpoint=path)


def test_a_checkpoint_of_another_search_is_refused(tmp_path):
    keywords = {"budget": BUDGET, "checkpoint": tmp_path / "s.safetensors"}
    search(net(), Loader(), config=config(), **keywords)
    with pytest.raises(ValueError, match="whose config was .* delete it to start again"):
        search(net(), Loader(), config=config(seed=9), **keywords)
    keywords["budget"] = 1400
    with pytest.raises(ValueError, match="whose budget was 1500, not 1400"):
        search(net(), Loader(), config=config(), **keywords)


def test_steps_report_what_happened():
    steps = []
    search(net(), Loader(), budget=BUDGET, config=config(epochs=2), on_step=steps.append)
    assert [(s.epoch, s.step) for s in steps] == [(e, i) for e in range(2) for i in range(4)]
    first = steps[0]
    cost = SearchableCNN(net()).cost
    assert first.sizes == [3, 3]
    assert first.cost == cost([3, 3])
    assert first.outputs.shape == (8, 3)
    # v = 2.9908732 in both layers: weight 20 times log(P(v) / budget)^2.
    soft_cost = cost.constant + 2.9908732**2 * (24 + 48)
    expected = 20 * torch.tensor(soft_cost / BUDGET).log() ** 2
    torch.testing.assert_close(first.budget_loss, expected, rtol=1e-4, atol=0)


def test_an_infeasible_budget_is_refused_before_the_loader_is_touched():
    class Untouched:
        def __iter__(self):
            raise AssertionError("the loader was read")

    with pytest.raises(ValueError, match=r"budget 10 cannot be met: .* from \d+ \(all sizes 1\)"):
        search(net(), Untouched(), budget=10, config=config())
    tight = dataclasses.replace(config(), tolerance=1e-4)
    with pytest.raises(ValueError, match="no plan costs within"):
        search(net(), Untouched(), budget=BUDGET + 0.5, config=tight)


@pytest.mark.parametrize("loader", [[], Loader(batches=0)])
def test_an_empty_loader_is_refused(loader):
    with pytest.raises(ValueError, match="the loader gave no batch in epoch 1"):
        search(net(), loader, budget=BUDGET, config=config())


@pytest.mark.parametrize(
    ("batch", "given"),
    [
        (
            {"x": torch.zeros(4, 1, 9, 9), "y": torch.zeros(4)},
            "Sequential.*'input'",
        ),
        (((torch.zeros(4, 1, 9, 9), 3), torch.zeros(4)), "Sequential"),
        ({"input": torch.zeros(4, 1, 9, 9), "labels": torch.zeros(4)}, "Sequential.*'labels'"),
        (torch.zeros(4, 1, 9, 9), "a Tensor as batch 1 of epoch 1"),
        (
            (torch.zeros(4, 1, 9, 9), torch.zeros(4), 0),
            "a tuple of 3 as batch 1 of epoch 1",
        ),
    ],
)
def test_a_loader_that_does_not_give_pairs_is_one_sentence(batch, given):
    steps = []
    with pytest.raises(TypeError, match=given) as caught:
        search(net(), [batch], budget=BUDGET, config=config(), on_step=steps.append)
    assert "loader" in str(caught.value)
    assert not steps


def test_a_wrong_channel_count_is_one_sentence():
    batches = [(torch.randn(4, 3, 9, 9), torch.zeros(4).long())]
    with pytest.raises(ValueError, match=r"images have 3 channel\(s\).*'0' takes 1"):
        search(net(), batches, budget=BUDGET, config=config())


def test_a_wrong_channel_count_of_lines_is_one_sentence_too():
    batches = [(torch.randn(12, 2, 128), torch.zeros(12).long())]
    with pytest.raises(ValueError, match=r"images have 2 channel\(s\).*'stem' takes 1"):
        search(Voices(), batches, budget=1250, config=config(), searched=["stem", "line"])


def test_a_layer_that_the_network_does_not_run_is_named():
    class Idle(Voices):
        def __init__(self):
            super().__init__()
            self.unused = nn.Conv1d(4, 4, 3)

    budget = Budget(1e9, at_most=True)
    with pytest.raises(ValueError, match=r"did not run its layer\(s\) \['unused'\] in the first"):
        search(Idle(), sounds(), budget=budget, config=config())
    plan = search(Idle(), sounds(), budget=budget, config=config(), searched=["line", "cube"])
    assert set(plan) == {"line", "cube"}


def test_another_runtime_error_is_not_disguised():
    model = net().append(nn.Unflatten(1, (7, 7)))
    batches = [(torch.randn(4, 1, 9, 9), torch.zeros(4).long())]
    with pytest.raises(RuntimeError, match="unflatten"):
        search(model, batches, budget=BUDGET, config=config())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "resnet"}, "the model is a str; pass a torch.nn.Module"),
        ({"config": "paper"}, r"config is 'paper'; pass a SearchConfig, such as recipe"),
        ({"budget": "15000"}, "budget is '15000'; pass the wanted parameter count as a number"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_named(change, sentence):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 3))
    arguments = {"model": model, "loader": [], "budget": 300, **change}
    with pytest.raises(TypeError, match=sentence):
        search(**arguments)


class Voices(nn.Module):
    """Lines, squares and cubes, grouped and not, on one recording."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv1d(1, 4, 3, padding=1)
        self.line = nn.Conv1d(4, 8, 3, padding=1, padding_mode="circular")
        self.depthwise = nn.Conv1d(8, 8, 5, padding=2, groups=8)
        self.square = nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect", bias=False)
        self.row = nn.Conv2d(6, 6, (1, 3), padding=(0, 2), dilation=2)
        self.cube = nn.Conv3d(6, 3, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm3d(3)

    def forward(self, sound):
        x = self.depthwise(self.line(self.stem(sound)).relu()).relu()
        x = self.row(self.square(x.unflatten(2, (8, 16))).relu())
        return self.norm(self.cube(x.unflatten(3, (4, 4)))).mean((2, 3, 4))


def sounds():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(12) % 3
    return [(torch.randn(12, 1, 128, generator=generator) + labels.view(-1, 1, 1), labels)] * 3


FORMS = [
    {},
    {"mask": "gaussian"},
    {"mask": "gaussian", "kernel_form": "projected"},
    {"mask": "gaussian", "kernel_form": "literal"},
]


@pytest.mark.parametrize("per_axis", [False, True])
@pytest.mark.parametrize("form", FORMS, ids=["ring", "gaussian", "projected", "literal"])
def test_a_search_of_every_kind_of_layer_at_once(form, per_axis):
    torch.manual_seed(0)
    model, macs = Voices(), Macs(torch.randn(1, 1, 128))
    searchable = SearchableCNN(model, per_axis=per_axis)
    costs = [searchable.cost, macs(searchable)]
    wanted = [cost([3 for _ in searchable.space.ranges]) for cost in costs]
    budgets = [Budget(wanted[0]), Budget(1.05 * wanted[1], macs, at_most=True)]
    settings = recipe("bank", epochs=2, least_steps=0, tolerance=0.05, **form)
    plan = search(model, sounds(), budget=budgets, config=settings, per_axis=per_axis)
    assert list(plan) == ["line", "depthwise", "square", "row", "cube"]
    axes = {"line": 1, "depthwise": 1, "square": 2, "row": 2, "cube": 3}
    for name, size in plan.items():
        assert len(size if isinstance(size, tuple) else (size,)) == (axes[name] if per_axis else 1)
    assert abs(plan.cost / wanted[0] - 1) <= 0.05
    assert plan.budgets[1]["cost"] <= 1.05 * wanted[1]
    cnn = apply_plan(model, plan)
    assert sum(p.numel() for p in cnn.parameters()) == plan.cost
    assert cnn(sounds()[0][0]).shape == (12, 3)


@pytest.mark.parametrize("form", FORMS, ids=["ring", "gaussian", "projected", "literal"])
@pytest.mark.parametrize("per_axis", [False, True])
def test_the_task_has_a_slope_for_every_size_of_every_kind(form, per_axis):
    torch.manual_seed(0)
    settings = recipe("bank", exploration=0.0, finalists=1, **form)
    searchable = SearchableCNN(Voices(), settings, per_axis=per_axis)
    sound, labels = sounds()[0]
    loss = nn.functional.cross_entropy(searchable(sound), labels)
    (slopes,) = torch.autograd.grad(loss, searchable.soft_sizes)
    assert slopes.shape == (len(searchable.space.ranges),)
    assert slopes.isfinite().all()
    assert (slopes != 0).all()


def test_tied_layers_and_odd_sizes_stay_so_in_every_step_and_in_the_plan():
    steps, model = [], net()
    model.insert(6, nn.Conv2d(8, 8, 3, padding=1))
    plan = search(
        model,
        Loader(8),
        budget=Budget(4000, at_most=True),
        config=config(size_lr=0.3),
        allowed={"*": range(1, 10, 2), "2": range(2, 5)},
        tie=[["5", "6"]],
        on_step=steps.append,
    )
    assert plan["5"] == plan["6"]
    assert plan["5"] in range(1, 10, 2)
    assert plan["2"] in range(2, 5)
    assert plan.cost <= 4000
    assert plan.allowed == {"2": (2, 4, 1), "5": (1, 9, 2), "6": (1, 9, 2)}
    assert len({tuple(step.sizes) for step in steps}) > 1
    for step in steps:
        assert step.sizes[1] == step.sizes[2]
        assert step.sizes[1] in range(1, 10, 2)
        assert step.soft_sizes[1] == step.soft_sizes[2]


def test_tied_layers_are_explored_together():
    searchable = SearchableCNN(Voices(), recipe("bank"), tie=[["line", "depthwise"]])
    seen = []
    source = searchable.kernel_predictor.forward

    def spy(soft_sizes, sizes):
        seen.append((soft_sizes.tolist(), sizes))
        return source(soft_sizes, sizes)

    searchable.kernel_predictor.forward = spy
    for _ in range(10):
        searchable(sounds()[0][0])
    assert all(v[0] == v[1] and s[0] == s[1] for v, s in seen)
    assert len({v[0] for v, _ in seen}) == 10


def test_a_checkpoint_of_other_ranges_or_of_other_budgets_is_refused(tmp_path):
    keywords = {"config": config(), "checkpoint": tmp_path / "s.safetensors"}
    budget = Budget(BUDGET, at_most=True)
    search(net(), Loader(), budget=budget, **keywords)
    with pytest.raises(ValueError, match=r"whose allowed was .* delete it to start again"):
        search(net(), Loader(), budget=budget, allowed=range(1, 10), **keywords)
    with pytest.raises(ValueError, match=r"whose tie was \[0, 1\], not \[0, 0\]"):
        search(net(), Loader(), budget=budget, tie=["*"], **keywords)
    with pytest.raises(ValueError, match=r"whose budget was \[.*'at_most': True.*\], not 1500"):
        search(net(), Loader(), budget=BUDGET, **keywords)
