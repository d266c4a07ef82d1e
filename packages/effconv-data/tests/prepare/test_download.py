"""Downloads from a real server on this machine, in its good and its bad moods."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from effconv_data.prepare.archives import Published
from effconv_data.prepare.download import ATTEMPTS, download
from effconv_data.prepare.types import quiet

BODY = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(BODY).hexdigest()


class Mood:
    """How the server behaves, and what it was asked."""

    def __init__(self):
        self.ranges = True
        self.length = True
        self.body = BODY
        self.cuts = []  # bytes after which each of the next answers breaks off
        self.codes = []  # codes of the next answers
        self.asked = []  # the Range header of each request


@pytest.fixture
def server():
    mood = Mood()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            mood.asked.append(self.headers.get("Range"))
            if mood.codes:
                self.send_response(mood.codes.pop(0))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = 0
            if mood.ranges and self.headers.get("Range"):
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                if start >= len(mood.body):
                    self.send_error(416)
                    return
                self.send_response(206)
                end = len(mood.body) - 1
                self.send_header("Content-Range", f"bytes {start}-{end}/{len(mood.body)}")
            else:
                self.send_response(200)
            data = mood.body[start:]
            if mood.length:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: mood.cuts.pop(0)] if mood.cuts else data)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        mood.published = Published(
            "file.gz", f"http://127.0.0.1:{http.server_address[1]}/file.gz", MD5
        )
        yield mood
        http.shutdown()
        thread.join()


def fetch(server, folder, on_progress=quiet):
    return download(server.published, folder, on_progress=on_progress, pause=0)


def test_a_file_arrives_whole(server, tmp_path):
    told = []
    path = fetch(server, tmp_path / "new", told.append)
    assert path == tmp_path / "new" / "file.gz"
    assert path.read_bytes() == BODY
    assert [path.name for path in path.parent.iterdir()] == ["file.gz"]
    down = [p for p in told if p.what == "downloading file.gz"]
    assert (down[-1].done, down[-1].total, down[-1].unit) == (300_000, 300_000, "bytes")
    assert [p.done for p in down] == sorted(p.done for p in down)


def test_what_is_there_is_not_asked_for(server, tmp_path):
    (tmp_path / "file.gz").write_bytes(BODY)
    fetch(server, tmp_path)
    assert server.asked == []


def test_a_wrong_file_that_is_there_is_kept_and_named(server, tmp_path):
    (tmp_path / "file.gz").write_bytes(b"mine")
    with pytest.raises(ValueError, match=rf"file.gz does not have the official md5 {MD5}; remove"):
        fetch(server, tmp_path)
    assert (tmp_path / "file.gz").read_bytes() == b"mine"
    assert server.asked == []


@pytest.mark.parametrize("length", [1, 1000, 299_999])
def test_an_earlier_attempt_is_taken_up(length, server, tmp_path):
    (tmp_path / "file.gz.partial").write_bytes(BODY[:length])
    assert fetch(server, tmp_path).read_bytes() == BODY
    assert server.asked == [f"bytes={length}-"]


def test_a_complete_earlier_attempt_is_taken_as_it_is(server, tmp_path):
    (tmp_path / "file.gz.partial").write_bytes(BODY)
    assert fetch(server, tmp_path).read_bytes() == BODY
    assert server.asked == ["bytes=300000-"]


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.ranges = False
    (tmp_path / "file.gz.partial").write_bytes(BODY[:1000])
    assert fetch(server, tmp_path).read_bytes() == BODY
    assert server.asked == ["bytes=1000-"]


def test_a_connection_that_breaks_off_is_taken_up_where_it_was(server, tmp_path):
    server.cuts = [70_000, 0, 100_000, 1]
    assert fetch(server, tmp_path).read_bytes() == BODY
    assert server.asked == [
        None,
        "bytes=70000-",
        "bytes=70000-",
        "bytes=170000-",
        "bytes=170001-",
    ]


def test_breaks_without_ranges_start_over(server, tmp_path):
    server.ranges, server.cuts = False, [70_000, 50_000]
    assert fetch(server, tmp_path).read_bytes() == BODY


def test_a_break_that_only_the_sum_can_show(server, tmp_path):
    server.length, server.cuts = False, [70_000]
    with pytest.raises(ValueError, match="run the same again"):
        fetch(server, tmp_path)
    assert fetch(server, tmp_path).read_bytes() == BODY


def test_a_server_that_brings_nothing_is_given_up(server, tmp_path):
    server.cuts = [5_000] + [0] * 20
    with pytest.raises(ConnectionError, match=r"broke off 295000 bytes before.*run the same again"):
        fetch(server, tmp_path)
    assert len(server.asked) == ATTEMPTS
    assert (tmp_path / "file.gz.partial").read_bytes() == BODY[:5000]
    server.cuts = []
    assert fetch(server, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_server_in_trouble_is_asked_again(code, server, tmp_path):
    server.codes = [code, code]
    assert fetch(server, tmp_path).read_bytes() == BODY
    assert len(server.asked) == 3


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_refusal_is_final(code, server, tmp_path):
    server.codes = [code]
    with pytest.raises(ConnectionError, match=rf"the server answers {code}.*get the file yourself"):
        fetch(server, tmp_path)
    assert len(server.asked) == 1


def test_nobody_there(server, tmp_path):
    published = server.published._replace(url="http://127.0.0.1:1/file.gz")
    with pytest.raises(ConnectionError, match="cannot be downloaded .*get the file yourself"):
        download(published, tmp_path, on_progress=quiet, pause=0)
    assert list(tmp_path.iterdir()) == []


def test_wrong_content_is_put_aside_and_named(server, tmp_path):
    server.body = b"<html>please pay</html>"
    found = hashlib.md5(server.body).hexdigest()
    with pytest.raises(
        ValueError, match=rf"md5 {found} .* official {MD5}, kept as \S+file.gz.wrong"
    ):
        fetch(server, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file.gz.wrong"]
    server.body = BODY
    assert fetch(server, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("length", [1000, 300_000, 400_000])
def test_an_earlier_attempt_at_something_else_does_not_stay(length, server, tmp_path):
    (tmp_path / "file.gz.partial").write_bytes(bytes(length))
    with pytest.raises(ValueError, match="kept as"):
        fetch(server, tmp_path)
    assert not (tmp_path / "file.gz").exists()
    assert fetch(server, tmp_path).read_bytes() == BODY
