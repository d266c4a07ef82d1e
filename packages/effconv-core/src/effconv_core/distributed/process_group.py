"""The process group of a run started by torchrun."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist

from effconv_core.distributed.consistency import check_same
from effconv_core.distributed.failures import together

T = TypeVar("T")


class Ranks(NamedTuple):
    """The rank of this process, the world size, the group and the device."""

    rank: int
    world_size: int
    group: dist.ProcessGroup | None
    """None in a program that torchrun did not start."""
    device: str
    """The device of this rank."""

    def share(self, batch_size: int, name: str) -> int:
        """Return this rank's part of a batch, in samples.

        Raises:
            ValueError: if the batch cannot be divided evenly.
        """
        if batch_size % self.world_size:
            raise ValueError(
                f"{name} is {batch_size} and there are {self.world_size} ranks, which share each "
                "batch evenly; pass a multiple of them"
            )
        return batch_size // self.world_size

    def on_first(self, function: Callable[[], T]) -> T | None:
        """Call a function on rank 0 only; the others wait for it and get None.

        Raises:
            OtherRankError: on the others, if the function raised on rank 0.
        """
        with together(self.group, self.device):
            return function() if self.rank == 0 else None

    def together(self) -> AbstractContextManager[None]:
        """Return a context whose block fails on all ranks where it fails on one; see `together`."""
        return together(self.group, self.device)

    def agree(self, **values: Any) -> None:
        """Raise where a JSON value of a rank differs from that of rank 0.

        Raises:
            RanksDifferError: on all ranks, see `check_same`.
        """
        named = {name.replace("_", " "): value for name, value in values.items()}
        check_same(named, self.device, self.group)

    def from_first(self, function: Callable[[], T]) -> T:
        """Return on all ranks what a function gives on rank 0, the only one that calls it.

        Raises:
            OtherRankError: on the others, where rank 0 raised whatever it raised.
        """
        result = [self.on_first(function)]
        if self.group is not None:
            dist.broadcast_object_list(
                result, src=0, group=self.group, device=torch.device(self.device)
            )
        return result[0]


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the process group if torchrun started this process, and leave it at the end.

    Args:
        device: `cpu`, or `cuda` for each rank's own GPU.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Ranks(0, 1, None, device)
        return
    if device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), dist.group.WORLD, device)
    finally:
        # Reference cycles of DistributedDataParallel hold the group, whose threads must end
        # before the interpreter does.
        gc.collect()
        dist.destroy_process_group()
