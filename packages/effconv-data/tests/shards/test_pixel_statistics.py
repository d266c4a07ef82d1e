"""Mean and standard deviation of pixels, against NumPy's of all values."""

import numpy as np
import pytest
import torch
from effconv_data.shards.pixel_statistics import pixel_statistics, statistics_of_counts
from torch.utils._python_dispatch import TorchDispatchMode


def drawn(*shape, dtype=torch.uint8):
    low, high = (0, 256) if dtype == torch.uint8 else (-32768, 32768)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(low, high, shape, generator=generator).to(dtype)


def test_each_channel_has_its_own():
    images = drawn(5, 3, 4, 6)
    images[:, 1] //= 3
    mean, std = pixel_statistics(images)
    values = images.numpy() / 255
    assert mean == pytest.approx(values.mean((0, 2, 3)))
    assert std == pytest.approx(values.std((0, 2, 3)))


def test_sequences_are_on_the_scale_of_16_bits():
    audio = drawn(5, 2, 40, dtype=torch.int16)
    mean, std = pixel_statistics(audio)
    values = audio.numpy().astype(np.float64) / 32768
    assert mean == pytest.approx(values.mean((0, 2)), abs=1e-12)
    assert std == pytest.approx(values.std((0, 2)), abs=1e-12)
    counts = torch.stack([torch.bincount(c.flatten().int() + 32768, minlength=65536)
                          for c in audio.unbind(1)])  # fmt: skip
    assert statistics_of_counts([counts]) == (mean, std)


class Largest(TorchDispatchMode):
    """Note the bytes of the largest storage that an operation returns."""

    def __init__(self):
        super().__init__()
        self.size, self.given = 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in self.given:
                    self.size = max(self.size, storage.nbytes())
        return result


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
def test_a_large_set_is_counted_in_parts(dtype):
    whole = torch.full((40, 2, 1 << 18), 7, dtype=dtype)
    whole[30:] = 9
    with Largest() as largest:
        largest.given.add(whole.untyped_storage().data_ptr())
        mean, _ = pixel_statistics(whole)
    assert mean == pytest.approx((7.5 / (255 if dtype == torch.uint8 else 32768),) * 2, abs=1e-12)
    assert 0 < largest.size < whole.nbytes


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
def test_a_constant_channel_can_be_divided_by(dtype):
    shape = (3, 1, 4, 4) if dtype == torch.uint8 else (3, 1, 16)
    mean, std = pixel_statistics(torch.full(shape, 51, dtype=dtype))
    assert mean == pytest.approx((51 / (255 if dtype == torch.uint8 else 32768),))
    assert std == (1.0,)


def test_counts_of_parts_are_those_of_the_whole():
    images = drawn(6, 2, 3, 3)
    parts = [
        torch.stack([torch.bincount(c.flatten(), minlength=256) for c in part.unbind(1)])
        for part in images.split([1, 5])
    ]
    assert statistics_of_counts(parts) == pixel_statistics(images)


def test_counts_of_a_large_set_stay_exact():
    counts = torch.zeros(1, 256, dtype=torch.int64)
    counts[0, 0], counts[0, 255] = 2**40, 2**40 + 2
    mean, _ = statistics_of_counts([counts])
    assert mean[0] - 0.5 == pytest.approx(0.5 / (2**40 + 1), rel=1e-3)
