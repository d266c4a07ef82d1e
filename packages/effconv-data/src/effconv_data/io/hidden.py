"""Files and folders that systems put beside a user's own: thumbnails, indexes, waste baskets."""

from collections.abc import Iterable

__all__ = ["is_hidden"]

FOLDERS = {
    *(
        "@eadir",
        "#recycle",
        "#snapshot",
        "@recycle",
        "@recently-snapshot",
        "@tmp",
    ),  # of disk servers
    *("__macosx", "lost+found"),
    *("$recycle.bin", "recycler", "system volume information"),
}
FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}


def is_hidden(parts: Iterable[str]) -> bool:
    """Return whether one of a path's parts is a system's own.

    Args:
        parts: names of folders and, as the last one, of a file, below the user's folder. Names that
            begin with a dot count, `.` and `..` do not.
    """
    return any(
        (part.startswith(".") and part not in (".", ".."))
        or part.lower() in FOLDERS
        or part.lower() in FILES
        for part in parts
    )
