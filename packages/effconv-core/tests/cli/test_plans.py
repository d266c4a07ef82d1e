"""The command `effconv`, from its words to its files."""

import json
import re
import subprocess
import sys

import pytest
from effconv_core import SearchableCNN, SearchConfig, SizePlan, load
from effconv_core.cli import main
from effconv_core.cli.specifiers.model import make_model

NET = """
from torch import nn


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2)
    )


def number():
    return 7


def broken():
    raise RuntimeError("out of paint")
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a network of one's own and two plans of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_net", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "own_net.py").write_text(NET)
    names = {}
    exec(NET, names)
    searchable = SearchableCNN(names["network"](), allowed={"2": range(1, 8, 2)})
    searchable.plan(1_840).save("a.json")
    searchable.plan(3_440).save("b.json")
    return tmp_path


def rows(text):
    """The cells of a printed table, by its first column."""
    cells = [[c.strip() for c in re.split("[│┃]", line)[1:-1]] for line in text.splitlines()]
    return {row[0]: row[1:] for row in cells if row}


def test_show(here, capsys):
    assert main(["plan", "show", "a.json", "--out", "a.png"]) == 0
    out = capsys.readouterr().out
    plan = SizePlan.load("a.json")
    printed = rows(out)
    for name, allowed in (("1", "1 to 7"), ("2", "1 to 7 by 2")):
        size, soft = plan[name], f"{plan.soft_sizes[name]:.2f}"
        assert printed[name] == [str(size), soft, allowed, "█" * size]
    assert f"cost: {plan.cost:,} parameters" in out
    assert "budget: 1,840 parameters, of which" in out
    assert "for a Sequential, by effconv-core" in out
    assert (here / "a.png").read_bytes().startswith(b"\x89PNG")


def test_show_of_a_plan_written_by_hand_with_sizes_per_axis(here, capsys):
    SizePlan({"[bold]x": (3, 5)}).save("hand.json")
    assert main(["plan", "show", "hand.json"]) == 0
    assert rows(capsys.readouterr().out)["[bold]x"] == ["3x5", "", "", "█" * 5]


def test_diff(here, capsys):
    plan = SizePlan.load("a.json")
    SizePlan({"1": plan["1"], "3": (1, 2)}).save("c.json")
    assert main(["plan", "diff", "a.json", "b.json", "c.json", "--out", "d.svg"]) == 0
    out = capsys.readouterr().out
    printed, other = rows(out), SizePlan.load("b.json")
    assert printed["layer"] == ["a", "b", "c", "differs"]
    assert printed["1"] == [str(plan["1"]), str(other["1"]), str(plan["1"]), "yes"]
    assert printed["3"] == ["-", "-", "1x2", "yes"]
    assert printed["parameters"] == [f"{plan.cost:,}", f"{other.cost:,}", "", ""]
    assert "3 of 3 layers differ" in out
    assert (here / "d.svg").read_bytes().startswith(b"<?xml")


def test_json_of_a_plan_and_of_a_comparison_is_all_that_is_printed(here, capsys):
    assert main(["plan", "show", "a.json", "--json", "--out", "a.png"]) == 0
    out, err = capsys.readouterr()
    assert (SizePlan.from_json(out), err) == (SizePlan.load("a.json"), "")
    assert (here / "a.png").exists()
    SizePlan({"1": SizePlan.load("a.json")["1"], "3": (1, 2)}).save("c.json")
    assert main(["plan", "diff", "a.json", "c.json", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    plan = SizePlan.load("a.json")
    assert told == {
        "sizes": {"a": plan.sizes, "c": {"1": plan["1"], "3": [1, 2]}},
        "parameters": {"a": plan.cost, "c": None},
        "different": ["2", "3"],
    }


def test_diff_of_equal_plans_in_files_of_one_name(here, capsys):
    (here / "sub").mkdir()
    SizePlan.load("a.json").save("sub/a.json")
    assert main(["plan", "diff", "a.json", "sub/a.json"]) == 0
    out = capsys.readouterr().out
    assert rows(out)["layer"] == ["a.json", "sub/a.json", "differs"]
    assert "0 of 2 layers differ" in out


def test_apply(here, capsys):
    words = ["plan", "apply", "a.json", "--model", "own_net:network", "--out"]
    assert main([*words, "cnn.safetensors"]) == 0
    plan = SizePlan.load("a.json")
    out = capsys.readouterr().out
    assert f"own_net:network: {plan.cost:,} parameters" in out
    assert "the plan says" not in out
    cnn = load(make_model("own_net:network"), "cnn.safetensors")
    assert sum(p.numel() for p in cnn.parameters()) == plan.cost
    capsys.readouterr()
    assert main([*words, "cnn.safetensors"]) == 2
    assert "cnn.safetensors exists; pass --overwrite" in capsys.readouterr().err
    assert main([*words, "cnn.safetensors", "--overwrite"]) == 0


def test_apply_refuses_a_network_of_another_number_of_classes(here, capsys):
    model = make_model("effconv:cifar_resnet20", num_classes=7)
    plan = SearchableCNN(model).plan()
    plan.save("seven.json")
    words = ["plan", "apply", "seven.json", "--model=effconv:cifar_resnet20", "--out=cnn"]
    for more in ([], ["--num-classes=8"]):
        assert main([*words, *more]) == 2
        assert "--num-classes" in capsys.readouterr().err
        assert not (here / "cnn").exists()
    assert main([*words, "--num-classes=7"]) == 0
    assert sum(p.numel() for p in load(model, "cnn").parameters()) == plan.cost


def test_apply_to_the_network_of_grey_images(here, capsys):
    model = make_model("effconv:cifar_resnet20", num_classes=10, channels=1)
    plan = SearchableCNN(model).plan()
    plan.save("grey.json")
    words = ["plan", "apply", "grey.json", "--model=effconv:cifar_resnet20", "--out=cnn"]
    assert main(words) == 2
    assert "--channels" in capsys.readouterr().err
    assert main([*words, "--channels=1"]) == 0
    assert load(model, "cnn").conv1.in_channels == 1


def test_apply_takes_a_plan_whose_search_counted_its_own_layers_alone(here):
    model = make_model("own_net:network")
    plan = SearchableCNN(model, SearchConfig(count="searched")).plan()
    plan.save("searched.json")
    words = ["plan", "apply", "searched.json", "--model=own_net:network", "--out=cnn"]
    assert main(words) == 0


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("torchvision:resnet18", "torchvision"),
        ("timm:resnet10t", "timm"),
        ("effconv:cifar_resnet20", "effconv_models"),
    ],
)
def test_apply_to_networks_by_name(here, capsys, name, package):
    pytest.importorskip(package)
    SizePlan({"layer1.0.conv1": 5}).save("one.json")
    assert main(["plan", "apply", "one.json", "--model", name, "--out", "cnn.safetensors"]) == 0
    model = make_model(name)
    conv = model.get_submodule("layer1.0.conv1")
    more = conv.in_channels * conv.out_channels * (25 - 9)
    count = sum(p.numel() for p in model.parameters()) + more
    assert f"{name}: {count:,} parameters" in capsys.readouterr().out
    built = load(model, "cnn.safetensors").get_submodule("layer1.0.conv1")
    assert built.kernel_size == (5, 5)


APPLY = ["plan", "apply", "a.json", "--out", "cnn.safetensors", "--model"]
MISTAKES = {
    "no file": (["plan", "show", "none.json"], "none.json: No such file"),
    "no plan": (["plan", "show", "own_net.py"], "own_net.py: the plan is not JSON"),
    "figure": (["plan", "show", "a.json", "--out", "a.gif"], "figure a.gif is to be '.gif'"),
    "one plan": (["plan", "diff", "a.json"], "diff has 1 plan(s); pass the files of two"),
    "twice": (["plan", "diff", "a.json", "a.json"], "diff has the same file twice"),
    "command": (["plot"], "command 'plot' is unknown; pass one of search, train, "),
    "no folder": (
        ["plan", "apply", "a.json", "--out", "none/x.safetensors", "--model", "own_net:network"],
        "none/x.safetensors: its folder is missing",
    ),
    "a folder as the file": (
        [*APPLY[:4], ".", "--overwrite", "--model", "own_net:network"],
        ".: it is a folder",
    ),
    "a folder as the plan": ([*APPLY[:2], ".", *APPLY[3:], "own_net:network"], ". is a folder"),
    "a folder as the frontier": (
        ["plan", "at", ".", "--model=own_net:network", "--budget=9", "--out=p.json"],
        "plan: . is not a regular file",
    ),
    "classes of a function": ([*APPLY, "own_net:network", "--num-classes=9"], "--num-classes is 9"),
    "channels of a function": ([*APPLY, "own_net:network", "--channels=1"], "--channels is 1"),
    "no folder for the figure": (["plan", "show", "a.json", "--out", "none/a.png"], "none/a.png"),
    "no colon": ([*APPLY, "resnet18"], "model 'resnet18' names no network; pass torchvision:NAME"),
    "no package": (
        [*APPLY, "no_such:f"],
        "cannot be made (ModuleNotFoundError: No module named 'no_such')",
    ),
    "no function": ([*APPLY, "own_net:f"], "has no attribute 'f'"),
    "no module": ([*APPLY, "own_net:number"], "model 'own_net:number' gave a int"),
    "broken": ([*APPLY, "own_net:broken"], "cannot be made (RuntimeError: out of paint)"),
    "unknown": ([*APPLY, "effconv:vgg0"], "model 'vgg0' is unknown"),
    "other": ([*APPLY, "effconv:cifar_resnet20"], "layer '1' of the plan is not in the model"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_status_2(here, capsys, case):
    words, sentence = MISTAKES[case]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert sentence in err
    assert err.startswith("effconv")
    assert err.count("\n") == 1
    assert not out
    assert not (here / "cnn.safetensors").exists()


def test_help_and_words_that_do_not_parse(here, capsys):
    assert main([]) == main(["--help"]) == 0
    assert capsys.readouterr().out.count("usage: effconv COMMAND") == 2
    with pytest.raises(SystemExit) as stop:
        main(["plan", "show"])
    assert stop.value.code == 2


def test_as_a_process(here):
    process = subprocess.run(
        [sys.executable, "-m", "effconv_core.cli", "plan", "show", "none.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_ends_a_short_command_in_order_too(name, status, here):
    (here / "own_net.py").write_text(
        NET + "\n\nimport os, signal, time\n\n\ndef stops():\n"
        f"    os.kill(os.getpid(), signal.{name})\n    time.sleep(60)\n"
    )
    before = sorted(here.iterdir())
    words = ["plan", "apply", "a.json", "--model", "own_net:stops", "--out", "cnn.safetensors"]
    process = subprocess.run(
        [sys.executable, "-B", "-m", "effconv_core.cli", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=here,
        timeout=50,
    )
    assert process.returncode == status
    assert name in process.stderr
    assert "Traceback" not in process.stderr
    assert sorted(here.iterdir()) == before
