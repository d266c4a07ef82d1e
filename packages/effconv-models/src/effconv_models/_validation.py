"""Checks of arguments that several modules share."""


def check_positive(what: str, value: int) -> int:
    """Check that a value is an integer of at least 1, and return it.

    Raises:
        TypeError: if the value is not an integer; the message calls it `what`.
        ValueError: if it is below 1.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is {value!r}; it must be an int of at least 1, so pass one")
    if value < 1:
        raise ValueError(f"{what} is {value}; the smallest allowed is 1, so pass 1 or more")
    return value
