"""Faults of one rank of two: `python failure_program.py FOLDER`, and what each rank raises then."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.nn.functional as F
from effconv_core import SearchableCNN, frontier, recipe, search, tournament
from effconv_core.cli.search_train import search_command, train_command
from effconv_core.distributed.consistency import check_same
from effconv_core.distributed.process_group import joined
from effconv_core.engine.probe import probe
from effconv_core.engine.train import TrainConfig, evaluate, train
from torch import Tensor, nn

CONFIG = recipe("bank", least_steps=0, epochs=1, race_steps=2, finalists=4)
TRAINING = TrainConfig(2, 8)
OWN = """
import os
import torch
from torch import nn

RANK = int(os.environ["RANK"])

def network():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

def batches(count):
    generator = torch.Generator().manual_seed(RANK)
    return [(torch.randn(4, 1, 8, 8, generator=generator), torch.tensor([0, 1, 0, 1]))
            for _ in range(count)]

def missing(batch_size, seed):
    if RANK == 1:
        raise FileNotFoundError("images.bin")
    return batches(6), batches(2)

def fewer(batch_size, seed):
    return batches(6), batches(6 - RANK), batches(2)

def shorter(batch_size, seed):
    return batches(6 - RANK), batches(2)

def uneven(batch_size, seed):
    return batches(6 - RANK * (batch_size == 8)), batches(2)

class Breaking:
    def __init__(self, given, end):
        self.given, self.end = given, end

    def __len__(self):
        return len(self.given)

    def __iter__(self):
        for number, batch in enumerate(self.given):
            if RANK == 1 and number == 2:
                self.end()
            yield batch

def damaged():
    raise ValueError("image 9 is damaged")

def breaking(batch_size, seed):
    return Breaking(batches(6), damaged), batches(2)

def ending(batch_size, seed):
    return Breaking(batches(6), lambda: os._exit(7)), batches(2)

def full(*arguments):
    raise OSError("no space left")

def unreported(batch_size, seed):
    if RANK == 0:
        import effconv_core.cli.pipeline
        effconv_core.cli.pipeline.write_report = full
    return batches(6), batches(2)

def other_labels(batch_size, seed):
    images, labels = batches(1)[0]
    return batches(6), batches(5) + [(images, labels + 5 * RANK)], batches(2)
"""


class Failing:
    """Batches of which one cannot be read on rank 1, from some pass on."""

    def __init__(self, given: list, rank: int, *, after: int = 0, at: int = 3) -> None:
        self.given, self.rank, self.after, self.at = given, rank, after, at
        self.passes = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        for number, batch in enumerate(self.given):
            if self.rank == 1 and self.passes > self.after and number == self.at:
                raise KeyError(f"frame {number}")
            yield batch

    def __len__(self) -> int:
        return len(self.given)


def network() -> nn.Sequential:
    """Make a small network, the same on both ranks."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        *(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)),
        *(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
    )


def synchronised() -> nn.Sequential:
    """Make the network with batch normalisation over all ranks, which PyTorch has on GPUs only."""

    def forward(self: nn.SyncBatchNorm, images: Tensor) -> Tensor:
        if self.training:
            dist.all_reduce(images.detach().mean((0, 2, 3)))
        return F.batch_norm(images, None, None, self.weight, self.bias, training=True)

    nn.SyncBatchNorm.forward = forward
    made = network()
    made[1] = nn.SyncBatchNorm(4)
    return made


def batches(rank: int, count: int = 6) -> list[tuple[Tensor, Tensor]]:
    """Give a rank's own batches."""
    generator = torch.Generator().manual_seed(rank)
    labels = torch.tensor([0, 1, 0, 1])
    return [(torch.randn(4, 1, 8, 8, generator=generator), labels) for _ in range(count)]


