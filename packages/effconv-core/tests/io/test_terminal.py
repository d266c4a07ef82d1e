import subprocess
import sys

import pytest
from effconv_core.io.terminal import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("conv1\x1b[2J", r"conv1\x1b[2J"),
        ("a\nb\r\x07\x9b", r"a\nb\r\x07\x9b"),
        ("\u202e\ud800", r"\u202e\ud800"),
        ("läyer 1 → 3", "läyer 1 → 3"),
        (3, "3"),
    ],
)
def test_control_characters_are_shown_and_not_sent(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_output_of_any_encoding_takes_every_character(encoding):
    program = (
        "from effconv_core.io.terminal import make_outputs_total as m; m(); print('3 → 5 \\ud800')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**__import__("os").environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    assert done.stdout.startswith(b"3 ")
