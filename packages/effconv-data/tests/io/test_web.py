"""Servers in bad moods: what they send is limited, and what they cost."""

import io
import socket
import threading
import time
import zlib
from contextlib import contextmanager, suppress

import pytest
import urllib3
from effconv_data import ShardError, StreamedBatches, load
from effconv_data.io import web
from effconv_data.shards.index import Shard, read_index

ENDLESS = 1 << 62


@contextmanager
def serving(answer):
    """Serve on a local port: `answer(connection, number)` is called for each request."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked = []

    def serve(connection):
        with connection:
            request = b""
            while b"\r\n\r\n" not in request:
                piece = connection.recv(4096)
                if not piece:
                    return
                request += piece
            asked.append(request)
            with suppress(OSError):
                answer(connection, len(asked))

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        listener.close()


def head(status="200 OK", **headers):
    lines = [f"{key.replace('_', '-')}: {value}" for key, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *lines, "", ""]).encode()


def sends(data):
    return lambda connection, number: connection.sendall(data)


@pytest.fixture(autouse=True)
def forgotten():
    """Let no test know which addresses failed in another."""
    for place in range(web.PLACES):
        web._failed[place], web._asking[place] = -float("inf"), 0.0


@pytest.fixture
def hurried(monkeypatch):
    """Let the pauses before a request is made again be short."""
    monkeypatch.setattr(web.RETRY, "backoff_factor", 0.01)


def test_what_a_server_gives_is_read():
    with serving(sends(head(Content_Length=5) + b"hello")) as (url, asked):
        assert web.get(url, 5) == b"hello"
    assert len(asked) == 1
    chunks = head(Transfer_Encoding="chunked") + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
    with serving(sends(chunks)) as (url, _):
        assert web.get(url, 5) == b"hello"


def endless(connection, number):
    connection.sendall(head())
    while True:
        connection.sendall(bytes(1 << 16))


def endless_chunks(connection, number):
    connection.sendall(head(Transfer_Encoding="chunked"))
    while True:
        connection.sendall(b"10000\r\n" + bytes(1 << 16) + b"\r\n")


def endless_headers(connection, number):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-Y: " + b"z" * 1000 + b"\r\n")


MOODS = {
    "endless": endless,
    "endless in chunks": endless_chunks,
    "endless headers": endless_headers,
    "promises too much": sends(head(Content_Length=ENDLESS)),
    "a length that is none": sends(head(Content_Length="9" * 5000) + bytes(2000)),
    "a negative length": sends(head(Content_Length=-5) + bytes(2000)),
    "two lengths": sends(head(Content_Length="3, 4") + bytes(2000)),
    "a chunk that is none": sends(head(Transfer_Encoding="chunked") + b"xyz\r\n"),
    "no HTTP": sends(b"SSH-2.0-OpenSSH\r\n" + bytes(100)),
    "nothing": lambda connection, number: None,
    "half of it": sends(head(Content_Length=900) + b"[]"),
    "a part that nobody asked for": sends(
        head("206 Partial Content", Content_Range="bytes 7-8/9") + b"[]"
    ),
    "leads to itself": sends(head("302 Found", Location="/index.json")),
    "leads to a file": sends(head("302 Found", Location="file:///etc/passwd")),
    "leads to ftp": sends(head("301 Moved", Location="ftp://127.0.0.1/x")),
    "leads nowhere": sends(head("302 Found")),
    "leads to no address": sends(head("302 Found", Location="http://[:::/")),
    "refuses": sends(head("403 Forbidden", Content_Length=0)),
    "is in trouble": sends(head("500 Oh", Content_Length=0)),
    "asks to wait for a day": sends(head("503 Busy", Retry_After=86400, Content_Length=0)),
}


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("mood", MOODS)
def test_every_bad_server_ends_in_a_sentence_after_four_requests_at_most(mood):
    began = time.monotonic()
    with serving(MOODS[mood]) as (url, asked):
        with pytest.raises(web.WebError) as caught:
            web.get(f"{url}/index.json", 1000)
        assert len(asked) <= (6 if mood == "leads to itself" else 4)
        with pytest.raises((ConnectionError, ValueError), match="index.json (cannot|is not JSON)"):
            read_index(url)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 20


def test_a_server_in_trouble_for_a_moment_is_asked_again():
    def answer(connection, number):
        bad = {1: head("502 Bad", Content_Length=0), 2: b"", 3: head(Content_Length=9) + b"h"}
        connection.sendall(bad.get(number, head(Content_Length=5) + b"hello"))

    with serving(answer) as (url, asked):
        file = io.BytesIO()
        web.copy_from(url, file, 100)
    assert file.getvalue() == b"hello"
    assert len(asked) == 4


def test_from_https_nothing_leads_to_http(monkeypatch):
    class Manager:
        def request(self, *words, **options):
            return urllib3.HTTPResponse(status=302, headers={"Location": "http://127.0.0.1/"})

        def clear(self):
            pass

    monkeypatch.setattr(web, "_manager", lambda url: Manager())
    with pytest.raises(web.WebError, match="https"):
        web.get("https://127.0.0.1/", 10)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("part", ["content", "headers", "silence"])
def test_a_server_that_is_too_slow_is_given_up(part, monkeypatch):
    monkeypatch.setattr(web, "HEADERS", 0.5)
    monkeypatch.setattr(web, "SILENCE", urllib3.Timeout(connect=1, read=0.3))

    def answer(connection, number):
        if part == "content":
            connection.sendall(head(Content_Length=1000))
        while part != "silence":
            connection.sendall(b"x")
            time.sleep(0.05)
        time.sleep(5)

    with serving(answer) as (url, asked), pytest.raises(web.WebError):
        web.get(url, 1000)
    assert len(asked) <= 4


def test_a_redirection_within_http_is_followed():
    def answer(connection, number):
        there = head("307 Temporary", Location="/there", Content_Length=0)
        connection.sendall(there if number == 1 else head(Content_Length=2) + b"ok")

    with serving(answer) as (url, asked):
        assert web.get(url, 10) == b"ok"
    assert asked[1].startswith(b"GET /there ")


def test_the_proxy_of_the_environment_is_asked(monkeypatch):
    with serving(sends(head(Content_Length=2) + b"ok")) as (url, asked):
        monkeypatch.setenv("http_proxy", url.replace("://", "://me:secret@"))
        monkeypatch.setenv("no_proxy", "other.invalid")
        assert web.get("http://host.invalid/x", 10) == b"ok"
        assert asked[0].startswith(b"GET http://host.invalid/x ")
        assert b"proxy-authorization: basic bwu6c2vjcmv0" in asked[0].lower()
        with pytest.raises(web.WebError):
            web.get("http://other.invalid/x", 10)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_shard_that_fails_is_asked_for_four_times(workers, on_error):
    began = time.monotonic()
    with serving(sends(head("500 Oh", Content_Length=0))) as (url, asked):
        batches = StreamedBatches(
            [Shard(f"{url}/train-00000.tar", 64, None)],
            classes=("a", "b"),
            image_shape=(1, 2, 2),
            batch_size=16,
            mean=(0.5,),
            std=(0.5,),
            workers=workers,
            on_error=on_error,
        )
        with pytest.raises(ShardError, match="500"):
            list(batches)
        assert len(asked) == 4
        with pytest.raises(ShardError, match="500"):
            load(f"{url}/train-00000.tar", batch_size=1)
        assert len(asked) == 4
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("mood", ["endless", "endless in chunks", "promises too much"])
@pytest.mark.parametrize("size", [100_000, None])
def test_a_shard_without_end_is_given_up(mood, size, monkeypatch):
    monkeypatch.setattr("effconv_data.shards.stages.LARGEST_SHARD", 1 << 20)
    with serving(MOODS[mood]) as (url, asked):
        batches = StreamedBatches(
            [Shard(f"{url}/train-00000.tar", 64, None, size)],
            classes=("a", "b"),
            image_shape=(1, 2, 2),
            batch_size=16,
            mean=(0.5,),
            std=(0.5,),
            workers=0,
        )
        with pytest.raises(ShardError, match=f"more than {size or 1 << 20:,} bytes"):
            next(iter(batches))
    assert len(asked) == 1


def test_a_failure_is_held_against_no_other_address():
    bad = b"/train-00000.tar"

    def answer(connection, number):
        failed = bad in asked[number - 1]
        connection.sendall(
            head("403 No", Content_Length=0) if failed else head(Content_Length=2) + b"ok"
        )

    with serving(answer) as (url, asked):
        with pytest.raises(web.WebError):
            web.copy_from(url + bad.decode(), io.BytesIO(), 10)
        # Enough addresses that some share a place with it.
        for number in range(1, 3000, 1):
            place = zlib.crc32(f"{url}/{number}".encode()) % web.PLACES
            if web._failed[place] > 0:
                web.copy_from(f"{url}/{number}", io.BytesIO(), 10)
                break
        else:
            pytest.fail("no address shares the place")
