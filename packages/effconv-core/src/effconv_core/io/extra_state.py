"""The state of a module, as tensors and as what `get_extra_state` gives beside them.

safetensors holds only tensors. The rest goes to the header as JSON, where it can: whatever would
need pickle, which can run any program when it is read, is refused by name.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from effconv_core.io.read_json import LIMIT, decode_json, is_text

LARGEST_INT = 2**128
"""Largest absolute value of integers, which may be states of NumPy's generators."""


def state_of(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a module's state, and its extra states that are JSON values.

    Raises:
        TypeError: if an entry is neither, or a tensor that safetensors cannot hold.
        ValueError: if the extra states are too long together to be read again, or a name is not
            text.
    """
    tensors: dict[str, Tensor] = {}
    extra: dict[str, Any] = {}
    for name, value in model.state_dict().items():
        if not is_text(name):
            raise ValueError(
                f"entry {name!r} of the network's state has half of a character in its name, which "
                "no file can hold; rename its module, or leave the file out"
            )
        if isinstance(value, Tensor):
            if value.is_meta or value.layout != torch.strided or value.is_quantized:
                kind = "meta" if value.is_meta else "quantized" if value.is_quantized else "sparse"
                raise TypeError(
                    f"entry {name!r} of the network's state is a {kind} tensor, which a file of "
                    "states cannot hold; make it an ordinary one, or leave the file out"
                )
            tensors[name] = value
        elif _comes_back(value):
            extra[name] = value
        else:
            raise TypeError(
                f"entry {name!r} of the network's state is a {type(value).__name__}, and a file of "
                "states holds tensors and JSON values; let get_extra_state give one of them, with "
                f"text as its keys, integers up to {LARGEST_INT:.0e} and at most 31 levels, or "
                "leave the file out"
            )
    if len(json.dumps(extra)) > LIMIT:
        raise ValueError(
            f"the extra states {list(extra)[:3]} of the network have more than {LIMIT:,} "
            "characters; let get_extra_state give tensors"
        )
    return tensors, extra


def _comes_back(value: Any) -> bool:
    """Return whether a value comes back from a file as it was."""
    try:
        text = json.dumps({"": value}) if _is_json(value) else ""
        return decode_json(text, Any, finite=False, largest=LARGEST_INT) == {"": value}
    except (ValueError, RecursionError):
        return False


def _is_json(value: Any) -> bool:
    """Return whether a value consists of what JSON has."""
    if isinstance(value, Mapping):
        return type(value) is dict and all(type(k) is str and _is_json(v) for k, v in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    return value is None or type(value) in (str, int, float, bool)
