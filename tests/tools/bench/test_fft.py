"""Direct and Fourier convolutions are timed in turns."""

import pytest

from tools.bench.fft import FftOptions, crossover, time_kernel


def test_the_benchmark_times_both_ways_and_finds_where_they_cross():
    options = FftOptions(sizes=(3, 5), batch_size=2, image_size=8, repetitions=2, device="cpu")
    row = time_kernel(options, channels=4, size=5)
    assert row["taps"] == 25
    for way in ("direct", "fft"):
        least, greatest = row["spread"][way]
        assert 0 < least <= row[way] <= greatest
    times = {9: (1, 2), 25: (2, 1), 49: (2, 3), 81: (3, 2), 121: (4, 2)}
    rows = [{"taps": t, "direct": direct, "fft": fft} for t, (direct, fft) in times.items()]
    assert crossover(rows) == 81
    assert crossover(rows[:1]) is None
    with pytest.raises(ValueError, match=r"sizes \[4\] are even"):
        FftOptions(sizes=(3, 4))
