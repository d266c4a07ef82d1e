"""Argument checks shared by several modules."""


def check_integer(name: str, value: object, least: int) -> None:
    """Raise TypeError or ValueError unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; it must be an integer, so pass one")
    if value < least:
        raise ValueError(f"{name} is {value}; it must be at least {least}, so raise it")
