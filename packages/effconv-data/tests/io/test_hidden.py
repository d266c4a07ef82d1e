"""Files and folders that systems leave among a user's own."""

import pytest
from effconv_data.io.hidden import is_hidden


@pytest.mark.parametrize(
    "path",
    [
        ".git/a.png",
        "cats/.DS_Store",
        "cats/._a.png",
        "cats/Thumbs.db",
        "DESKTOP.INI",
        "__MACOSX/cats/a.png",
        "cats/@eaDir/a.png/SYNOPHOTO_THUMB.jpg",
        "$RECYCLE.BIN/a.png",
        "System Volume Information",
        "lost+found/a.png",
        "...",
        "Icon\r",
    ],
)
def test_what_a_system_left_is_hidden(path):
    assert is_hidden(path.split("/"))


@pytest.mark.parametrize(
    "path", ["a.png", "./cats/a.png", "../cats/a.png", "cats.d/a.png", "thumbs.db.png", "recycle/a"]
)
def test_a_users_own_is_not(path):
    assert not is_hidden(path.split("/"))


def test_no_parts_are_not_hidden():
    assert not is_hidden([])
