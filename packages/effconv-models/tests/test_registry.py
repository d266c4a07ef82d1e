import pytest
from effconv_models import create_model, list_models, register_model, registry
from effconv_models.resnet import cifar_resnet20
from torch import nn


@pytest.fixture
def own_registry(monkeypatch):
    """Keep what a test registers from the other tests."""
    monkeypatch.setattr(registry, "_models", dict(registry._models))


def test_list_models_by_pattern():
    assert list_models("wide_*") == [
        "wide_resnet16_4",
        "wide_resnet28_1",
        "wide_resnet28_10",
        "wide_resnet40_2",
    ]
    assert list_models("*resnet?8*") == [
        "cifar_resnet38",
        "resnet18",
        "wide_resnet28_1",
        "wide_resnet28_10",
    ]
    assert list_models("vgg*") == []


def test_a_registered_function_is_known_by_its_name_and_gets_every_option(own_registry):
    received = {}

    @register_model
    def tiny(**options):
        received.update(options)
        return nn.Identity()

    assert "tiny" in list_models()
    assert isinstance(create_model("tiny", num_classes=2, kernel_sizes=[1]), nn.Identity)
    assert received == {"num_classes": 2, "in_channels": 3, "kernel_sizes": [1], "generator": None}


def test_registering_twice_names_both_sides(own_registry):
    def resnet18(**options):
        return nn.Identity()

    sentence = (
        r"model 'resnet18' of .*test_registry\.test_registering.*resnet18 is already registered "
        r"by effconv_models\.resnet\.resnet18; rename one of the two"
    )
    with pytest.raises(ValueError, match=sentence):
        register_model(resnet18)
    assert create_model("resnet18").fc.out_features == 10


def test_entry_functions_refuse_unknown_options():
    with pytest.raises(TypeError, match="unexpected keyword argument 'classes'"):
        cifar_resnet20(classes=10)


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        (
            "cifar_resnet21",
            ValueError,
            r"model 'cifar_resnet21' is unknown; close ones are \[.*'cifar_resnet20'.*\], so pass",
        ),
        (
            "vgg",
            ValueError,
            r"model 'vgg' is unknown; there are \['cifar_resnet110', .*\], so pass",
        ),
        (20, TypeError, r"model name is 20; names are strings, so pass one of list_models\(\)"),
    ],
)
def test_unknown_name(name, error, sentence):
    with pytest.raises(error, match=sentence):
        create_model(name)
