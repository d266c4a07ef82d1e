"""The networks that the command `effconv` makes by their names, and as they came."""

import os
import sys
from pathlib import Path

import pytest
import torch
from effconv_core.cli.pipeline import fresh_cnn, original_sizes, placed
from effconv_core.cli.resolve import make_data, make_model, make_test
from effconv_core.distributed.process_group import Ranks
from effconv_core.engine.train import TrainConfig
from effconv_core.runs.options import RunOptions
from torch import nn


@pytest.mark.parametrize(
    ("name", "package"),
    [("torchvision:resnet18", "torchvision"), ("timm:resnet10t", "timm"), ("effconv:resnet18", "")],
)
def test_networks_by_name_take_the_classes_and_the_channels_of_the_set(name, package):
    pytest.importorskip(package or "effconv_models")
    channels = 3 if package == "torchvision" else 1
    model = make_model(name, num_classes=7, channels=channels, seed=5)
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, channels, 64, 64)).shape == (1, 7)
    same, other = (make_model(name, num_classes=7, channels=channels, seed=s) for s in (5, 6))
    first = next(model.parameters())
    assert torch.equal(next(same.parameters()), first)
    assert not torch.equal(next(other.parameters()), first)


def test_the_original_sizes_of_kernels_of_any_kind():
    convs = nn.Conv2d(1, 1, (1, 7)), nn.Conv2d(1, 1, 3), nn.Conv3d(1, 2, 3), nn.Conv1d(1, 1, 5)
    model = nn.Sequential(*convs)
    sizes = original_sizes(model, ["0", "1", "2", "3"])
    assert sizes == {"0": (1, 7), "1": 3, "2": 3, "3": 5}
    options = RunOptions(train=TrainConfig())
    fresh = fresh_cnn(placed(model, options, Ranks(0, 1, None, "cpu")), sizes, options)
    assert [m.weight.shape for m in fresh] == [m.weight.shape for m in model]


@pytest.mark.parametrize(
    "scheme", ["pipe:touch {}", "pipe:touch {} #.tar", "sftp://{}", "gs://{}.tar"]
)
def test_the_word_for_the_data_runs_no_program(scheme, tmp_path, monkeypatch):
    for name in ("curl", "gsutil"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("EFFCONV_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="allow_commands"):
        make_data(scheme.format(tmp_path / "ran"), batch_size=1, device="cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("root", ["", "sets"])
@pytest.mark.parametrize(
    ("name", "kind"), [("cifar10", "cifar10"), ("photos", "folder --source IMAGES")]
)
def test_a_set_that_is_missing_is_refused_with_the_command_that_makes_it(
    name, kind, root, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EFFCONV_DATA", root)
    place = Path(root) / name
    with pytest.raises(FileNotFoundError, match=f"`effconv data prepare {kind} --out {place}`"):
        make_data(name, batch_size=4, device="cpu")


def test_the_test_of_a_small_set_of_a_function_needs_no_full_batch_of_training(
    tmp_path, monkeypatch
):
    (tmp_path / "own_small.py").write_text(
        "import torch\n"
        "from torch.utils.data import DataLoader, TensorDataset\n\n\n"
        "def few(batch_size=8, seed=0):\n"
        "    data = TensorDataset(torch.zeros(20, 1, 4, 4), torch.arange(20) % 2)\n"
        "    test = DataLoader(data, batch_size)\n"
        "    return DataLoader(data, batch_size, drop_last=True), test\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    labels = [labels for _, labels in make_test("own_small:few", batch_size=500)]
    assert sum(map(len, labels)) == 20
