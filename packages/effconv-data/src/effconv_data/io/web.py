"""Ask web servers, none of which is trusted: neither what they send, nor how fast, nor where from.

A request that failed by chance is made again as `RETRY` says: three more times within about two
seconds after an answer of 408, 425, 429 or 500 to 504, an unanswered or a broken connection. Every
other answer is final. A server may stay silent for 30 s, has 60 s for an answer's headers, and must
then send 10,000 bytes a second on average. Redirections lead to http(s) only, and never from https
to http.
"""

import http.client
import math
import mmap
import os
import socket
import threading
import time
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple, TypeVar
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

__all__ = ["RETRY", "Answer", "WebError", "asked", "copy_from", "get", "retried"]

Result = TypeVar("Result")

RETRY = urllib3.Retry(
    total=3,
    status_forcelist={408, 425, 429, 500, 502, 503, 504},
    backoff_factor=0.3,
    respect_retry_after_header=False,  # a server could ask for days
)
"""How often and when a request is made again."""
SILENCE = urllib3.Timeout(connect=10, read=30)
HEADERS = 60.0
"""Seconds for the headers of an answer, and before the speed of a server counts."""
SLOWEST = 10_000
"""Bytes a second that a server must send on average."""
REDIRECTIONS = 5
PIECE = 1 << 16
REMEMBERED = 10.0
"""Seconds in which an address that failed is not asked again by this process and its workers."""


class WebError(ConnectionError):
    """A server cannot be reached, refuses, or sends what it should not.

    Attributes:
        status: of its answer; None where there was none.
        lasting: whether asking again is of no use.
    """

    def __init__(self, reason: str, *, status: int | None = None, lasting: bool = False) -> None:
        super().__init__(reason)
        self.status, self.lasting = status, lasting


class Answer(NamedTuple):
    """What a server answered; its content comes in pieces."""

    partial: bool
    """Whether the content begins at the byte that was asked for, and not at the first."""
    length: int | None
    """Bytes of content, as the server says; None where it does not."""
    pieces: Iterator[bytes]


def get(url: str, limit: int) -> bytes:
    """Read what lies at an http(s) address, at most `limit` bytes.

    Raises:
        WebError: if it cannot be had.
    """

    def attempt() -> bytes:
        with asked(url, limit=limit) as answer:
            return b"".join(answer.pieces)

    return retried(attempt, url)


def copy_from(url: str, file: BinaryIO, limit: int) -> None:
    """Write what lies at an http(s) address, at most `limit` bytes, into an empty file.

    An address that has just failed fails at once, also in other workers, so that those that need
    parts of one shard do not each ask for it again and again.

    Raises:
        WebError: if it cannot be had.
    """

    def attempt() -> None:
        file.seek(0)
        file.truncate()
        with asked(url, limit=limit) as answer:
            _asking[place] = 0.0  # it answers, so others need not wait
            for piece in answer.pieces:
                file.write(piece)

    name = zlib.crc32(url.encode()) << 32 | zlib.adler32(url.encode())
    place = (name >> 32) % PLACES
    _wait_for_others(place, name)
    try:
        retried(attempt, url)
    except WebError as error:
        _reasons[place * REASON : (place + 1) * REASON] = str(error).encode()[:REASON].ljust(REASON)
        _failed[place], _names[place] = time.monotonic(), name
        raise
    finally:
        _asking[place] = 0.0


def retried(
    attempt: Callable[[], Result],
    url: str,
    policy: urllib3.Retry = RETRY,
    progress: Callable[[], int] = int,
) -> Result:
    """Return what an attempt returns, which is made again while it fails by chance.

    Args:
        attempt: what may raise WebError.
        url: the address.
        policy: how often, and after which pauses.
        progress: bytes that are there; an attempt that brought 64 KiB or more counts as the first.

    Raises:
        WebError: the last one.
    """
    left = policy
    while True:
        before = progress()
        try:
            return attempt()
        except WebError as error:
            if error.lasting:
                raise
            if progress() >= before + PIECE:
                left = policy
            try:
                left = left.increment("GET", url, error=error)
            except urllib3.exceptions.MaxRetryError:
                raise error from None
            left.sleep()


@contextmanager
def asked(url: str, *, limit: int, start: int = 0) -> Iterator[Answer]:
    """Ask a server once, and follow where it leads.

    Args:
        url: an http(s) address.
        limit: bytes of content that are read; more is an error.
        start: the first byte asked for.

    Raises:
        WebError: if there is no answer, it is a refusal, or, while its pieces are read, it breaks
            off, is too long or too slow.
    """
    with _failures_named():
        response, manager = _followed(url, {"Range": f"bytes={start}-"} if start else {})
    try:
        if response.status not in (200, 206):
            raise WebError(
                f"the server answers {response.status} {response.reason or ''}".rstrip(),
                status=response.status,
                lasting=response.status not in RETRY.status_forcelist,
            )
        text = response.headers.get("Content-Length", "")
        length = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
        if length is not None and length > limit:
            raise _too_long(limit)
        partial = response.status == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {start}-"
        )
        if response.status == 206 and not partial:
            raise WebError("the server sends another part than it was asked for", lasting=True)
        yield Answer(partial, length, _pieces(response, limit))
    finally:
        response.close()
        manager.clear()


