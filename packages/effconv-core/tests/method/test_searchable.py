import copy

import pytest
import torch
from effconv_core import SearchableCNN, SearchConfig, apply_plan, recipe, searched_layers
from torch import nn


class Called(nn.Conv2d):
    def __call__(self, images):
        return super().__call__(images).relu()


class Residual(nn.Module):
    """A network of the test's own: a skip, a stride, one convolution used twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.shared = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.down = nn.Conv2d(6, 10, 5, stride=2, padding=2)
        self.point = nn.Conv2d(10, 10, 1)
        self.alias = self.shared
        self.fc = nn.Linear(10, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        x = x + self.shared(self.alias(x).relu())
        return self.fc(self.point(self.down(x).relu()).mean((2, 3)))


def set_kernels(searchable, kernels):
    """Stand in for the kernel predictor, so that kernels are known."""
    searchable.kernel_predictor = lambda soft_sizes, sizes: kernels


def test_default_choice_is_every_convolution_larger_than_1x1_after_the_first():
    assert list(searched_layers(Residual())) == ["shared", "down"]


def test_a_filter_chooses_by_name_and_module():
    assert list(searched_layers(Residual(), lambda n, m: n == "point")) == ["point"]
    assert list(searched_layers(Residual(), lambda n, m: m.stride == (2, 2))) == ["down"]


def test_with_the_original_kernels_the_output_is_the_originals():
    model = Residual()
    searchable = SearchableCNN(model)
    del searchable.kernel_predictor
    set_kernels(searchable, [model.shared.weight, model.down.weight])
    images = torch.randn(2, 3, 15, 12)
    torch.testing.assert_close(searchable(images), model(images))


def test_the_model_is_copied_and_shared_layers_stay_shared():
    model = Residual()
    searchable = SearchableCNN(model)
    assert type(model.shared) is nn.Conv2d
    assert searchable.model.alias is searchable.model.shared
    assert searchable.layers == ["shared", "down"]


def test_cost_is_the_parameter_count_of_the_network_that_apply_plan_builds():
    model = Residual()
    searchable = SearchableCNN(model)
    assert searchable.cost([3, 5]) == sum(p.numel() for p in model.parameters())
    cnn = apply_plan(model, {"shared": 2, "down": 6})
    assert searchable.cost([2, 6]) == sum(p.numel() for p in cnn.parameters())
    assert SearchableCNN(model, SearchConfig(count="searched")).cost([2, 6]) == 36 * 4 + 60 * 36


def test_three_groups_hold_every_parameter_once_at_the_papers_rates():
    searchable = SearchableCNN(Residual())
    groups = searchable.parameter_groups()
    assert [(g["name"], g["lr"], g["weight_decay"]) for g in groups] == [
        ("size_predictor", 1e-4, 1e-3),
        ("kernel_predictor", 1e-3, 1e-3),
        ("cnn", 1e-4, 1e-3),
    ]
    ours = [id(p) for group in groups for p in group["params"]]
    assert sorted(ours) == sorted(id(p) for p in searchable.parameters())


def test_gradients_reach_every_searched_layers_size():
    searchable = SearchableCNN(Residual(), recipe("bank"))
    searchable(torch.randn(4, 3, 14, 14)).logsumexp(1).sum().backward()
    assert (searchable.size_predictor.head_bias.grad != 0).all()


def test_exploration_moves_the_sizes_of_a_training_step_and_not_what_is_learned():
    settings = recipe("bank", mask="gaussian", finalists=1, exploration=1.5, b=-0.35)
    searchable = SearchableCNN(Residual(), settings)
    seen = []
    source = searchable.kernel_predictor.forward

    def spy(soft_sizes, sizes):
        seen.append((soft_sizes.tolist(), sizes))
        return source(soft_sizes, sizes)

    searchable.kernel_predictor.forward = spy
    images = torch.randn(2, 3, 14, 14)
    for _ in range(200):
        searchable(images)
    soft = torch.tensor([v for v, _ in seen])
    # v starts at 2.99, so what is drawn lies evenly between 1.49 and 4.49.
    assert 1.49 <= soft.min() < 1.6
    assert 4.4 < soft.max() <= 4.5
    torch.testing.assert_close(soft.mean(0), torch.full((2,), 2.99), atol=0.25, rtol=0)
    # Each layer by itself: of 200 independent pairs the correlation is within 0.2 of zero.
    assert abs(torch.corrcoef(soft.T)[0, 1]) < 0.2
    assert all(sizes == [round(v) for v in vs] for vs, sizes in seen)
    assert searchable.sizes == [3, 3]
    torch.testing.assert_close(searchable.soft_sizes, torch.full((2,), 2.9908732))
    seen.clear()
    searchable.eval()(images)
    assert seen == [(searchable.soft_sizes.tolist(), [3, 3])]


def test_a_drawn_size_stays_within_the_range():
    searchable = SearchableCNN(Residual(), recipe("bank", exploration=50.0))
    source, seen = searchable.kernel_predictor.forward, []

    def spy(soft_sizes, sizes):
        seen.extend(zip(soft_sizes.tolist(), sizes))
        return source(soft_sizes, sizes)

    searchable.kernel_predictor.forward = spy
    for _ in range(30):
        searchable(torch.randn(2, 3, 14, 14))
    assert {1.0, 7.0} <= {v for v, _ in seen}
    assert all(1 <= v <= 7 and 0 <= size - v <= 1 for v, size in seen)


def test_between_two_odd_sizes_the_larger_window_is_taken_and_its_ring_drawn():
    searchable = SearchableCNN(Residual(), recipe("bank"), allowed=range(1, 8, 2))
    source, seen = searchable.kernel_predictor.forward, []

    def spy(soft_sizes, sizes):
        kernels = source(soft_sizes, sizes)
        whole = [int((kernel[0, 0, 0, 0] != 0).item()) for kernel in kernels]
        seen.extend(zip(soft_sizes.tolist(), sizes, whole))
        return kernels

    searchable.kernel_predictor.forward = spy
    for _ in range(150):
        searchable(torch.randn(2, 3, 14, 14))
    assert all(size in range(3, 8, 2) and 0 <= size - v <= 2 for v, size, _ in seen)
    # v runs evenly from 0.99 to 4.99, but stops at 1; from 3 to 5 the ring is on half of the time.
    drawn = [on for v, _, on in seen if v > 3]
    assert len(drawn) > 100
    assert sum(drawn) / len(drawn) == pytest.approx(0.5, abs=0.12)


def test_forward_at_runs_the_banks_windows_of_the_given_sizes():
    model = Residual()
    searchable = SearchableCNN(model, recipe("bank")).eval()
    shared, down = searchable.kernel_predictor.kernels
    cnn = apply_plan(model, {"shared": 4, "down": 3})
    with torch.no_grad():
        # By hand: the middle of 7 taps is number 3, and a window of 4 has one tap before it.
        cnn.shared.weight.copy_(shared[:, :, 2:6, 2:6])
        cnn.down.weight.copy_(down[:, :, 2:5, 2:5])
        cnn.down.bias.copy_(model.down.bias)
        images = torch.randn(2, 3, 14, 14)
        torch.testing.assert_close(searchable.forward_at([4, 3], images), cnn(images))


def test_in_evaluation_the_ring_form_runs_at_the_rounded_sizes():
    searchable = SearchableCNN(Residual(), recipe("bank")).eval()
    with torch.no_grad():
        searchable.size_predictor.head_bias += (
            0.4  # v is some 3.3, between a ring that is on and off
        )
    images = torch.randn(2, 3, 14, 14)
    assert searchable.plan().sizes == {"shared": 3, "down": 5}
    assert min(searchable.plan().soft_sizes.values()) > 3.2
    torch.testing.assert_close(searchable(images), searchable.forward_at([3, 5], images))
    torch.testing.assert_close(searchable(images), searchable(images))


@pytest.mark.parametrize("sizes", [[9, 3], [0, 3], [3], [3, 3, 3], [3, 2.5], ["shared", "down"]])
def test_forward_at_sizes_that_there_are_not_is_refused(sizes):
    searchable = SearchableCNN(Residual(), recipe("bank"))
    with pytest.raises(ValueError, match="pass 2 integers from 1 to 7, one"):
        searchable.forward_at(sizes, torch.randn(2, 3, 14, 14))


def test_asking_for_kernels_uses_up_no_draw_of_the_training():
    searchable = SearchableCNN(Residual(), recipe("bank")).train()
    before = {name: value.clone() for name, value in searchable.state_dict().items()}
    searchable.kernels_at([4, 3])
    searchable.warm_start({"shared": 4, "down": 3})
    after = searchable.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(module.training for module in searchable.modules())


def test_a_network_may_look_at_its_layers_weights():
    class Looking(Residual):
        def forward(self, x):
            return super().forward(x.to(self.shared.weight.dtype) * self.shared.weight.mean())

    searchable = SearchableCNN(Looking())
    assert searchable(torch.randn(1, 3, 14, 14)).shape == (1, 3)
    assert searchable.convs[0].weight is None  # no kernel is kept alive between passes


@pytest.mark.parametrize("per_axis", [False, True])
def test_forward_at_takes_a_plans_values(per_axis):
    searchable = SearchableCNN(Residual(), recipe("bank"), per_axis=per_axis).eval()
    plan, images = searchable.plan(), torch.randn(2, 3, 14, 14)
    torch.testing.assert_close(searchable.forward_at(plan.values(), images), searchable(images))


def test_ranges_start_where_equation_1_puts_them():
    ranges = {"shared": range(1, 32), "down": range(3, 12, 2)}
    plan = SearchableCNN(Residual(), SearchConfig(b=-0.35), allowed=ranges).plan()
    # tanh(-0.35) = -0.3363756: 15 tanh + 16 and 4 tanh + 7.
    assert plan.soft_sizes == {
        "shared": pytest.approx(10.954366, abs=1e-5),
        "down": pytest.approx(5.654498, abs=1e-5),
    }
    assert plan.sizes == {"shared": 11, "down": 5}


def test_layers_start_at_their_own_sizes():
    class Varied(nn.Sequential):
        def __init__(self):
            sizes = (3, 5, (3, 5), (1, 7), 11)
            convs = [nn.Conv2d(2, 2, size, padding="same") for size in sizes]
            super().__init__(*convs, nn.Conv1d(2, 2, 5))

    searched, names = "*", ["0", "1", "2", "3", "4", "5"]
    rectangular = SearchableCNN(Varied(), searched=searched, per_axis=True).plan()
    assert rectangular.sizes == dict(
        zip(names, [(3, 3), (5, 5), (3, 5), (1, 7), (11, 11), 5], strict=True)
    )
    one = SearchableCNN(Varied(), searched=["0", "1", "4", "5"]).plan()
    assert list(one.sizes.values()) == [3, 5, 11, 5]
    tied = SearchableCNN(Varied(), searched=["0", "1"], tie=[["0", "1"]]).plan()
    assert set(tied.soft_sizes.values()) == {4.0}


def test_sizes_that_are_not_allowed_name_those_that_are():
    searchable = SearchableCNN(Residual(), allowed={"shared": range(1, 32, 2)})
    with pytest.raises(ValueError, match="from 1 to 31 by 2 or from 1 to 7, one"):
        searchable.forward_at([2, 3], torch.randn(2, 3, 14, 14))


def test_a_searchable_network_can_be_copied_after_a_forward_pass():
    searchable = SearchableCNN(Residual()).eval()
    images = torch.randn(2, 3, 14, 14)
    torch.testing.assert_close(copy.deepcopy(searchable)(images), searchable(images))


def test_a_budgets_loss_before_any_forward_pass_is_refused():
    with pytest.raises(ValueError, match="no soft sizes yet, .* run the network on a batch before"):
        SearchableCNN(Residual()).budget_loss(3400)


def test_plan_is_within_the_budget_or_refused():
    searchable = SearchableCNN(Residual())
    plan = searchable.plan(budget=3400)
    assert plan.cost == searchable.cost([plan["shared"], plan["down"]])
    assert abs(plan.cost - 3400) <= 0.02 * 3400
    with pytest.raises(ValueError, match="cannot be met"):
        searchable.plan(budget=100)


@pytest.mark.parametrize(
    ("model", "searched", "sentence"),
    [
        (nn.Linear(3, 3), None, "the Linear has no layer to search: it has no convolution"),
        (
            nn.Sequential(nn.Conv2d(3, 3, 3)),
            None,
            "search: of its 1 each is the model's first convolution, so pass another",
        ),
        (Residual(), lambda n, m: False, "of its 4 each is not chosen by `searched`"),
        (
            nn.Sequential(nn.Conv2d(3, 3, (3, 5))),
            lambda n, m: True,
            "has a kernel of 3x5, which needs per_axis=True",
        ),
        (
            nn.Sequential(Called(3, 3, 3)),
            "*",
            "is a Called, not one of torch.nn's own",
        ),
    ],
)
def test_what_cannot_be_searched_says_why(model, searched, sentence):
    with pytest.raises(ValueError, match=sentence):
        SearchableCNN(model, searched=searched)


def test_a_soft_size_that_is_not_finite_names_its_layer():
    searchable = SearchableCNN(Residual())
    searchable.size_predictor.head_bias.data[1] = float("nan")
    with pytest.raises(FloatingPointError, match="layer 'down' is nan"):
        searchable(torch.randn(1, 3, 14, 14))


@pytest.mark.slow
def test_torchvision_resnet18():
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18(num_classes=5)
    searchable = SearchableCNN(model, recipe("bank"))
    # 16 block convolutions; the 7x7 stem is first and the shortcuts are 1x1.
    assert len(searchable.layers) == 16
    assert searchable.cost([3] * 16) == sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(searchable.parameter_groups())
    images, labels = torch.randn(2, 3, 64, 64), torch.tensor([0, 3])
    for _ in range(2):
        loss = nn.functional.cross_entropy(searchable(images), labels)
        loss = loss + searchable.budget_loss(11e6)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    gradients = searchable.size_predictor.head_bias.grad
    assert gradients.isfinite().all()
    assert (gradients != 0).all()
    plan = searchable.plan(11e6)
    cnn = apply_plan(model, plan)
    assert sum(p.numel() for p in cnn.parameters()) == plan.cost
    assert abs(plan.cost - 11e6) <= 0.02 * 11e6
    assert cnn(images).shape == (2, 5)
    ours = {type(m) for m in cnn.modules() if "effconv" in type(m).__module__}
    assert not ours
