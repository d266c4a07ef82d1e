"""`hatch run bench:efficiency`: the time of a search step by part, and its scaling.

A step of the paper's recipe is taken whole, and again in parts: the graph is cut between size
predictor, unroll, assembly and network, and each part's backward pass gets the gradients of
the next one. Whole, cut and plain steps alternate.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from effconv_core import SearchableCNN
from effconv_core.io.atomic import write_text
from effconv_core.runs.environment import environment
from effconv_kernels import assemble_kernels
from effconv_models import WideResNet, create_model
from rich.console import Console
from torch import Tensor, nn

from tools.bench.core import BenchOptions, interleave, quantiles, run_bench, write
from tools.bench.efficiency_page import AXES, PAGE, PARTS, RESULTS, efficiency_page
from tools.bench.steps import check_held, held_at, plain_and_search, random_batch, to_device
from tools.support.console import plain_bar


@dataclass(frozen=True)
class EfficiencyPoint:
    """One network, its kernel sizes, its batch, and the recipe of its search steps."""

    recipe: str = "paper"
    depth: int = 20
    width: int = 1
    """Factor on the channels of 16, 32 and 64; above 1 it is a Wide-ResNet-16."""
    size: int = 5
    """Kernel size of each searched layer; the default recipe's steps draw around it."""
    image_size: int = 32
    batch_size: int = 64


@dataclass(frozen=True, kw_only=True)
class EfficiencyOptions(BenchOptions):
    """Time the parts of a search step, and the step over depth, width, size, image and batch."""

    pairs: int = 10
    """Timed steps of each kind at each point."""
    warmups: int = 2
    out: Path | None = None
    """File for the result as JSON; by default `efficiency-cpu.json` or `efficiency-cuda.json` in
    the folder of results."""
    results: Path = RESULTS
    """Folder of the results that the page is made of."""
    page: Path = PAGE
    report: bool = False
    """Only write the page from existing results."""


def efficiency_points() -> Iterator[tuple[str, EfficiencyPoint]]:
    """Yield what is timed: along each axis the others stay."""
    for axis, values in AXES.items():
        for value in values:
            yield axis, replace(EfficiencyPoint(), **{axis: value})


def network(point: EfficiencyPoint, sizes: int) -> nn.Module:
    """Return a point's network with a kernel size."""
    generator = torch.Generator().manual_seed(0)
    if point.width > 1:
        return WideResNet(16, point.width, kernel_sizes=sizes, generator=generator)
    return create_model(f"cifar_resnet{point.depth}", kernel_sizes=sizes, generator=generator)


class CutStep:
    """A search step in separately timed parts; its gradients are those of the whole step."""

    def __init__(
        self, searchable: SearchableCNN, budget: float, images: Tensor, labels: Tensor
    ) -> None:
        self.searchable, self.budget = searchable, budget
        self.images, self.labels = images, labels
        self.optimizer = torch.optim.AdamW(searchable.parameter_groups())

    def __call__(self, clock: Callable[[], float]) -> dict[str, float]:
        """Take a step; return the seconds of each part, forward and backward."""
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


def time_efficiency_point(point: EfficiencyPoint, options: EfficiencyOptions) -> dict:
    """Time plain, whole and cut steps of a point alternately.

    Raises:
        RuntimeError: if the sizes changed.
    """
    batch = random_batch(point.batch_size, point.image_size, options.device)
    config = held_at(point.size, point.recipe, k=max(3, point.size - 1))
    steps, whole = plain_and_search(partial(network, point), point.size, config, batch)
    budget = whole.cost([point.size] * len(whole.layers))
    searchable = to_device(SearchableCNN(network(point, 3), config), options.device)
    cut_step, cut = CutStep(searchable, budget, *batch), []

    def clock() -> float:
        if options.device.startswith("cuda"):
            torch.cuda.synchronize(options.device)
        return time.perf_counter()

    steps["cut"] = lambda: cut.append(cut_step(clock))
    times = interleave(
        steps,
        options.pairs,
        device=options.device,
        warmups=options.warmups,
        after=partial(check_held, whole, point.size),
    )
    del times["cut"]
    times |= {part: [spent[part] for spent in cut[options.warmups :]] for part in PARTS}
    return {
        "point": asdict(point),
        "layers": len(whole.layers),
        "parameters": int(budget),
        "seconds": {name: quantiles(values) for name, values in times.items()},
    }


def run(options: EfficiencyOptions, console: Console) -> None:
    """Time all points, write the result, and make the page of all results."""
    if not options.report:
        rows, wanted = [], list(efficiency_points())
        with plain_bar(console) as progress:
            for axis, point in progress.track(wanted, description="points"):
                rows.append({"axis": axis, **time_efficiency_point(point, options)})
        content = {
            "environment": {"data": "random pictures", **environment(options.device)},
            "pairs": options.pairs,
            "rows": rows,
        }
        name = f"efficiency-{torch.device(options.device).type}.json"
        write(content, options.out or options.results / name, console)
    write_text(options.page, efficiency_page(options.page, options.results))
    console.print(f"{options.page} written from {options.results}", soft_wrap=True)


if __name__ == "__main__":
    run_bench("bench:efficiency", EfficiencyOptions, run)
