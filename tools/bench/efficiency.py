"""`hatch run bench:efficiency`: where a search step's time goes, and how it grows.

A step of the paper's recipe is taken whole, and again cut into its parts: the graph is cut between
size predictor, unroll, assembly and network, and each part's backward pass gets the gradients that
the next one gave. Whole, cut and plain steps take turns.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from effconv_core import SearchableCNN, SearchConfig, recipe
from effconv_core.endings import check_device, run_command
from effconv_core.io.atomic import write_text
from effconv_core.run_files import environment
from effconv_kernels import assemble_kernels
from effconv_models import WideResNet, create_model
from rich.console import Console
from torch import Tensor, nn

from tools.bench.efficiency_page import AXES, PAGE, PARTS, RESULTS, efficiency_page
from tools.bench.search_step import seconds, spread, training_step
from tools.support.console import plain_bar


@dataclass(frozen=True)
class Point:
    """One network, its kernel sizes, its batch, and whose search steps are taken."""

    recipe: str = "paper"
    depth: int = 20
    width: int = 1
    """Times the channels of 16, 32 and 64; above 1 it is a Wide-ResNet-16."""
    size: int = 5
    """Kernel size of every searched layer; the default recipe's steps draw around it."""
    image_size: int = 32
    batch_size: int = 64


@dataclass(frozen=True)
class Options:
    """Time the parts of a search step, and the step over depth, width, size, image and batch."""

    pairs: int = 10
    """Counted steps of each kind at each point."""
    warmups: int = 2
    threads: int = torch.get_num_threads()
    """Threads of the CPU."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    results: Path = RESULTS
    """Folder that gets `efficiency-cpu.json` or `efficiency-cuda.json`."""
    page: Path = PAGE
    report: bool = False
    """Only write the page from the results that there are."""

    def __post_init__(self) -> None:
        # A percentile takes two.
        for name, least in (("pairs", 2), ("warmups", 0), ("threads", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be at least {least}, so raise it"
                )


def points() -> Iterator[tuple[str, Point]]:
    """Give what is measured: along each axis the others stay."""
    for axis, values in AXES.items():
        for value in values:
            yield axis, dataclasses.replace(Point(), **{axis: value})


def network(point: Point, sizes: int) -> nn.Module:
    """Make a point's network."""
    generator = torch.Generator().manual_seed(0)
    if point.width > 1:
        return WideResNet(16, point.width, kernel_sizes=sizes, generator=generator)
    return create_model(f"cifar_resnet{point.depth}", kernel_sizes=sizes, generator=generator)


def held_at(size: int, name: str = "paper") -> SearchConfig:
    """Give a recipe with soft sizes that start at a size and stay there."""
    k = max(3, size - 1)
    wanted = torch.tensor((size - k - 1) / k, dtype=torch.float64)
    return recipe(name, size_lr=1e-9, k=k, b=float(torch.atanh(wanted)))


