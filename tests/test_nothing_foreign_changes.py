"""Whatever lies about: what we did not make is the same after every command as before it."""

import contextlib
import json
import os
import random
import shutil
import stat
import tempfile
from pathlib import Path

import numpy as np
import pytest
from effconv_core.cli import main
from effconv_core.runs.owner import MARKER, WRITTEN
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.small_runs import (
    COMMANDS,
    effconv_search,
    effconv_train,
    quiet,
    sweep_search,
    write_plan,
)
from tools.queue import sweep

SEED0 = "demo-demo-10684-default-seed0"  # that of the sweep
NAMES = ("a", "b", SEED0)
ODD = (".", "..", "../outside", "../outside/folder", "/tmp", "-x", " ", "a/b", "con", "\x1b[2J")
HUGGING_FACE = json.dumps({"architectures": ["BertModel"], "hidden_size": 768})

# What others keep, by name: contents, or None for a folder.
FILES = {
    "thesis.tex": "years of work",
    "notes": "",
    "config.json": HUGGING_FACE,
    "plan.json": "{}",
    "result.json": '{"accuracy": 1}',
    "failed.json": '{"tests": 3}',
    "metrics.jsonl": "no rows",
    "results.jsonl": "no rows",
    "sweep.json": "[]",
    "report.html": "<html>mine</html>",
    "report.md": "mine",
    "model.safetensors": "weights",
    "search.safetensors": "weights",
    "sizes.png": "a picture",
    MARKER: '{"kind": "another"}',
    ".progress.jsonl": "mine",
    "index.json": '{"mine": 1}',
    "train-000000.tar": "mine",
}
LINKED = (  # names of ours under which links are planted in a run
    *("metrics.jsonl", "sizes.png", "report.md", "report.html", "result.json", "plan.json"),
    *("config.json", "search.safetensors", "search.previous.safetensors", "baseline.safetensors"),
    *("baseline.previous.safetensors", "cnn.safetensors", "flexnet.safetensors", "tensorboard"),
    *("report.html.partial", "plan.json.partial", "search.previous.safetensors.partial"),
    *("flexnet.safetensors.partial", "metrics.jsonl.partial", ".claims", MARKER, "failed.json"),
)
ENDS = ("file", "folder", "missing", "empty")


PLACES = (
    *("runs", "runs/a", "runs/b", "new", "new/deep", "../outside", "../outside/folder"),
    "runs/a/sub",
)
OUTS = (
    *("runs/a/{}", "runs/b/plan.json", "../outside/{}", "../outside/file", "link", "nowhere"),
    "new-{}",
)
KINDS = {
    **dict.fromkeys(COMMANDS, 2),
    **{"sweep": 2, "status": 1, "report": 2, "show": 1, "diff": 1, "apply": 1, "prepare": 2},
}
ENTRIES = {
    **{"nothing": 1, "file": 1, "folder": 5, "link": 2},
    **{"finished": 1, "interrupted": 2, "earlier": 2, "unreported": 1},
}


def draw_world(draw: random.Random) -> dict:
    """Draw what lies below `runs`: under the names of runs, and beside them."""
    return {
        "runs": {name: draw_entry(draw) for name in NAMES},
        "beside": draw_files(draw, draw.choice((0, 0, 2, 4))),
    }


def draw_files(draw: random.Random, count: int) -> dict[str, bool]:
    return {name: draw.random() < 0.2 for name in draw.sample(sorted(FILES), count)}


def draw_entry(draw: random.Random) -> tuple:
    (kind,) = draw.choices([*ENTRIES], [*ENTRIES.values()])
    if kind == "folder":
        return kind, draw_files(draw, draw.randint(1, 4))
    if kind == "link":
        return kind, draw.choice((*ENDS, "run"))
    if kind in ("nothing", "file"):
        return (kind,)
    links = {name: draw.choice((*ENDS, "hard")) for name in draw.sample(LINKED, draw.randint(0, 5))}
    return kind, links, draw.choice(((), ("notes.txt",), ("tensorboard/notes", "sub/plan.json")))


