"""The command line, in this process and in processes that are killed."""

import gzip
import hashlib
import io
import os
import re
import signal
import struct
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from effconv_data import cli, load, read_split
from PIL import Image
from rich.console import Console

PREPARE = [sys.executable, "-c", "import sys; from effconv_data.cli import main; sys.exit(main())"]


def write_mnist(folder, train=60, test=20):
    folder.mkdir()
    random = np.random.default_rng(0)
    for stem, count in (("train", train), ("t10k", test)):
        pixels = struct.pack(">4I", 0x803, count, 28, 28) + random.bytes(count * 784)
        labels = struct.pack(">2I", 0x801, count) + bytes(i % 10 for i in range(count))
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(pixels, mtime=0))
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels, mtime=0))
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def source(tmp_path):
    return write_mnist(tmp_path / "source")


@pytest.fixture
def run(capsys):
    """Run the command line here; give exit code, standard output and standard error."""

    def command(*words):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:  # of tyro
            code = stop.code
        return code, *capsys.readouterr()

    return command


def test_prepare_says_what_it_made(run, source, tmp_path):
    out = tmp_path / "a folder with a long name that no terminal of eighty columns shows" / "mnist"
    code, told, errors = run(
        "prepare", "mnist", "--source", source, "--out", out, "--no-checksum", "--shard-samples", 9
    )
    assert (code, errors) == (0, "")
    assert told.splitlines()[-5:] == [
        "writing train: 60 of 60 samples",
        "writing test: 20 of 20 samples",
        "train: 60 samples in 7 shards",
        "test: 20 samples in 3 shards",
        f"wrote {out}",
    ]
    assert read_split(out, "train").images.shape == (60, 1, 28, 28)


def test_a_finished_set_is_replaced_only_when_asked(run, source, tmp_path):
    out = tmp_path / "out"
    words = ["prepare", "mnist", "--source", source, "--out", out, "--no-checksum"]
    assert run(*words, "--shard-samples", 10)[0] == 0
    index = (out / "index.json").read_text()
    assert run(*words, "--shard-samples", 10)[0] == 2
    assert (out / "index.json").read_text() == index
    assert run(*words, "--shard-samples", 30, "--overwrite")[0] == 0
    assert len(list(out.glob("*.tar"))) == 3


def test_folder_becomes_a_set(run, tmp_path):
    for name in ("iris", "rose"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.full((10, 8 + number, 3), 20 * number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    words = ["prepare", "folder", "--source", tmp_path / "photos", "--out", tmp_path / "out"]
    code, _, errors = run(*words, "--test-fraction", 0.25)
    assert code == 2
    assert errors.startswith("effconv-data: ")
    assert errors.count("\n") == 1
    assert "--image-size" in errors
    code, told, _ = run(*words, "--test-fraction", 0.25, "--image-size", 8)
    assert code == 0
    assert "note: images were resized and cropped to 8 x 8 pixels" in told
    assert read_split(tmp_path / "out", "test").images.shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prepare", "mnist", "--source", "SOURCE", "--out", "OUT"], "the official file has"),
        (["prepare", "cifar10", "--source", "SOURCE", "--out", "OUT"], "neither cifar-10-python"),
        (["prepare", "stl10", "--source", "nowhere", "--out", "OUT"], "nowhere is not a folder"),
        (["prepare", "imagenet32", "--out", "OUT"], "https://image-net.org/download-images.php"),
        (["prepare", "folder", "--source", "SOURCE", "--out", "OUT"], "folder for each class"),
        (["prepare", "mnist", "--source", "SOURCE", "--out", "OUT", "--seed", "-1"], "seed is -1"),
        (["draw"], "command 'draw' is unknown"),
    ],
)
def test_a_mistake_is_one_sentence(words, message, run, source, tmp_path):
    names = {"SOURCE": source, "OUT": tmp_path / "out"}
    code, told, errors = run(*(names.get(word, word) for word in words))
    assert code == 2
    assert message in errors
    assert errors.startswith("effconv-data: ")
    assert errors.count("\n") == 1
    assert "Traceback" not in told + errors
    assert not (tmp_path / "out" / "index.json").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["prepare"],
        ["prepare", "nothing"],
        ["prepare", "mnist"],
        ["prepare", "mnist", "--out", "x", "--splits", "val"],
        ["prepare", "mnist", "--out", "x", "--image-size", "16"],
        ["prepare", "imagenet32", "--out", "x", "--image-size", "8"],
    ],
)
def test_words_that_are_no_command_are_refused(words, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*words)[0] == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["prepare", "--help"]])
def test_help(words, run):
    code, told, _ = run(*words)
    assert code == 0
    assert "usage: effconv-data" in told
    assert "prepare" in told


