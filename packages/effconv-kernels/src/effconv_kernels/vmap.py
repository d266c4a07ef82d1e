"""`torch.vmap` of the operators: a batch of calls is one call with more layers."""

from collections.abc import Sequence

from torch import Tensor


def folded(tensors: Sequence[Tensor], dims: Sequence[int | None], batch: int) -> list[Tensor]:
    """Put the batch, which is dimension `dims` of each or not there (None), in front of the layers.

    The first dimension of every argument counts layers, or what layers have one after another.

    Raises:
        ValueError: if the batch is empty.
    """
    if batch < 1:
        raise ValueError("torch.vmap has a batch of 0 calls; pass at least one")
    return [
        (tensor.expand(batch, *tensor.shape) if dim is None else tensor.movedim(dim, 0)).flatten(
            0, 1
        )
        for tensor, dim in zip(tensors, dims, strict=False)
    ]
