"""The found CNN that begins where the search ended."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from effconv_core import SearchableCNN, apply_plan, load, recipe, save, search
from torch import nn

SOURCES = {
    "paper": recipe("paper"),
    "literal": recipe("paper", kernel_form="literal", centre="aligned"),
    "bank with a Gaussian": recipe("paper", kernel_form="bank", exploration=1.0),
    "default": recipe("bank"),
}


class Images(nn.Module):
    """Strides, groups, dilation, padding modes, and a convolution that is used twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.shared = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.depthwise = nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8)
        self.grouped = nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=4)
        self.row = nn.Conv2d(12, 12, (1, 3), padding=(0, 1), padding_mode="replicate")
        self.same = nn.Conv2d(12, 12, 4, padding="same", padding_mode="reflect")
        self.alias = self.shared
        self.fc = nn.Linear(12, 4)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = x + self.shared(self.alias(x).relu())
        x = self.grouped(self.depthwise(x).relu())
        return self.fc(self.same(self.row(x).relu()).relu().mean((2, 3)))


def line():
    return nn.Sequential(
        nn.Conv1d(3, 8, 3),
        nn.BatchNorm1d(8),
        nn.Conv1d(8, 8, 3, stride=2, padding=1, groups=8, padding_mode="circular"),
        nn.ReLU(),
        nn.Conv1d(8, 8, 5, dilation=2, bias=False),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def cubes():
    return nn.Sequential(
        nn.Conv3d(3, 6, 3, padding=1),
        nn.BatchNorm3d(6),
        nn.ReLU(),
        nn.Conv3d(6, 6, (1, 3, 3), padding=(0, 1, 1), groups=2),
        nn.ReLU(),
        nn.Conv3d(6, 6, 3, stride=2, padding=1),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )


NETWORKS = {"images": (Images, (17, 18)), "line": (line, (40,)), "cubes": (cubes, (8, 12, 12))}


def searched(make, space, config, **options):
    """Train a searchable network for some steps, so that nothing in it is as it was."""
    torch.manual_seed(0)
    searchable = SearchableCNN(make(), config, **options)
    optimizer = torch.optim.AdamW(searchable.parameter_groups(), lr=1e-2)
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    images = torch.randn(4, 3, *space)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(searchable(images), torch.arange(4)).backward()
        optimizer.step()
    return searchable, images


def some_sizes(searchable):
    """Sizes from 1 on, even ones among them."""
    ranges = searchable.space.ranges
    return searchable.space.by_layer([r[(3 * i + 1) % len(r)] for i, r in enumerate(ranges)])


@pytest.mark.parametrize("per_axis", [False, True])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("network", NETWORKS)
def test_it_gives_what_the_searchable_network_gives(network, source, per_axis):
    make, space = NETWORKS[network]
    searchable, images = searched(
        make, space, dataclasses.replace(SOURCES[source], k=2), per_axis=per_axis
    )
    for plan in (searchable.plan().sizes, some_sizes(searchable)):
        cnn = searchable.warm_start(plan).eval()
        with torch.no_grad():
            expected = searchable.eval().forward_at(list(plan.values()), images)
            torch.testing.assert_close(cnn(images), expected, atol=1e-5, rtol=1e-5)
            if plan == searchable.plan().sizes:
                torch.testing.assert_close(cnn(images), searchable(images), atol=1e-5, rtol=1e-5)
        assert expected.std() > 0.01
        assert not [m for m in cnn.modules() if type(m).__module__.startswith("effconv_core")]
        fresh = apply_plan(make(), plan)
        shapes = {name: value.shape for name, value in fresh.state_dict().items()}
        assert {name: value.shape for name, value in cnn.state_dict().items()} == shapes


def test_by_hand():
    # A mask of Eq. 6 as the paper has it: at v = 2 and s = 2 the centre is 1.
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 3, padding=1))
    searchable = SearchableCNN(model, recipe("paper", kernel_form="bank"))
    with torch.no_grad():
        searchable.kernel_predictor.kernels[0].fill_(1.0)
        searchable.model[1].bias.fill_(0.25)
        searchable.model[0].weight.fill_(0.5)
    cnn = searchable.warm_start({"1": 2})
    e = torch.tensor([0.0, -1 / 4]).exp()
    torch.testing.assert_close(cnn[1].weight[0, 0], e[:, None] * e)
    assert cnn[1].bias.item() == 0.25
    assert cnn[0].weight.item() == 0.5


