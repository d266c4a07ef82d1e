"""The command `effconv` as who has installed the packages meets it: sets, runs, reports."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from effconv_core import SizePlan, load
from effconv_core.cli import main
from effconv_core.cli.specifiers.data import make_data
from effconv_core.cli.specifiers.model import make_model
from effconv_core.engine.train import evaluate
from effconv_core.report.comparison import outcome, warnings
from effconv_core.runs.reader import read_run
from PIL import Image

# The network's parameters where both searched layers are 3x3; see `the_budget_is_that_of_3x3`.
BUDGET = 1_042
SHORT = [
    "--search.least-steps=0",
    "--search.epochs=2",
    "--search.finalists=2",
    "--train.epochs=2",
    "--train.lr=0.02",
]
SHORT += ["--batch-size=16", "--train.batch-size=16", "--device=cpu"]
SEARCH = ["search", "own_net:network", "photos", f"--budget={BUDGET}", *SHORT]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a module of one's own and a prepared set of images."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copy(Path(__file__).with_name("own_net.py"), folder)
    random = np.random.default_rng(0)
    for split, count in (("train", 64), ("test", 20)):
        for number in range(count):
            label = number % 2
            images = folder / "source" / split / ("dark", "light")[label]
            images.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(60 * label, 190 + 60 * label, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / f"{number:03d}.png")
    words = ["data", "prepare", "folder", "--source", str(folder / "source"), "--workers", "1"]
    assert main([*words, "--out", str(folder / "photos")]) == 0
    return folder


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    """Work in that folder, and leave this process as it was."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_net", raising=False)  # of another test
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setenv("COLUMNS", "80")
    yield
    sys.modules.pop("own_net", None)


@pytest.fixture
def effconv(capsys):
    """Give the command in this process: its status, standard output and standard error."""

    def command(*words):
        try:
            status = main([str(word) for word in words])
        except SystemExit as stop:  # of tyro
            status = stop.code
        return status, *capsys.readouterr()

    return command


def process(place, *words):
    start = [sys.executable, "-m", "effconv_core.cli", *map(str, words)]
    return subprocess.run(start, capture_output=True, text=True, check=False, cwd=place)


@pytest.fixture(scope="module")
def found(place):
    """A finished run, made by a process of its own whose output is a pipe."""
    return process(place, *SEARCH, "--baseline", "--name=found", "--json"), place / "runs" / "found"


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_budget_is_that_of_3x3():
    assert sum(p.numel() for p in make_model("own_net:network").parameters()) == BUDGET


def test_a_search_leaves_a_run_folder_and_says_its_result_as_json(found):
    ended, folder = found
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert result.pop("run") == "runs/found"
    assert result == json.loads((folder / "result.json").read_text())
    plan = SizePlan.load(folder / "plan.json")
    assert (result["sizes"], result["parameters"]) == (plan.sizes, plan.cost)
    assert abs(plan.cost / BUDGET - 1) <= 0.02
    assert {"config.json", "cnn.safetensors", "report.md", "report.html", "sizes.png"} <= {
        path.name for path in folder.iterdir()
    }
    settings = json.loads((folder / "config.json").read_text())["settings"]
    assert (settings["data"], settings["search"]["epochs"]) == ("photos", 2)
    assert {row["phase"] for row in rows(folder)} == {"search", "comparison", "train", "baseline"}
    assert result["networks"]["original"]["parameters"] == BUDGET


def test_the_accuracy_is_that_of_the_saved_cnn(found):
    _, folder = found
    cnn = load(make_model("own_net:network"), folder / "cnn.safetensors")
    data = make_data("photos", batch_size=16, device="cpu")
    stated = json.loads((folder / "result.json").read_text())["accuracy"]
    assert evaluate(cnn, data.test()) == stated
    assert f"| {stated:.2%} |" in (folder / "report.md").read_text()


def test_in_a_pipe_progress_is_one_plain_line_an_epoch(found):
    ended, _ = found
    lines = [line for line in ended.stderr.splitlines() if re.search(r" epoch \d", line)]
    said = r"{} epoch {}/2: loss \d+\.\d{{3}}  accuracy \d+\.\d%"
    for line, (phase, epoch) in zip(
        lines, [(p, e) for p in ("search", "train", "baseline") for e in (1, 2)], strict=True
    ):
        more = r"  parameters [\d,]+ of 1,042" if phase == "search" else ""
        assert re.fullmatch(said.format(phase, epoch) + more + r"  \d+\.\d s", line), line
    assert not set(ended.stderr) & set("\x1b\r")


def test_a_finished_run_is_refused_unasked(found, effconv):
    _, folder = found
    before = (folder / "report.md").read_bytes()
    status, out, err = effconv(*SEARCH, "--baseline", "--name=found")
    assert (status, out) == (2, "")
    assert err.startswith("effconv search: run runs/found is finished, see runs/found/result.json")
    assert "--overwrite" in err
    assert (folder / "report.md").read_bytes() == before


