"""What the tests of layers that run by chance run in each process.

It prints the plans that two ranks have found, each with what it left out.
"""

import random
import sys

import torch
import torch.nn.functional as F
from effconv_core import SizePlan, recipe, search
from effconv_core.distributed.process_group import Ranks, joined
from torch import Tensor, nn

SKIPS = {
    "torch": lambda rank, passes: torch.rand(()) < 0.3,
    "python": lambda rank, passes: random.random() < 0.3,
    "passes": lambda rank, passes: passes % 3 == 0,
    "told": lambda rank, passes: passes > 20 and passes % 2 == rank,
}


class Net(nn.Module):
    """Leaves out one layer that is searched and one that is not, now and then."""

    def __init__(self, what: str, rank: int) -> None:
        super().__init__()
        self.what, self.rank, self.passes = what, rank, 0
        self.stem, self.always = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.other, self.point = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, 4)

    def forward(self, images: Tensor) -> Tensor:
        """Give the scores."""
        features = self.always(self.stem(images))
        self.passes += 1
        if not (self.training and SKIPS[self.what](self.rank, self.passes)):
            features = features + self.point(self.other(features))
        return self.fc(features.mean((2, 3)))


def found(what: str, ranks: Ranks) -> SizePlan:
    """Search with this rank's own batches."""
    torch.manual_seed(7)
    model = Net(what, ranks.rank)
    random.seed(ranks.rank)
    generator = torch.Generator().manual_seed(ranks.rank)
    batches = [
        (torch.randn(4, 3, 8, 8, generator=generator), torch.tensor([0, 1, 2, 3]))
        for _ in range(12)
    ]
    config = recipe("bank", epochs=2, least_steps=0, race_steps=1, finalists=4)
    skips = True if what == "told" else None
    return search(
        model, batches, config=config, criterion=F.cross_entropy, group=ranks.group, skips=skips
    )


def main() -> None:
    """Search in all ranks for every way to leave out layers."""
    torch.set_num_threads(1)
    with joined("cpu") as ranks:
        for what in SKIPS:
            sys.stdout.write(f"{what} {found(what, ranks).sizes}\n")


if __name__ == "__main__":
    main()
