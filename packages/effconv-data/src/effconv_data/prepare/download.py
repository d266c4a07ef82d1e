"""Resumable download of a file with a known checksum."""

from pathlib import Path

from effconv_data.io.atomic import opened_for_appending
from effconv_data.io.web import RETRY, WebError, asked, retried
from effconv_data.prepare.archives import Published, sums
from effconv_data.prepare.types import OnProgress, Progress

__all__ = ["download"]

ATTEMPTS = 5
"""Requests in a row that may bring nothing."""


def download(
    published: Published, folder: Path, *, on_progress: OnProgress, pause: float = 1.0
) -> Path:
    """Return the path of a published file in a folder; download it unless it is there.

    What has arrived lies in `FILE.partial` until its sum is right; the next attempt, of this call
    or of a later one, asks only for the rest. A server that sends everything again is obeyed; one
    that sends more than the file may have is not.

    Args:
        published: the file's name, address and md5.
        folder: created if it does not exist.
        on_progress: called with the number of bytes received.
        pause: seconds before the third attempt in a row that follows one that brought nothing, half
            of those before the fourth, and so on.

    Raises:
        ConnectionError: if the server refuses, or several attempts in a row receive nothing.
        ValueError: if the file has another md5 than the published one, or `FILE.partial` is a link
            or no regular file.
    """
    path = folder / published.file
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
        if sums(path, on_progress)[0] != published.md5:
            raise ValueError(
                f"{path} does not have the official md5 {published.md5}; remove it to download it "
                "again, or pass its folder as the source without the check of sums (--no-checksum)"
            )
        return path

    partial = folder / f"{published.file}.partial"
    try:
        retried(
            lambda: _fetch(published, partial, on_progress),
            published.url,
            RETRY.new(total=ATTEMPTS - 1, backoff_factor=pause),
            lambda: partial.stat().st_size if partial.exists() else 0,
        )
    except WebError as error:
        going_on = f"run the same again, which goes on from {partial}, or "
        raise ConnectionError(
            f"{published.url} cannot be downloaded ({error}); {'' if error.lasting else going_on}"
            "get the file yourself and pass its folder as the source"
        ) from error

    found, _ = sums(partial, on_progress)
    if found != published.md5:
        # Moved aside for the next attempt, but kept for the user to inspect.
        wrong = partial.replace(folder / f"{published.file}.wrong")
        raise ValueError(
            f"{published.url} gave a file with the md5 {found} instead of the official "
            f"{published.md5}, kept as {wrong}; run the same again to download it, or get the "
            "file yourself and pass its folder as the source"
        )
    return partial.replace(path)


def _fetch(published: Published, partial: Path, on_progress: OnProgress) -> None:
    """Complete the partial file, or raise."""
    start = partial.stat().st_size if partial.exists() else 0
    try:
        with asked(published.url, limit=published.largest, start=start) as answer:
            done = start if answer.partial else 0
            total = None if answer.length is None else done + answer.length
            with opened_for_appending(partial) as file:
                file.truncate(done)
                for piece in answer.pieces:
                    if done + len(piece) > published.largest:
                        raise WebError(f"it has more than {published.largest} bytes", lasting=True)
                    file.write(piece)
                    done += len(piece)
                    on_progress(Progress(f"downloading {published.file}", done, total, "bytes"))
    except WebError as error:
        # The server has nothing after these bytes: the file is complete, or its checksum is wrong.
        if not (start and error.status == 416):
            raise
