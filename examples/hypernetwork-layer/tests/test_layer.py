"""The layer against a loop over images, timesteps and taps, and at angles that it never saw."""

import math
import re
import runpy
from pathlib import Path

import torch
import torch.nn.functional as F
from hypernetwork_layer import HyperConv2d, filtered
from torch import nn

PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


def small(size=3):
    layer = HyperConv2d(2, 3, size, embedding=4, hidden=5, generator=drawn()).double()
    with torch.no_grad():
        layer.bias_out.uniform_(-1, 1, generator=drawn(1))
        layer.width.fill_(2.3)
    return layer


def random(*shape, seed):
    return torch.randn(shape, dtype=torch.float64, generator=drawn(seed))


def looped(layer, images, embeddings):
    """Write one tap after the other with torch's own cell, and convolve each image."""
    s, H = layer.kernel_size, layer.weight_hh.shape[-1]
    cell = nn.GRUCell(embeddings.shape[1], H, dtype=images.dtype)
    weights = {name: getattr(layer, name) for name in PARTS}
    outputs = []
    for image, embedding in zip(images, embeddings, strict=True):
        state, taps = image.new_zeros(1, H), []
        for i in range(s):
            for j in range(s):
                state = torch.func.functional_call(cell, weights, (embedding.unsqueeze(0), state))
                values = F.linear(state, layer.weight_out, layer.bias_out).squeeze(0)
                distance = (i - (s - 1) / 2) ** 2 + (j - (s - 1) / 2) ** 2
                taps.append(values * torch.exp(-distance / layer.width**2))
        kernel = torch.stack(taps, 1).view(layer.out_channels, layer.in_channels, s, s)
        outputs.append(F.conv2d(image.unsqueeze(0), kernel, padding="same"))
    return torch.cat(outputs)


def test_the_layer_is_a_loop_over_images_and_taps_and_so_are_its_gradients():
    layer, images, embeddings = small(), random(4, 2, 6, 7, seed=2), random(4, 4, seed=3)
    inputs = dict(layer.named_parameters()) | {
        "images": images.requires_grad_(),
        "embeddings": embeddings.requires_grad_(),
    }
    ours, slow = layer(images, embeddings), looped(layer, images, embeddings)
    assert ours.shape == (4, 3, 6, 7)
    torch.testing.assert_close(ours, slow)
    upstream = random(*ours.shape, seed=4)
    gradients = (torch.autograd.grad(o, list(inputs.values()), upstream) for o in (ours, slow))
    for name, one, other in zip(inputs, *gradients, strict=True):
        assert other.abs().max() > 0, name
        torch.testing.assert_close(one, other, msg=lambda text, name=name: f"{name}: {text}")


def test_gradients_are_those_of_finite_differences():
    layer, images, embeddings = small(2), random(2, 2, 3, 3, seed=5), random(2, 4, seed=6)
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def convolve(images, embeddings, *values):
        named = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, named, (images, embeddings))

    given = (images.requires_grad_(), embeddings.requires_grad_(), *parameters)
    assert torch.autograd.gradcheck(convolve, given)


def test_each_image_has_the_kernel_of_its_own_embedding():
    layer, images, embeddings = small(), random(3, 2, 6, 6, seed=7), random(3, 4, seed=8)
    together = layer(images, embeddings)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(layer(images[order], embeddings[order]), together[order])
    kernels = layer.kernels(embeddings)
    assert kernels.shape == (3, 3, 2, 3, 3)
    assert (kernels[0] - kernels[1]).abs().max() > 0.01


def test_the_filters_of_the_task_are_derivatives():
    ramp = torch.arange(9.0).expand(1, 1, 9, 9)  # rises to the right by 1 a pixel
    right, down = (filtered(ramp, torch.tensor([a])) for a in (0.0, math.pi / 2))
    assert right[0, 0, 4, 4] > 1
    torch.testing.assert_close(right[0, 0, 4, 3], right[0, 0, 4, 4])
    assert abs(down[0, 0, 4, 4]) < 1e-5


def test_one_kernel_for_all_angles_can_do_no_better_than_nothing():
    angles = torch.arange(12) * (2 * math.pi / 12)
    image = torch.randn(1, 1, 12, 12, generator=drawn(9))
    wanted = filtered(image.expand(12, -1, -1, -1), angles)
    # What is best for all is their mean.
    assert wanted.mean(0).abs().max() < 1e-5 * wanted.abs().max()


def test_what_the_readme_shows_runs():
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    exec(block, {})


def test_the_command_learns_kernels_of_angles_that_it_never_saw(capsys):
    runpy.run_module("hypernetwork_layer", run_name="__main__")
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    errors = {row[0]: float(row[1]) for row in told[1:3]}
    assert errors["seen"] < 0.05
    assert errors["between"] < 0.05
    assert float(told[3][4].rstrip(",")) < 2.5
