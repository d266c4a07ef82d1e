"""Where data meet the network: one sentence before any step, and nothing changed."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from effconv_core import Latency, Macs, SearchableCNN, recipe, search
from effconv_core.engine.tournament import tournament
from effconv_core.engine.train import TrainConfig, evaluate, train
from effconv_core.layers.batch_checks import check_targets, checked_loss
from torch import nn

BUDGET = 203
IMAGES = torch.rand(4, 1, 9, 9, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0])


def net():
    generator = torch.Generator().manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.Conv2d(4, 4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    for parameter in network.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return network


def settings(**more):
    return recipe("paper", **{"epochs": 1, "finalists": 1, **more})


def searching(model, loader):
    search(SearchableCNN(model, settings()), loader, budget=BUDGET)


def training(model, loader):
    train(model, loader, TrainConfig(epochs=1, batch_size=4))


def training_in_bfloat16(model, loader):
    train(model, loader, TrainConfig(epochs=1, batch_size=4, precision="bfloat16"))


def evaluating(model, loader):
    evaluate(model, loader)


def comparing(model, loader):
    config = settings(finalists=4, exploration=2.0)
    tournament(SearchableCNN(model, config), loader, budget=BUDGET)


USES = [searching, training, training_in_bfloat16, evaluating, comparing]
INPUTS = {
    "bytes": ((255 * IMAGES).to(torch.uint8), TypeError, "uint8"),
    "integers": ((255 * IMAGES).to(torch.int32), TypeError, "int32"),
    "doubles": (IMAGES.double(), TypeError, "float64"),
    "channels": (IMAGES.expand(4, 3, 9, 9), ValueError, "3 channel"),
}
TARGETS = {
    "too high": (torch.tensor([0, 1, 3, 0]), ValueError, "label 3"),
    "negative": (torch.tensor([0, -1, 2, 0]), ValueError, "label -1"),
    "from one": (LABELS + 1, ValueError, "label 3"),
    "columns": (LABELS[:, None], ValueError, r"\(4, 1\)"),
    "too few": (LABELS[:3], ValueError, r"\(3,\)"),
    "floats": (LABELS.float(), TypeError, "float32"),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("what", INPUTS)
def test_images_that_do_not_fit_are_refused_before_anything_changes(use, what):
    inputs, kind, named = INPUTS[what]
    model = net()
    before = copy.deepcopy(model.state_dict())
    if use is training_in_bfloat16 and what == "doubles":
        pytest.skip("autocast takes them")
    with pytest.raises(kind, match=named):
        use(model, [(inputs, LABELS)])
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("what", TARGETS)
def test_targets_that_do_not_fit_are_refused_before_anything_changes(use, what):
    targets, kind, named = TARGETS[what]
    model = net()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(kind, match=named):
        use(model, [(IMAGES, targets)])
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("use", [searching, training, comparing])
def test_integers_of_other_widths_are_refused_where_cross_entropy_is_computed(use):
    with pytest.raises(TypeError, match="int32"):
        use(net(), [(IMAGES, LABELS.int())])
    with pytest.raises(TypeError, match="list"):
        use(net(), [(IMAGES, LABELS.tolist())])


def test_a_test_takes_integers_of_any_width():
    assert evaluate(net(), [(IMAGES, LABELS.int())]) == evaluate(net(), [(IMAGES, LABELS)])


@pytest.mark.parametrize("use", [searching, training])
def test_a_bad_label_of_a_later_batch_is_the_same_sentence(use):
    with pytest.raises(ValueError, match="label 7"):
        use(net(), [(IMAGES, LABELS), (IMAGES, LABELS + 5)])
    with pytest.raises(TypeError, match="NoneType"):
        use(net(), [(IMAGES, LABELS), (IMAGES, None)])


def test_bad_labels_of_a_later_test_batch_are_counted():
    with pytest.raises(ValueError, match="2 label"):
        evaluate(net(), [(IMAGES, LABELS), (IMAGES, torch.tensor([-1, 3, 1, 1]))])


@pytest.mark.parametrize("use", [searching, training, comparing])
def test_a_batch_without_images_is_refused(use):
    with pytest.raises(ValueError, match="batch 2 "):
        use(net(), [(IMAGES, LABELS), (IMAGES[:0], LABELS[:0])])


def test_a_test_on_images_that_are_not_finite_is_refused():
    images = IMAGES.clone()
    images[2, 0, 3, 3] = torch.nan
    with pytest.raises(FloatingPointError):
        evaluate(net(), [(images, LABELS)])


@pytest.mark.parametrize("top", [0, 4])
def test_a_top_outside_of_the_scores_is_refused(top):
    with pytest.raises(ValueError, match=f"top is {top}"):
        evaluate(net(), [(IMAGES, LABELS)], top=top)


@pytest.mark.parametrize("counter", [Latency, Macs])
def test_an_example_as_bytes_is_refused(counter):
    with pytest.raises(TypeError, match="uint8"):
        counter(INPUTS["bytes"][0])(SearchableCNN(net()))


@pytest.mark.parametrize(
    "criterion",
    [
        F.cross_entropy,
        nn.CrossEntropyLoss(label_smoothing=0.1),
        partial(F.cross_entropy, label_smoothing=0.1),
    ],
)
def test_every_form_of_cross_entropy_is_checked(criterion):
    outputs = torch.zeros(4, 3)
    with pytest.raises(ValueError, match="label 3"):
        checked_loss(criterion, outputs, LABELS + 1, first=True)
    expected = criterion(outputs, LABELS)
    torch.testing.assert_close(checked_loss(criterion, outputs, LABELS, first=True), expected)


@pytest.mark.parametrize(
    ("criterion", "ignored"),
    [
        (F.cross_entropy, -100),
        (nn.CrossEntropyLoss(ignore_index=255), 255),
        (partial(F.cross_entropy, ignore_index=-1), -1),
    ],
)
def test_labels_that_are_left_out_and_probabilities_are_taken(criterion, ignored):
    outputs = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, ignored])[:, None, None].expand(4, 2, 2)
    probabilities = [outputs.softmax(1)] if ignored < 0 else []  # else torch refuses them
    for targets in (labels, torch.full_like(labels, ignored), *probabilities):
        given = checked_loss(criterion, outputs, targets, first=True)
        torch.testing.assert_close(given, criterion(outputs, targets), equal_nan=True)


def test_a_criterion_of_another_kind_decides_for_itself():
    def distance(outputs, targets):
        return (outputs.mean(1) - targets.float()).square().mean()

    search(
        net(), [(IMAGES, 100 * LABELS.int())], budget=BUDGET, config=settings(), criterion=distance
    )


def test_tokens_are_no_images_to_be_scaled():
    tokens = torch.randint(9, (4, 12), generator=torch.Generator().manual_seed(0))

    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.conv = nn.Embedding(9, 4), nn.Conv1d(4, 3, 3, padding=1)

        def forward(self, tokens):
            return self.conv(self.embedding(tokens).mT).mean(-1)

    train(Text(), [(tokens, LABELS)], TrainConfig(epochs=1, batch_size=4))
    with pytest.raises(IndexError):  # of the embedding's own, which no one explains away
        train(Text(), [(tokens + 5, LABELS)], TrainConfig(epochs=1, batch_size=4))


def test_a_network_that_scales_bytes_itself_takes_them():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, images):
            return self.net(images.float() / 255)

    evaluate(Scaled(), [(INPUTS["bytes"][0], LABELS)])
    searching(Scaled(), [(INPUTS["bytes"][0], LABELS)])


def test_outputs_that_are_no_scores_are_named():
    with pytest.raises(TypeError, match="tuple"):
        check_targets((torch.zeros(4, 3),), LABELS)
    with pytest.raises(ValueError, match=r"\(4,\)"):
        check_targets(torch.zeros(4), LABELS)


AMBIENT = {
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("where", AMBIENT)
@pytest.mark.parametrize("use", [searching, training])
def test_nothing_is_trained_where_nothing_can_be_learned(use, where):
    words = {"autocast": "autocast", "device": "default device is meta"}
    model, word = net(), words.get(where, "gradients are off")
    with AMBIENT[where](), pytest.raises(ValueError, match=word):
        use(model, [(IMAGES, LABELS)])


@pytest.mark.parametrize("use", [searching, training])
def test_batches_that_were_made_in_inference_mode_are_taken(use):
    with torch.inference_mode():
        batch = IMAGES.clone(), LABELS.clone()
    use(net(), [batch])


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss, None, "mse"])
def test_a_criterion_that_is_no_function_is_refused(criterion):
    with pytest.raises(TypeError, match="criterion"):
        search(net(), [(IMAGES, LABELS)], criterion=criterion)


@pytest.mark.parametrize(
    "criterion",
    [
        lambda outputs, targets: (outputs.argmax(1) == targets).sum(),
        lambda outputs, targets: outputs.sum().to(torch.complex64),
    ],
)
def test_a_loss_that_is_no_real_number_is_refused(criterion):
    with pytest.raises(ValueError, match="real number"):
        search(net(), [(IMAGES, LABELS)], criterion=criterion)
