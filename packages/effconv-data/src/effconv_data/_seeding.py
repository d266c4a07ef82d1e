"""Independent streams of random numbers from one seed."""

import numpy as np
import torch

# The first number of a stream identifies its use, so that no two uses draw the same.
ORDER, AUGMENTATION, SYNTHESIS, DIVISION, VIEW = range(5)


def seeded_generator(seed: int, *stream: int) -> torch.Generator:
    """Return a CPU generator whose draws are a pure function of a seed and a stream's numbers."""
    state = np.random.SeedSequence(seed, spawn_key=stream).generate_state(1, np.uint64)
    # torch takes a signed 64-bit seed.
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
