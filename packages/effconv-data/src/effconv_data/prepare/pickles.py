"""Read pickled archives without running their code.

A pickle is a program that may call any function by name. An array in it needs three names: NumPy's
array, its dtype, and the function that makes an array, of which there are two by age. This reader
resolves those to stand-ins that only record their arguments, refuses all other names, and builds
the arrays itself after checking what was recorded.
"""

import math
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

import numpy as np

__all__ = ["read_pickle"]

PLAIN = {type(None), bool, int, float, complex, str, bytes, bytearray}
# Numeric kinds without pointers; "O" must be kept out.
DTYPES = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"f2", "f4", "f8", "b1"}


def read_pickle(file: BinaryIO, where: str) -> Any:
    """Read a pickle of numpy arrays, numbers, text and the plain containers of Python.

    Args:
        file: the pickle, of Python 2 or 3; the byte strings of Python 2 become text, read as
            latin-1.
        where: the file's name, for messages.

    Raises:
        ValueError: if the pickle is damaged or names anything except an array.
    """
    try:
        return _finished(_Unpickler(file, encoding="latin1").load(), {})
    except Exception as error:  # a damaged pickle raises nearly any type
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"{where} is not read as a pickle ({reason}); only numpy arrays and plain containers "
            "are admitted, so get the official file again"
        ) from error


# All stand-ins are classes with __setstate__, so that a pickle cannot set other attributes of
# them, or of a function of this module.


class _Array:
    """Records the state of an array: version, shape, dtype, whether by columns, and bytes."""

    __slots__ = ("state",)

    def __init__(self, *arguments: object) -> None:
        self.state = arguments

    def __setstate__(self, state: tuple) -> None:
        self.state = state


class _BufferArray(_Array):
    """Records the same from protocol 5 of pickles."""

    __slots__ = ()

    def __init__(self, data: object, dtype: object, shape: object, order: str) -> None:
        self.state = (1, shape, dtype, order == "F", data)


class _Dtype:
    """Records a dtype's name and byte order."""

    __slots__ = ("name", "order")

    def __init__(self, name: str, align: object = 0, copy: object = 0) -> None:
        self.name, self.order = name, "|"

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]


class _Encoded:
    """Records bytes as Python 3 writes them for Python 2: text to be encoded."""

    __slots__ = ("data",)

    def __init__(self, text: str, encoding: str) -> None:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it encodes text as {encoding!r}")
        self.data = text.encode("latin1")

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it sets attributes of bytes")


ADMITTED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _BufferArray,
    ("numpy._core.numeric", "_frombuffer"): _BufferArray,
    ("_codecs", "encode"): _Encoded,
}


def _check_hashed(values: list[Any]) -> None:
    for value in values:
        members = value if type(value) is tuple else (value,)
        if not all(type(member) in PLAIN for member in members):
            raise pickle.UnpicklingError(f"a key is a {type(value).__name__} of no plain values")


def _at_mark(method: Callable[[Any], None], step: int) -> Callable[[Any], None]:
    """Return a method of the unpickler that first checks every `step`-th value behind the mark."""

    def checked(self: Any) -> None:
        _check_hashed(self.stack[::step])
        method(self)

    return checked


# The Python implementation, because the one in C allocates as many values as a pickle declares,
# which can be more than the memory.
class _Unpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None

    def _bytearray8(self) -> None:
        # Python's own allocates the length that the pickle declares before it reads.
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    # The hash of a tuple that holds another twice, which holds another twice, takes time without
    # end; so keys and members of sets are plain, or tuples of what is plain.
    def _setitem(self) -> None:
        _check_hashed(self.stack[-2:-1])
        self.load_setitem()

    dispatch: ClassVar = {
        **pickle._Unpickler.dispatch,
        pickle.BYTEARRAY8[0]: _bytearray8,
        pickle.SETITEM[0]: _setitem,
        pickle.SETITEMS[0]: _at_mark(pickle._Unpickler.load_setitems, 2),
        pickle.DICT[0]: _at_mark(pickle._Unpickler.load_dict, 2),
        pickle.ADDITEMS[0]: _at_mark(pickle._Unpickler.load_additems, 1),
        pickle.FROZENSET[0]: _at_mark(pickle._Unpickler.load_frozenset, 1),
    }


def _finished(value: Any, seen: dict[int, Any]) -> Any:
    """Return a value with the stand-ins replaced by real arrays and bytes."""
    if type(value) in PLAIN:
        return value
    # Shared values are visited once; if they are nested, the time would be exponential.
    if id(value) not in seen:
        if isinstance(value, _Array):
            seen[id(value)] = _array(*value.state)
        elif isinstance(value, _Encoded):
            seen[id(value)] = value.data
        elif isinstance(value, dict):
            seen[id(value)] = {
                _finished(key, seen): _finished(item, seen) for key, item in value.items()
            }
        elif isinstance(value, list | tuple | set | frozenset):
            seen[id(value)] = type(value)([_finished(item, seen) for item in value])
        else:
            raise ValueError("it holds a part of an array where a value should be")
    return seen[id(value)]


def _array(version: int, shape: tuple, dtype: _Dtype, by_columns: bool, data: Any) -> np.ndarray:
    if not isinstance(dtype, _Dtype) or dtype.name not in DTYPES or dtype.order not in "<>|=":
        raise ValueError("it holds an array of something else than numbers")
    if isinstance(data, str):
        data = data.encode("latin1")
    elif isinstance(data, _Encoded):
        data = data.data
    kind = np.dtype(dtype.name).newbyteorder(dtype.order)
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError(f"it holds an array of shape {shape}")
    if len(data) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"an array of shape {shape} has {len(data)} bytes")
    return np.frombuffer(data, kind).reshape(shape, order="F" if by_columns else "C")
