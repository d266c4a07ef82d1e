"""`hatch run search:NAME` as its user meets it: a process, a folder, a report."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from effconv_core import RECIPES, SizePlan, load
from effconv_core.engine.train import evaluate
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tools.faults.operations import start
from tools.presets import demo_network, is_augmented, make_batches
from tools.search import introduction, main, parse

ROOT = Path(__file__).parents[2]
SHORT = ["--search-epochs", "2", "--train-epochs", "2", "--name", "run"]
SHORT += ["--search-least-steps", "0", "--search-race-steps", "4", "--search-finalists", "4"]
SHORT += ["--samples", "320"]


def command(runs: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tools.search", *arguments, "--runs", str(runs)]


def finished(runs: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(runs, *arguments),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "100", **environment},
    )


@pytest.fixture
def refused(monkeypatch, capsys):
    """Run the command in this process; give what it says in refusing."""

    def run(runs: Path, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", command(runs, *arguments)[2:])
        assert main() == 2
        return capsys.readouterr().err

    return run


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    process = finished(runs, "demo", *SHORT, "--baseline", "--seed", "3")
    assert process.returncode == 0, process.stderr
    return process, runs / "run"


@pytest.mark.slow
def test_a_run_leaves_what_it_promises(demo):
    _, folder = demo
    assert {
        "config.json",
        "plan.json",
        "metrics.jsonl",
        "tensorboard",
        "sizes.png",
        "cnn.safetensors",
        "report.md",
    } <= {path.name for path in folder.iterdir()}
    assert not list(folder.glob("*partial*"))
    assert (folder / "sizes.png").read_bytes().startswith(b"\x89PNG")

    config = json.loads((folder / "config.json").read_text())
    assert config["settings"]["search"]["epochs"] == 2
    assert config["environment"]["torch"] == torch.__version__


@pytest.mark.slow
def test_the_plan_is_within_two_percent_and_the_saved_cnn_has_its_parameters(demo):
    _, folder = demo
    plan = SizePlan.load(folder / "plan.json")
    assert abs(plan.cost / plan.budget - 1) <= 0.02
    cnn = load(demo_network(1, 4, torch.Generator()), folder / "cnn.safetensors")
    assert sum(parameter.numel() for parameter in cnn.parameters()) == plan.cost
    with safe_open(folder / "cnn.safetensors", "pt") as file:
        assert SizePlan.from_json(file.metadata()["plan"]) == plan


@pytest.mark.slow
def test_the_report_states_the_accuracy_of_the_saved_cnn_and_of_the_baseline(demo):
    _, folder = demo
    report = (folder / "report.md").read_text()
    assert "Not searched: `stem` is the model's first convolution." in report
    cnn = load(demo_network(1, 4, torch.Generator()), folder / "cnn.safetensors")
    given = {"batch_size": 100, "device": "cpu", "seed": 3, "scale": 8.0, "limit": 320}
    test = make_batches("demo", "test", **given)
    learned = re.search(r"\| learned sizes \| [\d,]+ \| ([\d.]+)% \|", report)
    assert float(learned[1]) / 100 == pytest.approx(evaluate(cnn, test), abs=1e-4)
    assert re.search(r"\| original sizes \| 10,684 \| [\d.]+% \|", report)
    assert "drawn patches in noise" in report


@pytest.mark.slow
def test_metrics_are_the_same_as_json_lines_and_for_tensorboard(demo):
    _, folder = demo
    search_rows = [row for row in rows(folder) if row["phase"] == "search"]
    assert {"loss", "accuracy", "budget_loss", "parameters", "soft_sizes", "sizes"} <= set(
        search_rows[0]
    )
    phases = {row["phase"] for row in rows(folder)}
    assert phases == {"search", "comparison", "train", "baseline"}
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    curve = events.Scalars("search/loss")
    assert [event.step for event in curve] == [row["global_step"] for row in search_rows]
    losses = [row["loss"] for row in search_rows]
    assert [event.value for event in curve] == pytest.approx(losses)


@pytest.mark.slow
def test_the_terminal_shows_progress_and_the_table_of_layers(demo):
    process, _ = demo
    assert process.stdout.startswith("recipe bank, ")
    assert "search epoch 2/2: loss" in process.stdout
    assert "of 10,684" in process.stdout
    for layer in ("see", "mix1", "mix2", "mix3"):
        assert re.search(rf"│ {layer} ", process.stdout)
    assert "original sizes: test accuracy" in process.stdout
    assert process.stderr == ""


@pytest.mark.slow
def test_a_finished_run_is_not_overwritten_unasked(demo, refused):
    _, folder = demo
    before = (folder / "report.md").read_bytes()
    told = refused(folder.parent, "demo", *SHORT, "--baseline", "--seed", "3")
    assert "is finished" in told
    assert "--overwrite" in told
    assert (folder / "report.md").read_bytes() == before


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_like_one_that_was_not_killed(demo, tmp_path, refused):
    _, folder = demo
    arguments = ["demo", *SHORT, "--baseline", "--seed", "3"]
    words, output = command(tmp_path, *arguments)[2:], tmp_path / "output.txt"
    process, _ = start(words, output)
    checkpoint = tmp_path / "run" / "train.safetensors"
    while not checkpoint.exists() and process.is_alive():
        time.sleep(0.02)
    process.kill()
    process.join()
    assert checkpoint.exists()
    assert not (tmp_path / "run" / "report.md").exists()

    other = refused(tmp_path, "demo", *SHORT, "--baseline", "--seed", "4")
    assert "seed was 3, now 4" in other

    resumed, _ = start(words, output)
    resumed.join()
    assert resumed.exitcode == 0, output.read_text()
    assert "going on with the interrupted run" in output.read_text()

    def lasting(path: Path) -> list[dict]:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(path)]

    assert lasting(tmp_path / "run") == lasting(folder)
    assert (tmp_path / "run" / "plan.json").read_bytes() == (folder / "plan.json").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("imagenet",), "data 'imagenet' is unknown"),
        (("demo", "--recipe", "best"), "recipe 'best' does not exist; pass one of"),
        (("demo", "--model", "resnet99"), "resnet99"),
        (("demo", "--budget", "100"), "budget 100 cannot be met: plans of this model cost from"),
        (("cifar10",), "`hatch run effconv-data prepare cifar10 --out data/cifar10`"),
        (("stl10", "--search-epochs", "1"), "`hatch run effconv-data prepare stl10 --out "),
    ],
)
def test_a_refusal_is_one_line_and_leaves_no_trace(
    arguments, sentence, tmp_path, monkeypatch, refused
):
    monkeypatch.setenv("EFFCONV_DATA", "")
    told = refused(tmp_path, *arguments)
    assert sentence in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_no_data_at_all_is_refused():
    with pytest.raises(
        ValueError, match="data '' is unknown; name one of cifar10, mnist, stl10, imag"
    ):
        parse([])


def test_every_field_of_search_and_training_is_an_option_with_either_spelling():
    data, options = parse(
        ["mnist", "--search-k", "2", "--search.centre=aligned", "--train-lr", "0.5"]
    )
    assert data == "mnist"
    assert (options.search.k, options.search.centre, options.train.lr) == (2, "aligned", 0.5)


@pytest.mark.parametrize("arguments", [["--recipe", "paper"], ["--recipe=paper"]])
def test_the_recipe_sets_the_defaults_of_search_and_training(arguments):
    _, options = parse(["cifar10", *arguments, "--search-epochs", "3"])
    assert (options.search.budget_form, options.search.size_lr) == ("paper", 1e-4)
    assert (options.train.optimizer, options.train.epochs) == ("adam", 350)
    assert options.search.epochs == 3


@pytest.mark.parametrize(
    ("data", "budget", "search_epochs", "training", "augmented"),
    [
        ("cifar10", 0.66e6, 10, (350, 64, 1e-3, 0.0), True),
        ("mnist", 0.66e6, 10, (350, 64, 1e-3, 0.0), False),
        ("stl10", 0.66e6, 10, (100, 256, 1e-2, 0.0), False),
        ("imagenet32", 0.50e6, 5, (350, 2048, 1e-2, 1e-5), True),
    ],
)
def test_the_papers_sets_are_searched_by_its_recipe_at_its_main_budget(
    data, budget, search_epochs, training, augmented
):
    _, options = parse([data])
    assert (options.recipe, options.budget, options.model) == ("paper", budget, "cifar_resnet20")
    assert (options.search.kernel_form, options.search.epochs) == ("projected", search_epochs)
    found = options.train
    assert (found.epochs, found.batch_size, found.lr, found.weight_decay) == training
    assert is_augmented(data, "paper") == augmented
    assert is_augmented(data, "bank")
    _, ours = parse([data, "--recipe", "bank"])
    assert (ours.recipe, ours.budget, ours.search) == ("bank", budget, RECIPES["bank"])


@pytest.mark.parametrize(
    ("arguments", "recipe", "other"),
    [
        (["demo"], "bank", "paper"),
        (["demo", "--recipe", "default"], "bank", "paper"),
        (["stl10"], "paper", "bank"),
        (["mnist", "--recipe=literal"], "literal", "bank"),
    ],
)
def test_the_first_line_names_recipe_budget_and_the_other_recipe(arguments, recipe, other):
    data, options = parse(arguments)
    words = introduction(data, options).split()
    assert words[1].strip(",") == recipe
    assert f"{options.budget:,.0f}" in words
    assert words[-5:] == ["hatch", "run", f"search:{data}", "--recipe", other]


@pytest.mark.slow
def test_real_mnist_from_search_to_report(tmp_path):
    if not os.environ.get("EFFCONV_DATA"):
        pytest.skip("EFFCONV_DATA is not set, so there are no real pictures")
    options = ["--model=demo", "--budget=10684", "--search-epochs=1", "--search-least-steps=0"]
    options += ["--limit=2500", "--train-epochs=3", "--train-lr=0.01", "--name=run"]
    output = tmp_path / "output.txt"
    process, _ = start(command(tmp_path, "mnist", *options)[2:], output)
    process.join()
    assert process.exitcode == 0, output.read_text()
    report = (tmp_path / "run" / "report.md").read_text()
    assert "pictures lossless" in report
    assert float(re.search(r"learned sizes \| [\d,]+ \| ([\d.]+)%", report)[1]) > 80
