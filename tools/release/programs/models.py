"""A ResNet-20 with your own sizes, and a network whose sizes are learned."""

import torch
from effconv_models import create_model, flexnet3

model = create_model("cifar_resnet20", kernel_sizes=[5] * 9 + [2] * 9)
assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
assert model.layer1[0].conv1.kernel_size == (5, 5)
assert model.layer3[2].conv1.kernel_size == (2, 2)
assert sum(p.numel() for p in create_model("cifar_resnet20").parameters()) == 269_722
flexible = flexnet3()
flexible(torch.randn(2, 3, 32, 32)).sum().backward()
assert all(p.grad is not None for p in flexible.parameters())
