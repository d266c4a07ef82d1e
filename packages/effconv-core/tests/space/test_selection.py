import pytest
import torch
from effconv_core import SearchableCNN, apply_plan, left_alone, searched_layers
from effconv_core.space.selection import size_space
from torch import nn
from torch.nn.utils import parametrizations


class Called(nn.Conv2d):
    def __call__(self, images):
        return super().__call__(images).relu()


class Net(nn.Module):
    """Blocks of a name each, a first convolution, and one of every kind that stays as it is."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.a = nn.ModuleDict({"dw": nn.Conv2d(8, 8, 5, groups=8), "pw": nn.Conv2d(8, 8, 1)})
        self.b = nn.ModuleDict({"dw": nn.Conv2d(8, 8, 3, groups=8), "pw": nn.Conv2d(8, 8, 1)})
        self.row = nn.Conv2d(8, 8, (1, 7))
        self.oblong = nn.Conv2d(8, 8, (3, 5))
        self.called = Called(8, 8, 3)
        self.rows = parametrizations.weight_norm(nn.Conv2d(8, 8, 3), dim=2)
        self.hooked = nn.Conv2d(8, 8, 3)
        self.hooked.register_forward_hook(lambda *_: None)
        self.twin, self.other_twin = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
        self.other_twin.weight = self.twin.weight
        self.line = nn.Conv1d(8, 8, 3)


def test_every_convolution_is_searched_or_left_alone_with_a_reason():
    assert list(searched_layers(Net())) == ["a.dw", "b.dw", "row", "line"]
    reasons = left_alone(Net())
    shared = "has its weight in common with another module"
    assert reasons == {
        "stem": "is the model's first convolution",
        "a.pw": "has one tap",
        "b.pw": "has one tap",
        "oblong": "has a kernel of 3x5, which needs per_axis=True",
        "called": "is a Called, not one of torch.nn's own convolutions",
        "rows": "is a ParametrizedConv2d, which has a parametrization that does not run at another "
        "size (RuntimeError)",
        "hooked": "has hooks, which another module in its place would lose",
        "twin": shared,
        "other_twin": shared,
    }
    assert SearchableCNN(Net()).left_alone == reasons


USES = [SearchableCNN, left_alone, lambda model: apply_plan(model, {"1": 3})]


@pytest.mark.parametrize("use", USES)
def test_layers_of_a_searchable_network_are_not_searched_again(use):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    searchable = SearchableCNN(net[:2])
    for model in (searchable, searchable.model, nn.Sequential(searchable, net[2])):
        with pytest.raises(ValueError, match=r"1' of the .* is searched by a SearchableCNN"):
            use(model)


@pytest.mark.parametrize("use", USES)
def test_what_is_wrapped_for_several_processes_is_refused(use):
    class DistributedDataParallel(nn.Sequential):
        """Has the name alone, since the real one needs processes."""

    net = [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)]
    for model in (DistributedDataParallel(*net), nn.Sequential(*net, DistributedDataParallel())):
        with pytest.raises(ValueError, match=r"wrapped by DistributedDataParallel.* \.module"):
            use(model)


def test_a_weight_of_the_older_weight_norm_is_left_alone():
    net = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3))
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(net[1])
    assert left_alone(net)["1"].startswith("has a weight that hooks compute")


def test_layers_are_chosen_by_predicate_pattern_name_and_module():
    net = Net()
    ways = [
        lambda name, conv: conv.groups > 1,
        "?.dw",
        ["a.dw", "b.*d*"],
        [net.a["dw"], net.b["dw"]],
        ["a.dw", net.b["dw"]],
    ]
    for searched in ways:
        assert list(searched_layers(net, searched)) == ["a.dw", "b.dw"]
        assert left_alone(net, searched)["row"] == "is not chosen by `searched`"
    assert list(searched_layers(net, ["stem", "a.pw"])) == ["stem", "a.pw"]
    # What cannot change keeps its own reason, chosen or not.
    assert left_alone(net, "*")["twin"] == "has its weight in common with another module"


@pytest.mark.parametrize(
    ("searched", "error", "sentence"),
    [
        ("c.*", ValueError, r"searched names 'c.\*', which fits no layer; the layers are \['stem'"),
        ([nn.Conv2d(1, 1, 1)], ValueError, "holds a Conv2d that is not a convolution of the Net"),
        (["a.dw", 3], TypeError, "searched holds 3; pass a function of name and module"),
        ("called", ValueError, "is a Called, not one of torch.nn's own"),
    ],
)
def test_a_choice_that_fits_nothing_is_refused(searched, error, sentence):
    with pytest.raises(error, match=sentence):
        searched_layers(Net(), searched)


def ranges_of(**changes):
    space = size_space(searched_layers(Net()), 7, **changes)
    return {layer.name: layer.allowed for layer in space.layers}


def test_ranges_by_default_for_all_and_by_pattern():
    assert set(ranges_of().values()) == {range(1, 8)}
    assert set(ranges_of(allowed=range(3, 32, 2)).values()) == {range(3, 32, 2)}
    odd = range(1, 12, 2)
    found = ranges_of(allowed={"*.dw": range(1, 6), "b.*": odd})
    assert found == {"a.dw": range(1, 6), "b.dw": odd, "row": range(1, 8), "line": range(1, 8)}
    # A layer that is larger than the config's largest may stay so.
    large = size_space({"0": nn.Conv2d(1, 1, 9), "1": nn.Conv2d(1, 1, 3)}, 7)
    assert large.ranges == [range(1, 10), range(1, 8)]


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"allowed": {"x*": range(1, 4)}}, ValueError, r"allowed names 'x\*', which fits no layer"),
        ({"allowed": {"*": 5}}, TypeError, r"allowed gives 5 for '\*'; pass a range"),
        ({"allowed": range(0, 4)}, ValueError, "sizes start at 1 and rise"),
        ({"allowed": range(5, 1)}, ValueError, "sizes start at 1 and rise"),
        ({"allowed": range(5, 1, -1)}, ValueError, "sizes start at 1 and rise"),
        ({"tie": "*.dw"}, ValueError, r"tie is '\*.dw'; pass a list of groups"),
        ({"tie": ["row"]}, ValueError, r"has the one layer \['row'\]; a group needs two"),
        ({"tie": ["*.dw", ["row", "a.dw"]]}, ValueError, "'a.dw' is in the groups"),
        ({"tie": [["row", nn.Conv2d(1, 1, 1)]]}, TypeError, r"tie holds Conv2d\(.*; pass names of"),
        ({"tie": [nn.Conv2d(1, 1, 1)]}, TypeError, r"tie holds Conv2d\(.*; pass names of layers"),
        ({"allowed": [1, 3, 5]}, TypeError, r"allowed gives \[1, 3, 5\] for '\*'; pass a range"),
        ({"tie": [["c", "d"]]}, ValueError, "tie names 'c', which fits no layer"),
        (
            {"tie": ["*.dw"], "allowed": {"a.dw": range(1, 6)}},
            ValueError,
            "layers that share sizes need the same, so give them one range",
        ),
    ],
)
def test_ranges_and_groups_that_cannot_be_are_refused(changes, error, sentence):
    with pytest.raises(error, match=sentence):
        ranges_of(**changes)


def test_tied_layers_share_a_variable():
    space = size_space(searched_layers(Net()), 7, tie=[["a.dw", "line"], ["b.dw", "row"]])
    assert space.variables == [0, 1, 1, 0]
    assert space.expand(torch.tensor([2.0, 5.0])).tolist() == [2.0, 5.0, 5.0, 2.0]
    assert [unit.layers for unit in space.units] == [(0, 3), (1, 2)]


def test_sizes_per_axis_stand_layer_after_layer():
    space = size_space(searched_layers(Net()), 7, per_axis=True, tie=["*.dw"])
    # a.dw, b.dw and row have two axes, line has one.
    assert space.variables == [0, 1, 0, 1, 2, 3, 4]
    assert space.by_layer([3, 4, 3, 4, 1, 6, 2]) == {
        "a.dw": (3, 4),
        "b.dw": (3, 4),
        "row": (1, 6),
        "line": 2,
    }
    assert space.factors() == ((0, 1), (2, 3), (4, 5), (6,))


@pytest.mark.parametrize("method", ["forward", "_conv_forward"])
def test_a_layer_with_a_forward_of_its_own_is_left_alone(method):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    setattr(net[1], method, getattr(net[1], method))
    assert list(searched_layers(net)) == ["2"]
    assert "its own forward" in left_alone(net)["1"]


def test_a_bias_in_common_is_left_alone():
    net = nn.Sequential(*(nn.Conv2d(4, 4, 3) for _ in range(5)), nn.Linear(4, 4))
    net[1].bias = net[2].bias
    net[3].bias = net[5].bias  # of a layer that is no convolution
    assert list(searched_layers(net)) == ["4"]
    assert {"1", "2", "3"} < left_alone(net).keys()
