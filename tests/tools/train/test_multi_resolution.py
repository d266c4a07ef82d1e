"""`hatch run train:multi-resolution` as its user meets it: a process, a folder, a report."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from effconv_core.engine.train import evaluate
from effconv_models import MultiResolutionNet, effective_sizes, mixing_weights, pooled_cnn
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file

from tools.presets import make_batches
from tools.train.multi_resolution import command as run_line

ROOT = Path(__file__).parents[3]
SHORT = [
    *("--data", "demo", "--name", "run", "--layers", "5", "--channels", "8", "--baselines"),
    *("--learned-depth", "--train.epochs", "3", "--train.batch-size", "40", "--tune-epochs", "1"),
    *("--mixing.lr", "0.05", "--limit", "200", "--test-limit", "100", "--seed", "3"),
]


def command(runs: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tools.train.multi_resolution", *arguments, "--runs", str(runs)]


def finished(runs: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(runs, *arguments),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "100", **environment},
    )


def rows(folder: Path) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    process = finished(runs, *SHORT)
    assert process.returncode == 0, process.stderr
    return process, runs / "run"


@pytest.mark.long
def test_a_run_leaves_what_it_promises(demo):
    process, folder = demo
    names = {path.name for path in folder.iterdir()}
    assert {
        *("config.json", "metrics.jsonl", "tensorboard", "report.md", "mixing.json"),
        *("mixing.png", "course.png", "cnn.safetensors", "report.html"),
    } <= names
    assert not list(folder.glob("*partial*"))
    for picture in ("mixing.png", "course.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    assert process.stderr == ""
    assert "train epoch 3/3: loss" in process.stdout


@pytest.mark.long
def test_the_outcomes_are_the_papers_rows_and_in_the_report(demo):
    _, folder = demo
    outcomes = json.loads((folder / "mixing.json").read_text())
    assert [outcome["title"] for outcome in outcomes] == [
        *("no pooling", "predefined pooling", "scale invariant", "learned"),
        *("threshold 0.1", "threshold 0.2", "one resolution"),
    ]
    report = (folder / "report.md").read_text()
    for outcome in outcomes:
        found = re.search(
            rf"\| {outcome['title']} \| {outcome['parameters']:,} \| [\d.]+ M "
            rf"\| {outcome['accuracy']:.2%} \|",
            report,
        )
        assert found, outcome["title"]
        for row in outcome["grid"]:
            assert sum(row) == pytest.approx(1, abs=1e-3)
    assert outcomes[2]["grid"] == [[0.25] * 4] * 4
    assert outcomes[1]["effective_sizes"]["layers.3.block.conv"] == 24
    assert outcomes[3]["macs"] == outcomes[2]["macs"] > outcomes[0]["macs"] > outcomes[1]["macs"]
    assert all(w == 0 or w >= 0.1 for row in outcomes[4]["grid"] for w in row)
    assert "drawn patches in noise" in report
    assert "with and below the heaviest" in report


@pytest.mark.long
def test_the_weights_learned_are_those_of_the_checkpoint_and_moved(demo):
    _, folder = demo
    learned = json.loads((folder / "mixing.json").read_text())[3]
    network = MultiResolutionNet(5, 8, learned_depth=True, in_channels=1, num_classes=4)
    state = load_file(folder / "train.safetensors")
    network.load_state_dict(
        {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
    )
    torch.testing.assert_close(
        torch.tensor(learned["grid"]), mixing_weights(network), atol=1e-4, rtol=0
    )
    assert learned["effective_sizes"] == effective_sizes(network)
    assert (mixing_weights(network) - 0.25).abs().max() > 0.02
    course = [row["effective_sizes"] for row in rows(folder) if row["phase"] == "train"]
    assert course[-1] == pytest.approx(list(learned["effective_sizes"].values()), abs=1e-3)


@pytest.mark.long
def test_the_saved_cnn_is_plain_and_as_good_as_the_report_says(demo):
    _, folder = demo
    outcome = json.loads((folder / "mixing.json").read_text())[-1]
    with safe_open(folder / "cnn.safetensors", "pt") as file:
        resolutions = [int(r) for r in file.metadata()["resolutions"].split(",")]
    assert resolutions == outcome["resolutions"]
    cnn = pooled_cnn(resolutions, 8, in_channels=1, num_classes=4)
    cnn.load_state_dict(load_file(folder / "cnn.safetensors"))
    test = make_batches("demo", "test", batch_size=100, device="cpu", seed=3, scale=8.0, limit=100)
    assert outcome["accuracy"] == pytest.approx(evaluate(cnn, test), abs=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("cut", ["train.safetensors", "threshold-0.1.safetensors"])
def test_a_killed_run_goes_on_and_ends_like_one_that_was_not_killed(demo, tmp_path, cut):
    _, folder = demo
    process = subprocess.Popen(command(tmp_path, *SHORT), cwd=ROOT, stdout=subprocess.DEVNULL)
    checkpoint, deadline = tmp_path / "run" / cut, time.monotonic() + 600
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    assert not (tmp_path / "run" / "report.md").exists()

    resumed = finished(tmp_path, *SHORT)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on with the interrupted run" in resumed.stdout
    assert rows(tmp_path / "run") == rows(folder)
    assert (tmp_path / "run" / "mixing.json").read_bytes() == (folder / "mixing.json").read_bytes()


@pytest.mark.long
def test_a_finished_run_is_not_overwritten_unasked(demo):
    _, folder = demo
    before = (folder / "report.md").read_bytes()
    process = finished(folder.parent, *SHORT)
    assert process.returncode == 2
    assert "is finished" in process.stderr
    assert "--overwrite" in process.stderr
    assert (folder / "report.md").read_bytes() == before


def test_a_refusal_is_one_line(tmp_path):
    process = finished(tmp_path, "--data", "demo", "--layers", "1")
    assert process.returncode == 2
    assert process.stderr == (
        "train:multi-resolution: layers is 1; one is the classifier, so pass 2 or more\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--thresholds", "1.5"], "threshold is 1.5; mixing weights lie in 0..1"),
        (["--tune-epochs", "0"], "epochs of the training is 0"),
        (["--mixing.share", "1"], "share is 1.0; it must be above 0 and below 1"),
        (["--limit", "100"], "training drops a short batch; lower batch_size or take more"),
        (["--baselines", "--layers", "4"], "4 resolutions need as many blocks"),
        (["--data", "cifar10"], "EFFCONV_DATA"),
    ],
)
def test_a_refused_run_leaves_no_trace(arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.setenv("EFFCONV_DATA", "")
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        run_line(["--data", "demo", "--runs", str(tmp_path), *arguments], Console())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_real_pictures(tmp_path):
    if not os.environ.get("EFFCONV_DATA"):
        pytest.skip("EFFCONV_DATA is not set, so there are no real pictures")
    process = finished(
        tmp_path,
        *("--data", "cifar10", "--name", "run", "--layers", "3", "--channels", "4"),
        *("--train.epochs", "1", "--train.batch-size", "32", "--tune-epochs", "1"),
        *("--limit", "200", "--test-limit", "200", "--block", "mbconv6"),
    )
    assert process.returncode == 0, process.stderr
    report = (tmp_path / "run" / "report.md").read_text()
    assert "pictures re-encoded as JPEG" in report or "pictures lossless" in report
    assert "| learned | " in report