def test_the_report_of_a_run(found, effconv):
    status, out, _ = effconv("report", "runs/found", "--out", "found.html")
    assert (status, out) == (0, "wrote found.html\n")
    assert "own_net:network on photos" in Path("found.html").read_text()


def test_a_plan_is_trained_as_the_search_does_it(found, effconv):
    """The same sizes, seed and settings give the same network."""
    _, folder = found
    options = [word for word in SHORT if "search" not in word and "--batch" not in word]
    words = ["train", "own_net:network", "photos", "--plan", folder / "plan.json", *options]
    status, out, err = effconv(*words, "--name=again", "--json")
    assert status == 0, err
    result = json.loads(out)
    assert result["networks"].keys() == {"learned"}
    assert result["accuracy"] == json.loads((folder / "result.json").read_text())["accuracy"]
    again = Path("runs/again")
    one, other = (
        load(make_model("own_net:network"), f / "cnn.safetensors") for f in (folder, again)
    )
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=0)
    assert "train epoch 2/2" in err
    assert "No plan" not in (again / "report.html").read_text()


def test_a_network_as_it_is_on_loaders_of_ones_own(effconv):
    words = ["train", "own_net:network", "own_net:loaders", "--train.epochs=4", "--device=cpu"]
    status, out, _ = effconv(*words, "--train.batch-size=16", "--train.lr=0.05")
    assert status == 0
    folder = Path("runs/own_net-loaders-own_net-network-original")
    assert f"{folder}/report.html written after" in out.replace("\n", "")
    result = json.loads((folder / "result.json").read_text())
    assert result["sizes"] == {"3": 3, "6": 3}
    assert result["networks"] == {
        "original": {"parameters": BUDGET, "test_accuracy": result["accuracy"]}
    }
    assert result["accuracy"] > 0.8  # the classes differ by a standard deviation at each pixel
    assert [row["epoch"] for row in rows(folder) if "seconds" in row] == [0, 1, 2, 3]
    assert SizePlan.load(folder / "plan.json").cost == BUDGET
    compared = outcome("original", read_run(folder))
    assert compared["learned"]["accuracy"] == result["accuracy"]
    assert compared["gain"] is None
    assert not warnings({"one": read_run(folder), "other": read_run(folder)})


def test_a_training_of_too_large_batches_is_refused_before_the_search(effconv):
    words = ["search", "own_net:network", "photos", f"--budget={BUDGET}", "--name=large"]
    status, _, err = effconv(*words, "--batch-size=16", "--train.batch-size=900", "--device=cpu")
    assert status == 2
    assert "--train.batch-size is 900, and the set has" in err
    assert not Path("runs/large").exists()


def test_a_budget_of_macs_and_no_training(effconv):
    status, out, err = effconv(
        *("search", "own_net:network", "own_net:loaders", "--budget=62224", "--budget-counts=macs"),
        *("--search-only", "--search.epochs=1", "--search.finalists=2", "--batch-size=16"),
        "--search.least-steps=0",
        *("--device=cpu", "--name=macs", "--json"),
    )
    assert status == 0, err
    (bound,) = SizePlan.load("runs/macs/plan.json").budgets
    assert bound["counts"] == "multiply-accumulates"
    assert abs(bound["cost"] / 62_224 - 1) <= 0.02
    assert json.loads(out).keys() == {
        "run",
        "sizes",
        "parameters",
        "budget",
        "evidence",
    }
    assert not Path("runs/macs/cnn.safetensors").exists()
    assert "Budget 62,224 multiply-accumulates" in Path("runs/macs/report.md").read_text()


