"""One of the examples, by torchrun too.

`python example_program.py NAME PLAN` searches a set in order; without PLAN the file runs as it is.
"""

import gc
import importlib.util
import os
import runpy
import sys
from contextlib import suppress
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, TensorDataset

with suppress(ImportError):  # where torchvision needs it, which Lightning imports
    import tools.support.compat  # noqa: F401

EXAMPLES = Path(__file__).parents[1] / "examples"
BUDGET, BATCH, EPOCHS = 4_000, 8, 2


def classifier() -> nn.Module:
    """Make a network without batch normalisation, whose statistics would be each rank's own."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 4),
    )
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model


def pictures() -> Dataset:
    """Make the set."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(32, 3, 12, 12, generator=generator)
    return TensorDataset(images, torch.arange(32) % 4)


def main(name: str, plan_file: str) -> None:
    """Search as the example does, and write the plan."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    sampler = None
    if name == "lightning_search":
        rank = int(os.environ.get("RANK", "0"))
        sampler = DistributedSampler(pictures(), ranks, rank, shuffle=False)
    loader = DataLoader(pictures(), batch_size=BATCH // ranks, sampler=sampler)
    if name == "ddp_search":
        if ranks > 1:
            dist.init_process_group("gloo")
        options = {"batch_size": BATCH, "epochs": EPOCHS, "shuffle": False}
        plan = example.learn_sizes(classifier(), pictures(), BUDGET, **options)
    elif name == "lightning_search":
        trainer = example.lightning.Trainer(
            max_epochs=EPOCHS,
            accelerator="cpu",
            devices=ranks,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,  # Lightning's own shuffles
        )
        assert trainer.world_size == ranks
        plan = example.learn_sizes(classifier(), loader, BUDGET, trainer)
    else:
        accelerator = example.Accelerator(cpu=True)
        assert accelerator.num_processes == ranks
        plan = example.learn_sizes(classifier(), loader, BUDGET, accelerator, EPOCHS)
        accelerator.free_memory()
    if os.environ.get("RANK", "0") == "0":
        plan.save(plan_file)
    if dist.is_initialized():
        gc.collect()  # of what holds the group
        dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 2:
        main(*sys.argv[1:])
    else:
        runpy.run_path(str(EXAMPLES / f"{sys.argv[1]}.py"), run_name="__main__")
