"""`effconv evaluate`, `predict` and `export`: the network of a run is tested, used, handed on."""

import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from effconv_core import SizePlan, apply_plan, save
from effconv_core.cli import main
from effconv_core.engine.by_class import evaluate_by_class, interval
from effconv_core.engine.train import evaluate
from effconv_core.runs.owner import mark
from PIL import Image
from torch import nn

NET = """
import torch
from torch import nn


def network():
    generator = torch.Generator().manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3),
    )
    net[-1].weight.data = 100 * torch.randn(3, 32, generator=generator)
    net[-1].weight.data[0] = -net[-1].weight.data[1]  # either is the likelier of some
    net[-1].bias.data.zero_()
    return net


def loaders(batch_size, seed):
    images = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    images += torch.linspace(-5, 5, 40)[:, None, None, None]
    labels = torch.arange(40) % 3
    batches = list(zip(images.split(30), labels.split(30), strict=True))
    return batches, batches
"""
SHAPE = (3, 8, 10)
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run whose network is a plan's CNN, as a run leaves it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "found_net", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "found_net.py").write_text(NET)
    folder = tmp_path / "runs" / "one"
    mark(folder)
    names = {}
    exec(NET, names)
    plan = SizePlan({"2": 4})
    save(
        apply_plan(names["network"](), plan, generator=torch.Generator().manual_seed(2)),
        plan,
        folder / CNN,
    )
    write_config(folder)
    return folder


CNN = "cnn.safetensors"


def write_config(folder, seed=0, **changes):
    inputs = {
        "shape": SHAPE,
        "num_classes": 3,
        "classes": ["ash", "[b]ee", "cat"],
        "mean": MEAN,
        "std": STD,
    }
    settings = {"model": "found_net:network", "data": "found_net:loaders", "device": "cpu"}
    settings["seed"] = seed
    content = {"settings": settings, "environment": {"data": "x"}, "inputs": inputs | changes}
    (folder / "config.json").write_text(json.dumps(content))


def cnn_of(folder):
    from effconv_core import load
    from effconv_core.cli.specifiers.model import make_model

    return load(make_model("found_net:network"), folder / CNN).eval()


@pytest.mark.parametrize("seed", [0, 4])
def test_evaluate_counts_each_class(seed, run, capsys):
    write_config(run, seed)
    assert main(["evaluate", "--run", str(run), "--json", "--device=cpu"]) == 0
    told = json.loads(capsys.readouterr().out)
    sys.modules.pop("found_net", None)
    names = {}
    exec(NET, names)
    batches, cnn = names["loaders"](2, seed)[1], cnn_of(run)
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    scores = cnn(images)
    guesses = scores.argmax(1)
    assert len(guesses.unique()) > 1
    assert told["accuracy"] == int((guesses == labels).sum()) / 40 == evaluate(cnn, batches)
    assert told["loss"] == pytest.approx(nn.functional.cross_entropy(scores, labels).item())
    expected = [[int(((labels == t) & (guesses == g)).sum()) for g in range(3)] for t in range(3)]
    assert (told["confusion"], told["samples"]) == (expected, 40)
    assert main(["evaluate", "found_net:loaders", "--run", str(run), "--limit=32"]) == 0
    out = capsys.readouterr().out
    assert "of 32 images" in out
    assert "[b]ee" in out


def test_the_worst_mistakes_are_the_surest_of_all():
    scores = torch.tensor([[3.0, 0], [0, 1], [0, 5], [4, 0], [0, 2]])
    labels = torch.tensor([1, 0, 0, 0, 1])
    batches = [(scores[:3], labels[:3]), (scores[3:], labels[3:])]
    outcome = evaluate_by_class(nn.Identity(), batches, worst=2)
    assert [m.index for m in outcome.mistakes] == [2, 0]
    assert [(m.label, m.guess) for m in outcome.mistakes] == [(0, 1), (1, 0)]
    assert torch.equal(outcome.mistakes[0].image, scores[2])
    assert outcome.confusion.tolist() == [[1, 2], [1, 1]]
    assert [m.index for m in evaluate_by_class(nn.Identity(), batches, worst=9).mistakes] == [
        *(2, 0, 1)
    ]
    with pytest.raises(ValueError, match="label"):
        evaluate_by_class(nn.Identity(), [(scores, labels * 2)])


