"""The check that a network takes back what its `state_dict` gives, as it must from any file."""

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from effconv_core.layers.copying import copy_network


@torch.no_grad()
def check_own_state(network: nn.Module) -> None:
    """Raise unless a network's `load_state_dict` brings back all that it trains.

    A copy is made, its values are spoilt, and the network's own state is loaded into it.

    Args:
        network: any network; it is not changed.

    Raises:
        ValueError: if the state does not fit the network, or a parameter or a buffer of floating
            point that is part of the state does not come back; the message names it.
    """
    twin = copy_network(network)
    for tensor in _kept(twin).values():
        tensor.fill_(torch.nan)
    remedy = "let its state_dict and load_state_dict hold all of it under the same names"
    try:
        twin.load_state_dict(network.state_dict())
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"the network does not load its own state_dict ({error}), so no file of what is "
            f"trained could be read again; {remedy}"
        ) from error
    again = _kept(twin)
    for name, tensor in _kept(network).items():
        if not torch.allclose(tensor, again[name], rtol=0, atol=0, equal_nan=True):
            raise ValueError(
                f"{name!r} of the network does not come back by load_state_dict from its own "
                f"state_dict, so a file of what is trained would lose it; {remedy}"
            )


def _kept(network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of floating point that a state should hold, by name."""
    passing = {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in network.named_modules()
        for name in module._non_persistent_buffers_set
    }
    buffers = {n: buffer for n, buffer in network.named_buffers() if n not in passing}
    held = {**dict(network.named_parameters()), **buffers}
    return {n: t for n, t in held.items() if not is_lazy(t) and t.is_floating_point()}
