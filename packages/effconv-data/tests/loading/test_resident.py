import pytest
import torch
from effconv_data import ResidentBatches, normalize, pad_crop
from hypothesis import given, settings
from hypothesis import strategies as st


def numbered(samples, channels=1):
    """Images whose first pixel is the sample's number, which is its label's number of classes."""
    images = torch.zeros(samples, channels, 3, 4, dtype=torch.uint8)
    images[:, :, 0, 0] = torch.arange(samples, dtype=torch.uint8)[:, None]
    return images


def make(samples=10, batch_size=3, channels=1, **arguments):
    arguments = {"mean": [0.0] * channels, "std": [1 / 255] * channels, **arguments}
    return ResidentBatches(
        numbered(samples, channels),
        torch.arange(samples) % 2,
        classes=("even", "odd"),
        batch_size=batch_size,
        **arguments,
    )


def order(batches):
    """The numbers of the samples of one epoch, batch by batch."""
    return [images[:, 0, 0, 0].round().int().tolist() for images, _ in batches]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 2**40), st.integers(0, 1000))
def test_training_takes_every_sample_at_most_once(samples, batch_size, seed, epoch):
    if samples < batch_size:
        with pytest.raises(ValueError, match="drops a short batch"):
            make(samples, batch_size, seed=seed)
        return
    batches = make(samples, batch_size, seed=seed)
    batches.set_epoch(epoch)
    found = order(batches)
    assert len(found) == len(batches) == samples // batch_size
    assert all(len(batch) == batch_size for batch in found)
    seen = [number for batch in found for number in batch]
    assert len(set(seen)) == len(seen) == samples // batch_size * batch_size
    batches.set_epoch(epoch)
    assert order(batches) == found
    fresh = make(samples, batch_size, seed=seed)
    fresh.set_epoch(epoch)
    assert order(fresh) == found


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 70))
def test_evaluation_takes_every_sample_in_order(samples, batch_size):
    batches = make(samples, batch_size, training=False)
    for _ in range(2):
        found = order(batches)
        assert [number for batch in found for number in batch] == list(range(samples))
        assert len(found) == len(batches)


def test_batches_have_the_promised_form():
    batches = make(channels=3, training=False, name="numbers")
    assert batches.name == "numbers"
    assert batches.classes == ("even", "odd")
    assert batches.num_classes == 2
    assert batches.image_shape == (3, 3, 4)
    assert batches.samples == 10
    for images, labels in batches:
        assert images.dtype == torch.float32
        assert images.shape == (len(labels), 3, 3, 4)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.dtype == torch.int64
        assert torch.equal(images[:, 0, 0, 0].round().long() % 2, labels)


def test_labels_follow_their_images_through_the_shuffle():
    for images, labels in make(100, 7):
        assert torch.equal(images[:, 0, 0, 0].round().long() % 2, labels)


def test_epochs_and_seeds_differ():
    batches = make(50, 5)
    epochs = [order(batches) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert order(make(50, 5, seed=1)) != epochs[0]


def test_epoch_advances_after_a_complete_pass_only():
    batches = make()
    first = order(batches)
    assert batches.epoch == 1
    batches.set_epoch(0)
    next(iter(batches))
    assert batches.epoch == 0
    assert order(batches) == first
    batches.set_epoch(7)
    seventh = order(batches)
    assert batches.epoch == 8
    batches.set_epoch(7)
    # An epoch is fixed by iter(), not by the first batch that is asked for.
    begun = iter(batches)
    batches.set_epoch(0)
    assert order(begun) == seventh


def test_augmentation_is_a_pure_function_of_seed_epoch_and_batch():
    images = torch.randint(
        256, (20, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )

    def augmented(seed=0):
        return ResidentBatches(
            images,
            torch.zeros(20, dtype=torch.int64),
            classes=("one",),
            batch_size=5,
            augment=lambda x, generator: pad_crop(x, 2, generator),
            seed=seed,
        )

    def epoch(batches, number):
        batches.set_epoch(number)
        return torch.stack([x for x, _ in batches])

    batches = augmented()
    first, second = epoch(batches, 0), epoch(batches, 1)
    assert torch.equal(epoch(batches, 0), first)
    assert torch.equal(epoch(augmented(), 1), second)
    assert not torch.equal(epoch(augmented(seed=1), 0), first)
    # Leaving a pass early, or drawing elsewhere, changes nothing.
    next(iter(batches))
    torch.rand(3)
    assert torch.equal(epoch(batches, 1), second)


def test_every_batch_of_every_epoch_draws_anew():
    draws = []

    def note(images, generator):
        draws.append(torch.rand(1, generator=generator).item())
        return images

    for seed in (0, 1):
        batches = make(10, 2, augment=note, seed=seed)
        for _ in range(3):
            order(batches)
    assert len(set(draws)) == len(draws) == 2 * 3 * 5


def test_global_randomness_is_left_alone():
    state = torch.get_rng_state()
    order(make())
    assert torch.equal(torch.get_rng_state(), state)


def test_statistics_are_computed_where_none_are_given():
    images = torch.randint(256, (50, 2, 9, 7), dtype=torch.uint8)
    images[:, 1] = 9
    batches = ResidentBatches(
        images, torch.zeros(50, dtype=torch.uint8), classes=("one",), batch_size=50, training=False
    )
    pixels = images[:, 0].double() / 255
    assert batches.mean == pytest.approx((pixels.mean().item(), 9 / 255))
    assert batches.std == pytest.approx((pixels.std(correction=0).item(), 1.0))
    ((found, _),) = batches
    assert torch.equal(found, normalize(images, batches.mean, batches.std))
    assert found[:, 1].abs().max() < 1e-6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_gpu_gives_what_the_cpu_gives():
    def crop(images, generator):
        return pad_crop(images, 1, generator)

    here, there = (make(50, 7, channels=3, augment=crop, device=d) for d in ("cpu", "cuda"))
    for (x, y), (x_gpu, y_gpu) in zip(here, there, strict=True):
        assert x_gpu.is_cuda
        assert y_gpu.is_cuda
        assert x_gpu.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(x_gpu.cpu(), x)
        assert torch.equal(y_gpu.cpu(), y)


@pytest.mark.parametrize(
    ("changes", "kind", "problem"),
    [
        ({"images": numbered(4).float()}, TypeError, "images are torch.float32"),
        ({"images": numbered(4)[0]}, ValueError, r"pass \(N, C, H, W\)"),
        ({"images": numbered(0)}, ValueError, "no empty dimension"),
        ({"labels": torch.zeros(4)}, TypeError, "labels are torch.float32"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, ValueError, "beside 4 images"),
        ({"labels": torch.tensor([0, 1, 2, 0])}, ValueError, "from 0 to 2 but there are 2"),
        ({"labels": torch.tensor([0, 1, -1, 0])}, ValueError, "from -1 to 1"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"batch_size": 2.0}, TypeError, "batch_size is 2.0"),
        ({"batch_size": 5}, ValueError, "batch_size is 5 but there are 4 samples"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"seed": None}, TypeError, "seed is None"),
        ({"mean": (0.5,)}, ValueError, "only one of mean and std"),
        ({"mean": (0.5,), "std": (0.5, 0.5)}, ValueError, "images of 1 channels"),
        ({"mean": (0.5,), "std": (0.0,)}, ValueError, "above 0"),
    ],
)
def test_bad_arguments_are_refused(changes, kind, problem):
    arguments = {
        "images": numbered(4),
        "labels": torch.arange(4) % 2,
        "classes": ("even", "odd"),
        "batch_size": 2,
        **changes,
    }
    with pytest.raises(kind, match=problem):
        ResidentBatches(arguments.pop("images"), arguments.pop("labels"), **arguments)


