"""What a page of the documentation says, done line by line in an empty environment."""

import os
import re
import shutil
import sys
import time
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pytest

from tools.release.install import FailedError, environment, output_of
from tools.release.versions import git

pytestmark = pytest.mark.wheels

ROOT = Path(__file__).parents[2]
MARK = "open('first', 'a').close()\n"  # of a session, where its first result is there
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
def clone(tmp_path):
    """Give a folder with what git would hand to somebody who clones, and what it does not know."""
    names = git(ROOT, "ls-files", "-co", "--exclude-standard").splitlines()
    for name in names:
        if (ROOT / name).is_file() and not name.startswith(("results/", "docs/")):
            (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "clone" / name)
    git(tmp_path / "clone", "init", "--quiet")
    return tmp_path / "clone"


@pytest.fixture
def walk(clone, place, torch, tmp_path, capsys):
    """Give a function that does the blocks of a page in the clone, one process for each kind."""
    python, _ = environment(place, tmp_path / "venv", torch)
    # Neither this workspace's constraints nor its environment; where pip looks stays as it is.
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("HATCH_", "PYTHON")) and k not in ("PIP_CONSTRAINT", "VIRTUAL_ENV")
    }
    kept |= {"PATH": f"{python.parent}:{os.environ['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def do(page, *, result, only=""):
        """Do what a page says, or of it the lines that hold a word; return what was printed.

        Prints the time to the end of the first block that holds the word `result`.
        """
        started, first, said, session = time.time(), None, [], ""
        blocks = [b for b in BLOCK.findall((ROOT / page).read_text("utf-8")) if only in b[1]]
        for language, group in groupby(blocks, key=itemgetter(0)):
            texts = [text for _, text in group]
            if language == "python":  # a reader's session goes on from block to block
                parts = [t + MARK if first is None and result in t else t for t in texts]
                (clone / "session.py").write_text(session + "".join(parts), encoding="utf-8")
                said.append(output_of(python, "session.py", cwd=clone, env=kept))
                session += "".join(texts)
            for text in texts if language == "console" else ():
                said.append(output_of("bash", "-euc", text, cwd=clone, env=kept))
                if first is None and result in text:
                    (clone / "first").touch()
            if first is None and (clone / "first").exists():
                first = (clone / "first").stat().st_mtime - started
        assert first is not None, f"no block of {page} holds {result}"
        with capsys.disabled():
            seconds = f"first result after {first:.0f} s, done after {time.time() - started:.0f} s"
            sys.stdout.write(f"\n{page}: {seconds}\n")
        return "\n".join(said)

    do.python, do.clone, do.environment = python, clone, kept
    return do


def ours(python, folder):
    listed = output_of(python, "-I", "-m", "pip", "freeze", "--all", cwd=folder).splitlines()
    return {re.split("[ =]", line)[0] for line in listed if line.startswith("effconv")}


def test_a_package_in_a_project_of_ones_own(walk):
    said = walk("docs/tutorials/two-packages.md", result="plan = search(")
    assert ours(walk.python, walk.clone) == {"effconv-core", "effconv-kernels", "effconv-models"}
    assert (walk.clone / "plan.json").is_file()
    assert "soft size" in said


def test_a_folder_of_photos(walk):
    said = walk("docs/tutorials/photos.md", result="effconv search")
    assert {"report.html", "test.json", "cnn.safetensors"} <= {
        path.name for path in (walk.clone / "runs/small").iterdir()
    }
    assert re.search(r"accuracy \d+\.\d\d% of 36 images", said)
    assert (walk.clone / "small.pt2").stat().st_size > 1_000_000


def test_the_kernels_alone(walk):
    walk("docs/tutorials/only-kernels.md", result="gru_unroll(")
    assert ours(walk.python, walk.clone) == {"effconv-kernels"}


def test_all_packages_from_one_list(walk):
    walk("docs/how-to/install.md", result="pip install", only="requirements.txt")
    assert len(ours(walk.python, walk.clone)) == 4
    effconv = walk.python.with_name("effconv")
    assert "search" in output_of(effconv, "--help", cwd=walk.clone)


def test_wheels_of_all_packages_and_an_install_from_their_folder(walk):
    walk("docs/how-to/install.md", result="hatch build", only="hatch build")
    assert len(list((walk.clone / "dist").glob("*.whl"))) == 4
    assert ours(walk.python, walk.clone) == {"effconv-core", "effconv-kernels", "effconv-models"}


def test_the_root_says_that_it_is_no_package(walk):
    output_of(walk.python, "-m", "pip", "install", "--quiet", "hatch", cwd=walk.clone)
    for words in (["hatch", "build"], ["pip", "install", "."]):
        with pytest.raises(FailedError, match=r"hatch build --all.*requirements\.txt"):
            output_of(walk.python, "-m", *words, cwd=walk.clone, env=walk.environment)


def test_the_whole_repository(walk):
    walk("docs/tutorials/one-command.md", result="search:demo", only="search:demo")
    assert list(walk.clone.glob("runs/*/report.html"))


def test_research_in_the_repository(walk):
    if not (Path(os.environ.get("EFFCONV_DATA", "data")) / "mnist").is_dir():
        pytest.skip("there is no MNIST, which the rows of the table need")
    said = walk("docs/tutorials/research.md", result="plans = {")
    for name in ("original", "bank", "paper"):
        accuracies = re.search(rf"^{name} \[(.*)\]$", said, re.MULTILINE)
        assert max(float(each.strip("'")) for each in accuracies[1].split(", ")) > 0.9
    rows = (walk.clone / "runs/rows/mnist-smoke.jsonl").read_text().splitlines()
    assert len(rows) == 4
    assert len(re.findall("^mnist-.* train 0 ", said, re.MULTILINE)) == 4