@pytest.mark.parametrize(("right", "samples"), [(0, 10), (10, 10), (37, 50)])
def test_an_interval_holds_the_share_and_stays_within_zero_and_one(right, samples):
    low, high = interval(right / samples, samples)
    assert 0 <= low <= right / samples <= high <= 1
    assert high - low > 0.05


def picture(path, size=(10, 8), mode="RGB", **options):
    random = np.random.default_rng(len(path.name))
    shape = (size[1], size[0], len(mode)) if len(mode) > 1 else (size[1], size[0])
    Image.fromarray(random.integers(0, 255, shape, dtype=np.uint8), mode).save(path, **options)
    return path


def test_predict_gives_what_the_network_gives_for_the_normalised_image(run, tmp_path, capsys):
    path = picture(tmp_path / "a.png")
    pixels = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1).float() / 255
    image = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    expected = cnn_of(run)(image[None]).softmax(1)[0]
    words = ["predict", str(path), "--run", str(run), "--device=cpu"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)[str(path)]
    names = ["ash", "[b]ee", "cat"]
    assert list(told) == [names[i] for i in expected.argsort(descending=True)]
    for name, value in zip(names, expected.tolist(), strict=True):
        assert told[name] == pytest.approx(value, abs=1e-5)
    assert main([*words, "--top=1"]) == 0
    assert names[int(expected.argmax())] in capsys.readouterr().out


def test_predict_reads_an_image_as_the_preparation_of_a_folder_does(run, tmp_path, capsys):
    folder = pytest.importorskip("effconv_data.prepare.folder")
    from effconv_core.cli.found.predict import read_images
    from effconv_core.io.schemas import Inputs

    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    paths = [
        picture(tmp_path / "large.jpg", (40, 17), exif=exif),
        picture(tmp_path / "small.png", (4, 5)),
        picture(tmp_path / "clear.png", (20, 20), "RGBA"),
        picture(tmp_path / "grey.png", (30, 8), "L"),
    ]
    for channels, mode in ((3, "RGB"), (1, "L")):
        inputs = Inputs([channels, 8, 10], mean=[0.0] * channels, std=[1.0] * channels)
        images = (read_images(paths, inputs, "x") * 255).round().to(torch.uint8)
        prepared = folder._decode_all(paths, mode, (10, 8))
        assert torch.equal(images.permute(0, 2, 3, 1), torch.from_numpy(prepared))


