"""The operators, forward and backward, with no other package of ours."""

import sys

import torch
from effconv_kernels import assemble_kernels, gru_unroll

weight = torch.randn(2, 24, 8, requires_grad=True)
hidden = gru_unroll(torch.randn(2, 24), weight, torch.zeros(2, 24), [4, 9])
soft = torch.tensor([2.2, 3.4], requires_grad=True)
kernels = assemble_kernels(
    hidden, torch.randn(14, 8), torch.zeros(14), soft, sizes=[2, 3], channels=[(2, 3), (4, 2)]
)
sum(kernel.sum() for kernel in kernels).backward()
assert [tuple(kernel.shape) for kernel in kernels] == [(2, 3, 2, 2), (4, 2, 3, 3)]
assert weight.grad.abs().sum() > 0
assert soft.grad.abs().min() > 0
ours = {name for name in sys.modules if name.startswith("effconv_") and "." not in name}
assert ours == {"effconv_kernels"}
