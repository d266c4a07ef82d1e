"""The order of an epoch: exactly once, the same for any number of ranks, equal batches."""

from itertools import chain, pairwise
from unittest.mock import patch

import numpy as np
from effconv_data.loading import order as module
from effconv_data.loading.order import Order
from hypothesis import assume, given, settings
from hypothesis import strategies as st

COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=7)


def epoch_of(order, epoch=0, rank=0, world_size=1, first=0):
    return [b.tolist() for b in order.batch_indices(epoch, first, rank, world_size)]


@settings(deadline=None, max_examples=80)
@given(
    COUNTS,
    st.integers(1, 12),
    st.sampled_from([1, 2, 3, 4]),
    st.integers(0, 5),
    st.integers(0, 3),
    st.integers(1, 9),
    st.booleans(),
)
def test_each_sample_once_and_equal_batches(
    counts, batch_size, world_size, seed, epoch, window, training
):
    order = Order(tuple(counts), batch_size * world_size, training, seed)
    N = sum(counts)
    assume(order.batches)
    with patch.object(module, "WINDOW", window):
        alone = epoch_of(order, epoch)
        ranks = [epoch_of(order, epoch, rank, world_size) for rank in range(world_size)]
        again = epoch_of(order, epoch)
    assert alone == again
    assert all(len(batches) == order.batches for batches in ranks)
    # Side by side, the ranks' batches are the one process's.
    assert [list(chain(*parts)) for parts in zip(*ranks, strict=True)] == alone
    given_samples = list(chain(*alone))
    assert len(set(given_samples)) == len(given_samples)
    if training:
        assert len(given_samples) == N - N % (batch_size * world_size)
        assert all(len(b) == batch_size for batches in ranks for b in batches)
        assert set(given_samples) <= set(range(N))
    else:
        assert given_samples == list(range(N))
        shares = [len(batches[-1]) for batches in ranks]
        assert max(shares) - min(shares) <= 1


def test_epochs_and_seeds_differ():
    order = Order((50, 50), 10, True, 0)
    orders = [epoch_of(order, epoch) for epoch in range(3)]
    orders.append(epoch_of(Order((50, 50), 10, True, 1)))
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_an_epoch_can_be_entered_at_any_batch():
    order = Order((9, 30, 4), 5, True, 3)
    whole = epoch_of(order)
    assert [epoch_of(order, first=first) for first in range(9)] == [whole[i:] for i in range(9)]


def test_every_sample_is_dropped_at_times():
    order = Order((7, 8, 6), 8, True, 0)
    dropped = np.zeros(21, dtype=int)
    for epoch in range(200):
        given_samples = np.concatenate(list(order.batch_indices(epoch, 0, 0, 1)))
        dropped[np.setdiff1d(np.arange(21), given_samples)] += 1
    # 5 of 21 each epoch, 48 for each sample in 200; three standard deviations are 18.
    assert dropped.sum() == 200 * 5
    assert dropped.min() > 25
    assert dropped.max() < 75


def test_a_batch_mixes_the_shards():
    # 16 shards of one class each, as an unshuffled set would have them.
    order = Order((500,) * 16, 64, True, 0)
    shards = [len({sample // 500 for sample in batch}) for batch in epoch_of(order)]
    assert np.mean(shards) >= 8


def test_neighbours_are_read_in_windows_of_the_promised_size():
    order = Order((20_000,) * 3, 128, True, 0)
    for lane in order.lanes(0):
        windows = [lane.window(number) for number in range(lane.windows)]
        assert windows[0][0] == 0
        assert all(a[1] == b[0] for a, b in pairwise(windows))
        assert windows[-1][1] == lane.length
        assert max(high - low for low, high in windows) <= module.WINDOW
        runs = list(lane.runs(0, lane.length))
        assert sum(stop - first for _, first, stop in runs) == lane.length


def test_samples_in_no_shards_are_shuffled_all_together():
    order = Order((20_000,), 100, True, 0, whole=True)
    (lane,) = order.lanes(0)
    assert (lane.windows, lane.window(0)) == (1, (0, 20_000))
    first = np.concatenate(list(order.batch_indices(0, 0, 0, 1))[:20])
    # 2,000 of 20,000 numbers in random places: their mean is 10,000 +- 123.
    assert abs(first.mean() - 10_000) < 500
    assert first.std() > 5_000
