"""`effconv frontier`, and `effconv plan at` for any cost of it."""

import json
import shutil
import sys

import pytest
from effconv_core import Frontier, SizePlan, frontier, recipe, search
from effconv_core.cli import main

OWN = """
import os

import torch
from torch import nn


def network(classes=2):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 1),
        *(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Conv2d(4, 4, 3, padding=1),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)),
    )


def of_five():
    return network(5)


class Batches(list):
    image_shape, num_classes = (1, 8, 8), 2


def batches(batch_size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = Batches()
    for _ in range(10):
        labels = torch.randint(2, (8,), generator=generator)
        noise = torch.randn(8, 1, 8, 8, generator=generator)
        made.append((noise + labels[:, None, None, None], labels))
    return made, made


def moving(batch_size=8, seed=0):
    os.makedirs("elsewhere")
    os.chdir("elsewhere")
    return batches(batch_size, seed)


def validated(batch_size=8, seed=0):
    made, test = batches(batch_size, seed)
    return made, [(images + 100, labels) for images, labels in made], test
"""
SMALL = """
from torch.utils.data import DataLoader, TensorDataset


def few(batch_size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    data = TensorDataset(torch.randn(80, 1, 8, 8, generator=generator), torch.arange(80) % 2)
    loader = DataLoader(data, batch_size, shuffle=True, drop_last=True, generator=generator)
    loader.image_shape, loader.num_classes = (1, 8, 8), 2
    return loader, loader
"""
CONFIG = recipe("bank", least_steps=0, race_steps=2)
WORDS = ["frontier", "own_front:network", "own_front:batches", "--device", "cpu", "--out", "f.json"]


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """The state of a search of the network."""
    path, names = tmp_path_factory.mktemp("search") / "search.safetensors", {}
    exec(OWN, names)
    search(names["network"](), names["batches"]()[0], config=CONFIG, checkpoint=path)
    return path