def test_help_of_a_set_explains_every_option(run):
    told = run("prepare", "imagenet32", "--help")[1]
    for option in ("--source", "--out", "--splits", "--image-size", "--overwrite", "--no-checksum"):
        assert option in told
    assert "https://image-net.org/download-images.php" in told


def test_without_a_source_it_is_downloaded(run, source, tmp_path, monkeypatch):
    handler = partial(SimpleHTTPRequestHandler, directory=str(source))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *arguments: None)
    sums = {path.stem: hashlib.md5(path.read_bytes()).hexdigest() for path in source.iterdir()}
    monkeypatch.setattr("effconv_data.prepare.mnist.MD5", sums)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        mirror = f"http://127.0.0.1:{server.server_address[1]}/"
        monkeypatch.setattr("effconv_data.prepare.mnist.MIRROR", mirror)
        code, told, errors = run(
            "prepare", "mnist", "--out", tmp_path / "sets" / "mnist", "--splits", "test"
        )
        server.shutdown()
        thread.join()
    assert (code, errors) == (0, "")
    assert re.search(r"downloading t10k-images-idx3-ubyte.gz: 1\d.\d kB of 1\d.\d kB\n", told)
    names = ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]
    assert contents(tmp_path / "sets" / "downloads") == {
        name: (source / name).read_bytes() for name in names
    }
    # The second set needs no server.
    code, _, _ = run("prepare", "mnist", "--out", tmp_path / "sets" / "again", "--splits", "test")
    assert code == 0


def test_a_terminal_shows_bars(source, tmp_path):
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100)
    words = ["mnist", "--source", str(source), "--out", str(tmp_path / "out"), "--no-checksum"]
    cli.prepare_command(words, console)
    assert "writing train" in text.getvalue()
    assert "60 of 60 samples" in text.getvalue()


# Real processes


