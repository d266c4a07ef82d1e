"""Options of a run: what is held out of a training or left out of a set, and an open budget."""

import json
import sys

import numpy as np
import pytest
from effconv_core import SizePlan, load
from effconv_core.cli import main
from effconv_core.cli.specifiers.data import make_data
from effconv_core.cli.specifiers.model import make_model
from effconv_core.engine.train import evaluate
from PIL import Image

NET = """
from torch import nn


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1), nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )


def loaders(batch_size, seed):
    return [], []
"""


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder with a network and a set of 60 and 20 different images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "validated_net", raising=False)
    (tmp_path / "validated_net.py").write_text(NET)
    random = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 20)):
        for number in range(count):
            folder = tmp_path / "source" / split / ("dark", "light")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(60 * (number % 2), 190, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    words = ["data", "prepare", "folder", "--source=source", "--out=photos", "--workers=1"]
    assert main(words) == 0
    yield tmp_path
    sys.modules.pop("validated_net", None)


def images_of(loader):
    return {tuple(image.flatten().tolist()) for images, _ in loader for image in images}


def test_what_is_held_out_is_in_no_batch_of_the_training_and_depends_on_the_seed_alone(photos):
    def parts(**options):
        data = make_data("photos", batch_size=5, device="cpu", **options)
        return images_of(data.train(5)), data.val and images_of(data.val(5)), data.samples

    whole, nothing, _ = parts()
    assert (len(whole), nothing) == (60, None)
    train, val, samples = parts(val_fraction=0.25)
    assert (len(train), len(val), samples) == (45, 15, 45)
    assert train | val == whole
    assert parts(val_fraction=0.25)[1] == val != parts(val_fraction=0.25, seed=1)[1]
    assert parts(limit=20)[0] < whole
    few = make_data("photos", batch_size=5, device="cpu", limit=20, val_fraction=0.5)
    assert (few.samples, len(images_of(few.val(5)))) == (10, 10)
    assert sum(len(labels) for _, labels in few.test()) == 20


def test_each_epoch_has_a_validation_accuracy_and_the_run_names_the_best(photos, capsys):
    words = ["train", "validated_net:network", "photos", "--name=one", "--device=cpu"]
    words += ["--train.epochs=3", "--train.batch-size=9", "--train.lr=0.3", "--json"]
    assert main([*words, "--val-fraction=0.25"]) == 0
    result = json.loads(capsys.readouterr().out)["networks"]["original"]
    rows = [json.loads(row) for row in (photos / "runs/one/metrics.jsonl").open()]
    course = [row["val_accuracy"] for row in rows if "val_accuracy" in row]
    assert [row["global_step"] for row in rows if "val_accuracy" in row] == [5, 10, 15]
    assert result["val_accuracy"] == course[-1]
    assert result["best_val_accuracy"] == max(course) == course[result["best_epoch"] - 1]
    cnn = load(make_model("validated_net:network"), photos / "runs/one/cnn.safetensors")
    data = make_data("photos", batch_size=9, device="cpu", val_fraction=0.25)
    assert evaluate(cnn, data.val(9)) == course[-1]
    settings = json.loads((photos / "runs/one/config.json").read_text())["settings"]
    assert settings["val_fraction"] == 0.25
    assert "limit" not in settings


def test_a_budget_that_no_plan_reaches_is_taken_where_plans_may_cost_less(photos, capsys):
    words = ["search", "validated_net:network", "photos", "--name=one", "--device=cpu"]
    words += ["--search-only", "--search.epochs=1", "--search.least-steps=0", "--batch-size=20"]
    words += ["--search.finalists=1", "--search.race-steps=0", "--budget=100000"]
    assert main(words) == 2
    assert not (photos / "runs").exists()
    assert main([*words, "--at-most"]) == 0
    (bound,) = SizePlan.load("runs/one/plan.json").budgets
    assert bound["at_most"]
    assert 0 < bound["cost"] <= 100_000


def test_a_set_smaller_than_the_usual_batch_gets_one_that_fits(photos):
    words = ["validated_net:network", "photos", "--train.epochs=1", "--name=one", "--device=cpu"]
    assert main(["train", *words]) == 0
    settings = json.loads((photos / "runs/one/config.json").read_text())["settings"]
    assert settings["train"]["batch_size"] == 8


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["photos", "--val-fraction=1.5"], "val_fraction is 1.5"),
        (["photos", "--limit=0"], "limit"),
        (["validated_net:loaders", "--val-fraction=0.2"], "val_fraction"),
        (["validated_net:loaders", "--limit=5"], "limit"),
    ],
)
def test_a_share_or_a_limit_that_cannot_be_is_refused(photos, words, part, capsys):
    assert main(["train", "validated_net:network", *words, "--device=cpu"]) == 2
    assert part in capsys.readouterr().err
    assert not (photos / "runs").exists()


def test_another_set_is_tested_as_the_run_normalises_and_of_another_shape_refused(photos, capsys):
    words = ["train", "validated_net:network", "photos", "--name=one", "--device=cpu"]
    assert main([*words, "--train.epochs=1", "--train.batch-size=9"]) == 0
    for image in (photos / "source" / "train").rglob("*.png"):  # other statistics, the same test
        Image.fromarray(np.asarray(Image.open(image)) // 4).save(image)
    assert main(["data", "prepare", "folder", "--source=source", "--out=darker"]) == 0
    for image in (photos / "source").rglob("*.png"):
        Image.open(image).resize((12, 12)).save(image)
    assert main(["data", "prepare", "folder", "--source=source", "--out=larger"]) == 0
    capsys.readouterr()
    told = []
    for name in ("photos", "darker"):
        assert main(["evaluate", name, "--run=runs/one", "--device=cpu", "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0] == told[1]
    assert main(["evaluate", "larger", "--run=runs/one", "--device=cpu"]) == 2
    assert "(3, 12, 12)" in capsys.readouterr().err
