"""A search of your own network, the plan on disk, and the plain CNN of it."""

import torch
from effconv_core import SizePlan, apply_plan, recipe, search
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(
    *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
    *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
    *(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
    *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
)
loader = [(torch.randn(8, 3, 16, 16), torch.randint(10, (8,))) for _ in range(4)]
search(model, loader, budget=15_000, config=recipe("bank", epochs=2)).save("plan.json")
plan = SizePlan.load("plan.json")
cnn = apply_plan(model, plan)
assert abs(plan.cost / plan.budget - 1) <= 0.02
assert sum(p.numel() for p in cnn.parameters()) == plan.cost
assert cnn(loader[0][0]).shape == (8, 10)
