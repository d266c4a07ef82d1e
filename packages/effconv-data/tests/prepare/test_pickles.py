"""Pickles are read, but nothing in them is ever run."""

import contextlib
import io
import os
import pickle
import tracemalloc

import numpy as np
import pytest
from effconv_data.prepare.pickles import ADMITTED, read_pickle
from hypothesis import given, settings
from hypothesis import strategies as st

BATCH = {
    "data": np.arange(24, dtype=np.uint8).reshape(2, 12),
    "labels": [3, 1],
    "mean": np.linspace(0, 1, 12),
    "names": ("a.png", "b.png"),
    "more": {"none": None, "flags": [True, 1.5], "raw": b"\x00\xff", "both": {1, 2}},
}


def read(data):
    return read_pickle(io.BytesIO(data), "batch")


def same(found, wanted):
    assert type(found) is type(wanted)
    if isinstance(wanted, np.ndarray):
        assert found.dtype == wanted.dtype
        assert np.array_equal(found, wanted)
    elif isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted:
            same(found[key], wanted[key])
    else:
        assert found == wanted


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_come_back(protocol):
    # Sets and bytearrays need Python's own by name in older protocols, which is one name too many.
    more = BATCH["more"] if protocol >= 4 else {"none": None, "raw": b"\x00\xff"}
    buffer = {"buffer": bytearray(b"\x01\x02")} if protocol >= 5 else {}
    batch = {**BATCH, "more": more, **buffer}
    same(read(pickle.dumps(batch, protocol=protocol)), batch)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(12, dtype=np.int64).reshape(3, 4)),
        np.arange(6, dtype=">i4"),
        np.array(7, dtype=np.uint16),
        np.array([True, False]),
    ],
    ids=["fortran", "big-endian", "scalar", "bool"],
)
def test_every_kind_of_array_of_numbers(array, protocol):
    found = read(pickle.dumps(array, protocol=protocol))
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert np.array_equal(found, array)


def test_names_of_older_and_newer_numpy_are_one():
    data = pickle.dumps(np.arange(3), protocol=2)
    old = data.replace(b"numpy._core.", b"numpy.core.")
    assert old != data
    assert np.array_equal(read(old), np.arange(3))


def test_one_array_in_two_places_is_read_once():
    array = np.arange(3)
    first, second = read(pickle.dumps([array, array]))
    assert first is second


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("function", ["system", "eval", "exec", "getattr", "load"])
def test_no_call_is_made(tmp_path, function, nested, protocol):
    canary = tmp_path / "canary"
    write = f"open({str(canary)!r}, 'w').close()"
    value = {
        "system": Calls(os.system, f"touch {canary}"),
        "eval": Calls(eval, write),
        "exec": Calls(exec, write),
        "getattr": Calls(getattr, "", "join"),
        "load": Calls(np.load, str(canary)),
    }[function]
    if nested:
        value = {"data": np.zeros(3, np.uint8), "labels": [1, {"deep": (value,)}]}
    data = pickle.dumps(value, protocol=protocol)
    with pytest.raises(ValueError, match=r"it names \S+\.(system|eval|exec|getattr|load)\)"):
        read(data)
    assert not canary.exists()
    # The canary sings: the same bytes do their work where nothing guards.
    if function in ("system", "eval", "exec"):
        pickle.loads(data)
        assert canary.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n.",  # GLOBAL without a call
        b"(S'true'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'true'\no.",  # OBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",  # a dotted name
    ],
)
def test_every_way_to_name_a_function_is_refused(data):
    with pytest.raises(ValueError, match=r"it names (os\.system|numpy\.ndarray\.tofile)"):
        read(data)


@pytest.mark.parametrize(
    "value",
    [
        np.array([os.system], dtype=object),
        np.array(["text"]),
        np.zeros(2, dtype=[("a", "u1"), ("b", "i4")]),
        np.float64(1.5),
        np.dtype("u1"),
        os.system,
        np.datetime64("2020-01-01"),
    ],
    ids=["objects", "text", "record", "scalar", "dtype", "function", "date"],
)
def test_other_objects_are_refused(value):
    with pytest.raises(ValueError, match="only numpy arrays and plain containers"):
        read(pickle.dumps({"data": value}))


@pytest.mark.parametrize(
    "state",
    [b"}U\x01xK\x01s", b"N}U\x0c__defaults__)s\x86"],
    ids=["attribute", "slot"],
)
@pytest.mark.parametrize("name", sorted(ADMITTED))
def test_what_is_admitted_cannot_be_changed(name, state):
    before = {key: dict(vars(value)) for key, value in ADMITTED.items()}
    with pytest.raises(ValueError, match="not read as a pickle"):
        read(b"\x80\x02c" + "\n".join(name).encode() + b"\n" + state + b"b.")
    assert {key: dict(vars(value)) for key, value in ADMITTED.items()} == before


def test_a_huge_number_of_a_value_takes_no_memory():
    assert read(b"\x80\x02K\x01r\xff\xff\xff\xff.") == 1


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "text", "frame"])
def test_a_declared_length_takes_no_memory(kind):
    code = {
        "bytes": pickle.BINBYTES8,
        "bytearray": pickle.BYTEARRAY8,
        "text": pickle.BINUNICODE8,
        "frame": pickle.FRAME,
    }[kind]
    declared = pickle.PROTO + b"\x05" + code + (1 << 30).to_bytes(8, "little") + b"few."
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="not read as a pickle"):
            read(declared)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_shape_and_bytes_must_agree():
    data = pickle.dumps(np.arange(5, dtype=np.uint8), protocol=4)
    wrong = data.replace(b"K\x05\x85", b"K\x63\x85")
    assert wrong != data
    with pytest.raises(ValueError, match=r"shape \(99,\) has 5 bytes"):
        read(wrong)


def test_lists_in_lists_take_no_time():
    nested = [1]
    for _ in range(60):
        nested = [nested, nested]
    found = read(pickle.dumps(nested))
    assert found[0] is found[1]


def test_a_list_in_itself_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(ValueError, match="not read as a pickle"):
        read(pickle.dumps(loop))


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_a_damaged_pickle_is_read_or_refused(data):
    """Anything but ValueError escapes and fails the test."""
    good = pickle.dumps(BATCH, protocol=data.draw(st.sampled_from([2, 4, 5])))
    bad = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if bad:
            bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        read(bytes(bad))