def start(source, out, *words, workers=2):
    words = ["mnist", "--source", source, "--out", out, "--no-checksum", *words]
    words += ["--workers", workers, "--shard-samples", 10]
    return subprocess.Popen(
        [*PREPARE, "prepare", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(process, out, shards):
    """Wait until so many shards are noted as complete."""
    progress = out / ".progress.jsonl"
    while process.poll() is None:
        if progress.exists() and progress.read_bytes().count(b"\n") > shards:
            return
    raise AssertionError(f"the process ended too soon: {process.communicate()}")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("shards", [1, 40])
def test_a_killed_process_takes_its_workers_along_and_is_taken_up(shards, run, tmp_path):
    source, out = write_mnist(tmp_path / "large", train=1200), tmp_path / "out"
    process = start(source, out)
    wait_for(process, out, shards)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    # Which ends only when no worker holds the other end; the limit is for a failing test.
    process.communicate(timeout=60)
    assert len(children) == 2
    assert not (out / "index.json").exists()
    words = ["prepare", "mnist", "--source", source, "--no-checksum", "--shard-samples", 10]
    code, told, _ = run(*words, "--out", out, "--workers", 1)
    assert code == 0
    kept = next(line for line in told.splitlines() if "were kept" in line)
    assert int(kept.split()[0]) >= shards
    assert run(*words, "--out", tmp_path / "whole", "--workers", 1)[0] == 0
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to one process")
@pytest.mark.parametrize(
    ("number", "status", "word"),
    [("SIGINT", 130, "interrupted"), ("SIGHUP", 129, "stopped by SIGHUP")],
)
def test_what_a_terminal_sends_ends_quietly_and_is_taken_up(number, status, word, run, tmp_path):
    source, out = write_mnist(tmp_path / "large", train=2500), tmp_path / "out"
    process = start(source, out)
    wait_for(process, out, 20)
    os.killpg(process.pid, signal.Signals[number])
    told, errors = process.communicate()
    assert process.returncode == status
    assert errors == f"effconv-data: {word}; the same command goes on from what is complete\n"
    assert "Traceback" not in told
    words = ["prepare", "mnist", "--source", source, "--no-checksum", "--shard-samples", 10]
    assert "shards of an interrupted run were kept" in run(*words, "--out", out)[1]


def test_show_prints_the_index_and_draws_a_sheet(run, small_set, tmp_path, monkeypatch):
    made = small_set()
    folder = made.write()
    made.sign()
    monkeypatch.chdir(tmp_path)
    code, out, errors = run("show", folder)
    assert (code, errors) == (0, "")
    assert re.search(r"train\W+7\W+2\W+2", out)
    assert re.search(r"test\W+2\W+1\W+1", out)
    assert "classes: cat, dog, eel" in out
    with Image.open(folder / "small-train.png") as sheet:
        assert sheet.width == 160 + 10 * (5 * 13 + 4)
    assert not list(tmp_path.glob("*.png"))
    assert run("show", folder, "--split", "test", "--columns", "1", "--out", "here.png")[0] == 0
    with Image.open("here.png") as sheet:
        assert sheet.width == 160 + 5 * 13 + 4
    code, _, errors = run("show", folder, "--split", "val")
    assert code == 2
    assert "split 'val' is not in the set 'small'" in errors
    assert run("show", tmp_path / "nothing")[0] == 2


def test_verify_says_what_is_wrong(run, small_set):
    made = small_set()
    folder = made.write()
    made.sign()
    code, out, errors = run("verify", folder)
    assert (code, errors) == (0, "")
    assert "train: 7 good samples, 2 to 3 a class" in out
    assert "everything is right" in out
    path = folder / "train-00001.tar.gz"
    path.write_bytes(path.read_bytes()[:-1])
    code, out, _ = run("verify", folder)
    assert code == 1
    assert "train: 4 good samples" in out
    assert f"shard {path} does not have the sha256" in out
    assert "problems: 1" in out


def test_what_was_prepared_is_right_and_streams(run, source, tmp_path):
    assert (
        run(
            "prepare",
            "mnist",
            "--source",
            source,
            "--out",
            tmp_path / "mnist",
            "--no-checksum",
            "--shard-samples",
            "9",
        )[0]
        == 0
    )
    assert run("verify", tmp_path / "mnist")[0] == 0
    streamed = load("mnist", root=tmp_path, batch_size=12, resident=False, workers=2)
    labels = torch.cat([labels for _, labels in streamed])
    assert torch.bincount(labels).tolist() == [6] * 10


def test_a_name_from_elsewhere_does_no_harm(run, small_set, tmp_path, monkeypatch):
    made = small_set()
    made.index["name"] = "../[bold]escaped[/x]"
    folder = made.write()
    monkeypatch.chdir(folder)
    code, out, errors = run("show", folder)
    assert (code, errors) == (0, "")
    assert "[bold]escaped[/x]" in out
    assert not list(tmp_path.glob("*.png"))
    assert len(list(folder.glob("*.png"))) == 1
    code, out, _ = run("verify", folder)
    assert code == 0
    assert "shards whose sum the index does not give: 3" in out


def test_a_folder_of_broken_images_from_the_command_line(run, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("L", (4, 4), number).save(tmp_path / "photos" / name / f"{number}.png")
        (tmp_path / "photos" / name / "broken.png").write_bytes(b"none")
    words = ["prepare", "folder", "--source", tmp_path / "photos", "--out", tmp_path / "set"]
    words += ["--splits", "train"]
    code, _, errors = run(*words)
    assert code == 2
    assert errors.count("broken.png") == 2
    assert "--skip-broken" in errors
    assert not (tmp_path / "set").exists()
    code, out, _ = run(*words, "--skip-broken")
    assert code == 0
    assert "train: 6 samples" in out
    assert "cat/broken.png, dog/broken.png" in out
