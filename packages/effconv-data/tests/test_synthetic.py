import math

import pytest
import torch
import torch.nn.functional as F
from effconv_data import synthetic


def drawn(scale, **arguments):
    """All images and labels of a test split."""
    arguments = {"samples": 1500, "split": "test", **arguments}
    ((images, labels),) = synthetic(scale, batch_size=arguments["samples"], **arguments)
    return images, labels


def matched_filters(scale, size, num_classes=4):
    """Gabor patches cut to size x size and scaled to unit energy: (2 * classes, 1, size, size).

    They come in pairs of quadrature, so that the phase of a patch does not matter.
    """
    d = torch.arange(size) - (size - 1) / 2
    y, x = torch.meshgrid(d, d, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * (scale / 3) ** 2))
    filters = []
    for label in range(num_classes):
        angle = math.pi * label / num_classes
        wave = 2 * math.pi / (1.25 * scale) * (x * math.cos(angle) + y * math.sin(angle))
        filters += [envelope * torch.cos(wave), envelope * torch.sin(wave)]
    filters = torch.stack(filters)
    # Without its mean a filter is blind to the grey level, which says nothing of the orientation.
    filters = filters - filters.mean((1, 2), keepdim=True)
    return (filters / filters.flatten(1).norm(dim=1)[:, None, None])[:, None]


def accuracy(scale, size, images, labels):
    """Of taking the orientation whose pair of filters answers with the most energy."""
    answers = F.conv2d(images, matched_filters(scale, size))
    energy = answers.square().unflatten(1, (-1, 2)).sum(2).mean((2, 3))
    return (energy.argmax(1) == labels).float().mean().item()


def test_filters_as_wide_as_the_patches_find_them_best():
    small, large = drawn(3), drawn(7)
    at_small = {size: accuracy(3, size, *small) for size in (3, 5, 7)}
    at_large = {size: accuracy(7, size, *large) for size in (3, 5, 7)}
    # The standard error of an accuracy of 1,500 images is 0.013 at most.
    assert at_small[3] > 0.5
    assert at_small[7] - at_small[3] < 0.1
    assert at_large[7] > at_large[5] > at_large[3] + 0.1
    # Filters of the other scale's width and wave do worse than a set's own.
    assert accuracy(3, 3, *large) < at_large[7] - 0.1
    assert accuracy(7, 7, *small) < at_small[3] - 0.1


@pytest.mark.parametrize("scale", [2, 2.5, 4, 7, 12])
def test_signal_energy_does_not_depend_on_scale(scale):
    images, _ = drawn(scale, samples=4000)
    expected = 1 + 4 * 3.5**2 / 24**2
    # 4,000 images of 576 pixels: the standard error is 0.001; patches that overlap add to it.
    assert images.square().mean().item() == pytest.approx(expected, abs=0.008)
    assert abs(images.mean().item()) < 0.005


def test_without_contrast_there_is_only_noise():
    images, _ = drawn(5, contrast=0)
    assert images.std().item() == pytest.approx(1, abs=0.005)
    neighbours = (images[..., 1:] * images[..., :-1]).mean().item()
    assert abs(neighbours) < 0.005


def test_single_pixels_do_not_tell_the_class():
    images, labels = drawn(4, samples=4000)
    moments = torch.stack([images.pow(n).mean((1, 2, 3)) for n in (1, 2, 3, 4)])
    means = torch.stack([moments[:, labels == label].mean(1) for label in range(4)])
    spread = moments.std(1) / math.sqrt(1000)
    assert ((means - means.mean(0)).abs() < 4.5 * spread).all()


def test_same_arguments_draw_the_same_set():
    first, second = (list(synthetic(5, samples=60, batch_size=20, seed=3)) for _ in range(2))
    for (x, y), (x_again, y_again) in zip(first, second, strict=True):
        assert torch.equal(x, x_again)
        assert torch.equal(y, y_again)


def test_seeds_and_splits_differ():
    images, _ = drawn(5, samples=50)
    assert not torch.equal(drawn(5, samples=50, seed=1)[0], images)
    ((train, _),) = synthetic(5, samples=50, batch_size=50)
    # Training comes shuffled, so compare without order.
    assert not torch.isin(train.sum((1, 2, 3)), images.sum((1, 2, 3))).any()


def test_form_and_balance():
    batches = synthetic(
        4, split="test", samples=30, image_size=11, num_classes=3, patches=1, batch_size=8
    )
    assert batches.image_shape == (1, 11, 11)
    assert batches.classes == ("0 degrees", "60 degrees", "120 degrees")
    assert batches.samples == 30
    labels = torch.cat([y for _, y in batches])
    assert torch.bincount(labels).tolist() == [10, 10, 10]
    assert len(synthetic(4, samples=30, batch_size=8)) == 3


def test_a_patch_may_be_as_wide_as_the_image():
    images, _ = drawn(24, samples=10)
    assert images.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "kind", "problem"),
    [
        ({"scale": 1.9}, ValueError, "scale is 1.9 pixels"),
        ({"scale": 25}, ValueError, "from 2 to image_size = 24"),
        ({"scale": math.nan}, ValueError, "scale is nan"),
        ({"split": "val"}, ValueError, "split is 'val'"),
        ({"samples": 0}, ValueError, "samples is 0"),
        ({"samples": 10.0}, TypeError, "samples is 10.0"),
        ({"num_classes": 1}, ValueError, "num_classes is 1"),
        ({"patches": 0}, ValueError, "patches is 0"),
        ({"contrast": -1}, ValueError, "contrast is -1"),
        ({"contrast": math.inf}, ValueError, "contrast is inf"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"samples": 4}, ValueError, "batch_size is 8 but there are 4"),
    ],
)
def test_bad_arguments_are_refused(arguments, kind, problem):
    arguments = {"scale": 5, "batch_size": 8, **arguments}
    with pytest.raises(kind, match=problem):
        synthetic(arguments.pop("scale"), **arguments)
