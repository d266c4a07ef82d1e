"""`hatch run train:flexnet` as its user meets it: a process, a folder, a report."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from effconv_core import SizePlan
from effconv_core.cli import main as effconv
from effconv_core.engine.train import evaluate
from effconv_models import FlexConvConfig, effective_sizes, flexnet3, mask_parameters
from rich.console import Console
from safetensors.torch import load_file

from tools.faults.operations import start
from tools.presets import make_batches
from tools.support.console import run_and_report
from tools.train import flexnet, multi_resolution

ROOT = Path(__file__).parents[3]
SHORT = [
    *("--data", "demo", "--model", "flexnet3", "--channels", "4", "--limit", "512"),
    *("--train.epochs", "4", "--conv.hidden", "8", "--seed", "3", "--name", "run"),
]


def command(runs: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tools.train.flexnet", *arguments, "--runs", str(runs)]


def finished(runs: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(runs, *arguments),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "120"},
    )


@pytest.fixture
def refused(monkeypatch, capsys):
    """Run the command in this process; give what it says in refusing."""

    def run(runs: Path, *arguments: str) -> str:
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setattr(sys, "argv", command(runs, *arguments)[2:])
        try:
            status = run_and_report("train:flexnet", flexnet.command)
        except SystemExit as stop:  # of tyro
            status = stop.code
        assert status == 2
        return capsys.readouterr().err

    return run


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def trained(folder: Path) -> torch.nn.Module:
    config = FlexConvConfig(hidden=8)
    net = flexnet3(in_channels=1, num_classes=4, image_size=24, channels=4, config=config)
    net.load_state_dict(load_file(folder / "cnn.safetensors"))
    return net


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    process = finished(runs, *SHORT)
    assert process.returncode == 0, process.stderr
    return process, runs / "run"


@pytest.mark.slow
def test_a_run_leaves_what_it_promises(demo):
    process, folder = demo
    left = {
        *("config.json", "plan.json", "metrics.jsonl", "tensorboard", "sizes.png"),
        *("cnn.safetensors", "report.md", "report.html"),
    }
    assert left <= {path.name for path in folder.iterdir()}
    assert not list(folder.glob("*partial*"))
    assert (folder / "sizes.png").read_bytes().startswith(b"\x89PNG")
    assert "train epoch 4/4: loss" in process.stdout
    assert process.stderr == ""
    settings = json.loads((folder / "config.json").read_text())["settings"]
    assert settings["train"] == {
        **{"epochs": 4, "batch_size": 64, "optimizer": "adam", "lr": 0.01, "weight_decay": 0.0},
        **{"schedule": "cosine", "warmup_epochs": 5.0, "precision": "float32", "compile": False},
    }
    assert settings["mask_lr_factor"] == 0.1


@pytest.mark.slow
def test_the_report_is_of_the_saved_weights(demo):
    _, folder = demo
    net, report = trained(folder), (folder / "report.md").read_text()
    test = make_batches("demo", "test", batch_size=100, device="cpu", seed=3, scale=8.0)
    count, accuracy = re.search(r"\| FlexConv \| ([\d,]+) \| ([\d.]+)% \|", report).groups()
    assert float(accuracy) / 100 == pytest.approx(evaluate(net, test), abs=1e-4)
    assert int(count.replace(",", "")) == sum(p.numel() for p in net.parameters())
    assert dict(SizePlan.load(folder / "plan.json")) == effective_sizes(net)
    assert report.count("25 x 25") == len(effective_sizes(net))


@pytest.mark.slow
def test_masks_moved_and_their_course_is_kept(demo):
    _, folder = demo
    net = trained(folder)
    course = [row for row in rows(folder) if row["phase"] == "masks"]
    assert [row["epoch"] for row in course] == [0, 1, 2, 3]
    last = torch.tensor(course[-1]["widths"])
    torch.testing.assert_close(
        last, torch.stack([mask[:, 1] for mask in mask_parameters(net)]), rtol=0, atol=1e-5
    )
    assert (last - 0.075).abs().min() > 0
    # 28 steps of a rate of at most 1e-3, which Adam cannot leave far behind.
    assert 0.003 < (last - 0.075).abs().max() < 0.06


@pytest.mark.slow
def test_sizes_are_drawn_next_to_those_of_effconv(demo, tmp_path):
    _, folder = demo
    SizePlan({"see": 5, "mix": (3, 2)}).save(tmp_path / "effconv.json")
    files = [str(folder / "plan.json"), str(tmp_path / "effconv.json")]
    picture = tmp_path / "both.png"
    assert effconv(["plan", "diff", *files, "--out", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_like_one_that_was_not_killed(demo, tmp_path, refused):
    _, folder = demo
    words, output = command(tmp_path, *SHORT)[2:], tmp_path / "output.txt"
    process, _ = start(words, output)
    checkpoint = tmp_path / "run" / "train.safetensors"
    while not checkpoint.exists() and process.is_alive():
        time.sleep(0.02)
    process.kill()
    process.join()
    assert checkpoint.exists()
    assert not (tmp_path / "run" / "report.md").exists()

    resumed, _ = start(words, output)
    resumed.join()
    assert resumed.exitcode == 0, output.read_text()
    assert "going on with the interrupted run" in output.read_text()

    def lasting(path: Path) -> list[dict]:
        return sorted(
            ({k: v for k, v in row.items() if k != "seconds"} for row in rows(path)),
            key=lambda row: (row["phase"], row["global_step"]),
        )

    assert lasting(tmp_path / "run") == lasting(folder)
    for name in ("plan.json", "cnn.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (folder / name).read_bytes()

    assert "is finished" in refused(tmp_path, *SHORT)


def in_process(runs: Path, *arguments: str) -> None:
    flexnet.command(command(runs, *arguments)[3:], Console())


@pytest.mark.slow
def test_another_network_is_trained_with_flexconv_in_it(tmp_path):
    in_process(
        tmp_path,
        *("--data", "demo", "--model", "cifar_resnet20", "--limit", "64", "--train.epochs", "1"),
        *("--conv.hidden", "4", "--aliasing", "0.1", "--name", "run", "--device", "cpu"),
    )
    report = (tmp_path / "run" / "report.md").read_text()
    assert "Left as they were: `conv1` is the model's first convolution." in report
    assert len(SizePlan.load(tmp_path / "run" / "plan.json")) == 18


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--model", "flexnet4"), "model 'flexnet4' is unknown; pass one of flexnet3"),
        (("--aliasing", "-1"), "aliasing is -1.0"),
        (("--mask-lr-factor", "inf"), "mask_lr_factor is inf"),
        (("--dropout", "1"), "dropout is 1.0; pass 0 for none, or a number below 1"),
        (("--conv.threshold", "2"), "threshold is 2.0; the mask goes from 0 to 1"),
    ],
)
def test_a_refusal_leaves_no_trace(arguments, sentence, tmp_path, refused):
    assert sentence in refused(tmp_path, "--data", "demo", *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "training"),
    [
        ("cifar10", (350, 64, 1e-2, 0.0)),
        ("mnist", (350, 64, 1e-2, 0.0)),
        ("stl10", (100, 256, 1e-2, 0.0)),
        ("imagenet32", (350, 2048, 1e-2, 1e-5)),
    ],
)
def test_the_papers_sets_have_its_training(data, training):
    options = flexnet.parse(["--data", data, "--model", "flexnet3"])
    found = options.train
    assert (options.data, options.model) == (data, "flexnet3")
    assert (found.epochs, found.batch_size, found.lr, found.weight_decay) == training
    assert flexnet.parse([f"--data={data}", "--train.epochs", "2"]).train.epochs == 2


@pytest.mark.parametrize("module", [flexnet, multi_resolution])
@pytest.mark.parametrize("data", ["stl10", "imagenet32"])
def test_a_set_that_is_missing_is_refused_with_the_command_that_makes_it(
    module, data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("EFFCONV_DATA", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["train", f"--data={data}", f"--runs={tmp_path}"])
    assert run_and_report("train", module.command) == 2
    told = capsys.readouterr().err
    assert f"`hatch run effconv-data prepare {data} --out {tmp_path}/{data}" in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "masked"),
    [("flexnet_gabor16", True), ("ckcnn16", False), ("cifar_resnet44_ckconv", False)],
)
def test_networks_by_name_keep_their_kernel_networks(model, masked):
    options = flexnet.FlexNetOptions(data="demo", model=model, channels=4, device="cpu")
    batches = make_batches("demo", "train", scale=8.0, limit=64, batch_size=32)
    network, others = flexnet.make_network(options, batches)
    assert not others
    assert bool(mask_parameters(network)) == masked
    groups = flexnet.parameter_groups(network)
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    assert [row[5] for row in flexnet.layer_rows(network)]


def test_a_run_without_masks_is_reported(tmp_path):
    line = ["--data", "demo", "--model", "flexnet3", "--channels", "2", "--limit", "64"]
    line += ["--train.epochs", "1", "--train.batch-size", "32", "--conv.hidden", "4"]
    line += ["--conv.no-masked", "--conv.kernel", "siren", "--runs", str(tmp_path)]
    folder = flexnet.command([*line, "--name", "run", "--device", "cpu"], Console(quiet=True))
    assert "no masks" in (folder / "report.md").read_text()
    assert set(SizePlan.load(folder / "plan.json").sizes.values()) == {25}
