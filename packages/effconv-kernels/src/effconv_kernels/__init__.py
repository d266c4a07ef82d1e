"""Batched GRU unroll and masked kernel assembly as PyTorch operators."""

from effconv_kernels.assemble import assemble_kernels
from effconv_kernels.bank import GRUBank
from effconv_kernels.gru import gru_unroll

__version__ = "0.5.0"

__all__ = ["GRUBank", "assemble_kernels", "gru_unroll"]
