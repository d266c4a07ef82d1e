"""The state of a module, as tensors and as what `get_extra_state` gives beside them.

safetensors holds only tensors. The rest goes to the header as JSON, where it can: whatever would
need pickle, which can run any program when it is read, is refused by name.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def state_of(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a module's state, and its extra states that are JSON values.

    Raises:
        TypeError: if an entry is neither, or a tensor that safetensors cannot hold.
    """
    tensors: dict[str, Tensor] = {}
    extra: dict[str, Any] = {}
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):
            if value.is_meta or value.layout != torch.strided or value.is_quantized:
                kind = "meta" if value.is_meta else "quantized" if value.is_quantized else "sparse"
                raise TypeError(
                    f"entry {name!r} of the network's state is a {kind} tensor, which a file of "
                    "states cannot hold; make it an ordinary one, or leave the file out"
                )
            tensors[name] = value
        elif _is_json(value):
            extra[name] = value
        else:
            raise TypeError(
                f"entry {name!r} of the network's state is a {type(value).__name__}, and a file of "
                "states holds tensors and JSON values; let get_extra_state give one of them, with "
                "text as its keys, or leave the file out"
            )
    return tensors, extra


def _is_json(value: Any) -> bool:
    """Return whether a value comes back from JSON as it was."""
    if isinstance(value, Mapping):
        return type(value) is dict and all(type(k) is str and _is_json(v) for k, v in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    if isinstance(value, float):
        return type(value) is float and json.loads(json.dumps(value)) == value
    return value is None or type(value) in (str, int, bool)
