"""`torch.vmap` of the operators: a batch of calls becomes one call."""

from collections.abc import Sequence

from torch import Tensor


def check_batch(batch: int) -> None:
    """Raise ValueError if a batch has no calls."""
    if batch < 1:
        raise ValueError("torch.vmap has a batch of 0 calls; pass at least one")


def folded(
    tensors: Sequence[Tensor | None], dims: Sequence[int | None], batch: int
) -> list[Tensor | None]:
    """Move each argument's batch dimension (`dims`, None if absent) in front, merged with layers.

    The first dimension of each argument counts layers, or rows of consecutive layers. None, an
    argument that is not there, stays None.

    Raises:
        ValueError: if the batch is empty.
    """
    check_batch(batch)
    found = []
    for tensor, dim in zip(tensors, dims, strict=False):
        if tensor is not None:
            whole = tensor.expand(batch, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            tensor = whole.flatten(0, 1)
        found.append(tensor)
    return found
