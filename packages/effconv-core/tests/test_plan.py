import json
import os

import effconv_core
import pytest
import torch
from effconv_core import SearchableCNN, SizePlan, apply_plan, load, recipe, save
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn


def net():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


names = st.text(min_size=1)


@given(st.dictionaries(names, st.tuples(st.integers(1, 31), st.floats(1, 31)), min_size=1))
def test_json_round_trip(layers):
    plan = SizePlan(
        {name: size for name, (size, _) in layers.items()},
        {name: soft for name, (_, soft) in layers.items()},
        cost=1234,
        budget=1200.5,
    )
    assert SizePlan.from_json(plan.to_json()) == plan


def test_file_round_trip_leaves_no_other_file(tmp_path):
    plan = SizePlan({"conv": 4})
    plan.save(tmp_path / "plan.json")
    assert SizePlan.load(tmp_path / "plan.json") == plan
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_a_plan_is_a_mapping_of_layer_name_to_size():
    plan = SizePlan({"a": 3, "b": 5})
    assert dict(plan) == {"a": 3, "b": 5}
    assert (len(plan), plan["b"], list(plan)) == (2, 5, ["a", "b"])


def test_adjusted_names_what_rounding_would_have_given():
    plan = SizePlan({"a": 3, "b": 4}, {"a": 3.2, "b": 3.4})
    assert plan.adjusted == {"b": 3}


def document(**changes):
    return json.dumps({"schema": 1, "sizes": {"conv": 3}} | changes)


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("{", ValueError, "the plan is not JSON"),
        ("[]", ValueError, "a JSON list, and not a plan"),
        (document(schema=4), ValueError, "schema 4; this version reads 1 and 2 and 3"),
        (document(sizes={}), ValueError, "holds no layer"),
        (document(sizes=[3]), ValueError, r"\$\.sizes"),
        (document(sizes={"conv": 0}), ValueError, "'conv' is 0; sizes start at 1"),
        (document(sizes={"conv": 3.5}), TypeError, "'conv' is 3.5; sizes are integers"),
        (document(sizes={"conv": True}), TypeError, "'conv' is True; sizes are integers"),
        (document(soft_sizes={"fc": 3.1}), ValueError, r"same layers; \['conv', 'fc'\]"),
        (document(soft_sizes={"conv": "3"}), TypeError, "soft size of layer 'conv' .* is '3'; it"),
        (document(cost="9"), TypeError, "cost of the plan is '9'; it must be a number"),
        (document(budget=[9]), TypeError, r"budget of the plan is \[9\]; it must be a number"),
        (document(sizes={"conv": [3, 0]}), ValueError, r"'conv' is \(3, 0\); sizes start at 1"),
        (document(sizes={"conv": []}), TypeError, r"'conv' is \(\); sizes are integers"),
        (document(soft_sizes={"conv": [3, "x"]}), TypeError, "soft size of layer 'conv' .* is 'x'"),
        (
            document(allowed={"conv": [1, 7]}),
            TypeError,
            r"'conv' are \(1, 7\); pass three integers",
        ),
        (document(allowed={"fc": [1, 7, 1]}), ValueError, "sizes and allowed sizes must name"),
        (
            document(allowed={"conv": [1, 7, 0]}),
            ValueError,
            r"\(1, 7, 0\); they start at 1 and rise",
        ),
        (document(allowed={"conv": [7, 1, 1]}), ValueError, r"\(7, 1, 1\); they start at 1"),
        (document(soft_sizes={"conv": float("nan")}), ValueError, "holds nan"),
        (document(soft_sizes={"conv": [3.0, 3.0]}), ValueError, r"is 3 and its soft size \(3.0, 3"),
        (document(budgets=[7]), TypeError, "a budget of the plan is 7; it must be a mapping with"),
        (document(budgets=[{"amount": 1}]), TypeError, "is {'amount': 1}; it must be a mapping"),
        (document(budgets={}), ValueError, r"\$\.budgets"),
        (document(size={"conv": 3}), ValueError, "`size`"),
    ],
)
def test_a_malformed_plan_says_file_value_and_rule(text, error, sentence, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(error, match=sentence) as caught:
        SizePlan.load(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_text_is_one_sentence(tmp_path):
    path = tmp_path / "plan.json"
    path.write_bytes(b"\x89PNG\xff")
    with pytest.raises(ValueError, match=r"plan\.json: the plan is not text"):
        SizePlan.load(path)


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DEEP, "32 deep"),
        (document().replace("3}", DEEP + "}"), "32 deep"),
        (document(sizes={"conv": 10**9}), "'conv' is 1000000000"),
        (document(sizes={"conv": 1001}), "'conv' is 1001"),
        (document(sizes={"conv": 2**63}), "19 digits"),
        (document(cost=10**400), "401 digits"),
        (document(cost=-1), "cost of the plan is -1"),
        (document(budget=1e300), r"budget of the plan is 1e\+300"),
        (document().replace("3}", "1e999}"), "holds inf"),
        (document(sizes={"conv": [3] * 4}), "'conv'"),
        (document(sizes={"a" * 501: 3}), "501 characters"),
        (document(sizes={f"layer{i}": 3 for i in range(10_001)}), "10,001 layers"),
        (document(sizes={"conv\ud800": 3}), r"conv\\ud800"),
        (document(soft_sizes={"conv": 1000.5}), "'conv' of the plan is 1000.5"),
        (document(allowed={"conv": [1, 1001, 1]}), "1001"),
        (document(model=["net"]), "str"),
        (document(versions={"torch": 2}), "torch|str"),
        (document(padding="a" * 9_000_000), "8,388,608"),
    ],
    ids=lambda value: value[:40],
)
def test_what_no_plan_holds_is_refused_wherever_it_is_read(text, said, tmp_path):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises((ValueError, TypeError), match=said) as refused:
        SizePlan.load(tmp_path / "plan.json")
    assert len(str(refused.value)) < 1000
    save_file({"w": torch.zeros(1)}, tmp_path / "cnn.safetensors", metadata={"plan": text})
    with pytest.raises((ValueError, TypeError), match=said):
        load(net(), tmp_path / "cnn.safetensors")