def test_a_gaussian_keeps_the_learned_width_where_the_size_is_the_rounded_one():
    searchable = SearchableCNN(line(), recipe("paper", kernel_form="bank"))
    searchable.size_predictor.head_bias.data[0] = 0.4
    (v, _), sizes = searchable.plan().soft_sizes.values(), searchable.plan().sizes
    assert sizes["2"] == 3
    assert v > 3.2
    bank = searchable.kernel_predictor.kernels[0][:, :, 2:5]
    for size, width in ((3, v), (5, 5.0)):
        window = bank if size == 3 else searchable.kernel_predictor.kernels[0][:, :, 1:6]
        taps = torch.arange(1.0, size + 1)
        mask = torch.exp(-(((taps - width / 2) / width) ** 2))
        kernel = searchable.warm_start({**sizes, "2": size})[2].modules()
        (conv,) = (module for module in kernel if isinstance(module, nn.Conv1d))
        torch.testing.assert_close(conv.weight, window * mask)


def test_training_it_leaves_the_searchable_network_as_it_was_and_saving_it_works(tmp_path):
    searchable, images = searched(Images, (17, 18), recipe("bank"))
    plan = searchable.plan()
    before = {name: value.clone() for name, value in searchable.state_dict().items()}
    cnn = searchable.warm_start(plan)
    optimizer = torch.optim.SGD(cnn.parameters(), lr=0.1)
    F.cross_entropy(cnn(images), torch.arange(4)).backward()
    assert all(p.grad is not None for p in cnn.parameters())
    optimizer.step()
    after = searchable.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert searchable.training
    save(cnn, plan, tmp_path / "cnn.safetensors")
    again = load(Images(), tmp_path / "cnn.safetensors").eval()
    torch.testing.assert_close(again(images), cnn.eval()(images))


@pytest.mark.parametrize(
    ("plan", "error", "sentence"),
    [
        ({"2": 3}, ValueError, r"has the layers \['2'\], and searched were \['2', '4'\]; pass a"),
        ({"2": 3, "4": 3, "9": 3}, ValueError, r"has the layers \['2', '4', '9'\]"),
        ({"2": 3, "4": 9}, ValueError, "pass 2 integers from 1 to 7"),
        ({"2": 3, "4": 0}, ValueError, "sizes start at 1"),
        ({"2": 3, "4": 3.0}, TypeError, "'4' is 3.0; sizes are integers"),
    ],
)
def test_a_plan_of_another_search_is_refused(plan, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        SearchableCNN(line()).warm_start(plan)
    assert "\n" not in str(caught.value)


def loader():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(3, 4, 3, 40, generator=generator)
    return [(batch, torch.arange(4)) for batch in images]


@pytest.mark.parametrize("name", ["default", "paper"])
def test_search_trains_a_searchable_network_in_place(name, tmp_path):
    model, config = line(), recipe(name, epochs=2, least_steps=0)
    expected = search(model, loader(), budget=400, config=config)
    searchable = SearchableCNN(model, config)
    path = tmp_path / "search.safetensors"
    plan = search(searchable, loader(), budget=400, checkpoint=path)
    assert plan == expected
    images = torch.randn(2, 3, 40)
    with torch.no_grad():
        warm = searchable.warm_start(plan).eval()(images)
        torch.testing.assert_close(warm, searchable.eval().forward_at(plan.values(), images))
        assert not torch.equal(searchable.model[7].weight, model[7].weight)
        # A finished search that is read from its file ends with the same network.
        other = SearchableCNN(model, config)
        assert search(other, loader(), budget=400, checkpoint=path) == plan
        torch.testing.assert_close(other.warm_start(plan).eval()(images), warm)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("config", recipe("paper")),
        ("searched", "2"),
        ("allowed", range(1, 4)),
        ("tie", [["2", "4"]]),
        ("per_axis", True),
    ],
)
def test_what_a_searchable_network_has_already_is_refused_beside_it(option, value):
    sentence = rf"the model is a SearchableCNN, and search is given \['{option}'\] beside it"
    with pytest.raises(ValueError, match=sentence):
        search(SearchableCNN(line()), loader(), budget=400, **{option: value})
