"""The tables that Triton's programs look up, against loops over layers, chunks and blocks."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton has no wheel for this platform")

from effconv_kernels.triton import tables

CPU = torch.device("cpu")
SHAPES, COUNTS, INNER = (1, 3, 3, 1, 1, 5), (100, 6), (10, 2)
RULES = (-1, 0, 0, -1, -1, 1)


def test_a_layer_has_its_places_and_what_rules_its_axes():
    found = tables.look_up(SHAPES, COUNTS, INNER, RULES, CPU)
    first, second = found.layers.tolist()
    # Taps, first row of states and map, start; rows of the map, of the sums; c_in, rows a chunk.
    assert first == [9, 0, 0, 0, 100, 0, 10, 64, 1, 3, 3, -1, 0, 0]
    assert second == [5, 9, 100, 900, 6, 18, 2, 64, 1, 1, 5, -1, -1, 1]
    assert (found.values, found.most) == (930, 9)


def test_chunks_and_blocks_cover_every_row_once():
    found = tables.look_up(SHAPES, COUNTS, INNER, RULES, CPU)
    assert found.blocks.tolist() == [[0, 0], [0, 64], [1, 0]]
    assert found.chunks.tolist() == [[0, 0, 0], [0, 64, 9], [1, 0, 18]]
    assert found.sums == 23


def test_rows_of_large_maps_share_a_bounded_number_of_chunks(monkeypatch):
    monkeypatch.setattr(tables, "CHUNKS", 2)
    counts = (1000, 37)
    found = tables._tables.__wrapped__(SHAPES, counts, INNER, RULES, CPU)
    chunks = tables.ready(found.chunks).tolist()
    length = tables.ready(found.layers)[0, 7].item()
    assert length % tables.ROWS == 0
    assert len(chunks) <= 2 + len(counts)
    for layer, count in enumerate(counts):
        starts = [row for own, row, _ in chunks if own == layer]
        assert starts == list(range(0, count, length))


@pytest.mark.parametrize(
    ("rules", "count", "expected"),
    [
        ((-1, 0, 0, -1, -1, 1), 2, [[1, 2], [5]]),
        ((1, -1, 1, 1, 0, -1), 3, [[4], [0, 2, 3], []]),
    ],
)
def test_the_axes_of_each_soft_size_are_listed(rules, count, expected):
    found = tables.owners_of(rules, count, CPU).tolist()
    assert [found[found[i] : found[i + 1]] for i in range(count)] == expected
    assert found[count] == len(found)