RECORD = {"counts": "macs", "amount": 9, "at_most": True, "weight": 1.0, "cost": 8}


@pytest.mark.parametrize(
    "change",
    [{"counts": 3}, {"amount": "9"}, {"at_most": 1}, {"weight": -1.0}, {"cost": [8]}],
)
def test_the_types_within_a_budget_are_those_that_a_search_writes(change):
    plan = SizePlan({"conv": 3}, budgets=(RECORD,))
    assert SizePlan.from_json(plan.to_json()) == plan
    with pytest.raises(ValueError, match=next(iter(change))):
        SizePlan({"conv": 3}, budgets=(RECORD | change,))
    with pytest.raises(ValueError, match=next(iter(change))):
        SizePlan.from_json(document(budgets=[RECORD | change]))


@pytest.mark.parametrize("size", [10**9, 10**400, pytest.param(10**5000, id="5001"), (3, 10**9)])
def test_a_size_in_python_has_the_same_limits_before_memory_is_taken(size):
    with pytest.raises(ValueError, match=r"layer '4' is .* 1,000"):
        apply_plan(net(), {"4": size})


def test_a_layer_of_too_many_weights_is_refused_before_it_is_built():
    model = nn.Sequential(nn.Conv2d(64, 64, 3))
    with pytest.raises(ValueError, match="layer '0' would have 4,096,000,000 weights"):
        apply_plan(model, {"0": 1000})


