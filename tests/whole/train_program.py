"""One rank of a training: `python train_program.py FOLDER` under torchrun."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from effconv_core.distributed.process_group import joined
from effconv_core.engine.train import TrainConfig, evaluate, train
from effconv_data import Batches, synthetic
from safetensors.torch import save_file
from torch import Tensor, nn

BATCH, EPOCHS = 64, 5
CONFIG = TrainConfig(EPOCHS, BATCH, lr=0.05)


def network(seed: int) -> nn.Module:
    """Make a network that treats each image for itself."""
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model


def batches(split: str, rank: int, world_size: int) -> Batches:
    """Give a rank's part of 256 images of training, or of 250 of the test: a short last batch."""
    samples = 256 if split == "train" else 250
    return synthetic(
        6,
        split=split,
        samples=samples,
        batch_size=BATCH // world_size,
        rank=rank,
        world_size=world_size,
    )


def trained(rank: int, world_size: int, group: dist.ProcessGroup | None) -> dict[str, Tensor]:
    """Train for 20 steps; give the parameters, the accuracy, and the images seen in each epoch."""
    model, seen = network(rank), [[] for _ in range(EPOCHS)]
    data = batches("train", rank, world_size)
    model.register_forward_hook(lambda _, inputs, __: seen[data.epoch_now].append(inputs[0]))
    data.epoch_now = 0

    def advance(step: object) -> None:
        data.epoch_now = step.epoch + (step.step + 1 == len(data))

    train(model, data, CONFIG, on_step=advance, group=group)
    model._forward_hooks.clear()
    # Tells images apart.
    weights = torch.arange(24 * 24, dtype=torch.float64).cos()
    accuracy = evaluate(model, batches("test", rank, world_size), group)
    return {
        **{name: parameter.detach() for name, parameter in model.named_parameters()},
        "accuracy": torch.tensor(accuracy),
        "seen": torch.stack([torch.cat(images).flatten(1).double() @ weights for images in seen]),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined("cpu") as (rank, world_size, group, _):
        save_file(trained(rank, world_size, group), Path(sys.argv[1]) / f"{rank}.tensors")