def cases(rank: int, group: dist.ProcessGroup, folder: Path) -> dict[str, Callable[[], object]]:
    """Return what is done, in each with a fault on one rank."""
    good, failing = batches(rank), Failing(batches(rank), rank)
    given = {"config": CONFIG, "group": group}
    wrong = [(images, labels + 5 * rank) for images, labels in good]
    shorter, none = batches(rank, 6 - rank), [] if rank else good
    full, rich = OSError("no space left"), ModuleNotFoundError("no rich")
    later, at_once = Failing(good, rank, after=1), Failing(good, rank, at=0)
    only_last, names = dist.new_group([1]), {"a": 1} | ({"b": 2} if rank else {})
    normalised = network()
    normalised[1] = nn.BatchNorm2d(4)

    def on_round(number: int, plans: int) -> None:
        raise full

    def elsewhere() -> object:
        (place := folder / "c.safetensors").touch()
        state = {"epoch": 1, "epoch_steps": 6 + rank}
        with patch("effconv_core.engine.search.resume", return_value=state):
            return search(network(), good, checkpoint=place, **given)

    def at_a_full_disk(do: Callable[[], object], where: str) -> object:
        with patch(f"effconv_core.engine.{where}.save_training_state", side_effect=full):
            return do()

    def without_rich() -> object:
        with patch("effconv_core.engine.search.check_bar", side_effect=rich):
            return search(network(), good, progress=True, **given)

    return {
        "search, the bar": without_rich,
        "search, statistics of all ranks": lambda: search(synchronised(), wrong, **given),
        "search, the comparison": lambda: search(network(), later, **given),
        "search, a batch": lambda: search(network(), failing, **given),
        "search, the first batch": lambda: search(network(), wrong, **given),
        "search, the arguments": lambda: search(network(), good, budget=-5 * rank or None, **given),
        "search, validation": lambda: search(network(), good, validation=shorter, **given),
        "search, the disk": lambda: at_a_full_disk(
            lambda: search(network(), good, checkpoint=folder / "a.safetensors", **given), "search"
        ),
        "train, the loader": lambda: train(network(), none, TRAINING, group=group),
        "train, the first batch": lambda: train(network(), at_once, TRAINING, group=group),
        "train, a label": lambda: train(network(), wrong, TRAINING, group=group),
        "train, its length": lambda: train(network(), shorter, TRAINING, group=group),
        "train, the disk": lambda: at_a_full_disk(
            lambda: train(
                network(), good, TRAINING, checkpoint=folder / "b.safetensors", group=group
            ),
            "train",
        ),
        "evaluate, a batch": lambda: evaluate(network(), failing, group),
        "probe, the loader": lambda: probe(network(), failing, **given),
        "probe, its length": lambda: probe(network(), shorter, plans=4, **given),
        "frontier, its length": lambda: frontier(
            SearchableCNN(network(), CONFIG), batches(rank, 7 - rank), group=group
        ),
        "tournament, the loader": lambda: tournament(
            SearchableCNN(network(), CONFIG), None if rank else good, budget=610, group=group
        ),
        "search, its progress": elsewhere,
        "search, a round": lambda: search(
            network(), good, on_round=on_round if rank else None, **given
        ),
        "tournament, a round": lambda: tournament(
            *(SearchableCNN(network(), CONFIG), good),
            **{"budget": 610, "on_round": on_round if rank else None, "group": group},
        ),
        "frontier, its settings": lambda: frontier(
            SearchableCNN(network(), CONFIG), good, settings={"a": {1} if rank else 1}, group=group
        ),
        "frontier, validation": lambda: frontier(
            SearchableCNN(network(), CONFIG), good, validation=good if rank else None, group=group
        ),
        "probe, its repeats": lambda: probe(network(), good, plans=4, repeats=2 + rank, **given),
        "train, its config": lambda: train(network(), good, TrainConfig(2 + rank, 8), group=group),
        "what is compared": lambda: check_same(names, "cpu", group),
        "train, the last rank only": lambda: (
            train(normalised, good, TRAINING, group=only_last) if rank else None
        ),
        "and then": lambda: evaluate(network(), good, group),
    }


def main(folder: Path) -> None:
    """Write what each rank raised."""
    said = {}
    with joined("cpu") as (rank, _, group, _):
        for name, do in cases(rank, group, folder).items():
            try:
                said[name] = str(do())
            except Exception as error:
                said[name] = f"{type(error).__name__}: {error}"
    (folder / f"{rank}.json").write_text(json.dumps(said))


def command(name: str, function: str, folder: Path) -> int:
    """Run `effconv search` or `train` with data of the function; return the exit status."""
    (folder / "own_fault.py").write_text(OWN)
    sys.path.insert(0, str(folder))
    words = ["own_fault:network", f"own_fault:{function}", "--runs", str(folder / "runs")]
    words += ["--train.epochs", "1", "--train.batch-size", "16"]
    if name == "train":
        return train_command(words)
    return search_command([*words, "--batch-size", "8"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        sys.exit(command(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
