"""A search in Accelerate's loop: `pip install effconv-core accelerate`, then run this file.

`accelerate launch --num-processes 2 accelerate_search.py` makes it one search by two processes.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from accelerate import Accelerator
from effconv_core import SearchableCNN, SizePlan, check_ranks, recipe
from torch import nn


def learn_sizes(
    model: nn.Module,
    loader: torch.utils.data.DataLoader,
    budget: float,
    accelerator: Accelerator,
    epochs: int = 2,
) -> SizePlan:
    """Search, and give the plan."""
    searchable = SearchableCNN(model, recipe("bank"))
    optimizer = torch.optim.AdamW(searchable.parameter_groups())
    network, optimizer, loader = accelerator.prepare(searchable, optimizer, loader)
    network.train()
    for _ in range(epochs):
        for images, labels in loader:
            # The budget's term comes after the pass, and from the module that `prepare` may wrap.
            task_loss = F.cross_entropy(network(images), labels)
            loss = task_loss + accelerator.unwrap_model(network).budget_loss(budget)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
        # The group of all processes is None where there is one.
        check_ranks(accelerator.unwrap_model(network), dist.group.WORLD)
    return accelerator.unwrap_model(network).plan(budget)


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
    # Without this, Accelerate takes several processes without a GPU for one each.
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    plan = learn_sizes(network, loader, 13_600, accelerator)
    if accelerator.is_main_process:
        plan.save("plan.json")
    accelerator.free_memory()
    accelerator.end_training()
