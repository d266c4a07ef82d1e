"""Batched PyTorch forms of the operators, without autograd; they run on any device."""

from effconv_kernels.eager.assemble import assemble_kernels, assemble_kernels_backward
from effconv_kernels.eager.gru import gru_unroll, gru_unroll_backward

__all__ = [
    "assemble_kernels",
    "assemble_kernels_backward",
    "gru_unroll",
    "gru_unroll_backward",
]
