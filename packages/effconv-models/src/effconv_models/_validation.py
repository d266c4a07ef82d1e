"""Checks of arguments that several modules share."""

import operator


def check_positive(what: str, value: int) -> int:
    """Check that a value is an integer of at least 1, and return it as Python's own.

    Integers of NumPy and tensors of one integer are integers too.

    Raises:
        TypeError: if the value is not an integer; the message calls it `what`.
        ValueError: if it is below 1.
    """
    try:
        number = operator.index(value)
    except (TypeError, RuntimeError):
        number = None
    if number is None or isinstance(value, bool) or "bool" in str(getattr(value, "dtype", "")):
        raise TypeError(f"{what} is {value!r}; it must be an int of at least 1, so pass one")
    if number < 1:
        raise ValueError(f"{what} is {number}; the smallest allowed is 1, so pass 1 or more")
    return number