class CutStep:
    """A search step in parts, each of which can be timed; its gradients are those of the whole."""

    def __init__(
        self, searchable: SearchableCNN, budget: float, images: Tensor, labels: Tensor
    ) -> None:
        self.searchable, self.budget = searchable, budget
        self.images, self.labels = images, labels
        self.optimizer = torch.optim.AdamW(searchable.parameter_groups())

    def __call__(self, clock: Callable[[], float]) -> dict[str, float]:
        """Take a step; give the seconds of each part, forward and backward."""
        spent, before = dict.fromkeys(PARTS, 0.0), clock()

        def tell(part: str) -> None:
            nonlocal before
            now = clock()
            spent[part] += now - before
            before = now

        searchable, predictor = self.searchable, self.searchable.kernel_predictor
        self.optimizer.zero_grad()
        found, sizes = searchable._drawn_sizes()
        soft_sizes = _leaf(found)
        tell("size predictor")
        if searchable.config.kernel_form == "bank":
            assembled = predictor(soft_sizes, sizes)
        else:
            states = predictor.grus([size * size for size in sizes])
            hidden = _leaf(states)
            tell("unroll")
            assembled = assemble_kernels(
                hidden,
                predictor.weight,
                predictor.bias,
                soft_sizes,
                sizes=sizes,
                channels=[layer.channels for layer in searchable.space.layers],
                centre=predictor.centre,
            )
        kernels = [_leaf(kernel) for kernel in assembled]
        tell("assembly")
        with searchable.kernels_of(kernels):
            loss = F.cross_entropy(searchable.model(self.images), self.labels)
        loss.backward()
        tell("network")
        torch.autograd.backward(assembled, [kernel.grad for kernel in kernels])
        tell("assembly")
        if searchable.config.kernel_form != "bank":
            states.backward(hidden.grad)
            tell("unroll")
        penalty = searchable.budget_loss(self.budget)
        torch.autograd.backward([found, penalty], [soft_sizes.grad, None])
        tell("size predictor")
        self.optimizer.step()
        tell("optimizer")
        return spent


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def measure(point: Point, options: Options) -> dict:
    """Time plain, whole and cut steps of a point in turns.

    Raises:
        RuntimeError: if the sizes did not stay where they were put.
    """
    generator = torch.Generator().manual_seed(0)
    shape = point.batch_size, 3, point.image_size, point.image_size
    images = torch.randn(shape, generator=generator)
    images = images.to(options.device, memory_format=torch.channels_last)
    labels = torch.arange(point.batch_size, device=options.device) % 10

    def to_device(model: nn.Module) -> nn.Module:
        return model.to(options.device, memory_format=torch.channels_last).train()

    config = held_at(point.size, point.recipe)
    plain = to_device(network(point, point.size))
    whole, cut = (to_device(SearchableCNN(network(point, 3), config)) for _ in range(2))
    budget = whole.cost([point.size] * len(whole.layers))
    groups = [{"params": plain.parameters(), "lr": config.cnn_lr}]
    plain_step = training_step(plain, groups, images, labels)
    whole_step = training_step(
        whole, whole.parameter_groups(), images, labels, lambda: whole.budget_loss(budget)
    )
    cut_step = CutStep(cut, budget, images, labels)

    def clock() -> float:
        if options.device.startswith("cuda"):
            torch.cuda.synchronize(options.device)
        return time.perf_counter()

    times: dict[str, list[float]] = {name: [] for name in ("plain", "search", *PARTS)}
    kinds = {
        "plain": lambda: {"plain": seconds(plain_step, options.device)},
        "search": lambda: {"search": seconds(whole_step, options.device)},
        "cut": lambda: cut_step(clock),
    }
    for turn in range(options.warmups + options.pairs):
        for kind in list(kinds)[:: 1 if turn % 2 else -1]:
            for name, value in kinds[kind]().items():
                times[name].append(value)
        if set(whole.sizes) != {point.size}:
            raise RuntimeError(f"the sizes left {point.size}: {whole.sizes}")
    counted = {name: values[options.warmups :] for name, values in times.items()}
    return {
        "point": asdict(point),
        "layers": len(whole.layers),
        "parameters": int(budget),
        "seconds": {name: spread(values) for name, values in counted.items()},
    }


def main() -> None:
    """Run the command line."""
    options, console = tyro.cli(Options, prog="bench:efficiency"), Console()
    if not options.report:
        check_device(options.device)
        torch.set_num_threads(options.threads)
        rows, wanted = [], list(points())
        with plain_bar(console) as progress:
            for axis, point in progress.track(wanted, description="points"):
                rows.append({"axis": axis, **measure(point, options)})
        content = {
            "environment": {"data": "random pictures", **environment(options.device)},
            "pairs": options.pairs,
            "rows": rows,
        }
        options.results.mkdir(parents=True, exist_ok=True)
        out = options.results / f"efficiency-{torch.device(options.device).type}.json"
        write_text(out, json.dumps(content, indent=1) + "\n")
        console.print(f"{out} written", soft_wrap=True)
    write_text(options.page, efficiency_page(options.page, options.results))
    console.print(f"{options.page} written from {options.results}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(run_command("bench:efficiency", main))
