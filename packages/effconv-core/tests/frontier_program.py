"""A frontier in order, by two ranks too: `python frontier_program.py FOLDER`."""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from effconv_core import SearchableCNN, frontier, recipe, search
from torch import nn

CONFIG = recipe("bank", least_steps=0, race_steps=3)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 1),
        *(nn.Conv2d(4, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU()),
        *(nn.Conv2d(4, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
    )


def batches(rank: int, ranks: int) -> list:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (10, 8), generator=generator)
    images = torch.randn(10, 8, 1, 8, 8, generator=generator) + labels[:, :, None, None, None]
    return [(x[rank::ranks], y[rank::ranks]) for x, y in zip(images, labels, strict=True)]


def main(folder: Path) -> None:
    """Write the frontier of the rank's part of the batches, and what becomes of it afterwards.

    A second run, `again`, has the first one's checkpoint, and a third, `other`, that of another
    frontier.
    """
    ranks, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if ranks > 1:
        dist.init_process_group("gloo")
    group = dist.group.WORLD if ranks > 1 else None
    searchable, loader = SearchableCNN(network(), CONFIG), batches(rank, ranks)
    search(searchable, loader, group=group)
    options = {"amounts": [200, 300], "checkpoint": folder / "progress.json", "group": group}
    frontier(searchable, loader, **options).save(folder / f"found.{rank}")
    if ranks > 1:
        dist.barrier()  # rank 0 writes
        before = options["checkpoint"].read_bytes()
        frontier(searchable, loader, **options).save(folder / f"again.{rank}")
        dist.barrier()
        assert options["checkpoint"].read_bytes() == before
        content = json.loads(before)
        content["of"]["amounts"] = ["parameters", 250]
        dist.barrier()  # both have read it
        if rank == 0:
            options["checkpoint"].write_text(json.dumps(content))
        dist.barrier()
        try:
            frontier(searchable, loader, **options)
        except ValueError as error:
            (folder / f"other.{rank}").write_text(f"refused: {error}")
        dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
