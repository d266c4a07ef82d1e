"""The kernels of layers that are run again in the backward pass, as gradient checkpointing does."""

from typing import Any
from weakref import ref

import torch
from torch import Tensor


class KeptKernels:
    """The kernels of one layer in forward passes that have not been through a backward pass yet.

    The graph of a pass holds its kernel, until the kernel's gradient is computed. Gradient
    checkpointing with `use_reentrant=False` runs a layer again before that, for the tensors that
    its gradients need; what it then computes leads to no parameter, so the kernel is a leaf.
    """

    def __init__(self) -> None:
        self._passes: list[ref[_Pass]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptKernels, ()  # a copy has no graph

    def keep(self, kernel: Tensor) -> None:
        """Keep the kernel of a pass that ends; one that belongs to no graph is not kept."""
        if torch.compiler.is_compiling() or kernel.grad_fn is None:
            return
        present = _Pass(kernel.detach().requires_grad_())
        kernel.register_hook(present.end)  # which the graph holds, and nothing else
        self._passes = [p for p in self._passes if _kernel_of(p) is not None]
        self._passes.append(ref(present))

    def in_backward(self) -> Tensor | None:
        """Return the kernel of the pass that a backward pass runs again; None outside of one.

        Raises:
            RuntimeError: if it could be the kernel of several passes.
        """
        if torch._C._current_graph_task_id() == -1:
            return None
        kernels = [kernel for p in self._passes if (kernel := _kernel_of(p)) is not None]
        if len(kernels) > 1:
            raise RuntimeError(
                f"gradient checkpointing runs a searched layer again for one of {len(kernels)} "
                "forward passes, and it is not known for which; call backward after each forward "
                "pass, or turn gradient checkpointing off"
            )
        return kernels[0] if kernels else None


class _Pass:
    def __init__(self, kernel: Tensor) -> None:
        self.kernel: Tensor | None = kernel

    def end(self, gradient: Tensor) -> None:
        self.kernel = None


def _kernel_of(held: ref[_Pass]) -> Tensor | None:
    present = held()
    return None if present is None else present.kernel