def draw_command(draw: random.Random) -> tuple:
    (kind,) = draw.choices([*KINDS], [*KINDS.values()])
    if kind in COMMANDS:
        return kind, draw.choice(NAMES[:2]), draw.random() < 0.5
    if kind in ("sweep", "status"):
        return kind, draw.choice(PLACES)
    if kind == "prepare":
        return kind, draw.choice(PLACES), draw.random() < 0.5
    if kind == "report":
        names = draw.sample(NAMES, draw.choice((1, 2)))
        return kind, names, draw.choice((None, *OUTS)), draw.random() < 0.5
    return kind, draw.choice(OUTS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs of ours to copy, a plan, and images of which a set is prepared."""
    folder = tmp_path_factory.mktemp("made")
    assert effconv_search(folder, "--name=finished") == 0
    assert effconv_train(folder, "--name=interrupted") == 0
    (folder / "interrupted" / "result.json").unlink()
    (folder / "interrupted" / "report.html").unlink()
    shutil.copytree(folder / "interrupted", folder / "earlier")
    (folder / "earlier" / MARKER).unlink()
    shutil.copytree(folder / "finished", folder / "unreported")
    (folder / "unreported" / "report.html").unlink()
    for name in ("sizes.json", "other.json"):
        write_plan(folder / name)
    for number in range(6):
        place = folder / "images" / ("train", "test")[number % 3 == 2] / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.full((6, 6, 3), 40 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


def write(folder: Path, files: dict[str, bool]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, is_folder in files.items():
        if is_folder:
            (folder / name).mkdir()
            (folder / name / "kept").write_text("kept")
        else:
            (folder / name).write_text(FILES[name])


def build(world: dict, here: Path, made: Path) -> set[Path]:
    """Make a world, and give the paths in it that are ours, or that a run of ours may replace."""
    outside, runs, ours = here / "outside", here / "work" / "runs", set()
    write(outside / "folder", {"thesis.tex": False, "config.json": False, "notes": True})
    (outside / "empty").mkdir()
    (outside / "file").write_text("precious")
    shutil.copytree(made / "interrupted", outside / "run")
    ours |= {p for p in (outside / "run").rglob("*") if p.is_file()}
    write(runs, world["beside"])
    for name, what in world["runs"].items():
        place = runs / name
        if what[0] == "file":
            place.write_text("mine")
        elif what[0] == "folder":
            write(place, what[1])
        elif what[0] == "link":
            place.symlink_to(outside / what[1])
        elif what[0] != "nothing":
            shutil.copytree(made / what[0], place)
            ours |= {p for p in place.rglob("*") if p.is_file()}
            for linked, end in what[1].items():
                path = place / linked
                if path.is_dir():
                    shutil.rmtree(path)
                path.unlink(missing_ok=True)
                if end == "hard":
                    path.hardlink_to(outside / "file")
                else:
                    path.symlink_to(outside / end)
                ours.add(path)
            for more in what[2]:
                with contextlib.suppress(FileExistsError, NotADirectoryError):
                    if not (place / more).parent.is_symlink():
                        (place / more).parent.mkdir(exist_ok=True)
                        (place / more).write_text("mine")
    (here / "work" / "link").symlink_to(outside / "file")
    (here / "work" / "nowhere").symlink_to(outside / "missing")
    return ours


def snapshot(here: Path) -> dict[Path, tuple]:
    """Give kind, mode and content of all paths, following no link."""
    found = {}
    for folder, folders, files in os.walk(here):
        for name in (*folders, *files):
            path = Path(folder) / name
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                found[path] = ("link", str(path.readlink()))
            elif stat.S_ISDIR(mode):
                found[path] = ("folder", mode)
            else:
                found[path] = ("file", mode, path.read_bytes())
    return found


def do(command: tuple, made: Path) -> tuple[int, list[Path]]:
    """Run a command; give its status, and where it was told to write."""
    kind, *rest = command
    runs, plan = Path("runs"), str(made / "sizes.json")
    if kind in COMMANDS:
        name, overwrite = rest
        status = COMMANDS[kind](runs, f"--name={name}", *["--overwrite"] * overwrite)
        return status, [runs / name] if name in NAMES else []
    if kind == "sweep":
        folder = Path(rest[0])
        # A link to a folder counts as the folder, where that is empty or a run's.
        linked = [path for path in folder.glob("*") if path.resolve().name in ("run", "empty")]
        return sweep_search(folder), [folder, *linked]
    if kind == "status":
        try:
            return sweep.status_command([rest[0]], quiet()), []
        except (OSError, ValueError, TypeError, KeyError):
            return 2, []
    if kind == "prepare":
        words = ["data", "prepare", "folder", f"--source={made / 'images'}", "--workers=1"]
        words += [f"--out={rest[0]}", *["--overwrite"] * rest[1]]
        return _effconv(*words), [Path(rest[0])]
    if kind == "report":
        names, out, overwrite = rest
        places = [str(runs / name) for name in names]
        if out is None:
            common = Path(os.path.commonpath([Path(place).resolve() for place in places]))
            status = _effconv("report", *places, *["--overwrite"] * overwrite)
            return status, [common / "report.html"]
        out = out.format("report.html")
        return _effconv("report", *places, "--out", out), [Path(out)]
    (out,) = rest
    out = out.format("cnn.safetensors" if kind == "apply" else "sizes.png")
    words = [plan, "--model=tests.small_runs:network"] if kind == "apply" else [plan]
    if kind == "diff":
        words.append(str(made / "other.json"))
    return _effconv("plan", kind, *words, "--out", out), [Path(out)]


def _effconv(*words: str) -> int:
    try:
        return main(list(words))
    except SystemExit as stop:  # of tyro
        return stop.code


@contextlib.contextmanager
def moved_to(folder: Path):
    """As `contextlib.chdir` of Python 3.11."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def check(world: dict, tried: list[tuple], made: Path) -> None:
    """Let commands loose on a world, and compare what is not ours with what it was."""
    with tempfile.TemporaryDirectory() as name, moved_to(Path(name)):
        here = Path(name).resolve()
        (here / "work").mkdir()
        ours = build(world, here, made)
        os.chdir(here / "work")
        before = snapshot(here)
        for command in tried:
            status, told = do(command, made)
            event(f"{command[0]}: {status}")
            assert status in (0, 1, 2), command
            after = snapshot(here)
            for path, content in before.items():
                if path not in ours:
                    assert after.get(path) == content, (command, path.relative_to(here))
            roots = [Path(os.path.realpath(place)) for place in told]
            if command[0] in COMMANDS:  # a foreign folder gets nothing
                held = {root: [p for p in before if root in p.parents] for root in roots}
                roots = [r for r in roots if not held[r] or any(p in ours for p in held[r])]
            for path in after.keys() - before.keys():
                way = any(root == path or path in root.parents for root in roots)
                within = any(root in path.parents for root in roots)
                assert way or within, (command, f"{path.relative_to(here)} is new")
                ours.add(path)
            before = snapshot(here)


# Worlds of a seed each: Hypothesis' own choices keep to few of the commands.
seeds = st.integers(0, 2**32 - 1)
common = {"phases": [Phase.explicit, Phase.generate]}


@settings(max_examples=10, **common)
@given(seeds)
def test_in_some_worlds(made, seed):
    draw = random.Random(seed)
    check(draw_world(draw), [draw_command(draw) for _ in range(5)], made)


@pytest.mark.long
@settings(max_examples=250, **common)
@given(seeds)
def test_in_many_worlds(made, seed):
    draw = random.Random(seed)
    check(draw_world(draw), [draw_command(draw) for _ in range(6)], made)


@pytest.mark.parametrize("command", sorted(COMMANDS))
@pytest.mark.parametrize("name", ODD)
def test_a_name_that_is_none_is_refused_before_anything(command, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for overwrite in ((), ("--overwrite",)):
        assert COMMANDS[command](Path("runs"), f"--name={name}", *overwrite) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_names_under_which_links_are_planted_are_those_that_runs_write():
    names = [name for name in LINKED if not name.endswith(".partial")]
    assert all(WRITTEN.fullmatch(n) or n in ("tensorboard", ".claims", MARKER) for n in names)
