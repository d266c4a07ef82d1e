"""Print what came from files and users: control characters are shown, never sent."""

import sys


def printable(text: object) -> str:
    r"""Return text in which control characters, and all else that has no glyph, are escaped.

    An escape sequence in the name of a layer would otherwise reach the terminal, which it can
    rename, clear or fill with text that nobody wrote.

    Args:
        text: any value; it is written by `str`.

    Returns:
        The text on one line, such as `conv1\x1b[2J` for a name with an escape character.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text)
    )


def make_outputs_total() -> None:
    """Let standard output and error write any character, by an escape where their encoding cannot.

    Otherwise an arrow in a table would end a run where the output is ASCII, or a redirect on
    Windows.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # what a test puts there may have none
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
