"""Downloading a file that is known by its sum, going on where an earlier attempt broke off."""

import http.client
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from effconv_data.prepare.files import Published, sums
from effconv_data.prepare.parts import OnProgress, Progress

__all__ = ["download"]

CHUNK = 1 << 16
ATTEMPTS = 5
TIMEOUT = 30.0  # seconds without a byte
# What a later attempt may mend; any other answer is final.
PASSING = {408, 425, 429, 500, 502, 503, 504}

PASSING_ERRORS = (
    urllib.error.URLError,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
    http.client.HTTPException,
)


def download(
    published: Published, folder: Path, *, on_progress: OnProgress, pause: float = 1.0
) -> Path:
    """Give a published file in a folder, downloaded unless it is there already.

    What has arrived lies in `FILE.partial` until its sum is right; the next attempt, of this call
    or of a later one, asks only for the rest. A server that sends everything again is obeyed.

    Args:
        published: the file's name, address and md5.
        folder: made if it does not exist.
        on_progress: told the bytes that are there.
        pause: seconds before an attempt after one that brought something, doubled for each in a
            row that brought nothing.

    Raises:
        ConnectionError: if the server refuses, or several attempts in a row bring nothing.
        ValueError: if the file has another md5 than the published one.
    """
    path = folder / published.file
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
        if sums(path, on_progress)[0] != published.md5:
            raise ValueError(
                f"{path} does not have the official md5 {published.md5}; remove it to download it "
                "anew, or pass its folder as the source without the check of sums (--no-checksum)"
            )
        return path

    partial = folder / f"{published.file}.partial"
    failures = 0
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        try:
            _fetch(published, partial, on_progress)
            break
        except urllib.error.HTTPError as error:
            if error.code not in PASSING:
                raise ConnectionError(
                    f"{published.url} cannot be downloaded (the server answers {error.code} "
                    f"{error.reason}); get the file yourself and pass its folder as the source"
                ) from error
            failure: Exception = error
        except PASSING_ERRORS as error:
            failure = error
        arrived = partial.exists() and partial.stat().st_size > before
        failures = 0 if arrived else failures + 1
        if failures == ATTEMPTS:
            raise ConnectionError(
                f"{published.url} cannot be downloaded ({failure}); run the same again, which goes "
                f"on from {partial}, or get the file yourself and pass its folder as the source"
            ) from failure
        time.sleep(pause * 2**failures)

    found, _ = sums(partial, on_progress)
    if found != published.md5:
        # Out of the way of the next attempt, but the user may want to see what came.
        wrong = partial.replace(folder / f"{published.file}.wrong")
        raise ValueError(
            f"{published.url} gave a file with the md5 {found} instead of the official "
            f"{published.md5}, kept as {wrong}; run the same again to download it anew, or get the "
            "file yourself and pass its folder as the source"
        )
    return partial.replace(path)


def _fetch(published: Published, partial: Path, on_progress: OnProgress) -> None:
    """Bring the partial file to its full length, or raise what went wrong."""
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(published.url, headers={"User-Agent": "effconv-data"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        # Nothing follows what is there: it is complete, or its sum will show that it is not.
        if start and error.code == 416:
            return
        raise
    with response:
        if start and not (
            response.status == 206
            and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        ):
            start = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        done = start
        with partial.open("ab" if start else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                on_progress(Progress(f"downloading {published.file}", done, total, "bytes"))
    if total is not None and done < total:
        raise ConnectionError(f"the connection broke off after {done} of {total} bytes")