@pytest.fixture
def here(state, tmp_path, monkeypatch):
    """Enter a folder with a network, its data and a search of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_front", raising=False)
    (tmp_path / "own_front.py").write_text(OWN)
    shutil.copy(state, tmp_path)
    return tmp_path


def test_plans_are_compared_on_the_validation_of_a_function(here):
    words = [*WORDS, "--state", "search.safetensors"]
    assert main(words) == 0
    words[2], words[-3] = "own_front:validated", "v.json"
    assert main(words) == 0
    held_out, validated = Frontier.load("f.json"), Frontier.load("v.json")
    # Images of 100 more than those of the training, of which nothing is learned.
    assert validated.original.loss != held_out.original.loss
    assert validated.original.loss > 0.6


def test_the_files_are_those_that_the_command_named_whatever_folder_a_function_enters(here):
    words = [*WORDS, "--state", "search.safetensors", "--batch-size", "8"]
    words[2] = "own_front:moving"
    assert main(words) == 0
    assert (here / "f.json").is_file()


@pytest.mark.parametrize("counts", ["parameters", "macs"])
def test_a_frontier_and_a_plan_of_a_cost(here, capsys, counts):
    assert (
        main([*WORDS, "--state", "search.safetensors", "--draw", "f.png", "--counts", counts]) == 0
    )
    found = Frontier.load("f.json")
    assert "the network's own" in capsys.readouterr().out
    assert (here / "f.png").stat().st_size > 1000
    wanted = found.original.cost * 1.4
    at = [
        "plan",
        "at",
        "f.json",
        "--out",
        "p.json",
        "--budget",
        str(wanted),
        "--shape",
        "1",
        "8",
        "8",
    ]
    assert main([*at, "--model", "own_front:network"]) == 0
    plan = SizePlan.load("p.json")
    assert 0.6 * wanted <= plan.budgets[0]["cost"] <= wanted
    assert plan.budgets[0]["counts"] == found.counts

    (here / "p.json").unlink()
    assert main([*at, "--model", "own_front:of_five"]) == 2  # costs more parameters
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"{found.original.cost:,}" in err
    assert not (here / "p.json").exists()


def test_an_input_of_another_shape_costs_something_else(here, capsys):
    assert main([*WORDS, "--state", "search.safetensors", "--counts", "macs"]) == 0
    at = ["plan", "at", "f.json", "--model", "own_front:network", "--out", "p.json"]
    assert main([*at, "--budget", "20000", "--shape", "1", "9", "9"]) == 2
    assert not (here / "p.json").exists()


def test_latency_is_measured_once_and_read_by_plan_at(here, capsys):
    words = [*WORDS, "--state", "search.safetensors", "--counts", "latency"]
    assert main(words) == 2  # without a table
    assert main([*WORDS, "--state", "search.safetensors", "--latency-table", "t.json"]) == 2
    assert not (here / "t.json").exists()
    assert main([*words, "--latency-table", "t.json"]) == 0
    found, times = Frontier.load("f.json"), (here / "t.json").read_bytes()
    assert found.counts == "nanoseconds"

    at = ["plan", "at", "f.json", "--model", "own_front:network", "--out", "p.json"]
    at += ["--shape", "1", "8", "8", "--device", "cpu"]
    budget = found.points[-1].cost * 1.1
    capsys.readouterr()
    for shape in ("0", "-1"):
        assert main([*at, "--budget", str(budget), "--shape", "1", "8", shape]) == 2
        assert "--shape" in capsys.readouterr().err
    assert main([*at, "--budget", str(budget)]) == 2
    assert main([*at, "--budget", str(budget), "--latency-table", "none.json"]) == 2
    assert "none.json" in capsys.readouterr().err
    assert not (here / "p.json").exists()
    assert main([*at, "--budget", str(budget), "--latency-table", "t.json"]) == 0
    assert SizePlan.load("p.json").budgets[0]["cost"] <= budget
    assert (here / "t.json").read_bytes() == times


@pytest.mark.parametrize("case", ["exists", "folder", "picture", "state", "unfinished", "twice"])
def test_a_mistake_is_noticed_before_the_work(here, capsys, case):
    words = [*WORDS, "--state", "search.safetensors"]
    if case == "exists":
        (here / "f.json").write_text("mine")
    elif case == "folder":
        words[words.index("f.json")] = "none/f.json"
    elif case == "picture":
        words += ["--draw", "f.gif"]
    elif case == "state":
        words[-1] = "own_front.py"
    elif case == "twice":
        words[words.index("f.json")] = "f.png"
        words += ["--draw", "./f.png"]
    else:
        names = {}
        exec(OWN, names)

        def stop(step):
            if step.epoch:
                raise KeyboardInterrupt

        config = recipe("bank", epochs=2, least_steps=0, race_steps=2)
        options = {"config": config, "checkpoint": "begun.safetensors", "on_step": stop}
        with pytest.raises(KeyboardInterrupt):
            search(names["network"](), names["batches"]()[0], **options)
        words[-1] = "begun.safetensors"
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert "cost 1 of" not in out
    if case == "exists":
        assert (here / "f.json").read_text() == "mine"
    else:
        assert not (here / "f.json").exists()


def test_a_stopped_command_goes_on_where_it_was(here, capsys, monkeypatch):
    from effconv_core.cli import frontier as command

    def stopped(*arguments, on_amount, **keywords):
        def on_third(number, of):
            on_amount(number, of)
            if number == 3:
                raise KeyboardInterrupt

        return frontier(*arguments, on_amount=on_third, **keywords)

    words = [*WORDS, "--state", "search.safetensors"]
    with monkeypatch.context() as changed:
        changed.setattr(command, "frontier", stopped)
        with pytest.raises(KeyboardInterrupt):
            main(words)
    progress = here / "f.json.progress.json"
    assert len(json.loads(progress.read_text())["stages"]) == 3
    assert not (here / "f.json").exists()
    kept = progress.read_bytes()
    for other in (["--batch-size", "4"], ["--seed", "7"]):
        assert main([*words, *other]) == 2
        assert progress.name in capsys.readouterr().err
        assert progress.read_bytes() == kept
    assert main(words) == 0
    assert Frontier.load("f.json").points
    assert not progress.exists()
    (here / "f.json").unlink()

    progress.write_text("mine")
    capsys.readouterr()
    assert main(words) == 2
    assert progress.name in capsys.readouterr().err
    assert progress.read_text() == "mine"


def test_a_small_set_gets_a_batch_size_that_fits(here, capsys):
    (here / "own_front.py").write_text(OWN + SMALL)
    words = [*WORDS, "--state", "search.safetensors", "--json"]
    words[words.index("own_front:batches")] = "own_front:few"
    assert main([*words, "--batch-size", "40"]) == 2  # two batches, one is held out
    assert main(words) == 0
    assert Frontier.load("f.json").points


def test_a_frontier_of_the_searched_kernels_alone(here, capsys):
    names = {}
    exec(OWN, names)
    config = recipe("bank", least_steps=0, race_steps=2, count="searched")
    search(names["network"](), names["batches"]()[0], config=config, checkpoint="own.safetensors")
    assert main([*WORDS, "--state", "own.safetensors"]) == 0
    found = Frontier.load("f.json")
    assert "searched" in found.counts
    at = ["plan", "at", "f.json", "--model", "own_front:network", "--out", "p.json"]
    at += ["--shape", "1", "8", "8", "--budget"]
    assert main([*at, str(found.original.cost)]) == 0
    assert SizePlan.load("p.json").cost <= found.original.cost

    content = json.loads((here / "f.json").read_text()) | {"counts": "grams"}
    (here / "f.json").write_text(json.dumps(content))
    capsys.readouterr()
    assert main([*at, "300", "--overwrite"]) == 2
    assert "grams" in capsys.readouterr().err
