"""The console of all commands; needs `pip install effconv-core[cli]`.

What a command prints is plain text: names of layers and files, sentences of errors, cells of
tables. None of it is markup, and control characters in it are shown, see `terminal.py`.
"""

import contextlib
import io
import sys
from collections.abc import Sequence
from typing import Any

import tyro
from rich.console import Console
from rich.text import Text

from effconv_core.io.terminal import make_outputs_total, printable, silence

__all__ = ["PlainConsole", "parsed", "prints_aside"]


class PlainConsole(Console):
    """A console that takes all text as it is, and goes on where its reader has gone.

    Args:
        stderr: whether it writes to the standard error.
        quiet: whether it writes nothing.
    """

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        make_outputs_total()
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return printed text, cells, titles and columns alike, with control characters shown."""
        return super().render_str(printable(text), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, as `rich.console.Console.print` does; never end a run because nobody reads.

        A reader that has gone, a closed terminal and a log on a full disk are all alike: the run
        goes on in silence, since what it says is also in its folder.
        """
        try:
            super().print(*objects, **options)
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Go on without a word, where rich would end the process."""
        self.quiet = True
        silence(sys.stderr if self.stderr else sys.stdout)


def parsed(kind: Any, words: Sequence[str], **options: Any) -> Any:
    """Read the words of a command line, as `tyro.cli` does; what it says of them is plain text.

    Args:
        kind: the type of the result.
        words: of the command line.
        **options: of `tyro.cli`.

    Raises:
        SystemExit: if the words are not understood, or ask for help.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(kind, args=words, **options)
    finally:
        for line in errors.getvalue().splitlines():
            PlainConsole(stderr=True).print(line, soft_wrap=True)


def prints_aside(aside: bool) -> contextlib.AbstractContextManager:
    """Return a context in which what the user's own code prints goes to the standard error.

    So the standard output has the JSON that was asked for, and nothing else.

    Args:
        aside: False changes nothing.
    """
    return contextlib.redirect_stdout(sys.stderr) if aside else contextlib.nullcontext()
