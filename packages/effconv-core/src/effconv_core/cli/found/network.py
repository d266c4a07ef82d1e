"""The network that a run has trained, and what it takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from effconv_core.cli.specifiers.data import make_data
from effconv_core.cli.specifiers.model import make_model
from effconv_core.io.read_json import conform
from effconv_core.io.schemas import Inputs
from effconv_core.plan import load
from effconv_core.runs.reader import read_config

CNN = "cnn.safetensors"


@dataclass(frozen=True)
class Found:
    """The network of a run.

    Attributes:
        cnn: in evaluation mode, on the device.
        inputs: what it takes.
        data: the word for the data of the run.
        seed: of the run.
    """

    cnn: nn.Module
    inputs: Inputs
    data: str
    seed: int = 0

    def class_name(self, label: int) -> str:
        """Return the name of a class, its number where the run knows none."""
        return self.inputs.classes[label] if label < len(self.inputs.classes) else str(label)


def found_in(folder: Path, device: str) -> Found:
    """Read the trained network of a run.

    Args:
        folder: of a run of `effconv search` or `effconv train`.
        device: where the network is put.

    Raises:
        ValueError: if the folder holds no such network, or it cannot be built.
        FileNotFoundError: if the run is of an earlier release, and its data are gone.
    """
    try:
        config = read_config(folder)
    except FileNotFoundError:
        raise ValueError(
            f"{folder} is no run: it has no config.json; pass a run's folder"
        ) from None
    if not (folder / CNN).is_file():
        raise ValueError(
            f"run {folder} has no {CNN}, so its network was not trained to the end; give the run's "
            "command again, without --search-only"
        )
    settings = config.settings
    model, data = settings.get("model"), settings.get("data")
    if not isinstance(model, str) or not isinstance(data, str):
        raise ValueError(f"{folder / 'config.json'} names no model and data; pass another run")
    inputs = _inputs(config.inputs, folder, data, device)
    classes = settings.get("num_classes") or inputs.num_classes
    name = model if ":" in model else f"effconv:{model}"  # commands of `hatch run` name those only
    network = make_model(name, num_classes=classes, channels=inputs.shape[0], seed=0)
    network = load(network, folder / CNN)
    network.to(device)
    network.eval()
    seed = settings.get("seed")
    return Found(network, inputs, data, seed if isinstance(seed, int) else 0)


def _inputs(kept: dict[str, Any], folder: Path, data: str, device: str) -> Inputs:
    """Return what a run says that its network takes; of an older one, what its data are."""
    if not kept:
        kept = make_data(data, batch_size=1, device=device).inputs
    return conform(kept, Inputs, what=f"inputs of {folder / 'config.json'}")


def scores_of(found: Found, images: torch.Tensor) -> torch.Tensor:
    """Return scores `(B, classes)` of normalised images `(B, *shape)`, on the CPU."""
    device = next(found.cnn.parameters()).device
    with torch.no_grad():
        return found.cnn(images.to(device)).float().cpu()
