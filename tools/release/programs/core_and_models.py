"""A search of a model of ours by a search of ours, which know nothing of each other."""

import torch
from effconv_core import recipe, search
from effconv_models import create_model

torch.manual_seed(0)
loader = [(torch.randn(8, 3, 16, 16), torch.randint(10, (8,)))]
plan = search(
    create_model("cifar_resnet20"), loader, budget=0.27e6, config=recipe("bank", epochs=1)
)
found = create_model("cifar_resnet20", kernel_sizes=plan)
assert abs(plan.cost / plan.budget - 1) <= 0.02
assert sum(p.numel() for p in found.parameters()) == plan.cost
assert found(loader[0][0]).shape == (8, 10)