def test_predict_refuses_an_image_of_more_than_8_bits(run, tmp_path, capsys):
    deep = np.arange(80, dtype=np.uint16).reshape(8, 10) * 500
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert main(["predict", "deep.png", "--run", str(run), "--device=cpu"]) == 2
    err = capsys.readouterr().err
    assert "deep.png" in err
    assert "I;16" in err


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_export_is_the_network_for_batches_of_any_size(run, tmp_path, capsys, kind):
    for name in ("onnx", "onnxscript", "onnxruntime") if kind == "onnx" else ():
        pytest.importorskip(name)
    words, path = ["export", "--run", str(run), f"--{kind}"], tmp_path / f"net.{kind}"
    before = set(tmp_path.iterdir())
    assert main([*words, str(path)]) == 0
    assert set(tmp_path.iterdir()) - before - {tmp_path / "__pycache__"} == {path}
    images = torch.randn(5, *SHAPE)
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        (given,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        told = session.get_modelmeta().custom_metadata_map["inputs"]
    else:
        extra = {"inputs.json": ""}
        given = torch.export.load(path, extra_files=extra).module()(images).detach()
        told = extra["inputs.json"]
    expected = cnn_of(run)(images).detach()
    torch.testing.assert_close(torch.as_tensor(given), expected, atol=1e-4, rtol=1e-4)
    assert json.loads(told)["mean"] == MEAN
    assert main([*words, str(path)]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_what_differs_from_the_network_is_not_written(run, tmp_path, monkeypatch, capsys):
    other = SimpleNamespace(module=lambda: lambda images: torch.zeros(len(images), 3))
    monkeypatch.setattr(torch.export, "load", lambda file: other)
    before = set(tmp_path.rglob("*.pt2*"))
    assert main(["export", "--run", str(run), "--pt2", "net.pt2"]) == 2
    assert "differ" in capsys.readouterr().err
    assert set(tmp_path.rglob("*.pt2*")) == before


MISTAKES = {
    "no run": (["evaluate", "--run", "."], "config.json"),
    "not trained": (["predict", "a.png", "--run", "runs/bare"], CNN),
    "nothing to write": (["export", "--run", "runs/one"], "--onnx"),
    "no such folder": (["export", "--run", "runs/one", "--pt2", "no/a.pt2"], "no"),
    "file as a run": (["evaluate", "--run", "a.png"], "a.png/config.json: Not a directory; pass"),
    "half a network": (["export", "--run", "runs/half", "--pt2", "x"], CNN),
    "text as image": (["predict", "found_net.py", "--run", "runs/one"], "not an image in one of"),
    "half an image": (
        ["predict", "half.png", "--run", "runs/one"],
        "half.png (image file is trunc",
    ),
    "large image": (["predict", "large.png", "--run", "runs/one"], "more than 100 pixels"),
    "no image": (["predict", "found_net.py", "none.png", "--run", "runs/one"], "none.png"),
    "limit": (["evaluate", "--run", "runs/one", "--limit=0"], "limit is 0"),
    "split": (["evaluate", "--run", "runs/one", "--split=val"], "'val'"),
    "two formats in one": (["export", "--run", "runs/one", "--pt2", "x", "--onnx", "./x"], "x"),
    "top": (["predict", "a.png", "--run", "runs/one", "--top=0"], "top is 0"),
    "no normalisation": (["predict", "a.png", "--run", "runs/odd"], "normalised"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence_and_status_2(run, tmp_path, case, capsys, monkeypatch):
    picture(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    Image.new("1", (20, 20)).save("large.png")
    if case == "large image":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    for name in ("bare", "odd", "half"):
        (run.parent / name).mkdir()
        write_config(run.parent / name, mean=None, std=None)
    (run.parent / "odd" / CNN).write_bytes((run / CNN).read_bytes())
    (run.parent / "half" / CNN).write_bytes((run / CNN).read_bytes()[:-9])
    words, part = MISTAKES[case]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert part in err
    assert "Errno" not in err
    assert not (tmp_path / "x").exists()
    assert (err.count("\n"), out) == (1, "")


def test_a_run_of_an_earlier_release_takes_what_its_data_are(run, capsys):
    content = json.loads((run / "config.json").read_text())
    del content["inputs"]
    (run / "config.json").write_text(json.dumps(content))
    assert main(["evaluate", "--run", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == ["0", "1", "2"]


def test_list_says_how_far_each_run_is(run, capsys):
    (run / "result.json").write_text(
        json.dumps({"networks": {"learned": {"parameters": 1234, "test_accuracy": 0.875}}})
    )
    for name, files in {"two": ("config.json", "effconv-run.json"), "theirs": ()}.items():
        (run.parent / name).mkdir()
        for file in files:
            (run.parent / name / file).write_bytes((run / file).read_bytes())
    (run.parent / "theirs" / "notes.txt").write_text("mine")
    assert main(["list", "--json"]) == 0
    one, two = json.loads(capsys.readouterr().out)
    assert (one["run"], one["parameters"], one["accuracy"]) == ("one", 1234, 0.875)
    assert (two["run"], two["accuracy"]) == ("two", None)
    assert one["state"] != two["state"]
    assert main(["list", str(run.parent)]) == 0
    assert re.search(r"one.*1,234.*87\.50%", capsys.readouterr().out)
    (run / "result.json").write_text("{")
    assert main(["list", "--json"]) == 0
    assert "result.json" in json.loads(capsys.readouterr().out)[0]["state"]
    assert main(["list", "none"]) == 2


def test_models_prints_names_that_make_a_network(capsys):
    pytest.importorskip("effconv_models")
    from effconv_core.cli.specifiers.model import make_model

    assert main(["models", "cifar_resnet2*"]) == 0
    names = capsys.readouterr().out.split()
    assert "effconv:cifar_resnet20" in names
    assert all(re.fullmatch(r"\w+:cifar_resnet2\d*", name) for name in names)
    make_model("effconv:cifar_resnet20", num_classes=4)
    assert main(["models", "no-such*"]) == 2
