"""NVIDIA ModelOpt's AutoNAS, searching only kernel sizes, from a network of 7x7 kernels.

ModelOpt is not a dependency of the project; `hatch run modelopt:versus` installs it in its own
environment. Its use here follows its guide and the source of 0.47.0.
"""

import contextlib
import io
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from effconv_core import SearchableCNN, apply_plan
from effconv_core.engine.train import train
from torch import Tensor, nn

from tools.studies.small_spaces import TOLERANCE, Space
from tools.versus.count import Count
from tools.versus.scales import AutoNas

LARGEST = 7
# Sizes keep the parity of their initial size.
SIZES = (1, 3, 5, 7)
CALIBRATION_BATCHES = 50  # as many as ModelOpt keeps


def import_modelopt() -> tuple[ModuleType, ModuleType]:
    """Return `modelopt` and `modelopt.torch.nas`.

    Raises:
        ImportError: if one of their requirements is not installed.
    """
    import modelopt
    import modelopt.torch.nas

    # It is imported only well into a search.
    import torchprofile.profile

    import tools.support.compat  # noqa: F401

    if not hasattr(torchprofile.profile, "handlers"):
        raise ImportError(
            "ModelOpt needs the handlers of torchprofile 0.0.4, which later releases lack; "
            "pip install torchprofile==0.0.4"
        )
    return modelopt, modelopt.torch.nas


def autonas(
    space: Space,
    settings: AutoNas,
    seed: int,
    count: Count,
) -> tuple[dict[str, int], dict[str, Any]]:
    """Train a supernet of 7x7 kernels, then search it for the sizes of lowest training loss.

    Args:
        space: the network, its data and budget.
        settings: settings of the supernet's training and of the search.
        seed: seed of the initial values, of the data's order and of ModelOpt's draws.
        count: counts all training steps and forward passes.

    Returns:
        The plan, and a record of the search.

    Raises:
        ImportError: if ModelOpt cannot be imported.
        ValueError: if no sampled subnet is near the budget.
    """
    modelopt, mtn = import_modelopt()

    # There is no public way to set a seed; 0 would count as none.
    mtn.utils.random._set_deterministic_seed(seed + 1)
    searchable = SearchableCNN(space.network(seed))
    layers, budget = searchable.layers, space.budget
    generator = torch.Generator().manual_seed(seed)
    start = apply_plan(space.network(seed), dict.fromkeys(layers, LARGEST), generator=generator).to(
        memory_format=torch.contiguous_format
    )  # it refuses channels_last
    fixed = {"channels_ratio": (1.0,), "channel_divisor": 1, "kernel_size": ()}
    searched = {layer: {**fixed, "kernel_size": SIZES} for layer in layers}
    rules = {
        "nn.Conv2d": {"*": fixed, **searched},
        "nn.Sequential": None,  # depth
        "nn.Linear": None,
    }
    supernet = mtn.convert(start, mode=[("autonas", rules)])
    free = {
        name.removesuffix(".kernel_size") for name in mtn.utils.get_subnet_config(supernet, True)
    }
    if free != set(layers):
        raise ValueError(
            f"ModelOpt would search {sorted(free)}, not {sorted(layers)}; mend the rules in "
            f"{__name__} for ModelOpt {modelopt.__version__}"
        )
    config = replace(space.train, epochs=settings.epochs_factor * space.train.epochs)
    batches = space.batches("train", seed)
    train(supernet, batches, config, on_step=count.step)

    batches.set_epoch(config.epochs)
    scored = list(itertools.islice(batches, settings.scored_batches))
    number = settings.calibration_pictures

    def calibration() -> Iterator[Tensor]:
        batches.set_epoch(config.epochs + 1)
        for images, _ in itertools.islice(itertools.cycle(batches), CALIBRATION_BATCHES):
            yield images[:number]

    tried: list[int] = []

    @torch.no_grad()
    def score(subnet: nn.Module) -> float:
        sizes = [subnet.get_submodule(layer).kernel_size[0] for layer in layers]
        if abs(searchable.cost(sizes) / budget - 1) > TOLERANCE:
            return -math.inf
        tried.append(searchable.cost(sizes))
        subnet.eval()
        return -sum(F.cross_entropy(subnet(images), labels).item() for images, labels in scored)

    picture = scored[0][0][:1]
    hook = supernet.register_forward_pre_hook(
        lambda _, inputs: count.forward(len(inputs[0]) / space.train.batch_size)
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        found, state = mtn.search(
            supernet,
            # An upper bound; by default the search goes no lower than 85 % of it.
            constraints={"params": (1 + TOLERANCE) * budget},
            dummy_input=picture,
            config={
                "data_loader": list(calibration()),
                "collect_func": lambda images: images,
                "score_func": score,
                "verbose": False,
                **settings.settings,
            },
        )
    hook.remove()
    if not tried:
        raise ValueError(
            f"ModelOpt drew no subnet within {TOLERANCE:.0%} of the budget in "
            f"{state['iter_num'] + 1} iterations; raise num_iters"
        )
    plan = {layer: found.get_submodule(layer).kernel_size[0] for layer in layers}
    return plan, {
        "modelopt": modelopt.__version__,
        "supernet_epochs": config.epochs,
        "iterations": state["iter_num"] + 1,
        "subnets_scored": len(tried),
    }
