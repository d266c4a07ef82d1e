"""`hatch run train:flextcn` from recordings to a report."""

import pytest
import torch
from effconv_data import ResidentBatches
from rich.console import Console

from tools.train import flexnet

SHORT = ["--conv.hidden", "4", "--channels", "4", "--train.epochs", "1", "--device", "cpu"]


@pytest.fixture
def sequences(monkeypatch):
    """Let every split be noise with a class in its mean."""

    def made(data, split, *, batch_size, seed, **_):
        labels = torch.arange(24) % 2
        samples = torch.randint(-100, 100, (24, 1, 64), dtype=torch.int16)
        samples += (1000 * labels[:, None, None]).to(torch.int16)
        return ResidentBatches(
            samples,
            labels,
            classes=("low", "high"),
            batch_size=min(batch_size, 12),
            training=split == "train",
            mean=[0.0],
            std=[0.01],
            seed=seed,
        )

    monkeypatch.setattr(flexnet, "make_batches", made)
    monkeypatch.setattr(flexnet, "data_note", lambda data: "made up")


def test_a_flextcn_is_trained_and_reported(sequences, tmp_path):
    words = ["--data", "spoken-digits", "--model", "flextcn2", "--runs", str(tmp_path)]
    folder = flexnet.command([*words, *SHORT], Console(quiet=True))
    report = (folder / "report.md").read_text()
    for layer in ("blocks.0.conv1", "blocks.1.conv2"):
        assert f"| {layer} |" in report
    assert (folder / "cnn.safetensors").is_file()


@pytest.mark.parametrize("model", ["flexnet3", "flexnet16"])
def test_a_network_for_images_is_refused_before_training(sequences, tmp_path, model):
    words = ["--data", "smnist", "--model", model, "--runs", str(tmp_path)]
    with pytest.raises(ValueError, match=model):
        flexnet.command([*words, *SHORT], Console(quiet=True))
    assert not list(tmp_path.iterdir())
