"""`search`: learn the kernel sizes of a network (EffConv Algorithm 1, lines 1 to 8)."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from effconv_core.config import SearchConfig, recipe
from effconv_core.cost.budget import Budgets
from effconv_core.distributed.consistency import check_same, data_parallel, in_step, leads
from effconv_core.distributed.failures import device_of, together
from effconv_core.engine.choice import STAGES, choose_plan, kept_stages, plan_found
from effconv_core.engine.loader import check_last_batch, check_read_again, epoch_batches
from effconv_core.engine.nonfinite import check_parameters, finite_soon, no_finite_loss
from effconv_core.engine.race import Trials, checked_validation
from effconv_core.engine.resume import costs_of_some, identity_of, resume
from effconv_core.engine.tournament import ROUNDS, tournament
from effconv_core.io.checkpoint import (
    check_writable,
    kept_by,
    last_state,
    save_training_state,
)
from effconv_core.io.progress_bar import check_bar, shown
from effconv_core.layers.batch_checks import (
    check_ambient,
    check_learnable,
    checked_loss,
    explained_pass,
)
from effconv_core.layers.contract import Batch
from effconv_core.layers.inputs import run_on
from effconv_core.method.found import check_found
from effconv_core.method.searchable import SearchableCNN
from effconv_core.plan import SizePlan
from effconv_core.scalars import plain
from effconv_core.space.search_space import flat
from effconv_core.space.selection import LayerFilter, Ranges


@dataclass(frozen=True)
class SearchStep:
    """The result of one search step; tensors stay on the device, so reading one synchronises.

    Soft sizes, sizes and cost are those learned so far; if the config draws the sizes of a step,
    losses and outputs are those of the drawn ones. Sizes and cost are computed from the soft sizes
    when they are read, which waits for the device. In a search by several processes, task loss,
    outputs and targets are those of this rank's part of the batch.

    Attributes:
        epoch: counted from 0.
        step: index of the step in its epoch, counted from 0.
        task_loss: scalar, detached.
        budget_loss: scalar, the weighted budget term, detached.
        outputs: the network's outputs, `(B, classes)` for a classifier.
        targets: the batch's targets, `(B,)` for a classifier.
        soft_sizes: `(S,)`, detached.
        searchable: the network being searched.
    """

    epoch: int
    step: int
    task_loss: Tensor
    budget_loss: Tensor
    outputs: Any = field(repr=False)
    targets: Any = field(repr=False)
    soft_sizes: Tensor = field(repr=False)
    searchable: SearchableCNN = field(repr=False)

    @cached_property
    def sizes(self) -> list[int]:
        """The S soft sizes, rounded to allowed ones."""
        return self.searchable.rounded(self.soft_sizes)

    @cached_property
    def cost(self) -> int:
        """The cost of the sizes in parameters."""
        return self.searchable.cost(self.sizes)


def search(
    model: nn.Module,
    loader: Iterable[tuple[Any, Any]],
    *,
    budget: Budgets | None = None,
    config: SearchConfig | None = None,
    criterion: Callable[[Any, Any], Tensor] = F.cross_entropy,
    searched: LayerFilter | None = None,
    allowed: Ranges | None = None,
    tie: Iterable[str | Iterable[str]] = (),
    per_axis: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    on_step: Callable[[SearchStep], None] | None = None,
    on_round: Callable[[int, int], None] | None = None,
    progress: bool = False,
    group: dist.ProcessGroup | None = None,
    skips: bool | None = None,
    validation: Iterable[tuple[Any, Any]] | None = None,
) -> SizePlan:
    """Learn the kernel sizes of a network under a budget (EffConv Algorithm 1, lines 1 to 8).

    Args:
        model: any network with convolutions; it is not changed. The search runs on its device and
            in its memory format. Or a `SearchableCNN`, which is trained in place, so that its
            `warm_start` can be called afterwards; it already has the config and the layer
            selection.
        loader: iterable of batches `(inputs, targets)`, read once per epoch and, with several
            finalists, for their comparison. `set_epoch` of it, its samplers and its data set, where
            there is one, is called before. Inputs that are a tuple or list are the network's
            positional arguments, a dict its keyword arguments. A batch that is a dict holds these
            and has no targets.
        budget: the target parameter count of the found network, a `Budget`, or several of them
            that it must meet at once; None is what the network's own sizes cost.
        config: settings; None is `recipe("bank")`; `recipe("paper")` has the paper's.
        criterion: the task's loss of `(outputs, targets)`, a scalar.
        searched: which convolutions are searched, see `searched_layers`.
        allowed: the sizes that layers may have, see `SearchableCNN`.
        tie: groups of layers that share their size, see `SearchableCNN`.
        per_axis: whether kernels may be rectangular, see `SearchableCNN`.
        checkpoint: a file that is written after each epoch and, if it exists, resumed from; the
            one before it is kept too, see `load_training_state`.
        on_step: called after each step.
        on_round: called before each round of the comparison of plans, as by `tournament`.
        progress: whether to draw a progress bar, with `effconv-core[cli]`, on the standard error.
        group: the processes that share this search, each of which calls this with its own part of
            each batch; None searches in this process only. Gradients are averaged by
            DistributedDataParallel, rank 0 writes the checkpoint and all ranks read it. In a
            program that torchrun started, `torch.distributed.group.WORLD`.
        skips: for a group, whether a pass may leave out some of the network's layers, by chance or
            by its inputs; None finds out on the first batch, and takes a network that draws random
            numbers outside of dropout layers for one that may.
        validation: batches, at least five an epoch, on which plans are compared; nothing is trained
            on them. Pass them where new data differ from those of training, such as recordings of
            other speakers; not those of the test. None holds out one in five training batches.

    Returns:
        The plan, whose cost is within the config's tolerance of the budget. With `race_steps` it
        has evidence of how it compares with the network's own sizes, see `SizePlan.evidence`.

    Raises:
        TypeError: if the model, budget, config, criterion or loader is of the wrong kind or cannot
            be read again, inputs or targets have a dtype that the network or cross entropy does
            not take, or the checkpoint cannot hold the network's state.
        OSError: if the checkpoint cannot be written, before anything is trained.
        ValueError: if no layer can be searched, the budget cannot be met, the loader is empty, the
            inputs have another channel count than the network takes, a label is none of the
            network's classes, a layer is not run, the loss depends on parameters that nothing
            trains, gradients are off or autocast is on around it, or the checkpoint belongs to
            another search.
        FloatingPointError: if the loss or a soft size is not finite; the message names the step,
            the layer and the last good checkpoint.
        RuntimeError: if a rank has failed, or diverged from the others; the message names it.
    """
    with together(group, device_of(model)):
        if progress and leads(group):
            check_bar()
        budget = plain(budget)
        choices = {"searched": searched, "allowed": allowed}
        choices |= {"tie": tie or None, "per_axis": per_axis or None}
        given = {name: choice for name, choice in choices.items() if choice is not None}
        searchable = _made_searchable(model, config, given)
        config = searchable.config
        if budget is None:
            budget = searchable.cost(flat(searchable.original_sizes.values()))
        if checkpoint is not None:
            # Also after an os.chdir of the loader or a callback.
            checkpoint = Path(checkpoint).absolute()
        if checkpoint is not None and leads(group):
            check_writable(checkpoint, searchable)
        check_learnable(searchable.model, criterion)
        searchable.plan(budget)  # raises before any training if the budget cannot be met
        optimizer = torch.optim.AdamW(searchable.parameter_groups())
        if validation is not None and not config.trains_plans:
            raise ValueError(
                f"a validation loader is given, and with finalists {config.finalists} and "
                f"race_steps {config.race_steps} no plans are trained and compared on it; leave it "
                "out, or take recipe('bank')"
            )
        tested = checked_validation(searchable.source[0], validation, criterion)
        identity = identity_of(searchable, budget, tested)
        state = {**identity, "epoch": 0}
        if checkpoint is not None and Path(checkpoint).exists():
            state = resume(checkpoint, searchable, optimizer, identity)
        beginning = {"epoch": state["epoch"], "plan": state.get("plan"), "progress": state}
        beginning["cost of plans"] = costs_of_some(searchable, budget)
    check_same(identity | beginning, device_of(searchable), group)
    if "plan" in state:
        return plan_found(checkpoint, state["plan"], searchable, budget)
    options = {"show": progress and leads(group), "epochs_of": config.epochs_of, "budget": budget}
    options["rounds"] = STAGES if config.race_steps else ROUNDS
    data = {"loader": loader, "validation": validation, "validation_steps": tested}
    with shown("search", loader, on_step, on_round, **options) as calls:
        return _learned(
            searchable, data, optimizer, state, budget, criterion, checkpoint, calls, group, skips
        )


def _made_searchable(
    model: nn.Module, config: SearchConfig | None, choices: Mapping[str, Any]
) -> SearchableCNN:
    """Return the searchable network of a network, or what is one already."""
    if not isinstance(model, SearchableCNN):
        return SearchableCNN(model, recipe("bank") if config is None else config, **choices)
    if given := [*([] if config is None else ["config"]), *choices]:
        raise ValueError(
            f"the model is a SearchableCNN, and search is given {given} beside it; pass them to "
            "SearchableCNN instead"
        )
    return model


def _learned(
    searchable: SearchableCNN,
    data: dict[str, Any],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    budget: Budgets,
    criterion: Callable[[Any, Any], Tensor],
    checkpoint: str | os.PathLike[str] | None,
    calls: tuple[Callable[..., None] | None, Callable[..., None] | None],
    group: dist.ProcessGroup | None,
    skips: bool | None,
) -> SizePlan:
    """Train the searchable network from where its state is, and choose the plan."""
    config, (on_step, on_round), loader = searchable.config, calls, data["loader"]
    device = device_of(searchable)

    def keep_progress() -> None:
        if checkpoint is not None:
            with together(group, device):
                if leads(group):
                    save_training_state(checkpoint, searchable, optimizer, state)

    network = data_parallel(searchable.train(), group, skips=skips)
    # A search that begins does not know yet how many steps an epoch has.
    steps = state.get("epoch_steps", config.least_steps or 1)
    epoch, epochs = state["epoch"], config.epochs_of(steps)
    if epoch < epochs or config.finalists > 1:
        with together(group, device):
            check_ambient(searchable.model)
            check_read_again(loader, once=config.epochs_of(1) == config.finalists == 1)
            on_step = kept_by(checkpoint, searchable, optimizer, on_step)
    while epoch < epochs:
        try:
            state["epoch_steps"] = _run_epoch(
                searchable, network, loader, optimizer, epoch, budget, criterion, on_step, group
            )
            check_parameters(searchable, epoch)
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}; {last_state(checkpoint, epoch)}") from None
        state["epoch"] = epoch = epoch + 1
        epochs = config.epochs_of(state["epoch_steps"])
        keep_progress()
    if config.finalists == 1:
        return searchable.plan(budget)
    if config.race_steps:
        done = state["choice"] = kept_stages(state.get("choice", {}))

        def remember(name: str, compute: Callable[[], Any]) -> Any:
            if name not in done:
                done[name] = compute()
                keep_progress()
            return done[name]

        counts = {"epoch_steps": state["epoch_steps"], "epochs": epochs}
        with_ = {"config": config, "criterion": criterion, "device": device, "group": group}
        trials = Trials(searchable.source[0], **data, **counts, **with_)
        plan = choose_plan(searchable, trials, budget, remember=remember, on_round=on_round)
    else:
        options = {"criterion": criterion, "on_round": on_round, "group": group}
        plan = tournament(searchable, loader, budget=budget, **options)
    state["plan"] = plan.to_json()
    keep_progress()
    return plan


def _run_epoch(
    searchable: SearchableCNN,
    network: Callable[..., Any],
    loader: Iterable[tuple[Any, Any]],
    optimizer: torch.optim.Optimizer,
    epoch: int,
    budget: Budgets,
    criterion: Callable[[Any, Any], Tensor],
    on_step: Callable[[SearchStep], None] | None,
    group: dist.ProcessGroup | None,
) -> int:
    """Train for an epoch; return its number of steps."""
    device = device_of(searchable)
    step = 0
    batches = in_step(epoch_batches(loader, epoch, device), searchable, group, epoch)
    for step, (inputs, targets) in enumerate(batches):
        if epoch == step == 0:
            with together(group, device):
                check_found(searchable, Batch(inputs, targets, criterion))
                check_last_batch(searchable.source[0], loader, inputs)
        # Before the forward pass, so that it, or a CUDA graph, can use the gradients' memory.
        optimizer.zero_grad()
        with explained_pass(searchable.model, inputs):
            outputs = run_on(network, inputs)
        task_loss = checked_loss(criterion, outputs, targets, first=step == 0)
        budget_loss = searchable.budget_loss(budget)
        loss = task_loss + budget_loss
        is_finite = finite_soon(loss)
        loss.backward()
        if not is_finite():
            raise no_finite_loss(searchable, (inputs, targets), loss=loss, epoch=epoch, step=step)
        optimizer.step()
        if on_step is not None:
            losses, soft_sizes = (task_loss.detach(), budget_loss.detach()), searchable.soft_sizes
            given = *losses, outputs, targets, soft_sizes.detach(), searchable
            on_step(SearchStep(epoch, step, *given))
    return step + 1
