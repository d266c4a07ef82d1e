"""The command `effconv check`: whether what a search of a network finds is that network."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any

import torch
import tyro
from rich.table import Table

from effconv_core.cli.errors import run_command
from effconv_core.cli.specifiers.model import make_model, own_module
from effconv_core.config import recipe
from effconv_core.io.console import PlainConsole, parsed
from effconv_core.layers.batch_checks import explained_pass
from effconv_core.layers.copying import copy_network
from effconv_core.layers.inputs import copied, run_on
from effconv_core.method.searchable import SearchableCNN
from effconv_core.rng import seeded
from effconv_core.space.search_space import in_words


@dataclass(frozen=True)
class Command:
    """Check that the CNNs of plans are the network that a search would train."""

    model: tyro.conf.Positional[str]
    """The network: torchvision:NAME, timm:NAME, effconv:NAME or package.module:function, a function
    that returns it, called without arguments."""
    shape: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N")] = (3, 224, 224)
    """Shape of one input, such as 3 32 32; two are made, of random numbers."""
    inputs: Annotated[str, tyro.conf.arg(metavar="F")] = ""
    """What a network of other inputs is run on: package.module:function, a function that returns a
    batch of at least two, as one input, a tuple of arguments or a dict of keyword arguments."""
    searched: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[P [P ...]]")] = ()
    """Name patterns of the searched layers, such as 'layer?.*.conv2'; all that can be when none."""


def check_command(arguments: Sequence[str]) -> int:
    """Run `effconv check`; return the exit status."""

    def function() -> None:
        config = (tyro.conf.FlagCreatePairsOff,)
        check(parsed(Command, arguments, prog="effconv check", config=config), PlainConsole())

    return run_command("effconv check", function)


def check(command: Command, console: PlainConsole) -> None:
    """Check a network, and print its convolutions.

    Raises:
        ValueError: if nothing can be searched, the network does not run on inputs of the shape, or
            a CNN of a plan is another network.
    """
    if not command.shape or min(command.shape) < 1:
        raise ValueError(f"shape is {command.shape}; pass positive numbers, such as 3 32 32")
    model = make_model(command.model, seed=0)
    inputs = _own_inputs(command.inputs) if command.inputs else None
    if inputs is None:
        with seeded(0, torch.device("cpu")):
            inputs = torch.randn(2, *command.shape)
    what = f"what {command.inputs} gives" if command.inputs else f"inputs {tuple(inputs.shape)}"
    try:
        network = copy_network(model)
        network.train()
        with seeded(0, torch.device("cpu")), explained_pass(network, inputs):
            run_on(network, copied(inputs))
    except Exception as error:  # of any kind, since it is the user's code
        raise ValueError(
            f"{command.model} does not run on {what} ({type(error).__name__}: {error}); pass the "
            "shape of one input with --shape, or a function that returns inputs with --inputs"
        ) from None
    searchable = SearchableCNN(
        model, recipe("bank"), searched=command.searched or None, example=inputs
    )
    table = Table(title=command.model)
    for column in ("layer", "kernel", "sizes"):
        table.add_column(column)
    layers = zip(searchable.layers, searchable.convs, searchable.space.layers, strict=True)
    for name, conv, layer in layers:
        kernel = "x".join(map(str, conv.kernel_size))
        table.add_row(name, kernel, in_words(layer.allowed))
    for name, reason in searchable.left_alone.items():
        table.add_row(name, "", reason)
    console.print(table)
    count = len(searchable.layers)
    console.print(f"the CNNs of two plans are the network that is searched, in {count} layer(s)")


def _own_inputs(name: str) -> Any:
    module, _, function = name.partition(":")
    try:
        return attrgetter(function)(own_module(module))()
    except Exception as error:  # of any kind, since it is the user's code
        raise ValueError(
            f"inputs {name!r} cannot be made ({type(error).__name__}: {error}); pass "
            "package.module:function, a function that is called with nothing"
        ) from None