def test_bad_epoch_is_refused():
    with pytest.raises(ValueError, match="epoch is -1"):
        make().set_epoch(-1)
    with pytest.raises(TypeError, match="epoch is 0.5"):
        make().set_epoch(0.5)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.floats(0.05, 0.95), st.integers(0, 2**40))
def test_two_parts_hold_every_sample_once(samples, share, seed):
    batches = make(samples, 1)
    second = round(share * samples)
    if second in (0, samples):
        with pytest.raises(ValueError, match="is empty; change share or take more samples"):
            batches.divide(share, seed=seed)
        return
    parts = batches.divide(share, seed=seed)
    assert [part.samples for part in parts] == [samples - second, second]
    numbers = [number for part in parts for batch in order(part) for number in batch]
    assert sorted(numbers) == list(range(samples))
    again = batches.divide(share, seed=seed)
    assert [order(part) for part in again] == [
        order(part) for part in batches.divide(share, seed=seed)
    ]


def test_parts_are_drawn_at_random_and_are_otherwise_like_the_whole():
    def lighter(images, generator):
        return images + 100

    batches = make(50, 5, channels=2, seed=7, augment=lighter, mean=[0.0, 0.0], std=[0.5, 1.0])
    part, other = batches.divide(0.4, seed=1)
    images, labels = next(iter(part))
    assert images.shape == (5, 2, 3, 4)
    torch.testing.assert_close(images[:, 0], 2 * images[:, 1])
    assert images.min() >= 100 / 255
    assert torch.equal((images[:, 1, 0, 0] * 255 - 100).round().long() % 2, labels)
    assert (part.classes, part.mean, part.std) == (batches.classes, batches.mean, batches.std)
    found = sorted(n for batch in order(make(50, 5, seed=7).divide(0.4, seed=1)[1]) for n in batch)
    assert found != list(range(30, 50))
    assert found != sorted(n for b in order(make(50, 5, seed=7).divide(0.4, seed=2)[1]) for n in b)
    assert len(other) == 4


def test_a_part_that_is_held_out_comes_whole_in_order_and_not_augmented():
    def lighter(images, generator):
        return images + 100

    batches = make(50, 8, seed=7, augment=lighter, mean=[0.0], std=[1.0])
    train, val = batches.divide(0.4, seed=1, held_out=True)
    numbers = [n for batch in order(val) for n in batch]
    images = torch.cat([images for images, _ in val])
    same, augmented = batches.divide(0.4, seed=1)
    assert numbers == sorted(numbers)
    assert (len(numbers), len(augmented)) == (20, 2)
    assert images.max() < 100 / 255 <= next(iter(train))[0].min()
    assert order(train) == order(same)


def test_a_part_has_no_sample_that_is_missing():
    whole = make(10, 1, missing={3: None, 4: None})
    numbers = [n for part in whole.divide(0.5) for batch in order(part) for n in batch]
    assert sorted(numbers) == [0, 1, 2, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("share", [0, 1, -0.5, float("nan")])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match="it must be above 0 and below 1, so change it"):
        make().divide(share)
