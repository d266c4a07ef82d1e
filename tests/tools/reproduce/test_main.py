"""The reproduction's commands: what they write, refuse and leave, and that they resume."""

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from effconv_data.prepare import prepare
from rich.console import Console

from tests.tools.reproduce.made_up_result import measured
from tests.tools.reproduce.small_table import BEGUN, ROWS, SMALL
from tools.faults.operations import start
from tools.reproduce import __main__ as command
from tools.reproduce import run, tables
from tools.reproduce.rows import SCALES, TRAINED, Row, runs_of
from tools.reproduce.run import run_name

ROOT = Path(__file__).parents[3]


@pytest.fixture
def ended(tmp_path, monkeypatch):
    """Give the folders of Table 1's runs at the smallest scale, which have all ended."""
    options = ["--scale", "smoke", "--runs", tmp_path / "runs", "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["reproduce", "table1", *map(str, options)])
    folders = []
    for row, seed in runs_of("table1", "smoke"):
        folders.append(tmp_path / "runs" / "smoke" / run_name(row, seed))
        folders[-1].mkdir(parents=True)
        (folders[-1] / "result.json").write_text(json.dumps(measured(row, seed, "smoke")))
        (folders[-1] / run.KERNELS).write_bytes(b"kernels")
    return folders


def test_a_table_is_written_with_what_failed(ended, tmp_path, monkeypatch):
    (ended[0] / "result.json").unlink()

    def failing(path, *_, **__):
        (ended[0] / "failed.json").write_text(json.dumps({"error": "ValueError: too hot"}))
        return 1

    monkeypatch.setattr(command, "launch", failing)
    assert command.main() == 1
    table = (tmp_path / "runs" / "smoke" / "table1.md").read_text()
    assert "| *99.8 ± 0.01, 35.86 s an epoch* |" in table
    assert "128 training pictures, 128 test pictures, 1 of 350 epochs" in table
    assert f"- `{ended[0].name}`: ValueError: too hot" in table
    assert "(../../out/mnist-smoke.jsonl)" in table


def test_a_figure_is_drawn_beside_its_table(tmp_path, monkeypatch):
    options = ["--scale", "smoke", "--runs", tmp_path / "runs", "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["reproduce", "figure3", *map(str, options)])
    (tmp_path / "out").mkdir()
    rows = [measured(row, seed, "smoke") for row, seed in runs_of("figure3", "smoke")]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "out" / "cifar10-smoke.jsonl").write_text(lines)
    assert command.main() == 0
    (drawn,) = (tmp_path / "runs" / "smoke").glob("*.png")
    assert f"]({drawn.name})" in (drawn.parent / "figure3.md").read_text()


def test_a_row_is_kept_only_when_its_kernels_are(ended, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            command.main()
    assert not (tmp_path / "out" / "mnist-smoke.jsonl").exists()
    kept = tmp_path / "out" / "kernels" / "mnist-smoke" / f"{ended[0].name}.safetensors"
    assert kept.read_bytes() == b"kernels"


def test_rows_that_another_command_writes_meanwhile_stay(ended, tmp_path, monkeypatch):
    out = tmp_path / "out" / "mnist-smoke.jsonl"
    result = json.loads((ended[0] / "result.json").read_text())
    (ended[0] / "result.json").unlink()
    other = {**result, "seed": 7}

    def meanwhile(path, runs, options, console, on_end, beside):
        with out.open("a") as file:
            file.write(json.dumps(other) + "\n")
        (ended[0] / "result.json").write_text(json.dumps(result))
        on_end(runs[0])
        return 0

    monkeypatch.setattr(command, "launch", meanwhile)
    assert command.main() == 0
    seeds = [json.loads(line)["seed"] for line in out.read_text().splitlines()]
    assert sorted(seeds) == [0, 0, 1, 1, 7]


def test_a_folder_with_a_result_of_other_settings_is_refused(ended):
    result = json.loads((ended[1] / "result.json").read_text())
    result["train"]["lr"] *= 2
    (ended[1] / "result.json").write_text(json.dumps(result))
    with pytest.raises(
        ValueError, match=rf"{ended[1].name} holds .* with other settings \(train\)"
    ):
        command.main()


def test_a_device_that_is_not_there_is_refused_before_any_run(ended, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--device", "cuda"])
    with pytest.raises(ValueError, match="this torch sees no GPU"):
        command.main()
    assert not (tmp_path / "out").exists()


def mnist():
    """Give the folder of the sets, where it holds MNIST."""
    data = os.environ.get("EFFCONV_DATA")
    if not data or not (Path(data) / "mnist" / "index.json").is_file():
        pytest.skip("EFFCONV_DATA holds no MNIST")
    return data


def fewer_pictures(monkeypatch):
    """Let the smallest scale be smaller still."""
    mnist()
    monkeypatch.setitem(SCALES["smoke"], "mnist", SMALL)


@pytest.mark.slow
def test_a_run_counts_its_earlier_starts_and_says_what_else_could_be_done(tmp_path, monkeypatch):
    fewer_pictures(monkeypatch)
    row, seed = runs_of("table1", "smoke")[-1]
    given = {"row": asdict(row), "seed": seed, "scale": "smoke", "device": "cpu"}

    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "train", stopped)
        with pytest.raises(KeyboardInterrupt):
            run.run_row(tmp_path, Console(quiet=True), **given)
    with pytest.raises(FileExistsError, match="device was .*; run it as it was .* or delete"):
        run.run_row(tmp_path, Console(quiet=True), **{**given, "device": "cpu:0"})
    run.run_row(tmp_path, Console(quiet=True), **given)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["seconds_before"] > 0


@pytest.mark.slow
def test_the_claim_runs_from_the_papers_search_to_its_controls(tmp_path, monkeypatch):
    fewer_pictures(monkeypatch)
    results = []
    for row, seed in runs_of("claim-mnist", "smoke"):
        if seed == 0 and row.sizes in ("paper", "even paper", "random 0 paper"):
            given = {"row": asdict(row), "seed": seed, "scale": "smoke", "device": "cpu"}
            folder = tmp_path / run.run_name(row, seed)
            run.run_row(folder, Console(quiet=True), **given)
            results.append(json.loads((folder / "result.json").read_text()))
    paper, *controls = results
    assert paper["parameters"] == pytest.approx(0.66e6, rel=0.02)
    for control in controls:
        assert control["parameters"] == pytest.approx(paper["parameters"], rel=0.005)
    assert len({tuple(result["sizes"].values()) for result in results}) >= 2
    words = "\n".join(tables.section("claim-mnist", "smoke", results, "x.jsonl"))
    assert "as equal as can be, at the cost of the paper's recipe's" in words


@pytest.mark.parametrize("model", ["flexnet3", "njet_resnet32"])
def test_a_network_that_learns_in_training_is_a_row(model, tmp_path, monkeypatch):
    fewer_pictures(monkeypatch)
    row = Row("mnist", model, 0.27e6, "trained")
    given = {"row": asdict(row), "seed": 0, "scale": "smoke", "device": "cpu"}
    run.run_row(tmp_path, Console(quiet=True), **given)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["search"] is None
    assert result["train"]["optimizer"] == ("sgd" if "njet" in model else "adam")
    assert len(result["sizes"]) == (7 if model == "flexnet3" else 31)
    assert all(isinstance(size, int | str) for size in result["sizes"].values())
    words = "\n".join(tables.section("table1", "smoke", [result], "x.jsonl"))
    assert TRAINED[model] in words
    assert "Networks that learn their sizes in the training" in words


def reproduce(name, folder, data, *options):
    """Start the command at the smallest scale."""
    command = [sys.executable, "-m", "tools.reproduce", name, "--scale", "smoke"]
    command += ["--device", "cpu", "--runs", folder / "runs", "--out", folder, *options]
    return subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "EFFCONV_DATA": str(data)},
    )


