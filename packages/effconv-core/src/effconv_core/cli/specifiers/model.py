"""Build the network that a MODEL specifier names."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from effconv_core.cli.plugins import brought, loaded
from effconv_core.rng import seeded


def make_model(
    name: str,
    *,
    num_classes: int | None = None,
    channels: int | None = None,
    seed: int | None = None,
) -> nn.Module:
    """Build the network that a name stands for, on the CPU.

    Args:
        name: `torchvision:NAME`, `timm:NAME`, `effconv:NAME`, another word that a package brings
            (see `cli/plugins.py`), or `package.module:function`, a function that is called with
            nothing.
        num_classes: of a network by name; its own default when None.
        channels: of the images, for networks of timm and effconv-models; their default when None.
        seed: of the initial values; None leaves them to chance.

    Raises:
        ValueError: if there is none, or it cannot be made.
    """
    source, colon, rest = name.partition(":")
    if not (source and colon and rest):
        raise ValueError(
            f"model {name!r} names no network; pass torchvision:NAME, timm:NAME, effconv:NAME or "
            "package.module:function"
        )
    classes = {} if num_classes is None else {"num_classes": num_classes}
    makers = brought("effconv.models")

    def make() -> Any:
        if source == "torchvision":
            package = importlib.import_module("torchvision.models")
            return package.get_model(rest, weights=None, **classes)
        if source == "timm":
            images = {} if channels is None else {"in_chans": channels}
            package = importlib.import_module("timm")
            return package.create_model(rest, pretrained=False, **classes, **images)
        if source in makers or source == "effconv":
            create = loaded(makers[source]) if source in makers else None
            if create is None:
                raise ImportError(f"models of {source!r} come with a package that is not there")
            images = {} if channels is None else {"in_channels": channels}
            return create(rest, **classes, **images)
        return getattr(own_module(source), rest)()

    try:
        with seeded(seed, torch.device("cpu")):
            model = make()
    except Exception as error:  # of any kind, since it may be the user's code
        raise ValueError(
            f"model {name!r} cannot be made ({type(error).__name__}: {error}); check its name, and "
            "that its package is installed"
        ) from error
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model {name!r} gave a {type(model).__name__}; name one that gives a torch.nn.Module"
        )
    return model


def check_by_name(model: str, **options: int | None) -> None:
    """Check that options that shape a network by name are not passed for a function's network.

    Args:
        model: what names the network.
        options: `num_classes` and the like; None where it was not passed.

    Raises:
        ValueError: if one was passed, and the model is a function, which takes no arguments.
    """
    source = model.partition(":")[0]
    given = [name for name, value in options.items() if value is not None]
    if given and source not in ("torchvision", "timm", "effconv", *brought("effconv.models")):
        option = f"--{given[0].replace('_', '-')}"
        raise ValueError(
            f"{option} is {options[given[0]]}, and model {model!r} is a function, which is called "
            f"without arguments; leave {option} out, or name a function that returns such a network"
        )


def own_module(name: str) -> ModuleType:
    """Import a module of the user, also from the current folder."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as python -m does
    return importlib.import_module(name)
