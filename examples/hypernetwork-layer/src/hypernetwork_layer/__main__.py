"""`python -m hypernetwork_layer`: learn filters of some angles, and predict those of others."""

import math

import torch

from hypernetwork_layer import HyperConv2d, fit, relative_error
from hypernetwork_layer.task import SIZE

ANGLES, HIDDEN = 12, 32


def main() -> None:
    """Train and print the errors at training and held-out angles."""
    generator = torch.Generator().manual_seed(0)
    layer = HyperConv2d(1, 1, SIZE, embedding=2, hidden=HIDDEN, generator=generator)
    seen = torch.arange(ANGLES) * (2 * math.pi / ANGLES)
    fit(layer, seen, steps=300, batch_size=16, learning_rate=0.02, generator=generator)
    print("mean square error over mean square; 1 is the best of one kernel for all angles")
    with torch.no_grad():
        for name, angles in (("seen", seen), ("between", seen + math.pi / ANGLES)):
            print(f"{name:8} {relative_error(layer, angles.repeat(20), generator):.4f}")
    print(f"width of the mask {layer.width.item():.2f}, from {SIZE}")


if __name__ == "__main__":
    main()
