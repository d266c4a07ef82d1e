"""Which outputs a short training takes as scores of classes, by the criterion alone."""

import pytest
import torch
import torch.nn.functional as F
from effconv_core.layers.class_scores import are_classes


def focal(scores, labels):
    """Lin et al. 2017 with gamma = 2."""
    likelihoods = F.log_softmax(scores, 1).gather(1, labels[:, None])
    return -((1 - likelihoods.exp()) ** 2 * likelihoods).mean()


def first_left_out(scores, labels):
    return F.cross_entropy(scores, torch.cat([torch.tensor([-100]), labels[1:]]))


def triplets(embedding, labels):
    distances = (embedding[:, None] - embedding).norm(dim=2).add(1e-3)
    same = labels[:, None] == labels
    return F.relu(distances[same].mean() - distances[~same].mean() + 0.5)


def contrast(embedding, labels):
    """Khosla et al. 2020, on the similarities of a batch."""
    similar = F.normalize(embedding, dim=1) @ F.normalize(embedding, dim=1).T
    same = (labels[:, None] == labels).float()
    return -(F.log_softmax(similar, 1) * same).sum() / same.sum()


@pytest.mark.parametrize(
    ("criterion", "scores"),
    [
        (torch.nn.CrossEntropyLoss(label_smoothing=0.1), True),
        (torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 0.2, 5.0])), True),
        (lambda o, y: F.nll_loss(F.log_softmax(o, 1), y), True),
        (lambda o, y: F.mse_loss(o, F.one_hot(y, 3).float()), True),
        (F.multi_margin_loss, True),
        (focal, True),
        (first_left_out, True),
        (triplets, False),
        (contrast, False),
        (lambda o, y: F.mse_loss(o.mean(1), y.float()), False),
    ],
)
def test_labels_belong_to_outputs_where_the_criterion_takes_these_as_scores(criterion, scores):
    generator = torch.Generator().manual_seed(0)
    for scale in (0.0, 1.0, 30.0):  # untrained, trained and sure
        outputs = 0.1 * torch.randn(16, 3, generator=generator)
        labels = torch.arange(16) % 3
        outputs += scale * F.one_hot(labels, 3)
        assert are_classes(criterion, outputs, labels) is scores


def test_similarities_of_a_batch_are_no_scores():
    def contrast(similarities, labels):
        same = (labels[:, None] == labels).float()
        return -(F.log_softmax(similarities, 1) * same).sum() / same.sum()

    embedding = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    assert not are_classes(contrast, embedding @ embedding.T, torch.arange(16) % 3)


def test_outputs_of_which_each_sample_has_its_own_are_scores():
    similarities = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    assert are_classes(F.cross_entropy, similarities, torch.arange(16))


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(4, 3, 5), torch.zeros(4, 5, dtype=torch.int64)),
        (torch.zeros(4, 3), torch.zeros(4, 3)),
        (torch.zeros(4, 3), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(4, 3, dtype=torch.complex64), torch.zeros(4, dtype=torch.int64)),
        ({"scores": torch.zeros(4, 3)}, torch.zeros(4, dtype=torch.int64)),
    ],
)
def test_other_shapes_and_kinds_are_none(outputs, targets):
    assert not are_classes(lambda o, y: o.sum(), outputs, targets)


@pytest.mark.parametrize("classes", [2, 100, 1000])
def test_probabilities_of_many_classes_are_scores(classes):
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(16, classes, generator=generator).softmax(1)
    labels = torch.randint(classes, (16,), generator=generator)
    assert are_classes(lambda given, targets: F.nll_loss(given.log(), targets), outputs, labels)