def test_a_plan_that_could_not_be_read_again_is_not_written(tmp_path):
    names = [f"{'é' * 400}{i}" for i in range(8000)]
    plan = SizePlan(dict.fromkeys(names, 3))
    with pytest.raises(ValueError, match="shorter names"):
        plan.save(tmp_path / "plan.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe"):
        SizePlan.load(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe"):
        load(net(), tmp_path / "pipe")


@pytest.mark.parametrize("name", ["4.0", "9", "1"])
def test_unknown_and_unfit_layers_are_refused_by_name(name):
    with pytest.raises(ValueError, match=f"layer '{name}' of the plan is .*which are"):
        apply_plan(net(), {name: 3})


@pytest.mark.parametrize("sizes", [{"3": 5, "4": 2}, {"3": 4, "4": 7}, {"0": 1, "3": 1, "4": 1}])
def test_a_rebuilt_cnn_has_the_planned_parameters_and_no_class_of_ours(sizes):
    model = net()
    cnn = apply_plan(model, sizes)
    channels = {"0": 3 * 8, "3": 8 * 16, "4": 16 * 16}
    change = sum(channels[name] * (size * size - 9) for name, size in sizes.items())
    count = sum(p.numel() for p in model.parameters()) + change
    assert sum(p.numel() for p in cnn.parameters()) == count
    assert all(type(module).__module__.startswith("torch.nn") for module in cnn.modules())
    images = torch.randn(2, 3, 13, 10)
    assert cnn(images).shape == model(images).shape
    assert cnn[:5](images).shape == model[:5](images).shape


def test_the_model_handed_in_is_not_changed():
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    apply_plan(model, {"4": 6})
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_equal_generators_give_equal_networks():
    model, plan = net(), {"3": 4, "4": 5}

    def weights(seed):
        return apply_plan(model, plan, generator=torch.Generator().manual_seed(seed)).state_dict()

    one, same = weights(1), weights(1)
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_saved_networks_come_back_with_plan_and_weights(tmp_path):
    model, plan = net(), SizePlan({"3": 4, "4": 5})
    cnn = apply_plan(model, plan).to(memory_format=torch.channels_last).eval()
    save(cnn, plan, tmp_path / "cnn.safetensors")
    loaded = load(model, tmp_path / "cnn.safetensors").eval()
    images = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(loaded(images), cnn(images))
    assert [path.name for path in tmp_path.iterdir()] == ["cnn.safetensors"]


def test_sizes_made_by_hand_are_saved_like_a_plan(tmp_path):
    model, sizes = net(), {"3": 4, "4": 5}
    cnn = apply_plan(model, sizes).eval()
    save(cnn, sizes, tmp_path / "cnn.safetensors")
    images = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(
        load(model, tmp_path / "cnn.safetensors").eval()(images), cnn(images)
    )
    for wrong in ([4, 5], None):
        with pytest.raises(TypeError, match="pass a SizePlan"):
            save(cnn, wrong, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="0"):
        save(cnn, {"3": 0}, tmp_path / "other.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["cnn.safetensors"]


def test_loading_draws_nothing_from_the_global_generator(tmp_path):
    plan, model = SizePlan({"3": 4}), net()
    save(apply_plan(model, plan), plan, tmp_path / "cnn.safetensors")
    before = torch.get_rng_state()
    load(model, tmp_path / "cnn.safetensors")
    assert torch.equal(before, torch.get_rng_state())


class Growing(nn.Module):
    """Keeps what it has seen in a buffer, which begins with `start` elements."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(start))

    def forward(self, images):
        self.seen = torch.cat([self.seen, images.detach().mean().view(1)])
        return images


def test_a_buffer_that_was_empty_gets_the_shape_of_the_file(tmp_path):
    plan, path = SizePlan({"0": 3}), tmp_path / "cnn.safetensors"
    cnn = apply_plan(nn.Sequential(nn.Conv2d(1, 2, 3), Growing(0)), plan)
    cnn(cnn(torch.ones(1, 1, 8, 8))[:, :1])
    save(cnn, plan, path)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), Growing(0))
    found = load(model, path)
    assert torch.equal(found[1].seen, cnn[1].seen)
    assert found[1].seen.shape == (2,)
    assert model[1].seen.shape == (0,)
    with pytest.raises(ValueError, match=r"'1\.seen' of shape \(2,\), which does not fit"):
        load(nn.Sequential(nn.Conv2d(1, 2, 3), Growing(1)), path)


def test_what_safetensors_cannot_hold_is_refused(tmp_path):
    class Noted(nn.Sequential):
        def get_extra_state(self):
            return {"note": {1, 2}}

    with pytest.raises(TypeError, match="'_extra_state' .* dict"):
        save(Noted(*net()), SizePlan({"3": 3}), tmp_path / "cnn.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_there_is_not_is_an_error_of_the_system(tmp_path):
    path = tmp_path / "none" / "cnn.safetensors"
    with pytest.raises(OSError, match=r"cnn\.safetensors"):
        save(net(), SizePlan({"3": 3}), path)


def test_a_damaged_file_is_refused(tmp_path):
    plan, path = SizePlan({"3": 4}), tmp_path / "cnn.safetensors"
    save(apply_plan(net(), plan), plan, path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="is not a readable safetensors file"):
        load(net(), path)


def test_a_file_of_another_network_is_refused(tmp_path):
    plan = SizePlan({"3": 4})
    save(apply_plan(net(), plan), plan, tmp_path / "cnn.safetensors")
    other = net()
    other[7] = nn.Linear(16, 9)
    with pytest.raises(ValueError, match="does not fit the model"):
        load(other, tmp_path / "cnn.safetensors")


def test_a_plan_of_schema_1_is_still_read():
    text = """{"schema": 1, "sizes": {"a": 3, "b": 4}, "soft_sizes": {"a": 3.2, "b": 3.4},
    "cost": 1000, "budget": 1010.5}"""
    plan = SizePlan.from_json(text)
    assert plan == SizePlan({"a": 3, "b": 4}, {"a": 3.2, "b": 3.4}, 1000, 1010.5)
    assert plan.adjusted == {"b": 3}


def test_a_plan_says_what_it_was_made_with_and_for():
    plan = SearchableCNN(net(), recipe("bank", count="searched")).plan(3456)
    content = json.loads(plan.to_json())
    assert content["schema"] == 3
    assert content["model"] == "Sequential"
    assert content["versions"] == {
        "effconv-core": effconv_core.__version__,
        "torch": torch.__version__,
    }
    wanted = {"counts": "parameters of searched kernels", "amount": 3456, "at_most": False}
    assert content["budgets"] == [wanted | {"weight": 1.0, "cost": plan.cost, "rounded": 3456}]
    assert content["filled_in"] == 0
    assert content["allowed"] == {"3": [1, 7, 1], "4": [1, 7, 1]}
    assert SizePlan.from_json(plan.to_json()) == plan


def test_sizes_an_axis_are_tuples_and_come_back_as_such():
    plan = SearchableCNN(net(), per_axis=True).plan()
    assert plan.sizes == {"3": (3, 3), "4": (3, 3)}
    assert SizePlan.from_json(plan.to_json()) == plan
    assert SizePlan({"a": (3, 5)}, {"a": (3.2, 4.4)}).adjusted == {"a": (3, 4)}


def test_adjusted_rounds_to_the_sizes_that_were_allowed():
    plan = SizePlan(
        {"a": 3, "b": 3}, {"a": 3.9, "b": 4.1}, allowed={"a": (1, 7, 2), "b": (1, 7, 2)}
    )
    assert plan.adjusted == {"b": 5}


KINDS = {
    "grouped, even, strided": nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2),
    "reflected, even, strided": nn.Conv2d(4, 8, 3, stride=2, padding=1, padding_mode="reflect"),
    "line, circular, dilated": nn.Conv1d(4, 8, 3, padding=2, dilation=2, padding_mode="circular"),
    "cube": nn.Conv3d(4, 8, (1, 3, 3), padding=(0, 1, 1), bias=False),
}


@pytest.mark.parametrize("size", [1, 2, 4, 5])
@pytest.mark.parametrize("conv", KINDS.values(), ids=KINDS)
def test_layers_of_any_kind_are_built_saved_and_loaded(conv, size, tmp_path):
    model, plan = nn.Sequential(conv), SizePlan({"0": size})
    images = torch.randn(2, 4, *[12, 10, 8][: len(conv.kernel_size)])
    cnn = apply_plan(model, plan)
    assert cnn(images).shape == model(images).shape
    assert all(type(module).__module__.startswith("torch.nn") for module in cnn.modules())
    save(cnn, plan, tmp_path / "cnn.safetensors")
    torch.testing.assert_close(load(model, tmp_path / "cnn.safetensors")(images), cnn(images))
