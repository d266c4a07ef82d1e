"""A search in Lightning's loop: `pip install effconv-core lightning`, then run this file."""

import lightning
import torch
import torch.nn.functional as F
from effconv_core import SearchableCNN, SizePlan, recipe
from torch import Tensor, nn


class Search(lightning.LightningModule):
    """One search; the Trainer's device, precision and strategy are its own business.

    Args:
        model: the network whose kernel sizes are learned.
        budget: wanted parameter count of the network to be found.
    """

    def __init__(self, model: nn.Module, budget: float) -> None:
        super().__init__()
        self.searchable = SearchableCNN(model, recipe("default"))
        self.budget = budget

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Give the task's loss and the budget's term."""
        images, labels = batch
        task_loss = F.cross_entropy(self.searchable(images), labels)
        budget_loss = self.searchable.budget_loss(self.budget)
        return task_loss + budget_loss

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
    learn_sizes(network, loader, 14_000, lightning.Trainer(max_epochs=2)).save("plan.json")
