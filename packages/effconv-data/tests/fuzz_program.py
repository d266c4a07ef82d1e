"""Mutate index.json and .progress.jsonl, and let loose on them whatever reads them.

    python fuzz_program.py SEED CASES FOLDER

Prints how each kind of ending came about, and the most memory in MiB; ends with status 1 at the
first case that ends in anything but a result or a sentence, within 5 s.
"""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from effconv_data import cli, load, read_split
from effconv_data.prepare import journal
from PIL import Image

SECONDS = 5
STRANGE = [
    *(-1, 0, 1, 2**31, 2**63, 10**12, 10**7, 10**9, 0.5, -0.0, 1e308, True, None),
    *("", "\x1b[2Jgone\x07", "\ud800", "a" * 100_000, "../x.tar", "/etc/passwd", "pipe:id #.tar"),
    *("x\n.tar", "http://127.0.0.1:1/x.tar", float("nan"), float("inf"), [], {}, [[]], {"a": {}}),
    *("train-00000.tar", "e" * 64, "\u202etar.x", "NaN", "\x00.tar"),
]
DEEP = b"[" * 100_000
LARGE = b"1" + b"0" * 400


def places(value, path=()):
    """Give the path of each value within another."""
    yield path
    if not isinstance(value, dict | list):
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from places(item, (*path, key))


def changed(value, path, change):
    if not path:
        return change(value)
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(copy[path[0]], path[1:], change)
    return copy


def mutated(text, source):
    """Give other bytes: a value exchanged, removed, doubled or nested; or the bytes spoilt."""
    for _ in range(source.choice((1, 1, 1, 2, 5))):
        kind = source.randrange(10)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            kind = 9
        if kind <= 4:
            strange = source.choice(STRANGE)
            path = source.choice(list(places(value))[:500])
            text = json.dumps(changed(value, path, lambda _: strange)).encode()  # noqa: B023
        elif kind == 5:
            path = source.choice(list(places(value))[:500])
            text = json.dumps(
                changed(value, path, lambda v: [v, v] if source.random() < 0.5 else {"x\x1b": v})
            ).encode()
        elif kind == 6:
            path = source.choice([p for p in places(value) if p][:500] or [()])

            def without(holder, path=path):
                if isinstance(holder, dict):
                    return {k: v for k, v in holder.items() if k != path[-1]}
                return [v for n, v in enumerate(holder) if n != path[-1]]

            text = json.dumps(changed(value, path[:-1], without) if path else None).encode()
        elif kind == 7:
            at = source.randrange(len(text) + 1)
            text = text[:at] + source.choice((DEEP, LARGE, b"\xff", b"NaN", b"{" * 99)) + text[at:]
        elif kind == 8:
            digits = [n for n, c in enumerate(text) if chr(c).isdigit()] or [0]
            at = source.choice(digits)
            text = text[:at] + source.choice((LARGE, b"-1", b"1e999", b"0x1")) + text[at + 1 :]
        else:
            spoilt = bytearray(text or b"x")
            for _ in range(source.randint(1, 6)):
                spoilt[source.randrange(len(spoilt))] ^= 1 << source.randrange(8)
            cut = source.randrange(len(spoilt) + 1) if source.random() < 0.3 else len(spoilt)
            text = bytes(spoilt[:cut])
    return text


def photos(folder):
    for split, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.full((4, 4), number * 9, np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def shards_of(index):
    return {split: entry["shards"] for split, entry in index["splits"].items()}


def sentence(text):
    return bool(text.strip()) and all(c.isprintable() for c in text.rstrip("\n").replace("\n", " "))


def command(words):
    """Run a command; give its status, after a look whether it said why and sent nothing odd."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            status = cli.main([str(word) for word in words])
        except SystemExit as stop:
            status = stop.code
    told = errors.getvalue()
    assert status in (0, 1, 2), (words, status, told)
    # Status 1 is what verify says of a set whose shards are not what the index claims.
    assert status != 1 or words[0] == "verify", (words, told)
    assert status != 2 or (sentence(told) and told.startswith("effconv-data: ")), (words, told)
    assert all(c.isprintable() or c == "\n" for c in out.getvalue()), out.getvalue()
    return f"{words[0]} {status}"


def function(name, call):
    try:
        call()
    except (OSError, ValueError) as error:
        refusal = error
    else:
        return f"{name} read"
    assert str(refusal).strip(), repr(refusal)
    return f"{name} refused"


def read_all(folder):
    load(folder, batch_size=2, mean=(0.5,), std=(0.5,))
    for batch in load(folder, batch_size=2, mean=(0.5,), std=(0.5,), resident=False, workers=0):
        del batch


def main(seed, cases, folder):
    source, ends = random.Random(seed), Counter()
    options = ["prepare", "folder", "--source", photos(folder / "photos"), "--workers", 1]
    close = journal.Journal.close
    journal.Journal.close = lambda self: None
    whole = folder / "whole"
    command([*options, "--out", whole])
    journal.Journal.close = close
    index = (whole / "index.json").read_bytes()
    progress = (whole / ".progress.jsonl").read_bytes().splitlines(keepends=True)

    def too_long(*_):
        raise SystemError(f"a case took more than {SECONDS} s")

    signal.signal(signal.SIGALRM, too_long)
    for case in range(cases):
        out = folder / "set"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(whole, out)
        if case % 2:
            (out / ".progress.jsonl").unlink()
            (out / "index.json").write_bytes(mutated(index, source))
            runs = [
                lambda out=out: command(["verify", out]),
                lambda out=out: command(["show", out, "--out", folder / "sheet.png"]),
                lambda out=out: function("read_split", lambda: read_split(out, "train")),
                lambda out=out: function("load", lambda: read_all(out)),
                lambda out=out, case=case: command(
                    [*options, "--out", out, *(["--overwrite"] if case % 4 == 1 else [])]
                ),
            ]
        else:
            (out / "index.json").unlink()
            lines = list(progress)
            at = source.randrange(len(lines))
            ending = b"" if source.random() < 0.1 else b"\n"
            lines[at] = mutated(lines[at].rstrip(b"\n"), source).replace(b"\n", b" ") + ending
            (out / ".progress.jsonl").write_bytes(b"".join(lines))
            runs = [
                lambda out=out, case=case: command(
                    [*options, "--out", out, *(["--overwrite"] if case % 4 == 2 else [])]
                )
            ]
        for run in runs:
            signal.alarm(SECONDS)
            end = run()
            signal.alarm(0)
            ends[end] += 1
            if case % 2 == 0 and end == "prepare 0":
                # Whatever the progress said, what is written is the set.
                assert shards_of(json.loads((out / "index.json").read_bytes())) == shards_of(
                    json.loads(index)
                )
                read_all(out)
    status = Path("/proc/self/status").read_text()
    memory = int(status.split("VmHWM:")[1].split()[0]) >> 10
    sys.stdout.write(json.dumps({"ends": ends, "memory": memory}) + "\n")


if __name__ == "__main__":
    os.environ["COLUMNS"] = "200"
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
