"""What the tests of ranks run in each process: `python rank_program.py WHAT DEVICE FOLDER`."""

import json
import os
import sys
import traceback
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.nn.functional as F
from effconv_core import SearchableCNN, check_ranks, recipe, search
from effconv_core.distributed.consistency import data_parallel
from effconv_core.distributed.process_group import joined
from safetensors.torch import save_file
from torch import Tensor, nn

BATCH, STEPS, BUDGET = 16, 10, 1500


class Network(nn.Module):
    """Treats each image for itself: group norm in the place of batch norm."""

    def __init__(self, seed: int = 0, *, idle: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, padding=1),
            nn.GroupNorm(2, 6),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.classes = nn.Linear(8, 3)
        if idle:
            self.idle = nn.Linear(2, 2)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Give the scores in a dictionary."""
        return {"scores": self.classes(self.body(images))}


def criterion(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
    """Give the cross entropy."""
    return F.cross_entropy(outputs["scores"], targets)


class Part:
    """A rank's part of batches that depend on the epoch alone."""

    def __init__(self, rank: int, world_size: int, dtype: torch.dtype, steps: int = STEPS) -> None:
        self.rank, self.world_size, self.dtype, self.steps = rank, world_size, dtype, steps
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch over."""
        self.epoch = epoch

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.epoch)
        for _ in range(self.steps):
            images = torch.randn(BATCH, 1, 9, 9, generator=generator).to(self.dtype)
            labels = torch.randint(3, (BATCH,), generator=generator)
            yield images.chunk(self.world_size)[self.rank], labels.chunk(self.world_size)[self.rank]


def place(group: dist.ProcessGroup | None) -> tuple[int, int]:
    """Give rank and number of ranks."""
    return (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))


def after_20_steps(
    group: dist.ProcessGroup | None,
    device: str,
    name: str,
    dtype: torch.dtype,
    *,
    idle: bool,
    part: tuple[int, int] | None = None,
) -> dict[str, Tensor]:
    """Make the 20 steps of `search` by hand, and give all parameters then.

    Args:
        group: None in one process.
        device: this rank's.
        name: of the recipe.
        dtype: of the parameters.
        idle: whether the network has a layer that it does not run.
        part: which part of how many this process sees, this rank's when None.
    """
    rank, world_size = part or place(group)
    # Another start on each rank, of which that of rank 0 holds.
    model = Network(rank, idle=idle).to(device, dtype)
    searchable = SearchableCNN(model, recipe(name)).train()
    optimizer = torch.optim.AdamW(searchable.parameter_groups())
    run, loader = data_parallel(searchable, group), Part(rank, world_size, dtype)
    for epoch in range(2):
        loader.set_epoch(epoch)
        for images, labels in loader:
            loss = criterion(run(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            (loss + searchable.budget_loss(BUDGET)).backward()
            optimizer.step()
            check_ranks(searchable, group)
    return {n: p.detach().cpu() for n, p in searchable.named_parameters()}


def searched(
    group: dist.ProcessGroup | None, device: str, checkpoint: Path, race_steps: int = 0
) -> tuple[dict[str, Tensor], int]:
    """Search; give soft sizes, plan and losses, and the number of this rank's steps."""
    rank, world_size = place(group)
    losses = [torch.zeros((), dtype=torch.float64, device=device)]
    plan = search(
        Network(rank).to(device, torch.float64),
        Part(rank, world_size, torch.float64),
        budget=BUDGET,
        config=recipe("bank", epochs=2, least_steps=0, finalists=12, race_steps=race_steps),
        criterion=criterion,
        checkpoint=checkpoint,
        on_step=lambda step: losses.append(step.task_loss),
        group=group,
    )
    made = {
        "sizes": torch.tensor(list(plan.values()), dtype=torch.float64),
        "soft_sizes": torch.tensor(list(plan.soft_sizes.values()), dtype=torch.float64),
        "losses": torch.stack(losses),
    }
    if plan.evidence is not None:
        found = [plan.evidence.original_loss, plan.evidence.loss, *plan.evidence.found.values()]
        made["evidence"] = torch.tensor(found, dtype=torch.float64)
    if group is not None:
        for name, value in made.items():
            summed = value.to(device)
            dist.all_reduce(summed)
            made[name] = summed.cpu() / world_size  # a whole number of each size if all agree
    return made, len(losses) - 1


CASES = ("default float32 full", "paper float32 full", "default float64 idle")


def everything(group: dist.ProcessGroup | None, device: str, folder: Path) -> dict[str, Tensor]:
    """Run all that must come out as in one process."""
    made = {}
    for case in CASES:
        name, dtype, idle = case.split()
        found = after_20_steps(group, device, name, getattr(torch, dtype), idle=idle == "idle")
        made |= {f"{case}/{n}": value for n, value in found.items()}
    checkpoint = folder / f"{place(group)[1]}.safetensors"
    found, _ = searched(group, device, checkpoint)
    made |= {f"search/{n}": value.cpu() for n, value in found.items()}
    found, _ = searched(group, device, folder / f"raced-{place(group)[1]}.safetensors", 3)
    return made | {f"raced/{n}": value.cpu() for n, value in found.items()}


DIFFERENCES = ("soft sizes", "passes", "config", "batches")


def differing(group: dist.ProcessGroup, device: str, what: str) -> None:
    """Search with something that is not the same on both ranks."""
    rank, world_size = place(group)
    steps = STEPS - (what == "batches") * rank
    config = recipe(
        "bank", epochs=2, race_steps=0, least_steps=0, seed=rank if what == "config" else 0
    )
    searchables = []

    class Remembered(SearchableCNN):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            searchables.append(self)

    def interfere(step: object) -> None:
        if rank == 1 and step.epoch == 1 and step.step == 3:
            if what == "soft sizes":
                searchables[0].size_predictor.head_bias.data[1] += 1e-4
            if what == "passes":
                searchables[0].draws(1)
            if what == "killed":
                os.kill(os.getpid(), 9)

    with patch.object(sys.modules["effconv_core.engine.search"], "SearchableCNN", Remembered):
        search(
            Network().to(device),
            Part(rank, world_size, torch.float32, steps),
            budget=BUDGET,
            config=config,
            criterion=criterion,
            on_step=interfere,
            group=group,
        )


def main(what: str, device: str, folder: Path) -> None:
    """Run one of them."""
    with joined(device) as (rank, _, group, own_device):
        if what == "everything":
            made = everything(group, own_device, folder)
            if rank == 0:
                save_file(made, folder / "2.tensors")
        elif what == "differences":
            said = {}
            for difference in DIFFERENCES:
                try:
                    differing(group, own_device, difference)
                except (ValueError, RuntimeError) as error:
                    said[difference] = f"{type(error).__name__}: {error}"
            (folder / f"{rank}.json").write_text(json.dumps(said))
        else:
            differing(group, own_device, what)


def threads() -> list[str]:
    """Give the names of this process's threads that are of the group; none without /proc."""
    names = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


if __name__ == "__main__":
    torch.set_num_threads(1)
    status = 0
    try:
        main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    except RuntimeError:
        traceback.print_exc()
        status = 1
    # One that is at work when the interpreter ends aborts the process.
    assert not threads(), threads()
    sys.exit(status)