def _pieces(response: urllib3.BaseHTTPResponse, limit: int) -> Iterator[bytes]:
    began, received = time.monotonic(), 0
    while True:
        with _failures_named():
            # read1 gives what is there, where read would wait for all of it, a byte at a time.
            piece = response.read1(PIECE, decode_content=False)
        if not piece:
            return
        received += len(piece)
        if received > limit:
            raise _too_long(limit)
        if time.monotonic() - began > HEADERS + received / SLOWEST:
            raise WebError(
                f"the server sends less than {SLOWEST:,} bytes a second, {received:,} bytes so far",
                lasting=True,
            )
        yield piece


def _too_long(limit: int) -> WebError:
    return WebError(f"the server sends more than {limit:,} bytes, which it may not", lasting=True)


def _followed(
    url: str, headers: dict[str, str]
) -> tuple[urllib3.BaseHTTPResponse, urllib3.PoolManager]:
    """Return the answer that is not a redirection, and what holds its connection."""
    headers |= {"User-Agent": "effconv-data", "Accept-Encoding": "identity"}
    for _ in range(REDIRECTIONS + 1):
        manager = _manager(url)
        response = manager.request(
            "GET",
            url,
            headers=headers,
            timeout=SILENCE,
            retries=False,
            redirect=False,
            preload_content=False,
        )
        location = response.get_redirect_location()
        if not location:
            return response, manager
        response.close()
        manager.clear()
        there = urllib.parse.urljoin(url, location)
        before, after = (urllib.parse.urlsplit(place).scheme for place in (url, there))
        if after not in ("http", "https") or (before == "https" and after == "http"):
            raise WebError(
                f"the server leads to {there!r:.200}, and only https, or from http to http, is "
                "followed",
                lasting=True,
            )
        url = there
    raise WebError(f"the server leads on more than {REDIRECTIONS} times", lasting=True)


def _manager(url: str) -> urllib3.PoolManager:
    """Return what makes one connection, through the proxy of the environment where there is one.

    It is made again for each request, because a connection must not be shared by forked processes.
    """
    parts = urllib.parse.urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.netloc.rpartition("@")[2]):
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        auth = urllib.parse.unquote(urllib.parse.urlsplit(proxy).netloc.rpartition("@")[0])
        headers = urllib3.make_headers(proxy_basic_auth=auth) if auth else {}
        manager: urllib3.PoolManager = urllib3.ProxyManager(proxy, proxy_headers=headers)
    else:
        manager = urllib3.PoolManager()
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return manager


class _InTime:
    """A connection whose answer's headers come in time, or not at all."""

    sock: socket.socket

    def getresponse(self) -> object:
        timer = threading.Timer(HEADERS, self.sock.shutdown, (socket.SHUT_RDWR,))
        timer.daemon = True
        timer.start()
        try:
            return super().getresponse()
        finally:
            timer.cancel()


class _Connection(_InTime, HTTPConnection):
    pass


class _SecureConnection(_InTime, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


@contextmanager
def _failures_named() -> Iterator[None]:
    try:
        yield
    except WebError:
        raise
    except (ValueError, urllib3.exceptions.LocationValueError) as error:
        raise WebError(f"the address cannot be used: {error}", lasting=True) from error
    except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError) as error:
        if isinstance(cause := error.__cause__, urllib3.exceptions.IncompleteRead):
            missing = "" if cause.expected is None else f" {cause.expected} bytes"
            raise WebError(f"the connection broke off{missing} before the end") from error
        raise WebError(str(error) or type(error).__name__) from error


# What forked workers know of each other, by the checksum of an address: which process is asking a
# server that has not answered yet, when one failed last, which address it was, and why.
PLACES, REASON = 1024, 256
_shared = memoryview(mmap.mmap(-1, 16 * PLACES)).cast("d")
_asking, _failed = _shared[:PLACES], _shared[PLACES:]
_names = memoryview(mmap.mmap(-1, 8 * PLACES)).cast("Q")
_reasons = mmap.mmap(-1, PLACES * REASON)
for _place in range(PLACES):
    _failed[_place] = -math.inf


def _wait_for_others(place: int, name: int) -> None:
    """Wait while another worker asks the same for the first time, and fail if it has failed.

    Raises:
        WebError: if the address failed a moment ago.
    """
    mine, until = float(os.getpid()), time.monotonic() + 4 * HEADERS
    while time.monotonic() < until:
        if _asking[place] not in (0.0, mine) and _runs(int(_asking[place])):
            time.sleep(0.02)
            continue
        if _names[place] == name and time.monotonic() - _failed[place] < REMEMBERED:
            reason = _reasons[place * REASON : (place + 1) * REASON].decode(errors="replace")
            raise WebError(reason.strip(), lasting=True)
        _asking[place] = mine
        time.sleep(0.002)  # of two that came at the same time, the later one asks
        if _asking[place] == mine:
            return


def _runs(process: int) -> bool:
    if os.name != "posix":  # where no worker is forked, and signal 0 would end the process
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
