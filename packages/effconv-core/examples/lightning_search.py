"""A search in Lightning's loop: `pip install effconv-core lightning`, then run this file.

`torchrun --nproc-per-node 2 lightning_search.py` makes it one search by two processes.
"""

import os

import lightning
import torch
import torch.distributed as dist
import torch.nn.functional as F
from effconv_core import SearchableCNN, SizePlan, check_ranks, recipe
from torch import Tensor, nn


class Search(lightning.LightningModule):
    """One search; the Trainer's device, precision and strategy are its own business.

    Args:
        model: the network whose kernel sizes are learned.
        budget: wanted parameter count of the network to be found.
    """

    def __init__(self, model: nn.Module, budget: float) -> None:
        super().__init__()
        self.searchable = SearchableCNN(model, recipe("bank"))
        self.budget = budget

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the task's loss and the budget's term."""
        images, labels = batch
        task_loss = F.cross_entropy(self.searchable(images), labels)
        budget_loss = self.searchable.budget_loss(self.budget)
        return task_loss + budget_loss

    def on_train_epoch_end(self) -> None:
        """See that no process went another way."""
        check_ranks(self.searchable, dist.group.WORLD)  # which is None in one process

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Take the three groups, each with its own rate."""
        return torch.optim.AdamW(self.searchable.parameter_groups())


def learn_sizes(
    model: nn.Module,
    loader: torch.utils.data.DataLoader,
    budget: float,
    trainer: lightning.Trainer,
) -> SizePlan:
    """Search, and give the plan."""
    task = Search(model, budget)
    trainer.fit(task, loader)
    return task.searchable.plan(budget)


if __name__ == "__main__":
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    images = torch.utils.data.TensorDataset(torch.randn(64, 3, 32, 32), torch.arange(64) % 10)
    loader = torch.utils.data.DataLoader(images, batch_size=16, shuffle=True)
    trainer = lightning.Trainer(
        max_epochs=2,
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")),
    )
    plan = learn_sizes(network, loader, 13_600, trainer)
    if trainer.is_global_zero:
        plan.save("plan.json")
