import pytest
import torch
import torch.nn.functional as F
from effconv_data import horizontal_flip, normalize, pad_crop, per_image
from hypothesis import given, settings
from hypothesis import strategies as st

shapes = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))
seeds = st.integers(0, 2**32)


def draw(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def crop_one_by_one(images, padding, generator):
    tops, lefts = torch.randint(2 * padding + 1, (2, len(images)), generator=generator).tolist()
    H, W = images.shape[2:]
    cropped = []
    for image, top, left in zip(images, tops, lefts):
        padded = F.pad(image, (padding, padding, padding, padding))
        cropped.append(padded[:, top : top + H, left : left + W])
    return torch.stack(cropped)


def flip_one_by_one(images, generator):
    coins = torch.randint(2, (len(images),), generator=generator).tolist()
    return torch.stack([x.flip(2) if coin else x for x, coin in zip(images, coins)])


@settings(max_examples=50, deadline=None)
@given(shapes, st.integers(0, 4), seeds)
def test_pad_crop_agrees_with_one_image_at_a_time(shape, padding, seed):
    images = draw(shape, seed)
    found = pad_crop(images, padding, generator(seed))
    assert torch.equal(found, crop_one_by_one(images, padding, generator(seed)))
    assert found.dtype == torch.uint8


@settings(max_examples=50, deadline=None)
@given(shapes, seeds)
def test_horizontal_flip_agrees_with_one_image_at_a_time(shape, seed):
    images = draw(shape, seed)
    found = horizontal_flip(images, generator(seed))
    assert torch.equal(found, flip_one_by_one(images, generator(seed)))
    assert found.dtype == torch.uint8


def test_every_crop_and_both_flips_come_up():
    place = torch.zeros(4000, 1, 3, 3, dtype=torch.uint8)
    place[:, :, 1, 1] = 1
    where = pad_crop(place, 1, generator(0)).flatten(1).argmax(1)
    share = torch.bincount(where, minlength=9) / 4000
    # The standard error of a share of 1/9 is 0.005.
    assert torch.allclose(share, torch.full((9,), 1 / 9), atol=0.025)
    side = torch.tensor([[[[1, 0]]]], dtype=torch.uint8).expand(4000, 1, 1, 2)
    assert abs(horizontal_flip(side, generator(0))[:, 0, 0, 0].float().mean() - 0.5) < 0.04


@settings(max_examples=30, deadline=None)
@given(shapes, seeds)
def test_normalize_agrees_with_the_formula(shape, seed):
    images = draw(shape, seed)
    mean, std = [0.1, 0.5, 0.7][: shape[1]], [0.2, 0.3, 0.25][: shape[1]]
    found = normalize(images, mean, std)
    columns = torch.tensor([mean, std], dtype=torch.float64)[:, :, None, None]
    expected = (images.double() / 255 - columns[0]) / columns[1]
    # Values up to 5; a few roundings of float32 at 255 * 0.7 / (255 * 0.2).
    assert torch.allclose(found.double(), expected, atol=5e-6)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert found.stride(1) == 1
    assert torch.equal(normalize(images, torch.tensor(mean), torch.tensor(std)), found)


def test_only_the_draws_go_to_the_device_of_the_images(monkeypatch):
    moved = []

    def move(draws, images):
        moved.append(draws.numel())
        return draws.to(images.device)

    monkeypatch.setattr("effconv_data.loading.augment._move", move)
    images = torch.empty(5, 3, 8, 9, dtype=torch.uint8, device="meta")
    assert pad_crop(images, 2, generator(0)).shape == images.shape
    assert horizontal_flip(images, generator(0)).shape == images.shape
    assert moved == [2 * 5, 5]


def test_images_are_left_as_they_were():
    images = draw((4, 3, 5, 5), 0)
    before = images.clone()
    horizontal_flip(pad_crop(images, 2, generator(0)), generator(0))
    normalize(images, [0.5] * 3, [0.5] * 3)
    assert torch.equal(images, before)


def test_bad_arguments_are_refused():
    images = draw((2, 3, 4, 4), 0)
    with pytest.raises(ValueError, match="padding is -1"):
        pad_crop(images, -1, generator(0))
    with pytest.raises(TypeError, match="padding is 1.5"):
        pad_crop(images, 1.5, generator(0))
    for function in (
        lambda x: pad_crop(x, 1, generator(0)),
        lambda x: horizontal_flip(x, generator(0)),
        lambda x: normalize(x, [0.5] * 3, [0.5] * 3),
    ):
        with pytest.raises(ValueError, match=r"\(3, 4, 4\); pass a batch"):
            function(images[0])
    with pytest.raises(TypeError, match="torch.float32"):
        normalize(images.float(), [0.5] * 3, [0.5] * 3)
    with pytest.raises(ValueError, match=r"mean has shape \(1,\); images of 3 channels"):
        normalize(images, [0.5], [0.5] * 3)
    with pytest.raises(ValueError, match=r"std has shape \(2,\)"):
        normalize(images, [0.5] * 3, [0.5] * 2)


def test_torchvision_transforms_draw_from_the_batch_generator():
    v2 = pytest.importorskip("torchvision.transforms.v2")
    images = torch.randint(256, (6, 3, 16, 16), dtype=torch.uint8)
    augment = per_image(v2.Compose([v2.RandAugment(), v2.RandomErasing(p=1.0)]))
    state = torch.get_rng_state()
    first = augment(images, torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert torch.equal(augment(images, torch.Generator().manual_seed(1)), first)
    assert not torch.equal(augment(images, torch.Generator().manual_seed(2)), first)
    assert first.shape == images.shape
    assert first.dtype == torch.uint8
    # Each image draws its own: erased places differ.
    erased = [
        (image.sum(0) == 0).nonzero().tolist()
        for image in augment(torch.full_like(images, 200), torch.Generator().manual_seed(3))
    ]
    assert len({str(place) for place in erased}) > 1


def test_per_image_gives_the_generator_back_after_an_error():
    def broken(image):
        raise ValueError("broken")

    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="broken"):
        per_image(broken)(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.Generator())
    assert torch.equal(torch.get_rng_state(), state)