def stl10(folder, generator):
    """Write a small set in the official layout: columns first, labels from 1."""
    folder = folder / "stl10_binary"
    folder.mkdir(parents=True)
    for split, number in (("train", 32), ("test", 20)):
        pixels = generator.integers(0, 256, (number, 3, 96, 96), dtype=np.uint8)
        (folder / f"{split}_X.bin").write_bytes(pixels.tobytes())
        labels = (np.arange(number) % 10 + 1).astype(np.uint8)
        (folder / f"{split}_y.bin").write_bytes(labels.tobytes())
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))


def imagenet32(folder, generator):
    """Write a small set in the official layout: ten parts and one of validation."""
    folder.mkdir()
    for name in [*(f"train_data_batch_{part}" for part in range(1, 11)), "val_data"]:
        rows = generator.integers(0, 256, (13, 3 * 32 * 32), dtype=np.uint8)
        np.savez(folder / name, data=rows, labels=generator.integers(1, 1001, 13))


@pytest.mark.long
@pytest.mark.parametrize(
    ("table", "data", "write"), [("table3", "stl10", stl10), ("table4", "imagenet32", imagenet32)]
)
def test_a_table_runs_on_a_small_set_in_the_official_layout(table, data, write, tmp_path):
    write(tmp_path / "source", np.random.default_rng(0))
    prepare(data, tmp_path / "source", out=tmp_path / "sets" / data, checksum=False)
    process = reproduce(table, tmp_path, tmp_path / "sets")
    said = process.communicate()[0]
    assert process.returncode == 0, said
    rows = [
        json.loads(line) for line in (tmp_path / f"{data}-smoke.jsonl").read_text().splitlines()
    ]
    assert len(rows) == len(runs_of(table, "smoke"))
    for row in rows:
        near = abs(row["parameters"] / row["row"]["budget"] - 1) <= 0.02
        assert near or row["row"]["sizes"] == "uniform"
        assert ("top5" in row) == (data == "imagenet32")
        assert row.get("top5", 1) >= row["accuracy"]
    by_run = {(row["row"]["sizes"], row["seed"]): row for row in rows}
    if data == "imagenet32":
        assert by_run["other seed", 0]["sizes"] == by_run["found", 1]["sizes"]
    seeds = SCALES["smoke"][data].seeds
    assert len(list((tmp_path / "kernels" / f"{data}-smoke").iterdir())) == 2 * seeds
    # Nothing is run again where the results are, even if the run folders are gone.
    (tmp_path / "runs").rename(tmp_path / "gone")
    again = reproduce(table, tmp_path, tmp_path / "sets")
    again.communicate()
    assert again.returncode == 0
    assert not list((tmp_path / "runs").rglob("train.safetensors"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes fork on Linux alone")
def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path):
    mnist()

    def outcome(name):
        lines = (tmp_path / name / "mnist-smoke.jsonl").read_text().splitlines()
        keys = ("row", "seed", "sizes", "parameters", "accuracy")
        kernels = sorted((tmp_path / name / "kernels" / "mnist-smoke").iterdir())
        return [
            *({key: json.loads(line)[key] for key in keys} for line in lines),
            *((path.name, path.read_bytes()) for path in kernels),
        ]

    def at_work(name):
        """Start it; give it, and the time, when it has imported all and begins."""
        begun = tmp_path / name / BEGUN
        begun.unlink(missing_ok=True)
        words = ["tests.tools.reproduce.small_table:main", str(tmp_path / name)]
        process, _ = start(words, tmp_path / "output.txt")
        wait_for(process, begun)
        return process, time.monotonic()

    def wait_for(process, path):
        while not path.exists():
            assert process.is_alive(), (tmp_path / "output.txt").read_text()
            time.sleep(0.01)

    def ended(process):
        process.join()
        return process.exitcode == 0

    whole, began = at_work("whole")
    assert ended(whole), (tmp_path / "output.txt").read_text()
    seconds = time.monotonic() - began
    assert len(outcome("whole")) == 3
    found, control = (f"killed/runs/smoke/{run_name(row, 0)}" for row in ROWS)
    # The second epoch of a training is at work where the first one's state is there.
    source, searched = random.Random(0), f"{found}/search.safetensors"
    for after in (
        f"killed/{BEGUN}",
        searched,
        f"{found}/train.safetensors",
        f"{control}/train.safetensors",
    ):
        process, _ = at_work("killed")
        wait_for(process, tmp_path / after)
        if not after.endswith("train.safetensors"):
            time.sleep(source.uniform(0, seconds / 5))
        assert process.is_alive()
        process.kill()
        process.join()
    assert not (tmp_path / control / "result.json").exists()
    assert ended(at_work("killed")[0])
    assert outcome("killed") == outcome("whole")
