"""Arguments of both operators, and how their results are compared."""

import torch


def gru_inputs(H, layers, dtype=torch.float64):
    generator = torch.Generator().manual_seed(H)
    shapes = [(layers, 3 * H), (layers, 3 * H, H), (layers, 3 * H)]
    gates, weight, bias = (torch.randn(s, generator=generator, dtype=dtype) for s in shapes)
    return [gates, weight / H**0.5, bias]


def map_inputs(H, sizes, channels, dtype=torch.float64):
    generator = torch.Generator().manual_seed(H)
    rows = sum(c_out * c_in for c_out, c_in in channels)
    shapes = [(sum(s * s for s in sizes), H), (rows, H), (rows,)]
    hidden, weight, bias = (torch.randn(s, generator=generator, dtype=dtype) for s in shapes)
    soft_sizes = torch.tensor([size + 0.3 for size in sizes], dtype=dtype)
    return [hidden, weight / H**0.5, bias, soft_sizes]


def fenced(tensor, device):
    """Give a copy that lies amid NaN, so that a read past its ends shows."""
    whole = torch.full((tensor.numel() + 8192,), torch.nan, dtype=tensor.dtype, device=device)
    inner = whole[4096:-4096].view(tensor.shape)
    return inner.copy_(tensor)


def shapes_(sizes):
    """Return the taps along three axes of square kernels."""
    return [extent for size in sizes for extent in (1, size, size)]


def rules_(sizes):
    """Return the soft sizes of their axes."""
    return [rule for layer in range(len(sizes)) for rule in (-1, layer, layer)]


def upstream_of(*shape):
    """Draw a loss's gradient; unseeded, the soft sizes' one could cancel to almost nothing."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def with_gradients(function, tensors, upstream):
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    output = function(*leaves)
    return output, torch.autograd.grad(output, leaves, upstream.to(output))


def assert_near(ours, expected, tolerance=3e-6):
    """Compare by the largest value, since sums of many terms cancel in some elements."""
    ours = ours.detach().double().cpu()
    assert ours.shape == expected.shape
    assert (ours - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1e-3)