REFUSED = {
    "no set": (
        ["search", "own_net:network", "none", "--budget=1042"],
        "'none' is not a set, since no",
    ),
    "no function": (
        ["search", "own_net:network", "own_net:nothing", "--budget=1042"],
        "data 'own_net:nothing' names no function (AttributeError: module 'own_net' has no",
    ),
    "one loader": (
        ["search", "own_net:network", "own_net:one_loader", "--budget=1042"],
        "data 'own_net:one_loader' gave a DataLoader; it is to take batch_size and seed, and give",
    ),
    "classes": (
        ["search", "effconv:cifar_resnet20", "own_net:loaders", "--budget=270000"],
        "data 'own_net:loaders' does not tell how many classes model 'effconv:cifar_resnet20' is",
    ),
    "budget": (
        ["search", "own_net:network", "photos", "--budget=10"],
        "budget 10 cannot be met: plans of this model cost from",
    ),
    "recipe": (
        ["search", "own_net:network", "photos", "--budget=1042", "--recipe=best"],
        "recipe 'best' does not exist; pass one of",
    ),
    "model": (["train", "resnet18", "photos"], "model 'resnet18' names no network; pass"),
    "plan": (["train", "own_net:network", "photos", "--plan=none.json"], "none.json"),
    "shape": (
        ["train", "own_net:grey", "photos"],
        "the images have 3 channel(s), but the model's first convolution '0' takes 1; build",
    ),
    "scores": (
        ["train", "own_net:pixels", "photos"],
        "model 'own_net:pixels' gives (1, 8, 8, 8) for one image; it is to give (1, classes)",
    ),
    "bytes": (
        ["search", "own_net:network", "own_net:as_bytes", "--budget=1042"],
        "the images are torch.uint8, and the network computes in torch.float32; scale them",
    ),
    "labels": (
        ["train", "own_net:network", "own_net:from_one"],
        "the loader gives the label 2, and the network gives 2 scores, for the labels 0 to 1",
    ),
    "narrow labels": (
        ["search", "own_net:network", "own_net:narrow_labels", "--budget=1042"],
        "the loader gives targets of torch.int32 and shape (16,); class indices are torch.int64",
    ),
    "few": (
        ["search", "own_net:one_class", "photos", "--budget=1042"],
        "model 'own_net:one_class' gives 1 scores, and the set has 2 classes; name one that",
    ),
    "own code": (
        ["train", "own_net:broken", "photos", "--name=broken"],
        "no such brush (in {place}/own_net.py, line ",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_one_sentence_and_status_2(case, effconv, place, monkeypatch):
    monkeypatch.delenv("EFFCONV_DATA", raising=False)
    words, sentence = REFUSED[case]
    before = set(Path("runs").glob("*")) if Path("runs").exists() else set()
    batches = ["--train.batch-size=16", *(["--batch-size=16"] if words[0] == "search" else [])]
    status, out, err = effconv(*words, *batches, "--device=cpu")
    assert (status, out) == (2, "")
    assert sentence.format(place=place) in err
    assert err.startswith(f"effconv {words[0]}: ")
    assert err.count("\n") == 1
    assert (set(Path("runs").glob("*")) if Path("runs").exists() else set()) == before


def test_a_gpu_that_is_not_there(effconv):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    status, _, err = effconv(*SEARCH[:-1], "--device=cuda")
    assert status == 2
    assert "this torch sees no GPU; pass --device cpu" in err


def test_a_device_that_nobody_knows(effconv, monkeypatch):
    status, _, err = effconv(*SEARCH[:-1], "--device=banana")
    assert status == 2
    assert "device is 'banana', which PyTorch does not know" in err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    status, _, err = effconv(*SEARCH[:-1], "--device=cuda:2")
    assert status == 2
    assert "device is 'cuda:2', but the last GPU is cuda:1; pass a lower number" in err


def test_a_loss_that_is_not_finite_has_a_status_of_its_own(effconv):
    words = ["train", "own_net:network", "photos", "--train.lr=1e30", "--train.batch-size=16"]
    status, _, err = effconv(*words, "--device=cpu", "--name=diverged")
    assert status == 3
    assert "effconv train: the loss is nan in step 2 of epoch 1" in err
    assert err.count("\n") == 1


def test_data_without_effconv_data(effconv, monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == "effconv_data"]:
        monkeypatch.delitem(sys.modules, name)

    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name == "effconv_data":
                raise ModuleNotFoundError("No module named 'effconv_data'", name=name)

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    status, _, err = effconv("data", "verify", "photos")
    assert status == 2
    assert err.startswith("effconv data: ")
    assert "pip install --upgrade effconv-data" in err
    status, _, err = effconv(*SEARCH)
    assert status == 2
    assert "read by effconv-data, which is not installed; pip install --upgrade effconv-data" in err


def test_data_is_the_command_of_effconv_data(effconv):
    status, out, _ = effconv("data", "verify", "photos")
    assert status == 0
    assert "everything is right" in out
    shutil.copytree("photos", "cut")
    shard = next(Path("cut").glob("test-*"))
    shard.write_bytes(shard.read_bytes()[:-700])
    assert effconv("data", "verify", "cut")[0] == 1
    assert effconv("data", "verify", "nowhere")[0] == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("phase", "number"), [("search", signal.SIGINT), ("train", signal.SIGTERM)]
)
def test_a_stopped_run_goes_on_to_the_same_end(phase, number, found, place):
    name = f"stopped-{phase}"
    words = [*SEARCH, "--baseline", f"--name={name}"]
    started = subprocess.Popen(
        [sys.executable, "-m", "effconv_core.cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    checkpoint = place / "runs" / name / f"{phase}.safetensors"
    while not checkpoint.exists() and started.poll() is None:
        time.sleep(0.005)
    started.send_signal(number)
    _, said = started.communicate(timeout=60)
    assert started.returncode == 128 + number
    assert said == (
        f"effconv search: stopped by {number.name}; the same command goes on from the last "
        "checkpoint\n"
    )
    ended = process(place, *words)
    assert ended.returncode == 0, ended.stderr
    assert f"going on with the interrupted run runs/{name}" in ended.stdout
    _, whole = found
    for file in ("plan.json", "result.json"):
        assert (place / "runs" / name / file).read_bytes() == (whole / file).read_bytes()
