"""A search in your own loop, by several processes.

`pip install effconv-core`, then `torchrun --nproc-per-node 2 ddp_search.py`; it also runs without
torchrun, in one process.
"""

import gc
import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from effconv_core import SearchableCNN, SizePlan, check_ranks, recipe, tournament
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler


def learn_sizes(
    model: nn.Module,
    dataset: Dataset,
    budget: float,
    *,
    batch_size: int = 16,
    epochs: int = 2,
    shuffle: bool = True,
) -> SizePlan:
    """Search, and give the plan, which is the same on every rank.

    Args:
        model: on this rank's device; batch normalisation takes the statistics of a rank's own
            images, unless `nn.SyncBatchNorm.convert_sync_batchnorm` (GPUs only) came before.
        dataset: the whole set, on every rank.
        budget: wanted parameter count.
        batch_size: of all ranks together.
        epochs: passes over the set.
        shuffle: whether each epoch has its own order.
    """
    group = dist.group.WORLD  # None in one process
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if group else (0, 1)
    sampler = DistributedSampler(dataset, ranks, rank, shuffle=shuffle, drop_last=True)
    loader = DataLoader(dataset, batch_size // ranks, sampler=sampler)
    device = next(model.parameters()).device

    searchable = SearchableCNN(model, recipe("bank"))
    optimizer = torch.optim.AdamW(searchable.parameter_groups())
    network = DistributedDataParallel(searchable) if group else searchable
    network.train()
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for images, labels in loader:
            # The budget's term comes after the pass, and from the network inside.
            task_loss = F.cross_entropy(network(images.to(device)), labels.to(device))
            loss = task_loss + searchable.budget_loss(budget)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        check_ranks(searchable, group)
    return tournament(searchable, loader, budget=budget, group=group)


def main() -> None:
    """Search for the sizes of a small network on noise."""
    device = "cpu"
    if "RANK" in os.environ:  # torchrun has started this
        if torch.cuda.is_available():
            device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    images = torch.utils.data.TensorDataset(torch.randn(64, 3, 32, 32), torch.arange(64) % 10)
    plan = learn_sizes(network.to(device), images, 13_600)
    if not dist.is_initialized() or dist.get_rank() == 0:
        plan.save("plan.json")
    if dist.is_initialized():
        gc.collect()  # of what holds the group
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
