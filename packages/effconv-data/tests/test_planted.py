"""Folders in which somebody has put links, pipes and files under the names that are written to."""

import functools
import http.server
import json
import os
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from effconv_data import cli
from effconv_data.prepare.archives import Published
from effconv_data.prepare.download import download
from effconv_data.prepare.types import quiet
from PIL import Image

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")

NAMES = (".lock", ".progress.jsonl", "index.json", "train-00000.tar", "test-00000.tar")


@pytest.fixture
def photos(tmp_path):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(3):
                pixels = np.full((4, 4), number * 9, np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def prepare(photos, tmp_path, capsys):
    def command(*words):
        began = time.monotonic()
        places = ["--source", str(photos), "--out", str(tmp_path / "out"), "--workers", "1"]
        code = cli.main(["prepare", "folder", *places, *words])
        assert time.monotonic() - began < 20
        assert code in (0, 2)
        return code, capsys.readouterr().err

    return command


def plant(path, kind, victim):
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "link to nothing":
        path.symlink_to(victim.with_name("new"))
    elif kind == "second name":
        path.hardlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
        (path / "mine").write_text("mine")
    else:
        path.write_text("mine")


@pytest.mark.parametrize(
    ("kind", "overwrite"),
    [
        *[(kind, []) for kind in ("link", "link to nothing", "second name", "folder", "file")],
        *[(kind, ["--overwrite"]) for kind in ("link", "pipe", "file")],
    ],
)
@pytest.mark.parametrize("name", [*NAMES, *(f"{name}.partial" for name in NAMES)])
def test_a_name_planted_in_a_new_folder(name, kind, overwrite, prepare, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "out").mkdir()
    plant(tmp_path / "out" / name, kind, victim)
    code, told = prepare(*overwrite)
    if name == ".progress.jsonl.partial" and kind in ("file", "second name"):
        assert code == 0  # as runs of version 0.2 left it
    else:
        assert code == 2
        assert name in told
        assert os.path.lexists(tmp_path / "out" / name)
        assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    assert victim.read_text() == "precious"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["link", "link to nothing", "second name", "pipe", "file"])
@pytest.mark.parametrize("name", [*NAMES, *(f"{name}.partial" for name in NAMES)])
def test_a_name_planted_in_a_run_that_goes_on(name, kind, prepare, tmp_path, monkeypatch):
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.write_text("precious")
    monkeypatch.setattr("effconv_data.prepare.journal.Journal.close", lambda self: None)
    assert prepare()[0] == 0
    monkeypatch.undo()
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "index.json").unlink()
    (out / name).unlink(missing_ok=True)
    plant(out / name, kind, victim)
    code, _ = prepare()
    assert victim.read_text() == "precious"
    assert not (tmp_path / "new").exists()
    if code == 0:
        for file in out.iterdir():
            if file.name in whole:
                assert not file.is_symlink()
                assert file.read_bytes() == whole[file.name]


def test_only_what_effconv_data_wrote_is_replaced(prepare, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "index.json").write_text(json.dumps({"classes": ["a"], "splits": {"train": {}}}))
    (out / "train-00000.tar").write_bytes(b"of another")
    assert prepare("--overwrite")[0] == 2
    (out / "index.json").unlink()
    (out / ".progress.jsonl").write_text(json.dumps({"mine": 1}) + "\n")
    assert prepare("--overwrite")[0] == 2
    assert (out / "train-00000.tar").read_bytes() == b"of another"


def test_replacing_deletes_no_more_than_shards(prepare, tmp_path):
    assert prepare()[0] == 0
    mine = ["notes-00000.tar", "train-00000.tar.gz", "train-0.tar", "index.json.bak", ".hidden"]
    for name in mine:
        (tmp_path / "out" / name).write_text("mine")
    assert prepare("--overwrite")[0] == 0
    for name in mine:
        assert (tmp_path / "out" / name).read_text() == "mine"


def test_leftovers_of_killed_runs_go(prepare, tmp_path):
    assert prepare()[0] == 0
    left = [f".train-00001.tar.{'ab' * 8}.partial", "train-00001.tar.partial", "index.json.partial"]
    for name in left:
        (tmp_path / "out" / name).write_text("x")
    assert prepare("--overwrite")[0] == 0
    assert not any((tmp_path / "out" / name).exists() for name in left)


@pytest.mark.parametrize("kind", ["link", "link to nothing", "second name", "pipe"])
def test_a_download_goes_on_in_no_file_of_another(kind, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "downloads").mkdir()
    plant(tmp_path / "downloads" / "x.gz.partial", kind, victim)

    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    (tmp_path / "x.gz").write_bytes(b"data of the server's")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        published = Published("x.gz", f"http://127.0.0.1:{server.server_port}/x.gz", "0" * 32)
        with pytest.raises((ValueError, OSError), match="partial"):
            download(published, tmp_path / "downloads", on_progress=quiet, pause=0)
        server.shutdown()
    assert victim.read_text() == "precious"
    assert not (tmp_path / "new").exists()


def test_show_replaces_only_its_own_sheets(small_set, tmp_path, monkeypatch, capsys):
    made = small_set(classes=("cat\x1b[2J", "dog\u202e", "eel\n"))
    made.index["name"] = "holiday\x1b]0;x\x07"
    folder = made.write()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["show", str(folder)]) == 0
    told = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in told)
    (sheet,) = folder.glob("*.png")
    assert cli.main(["show", str(folder)]) == 0
    Image.new("RGB", (9, 9)).save(sheet)
    before = sheet.read_bytes()
    assert cli.main(["show", str(folder)]) == 2
    assert sheet.read_bytes() == before
    assert cli.main(["show", str(folder), "--out", str(sheet)]) == 0
    assert sheet.read_bytes() != before


@pytest.mark.parametrize(
    "encoding", ["ascii", *(pytest.param(e, marks=pytest.mark.long) for e in ("latin-1", "utf-8"))]
)
def test_no_encoding_of_the_output_ends_a_command(encoding, small_set, tmp_path):
    folder = small_set(classes=("größe → 漢", "dog", "eel")).write()
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    program = """
import json, sys
from effconv_data.cli import main
sys.exit([main(words) for words in json.loads(sys.argv[1])] != [0, 0, 2])
"""
    commands = (
        ["show", str(folder), "--out", str(tmp_path / "sheet.png")],
        ["verify", str(folder)],
        ["show", str(tmp_path / "größe → 漢")],
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(commands)],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert (tmp_path / "sheet.png").exists()


def test_a_mnist_header_of_any_size_is_refused(tmp_path):
    header = struct.pack(">4I", 0x803, 1 << 31, 28, 28)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(header)
    words = ["prepare", "mnist", "--source", str(tmp_path), "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--splits", "train", "--no-checksum"]) == 2
