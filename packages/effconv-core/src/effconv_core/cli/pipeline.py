"""Pipeline of a run in a folder: search, training from scratch, test and report.

An interrupted run does not repeat finished work: search and training resume from their last
checkpoint, and everything else is derived from them again.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from effconv_core.cli.announce import say_search, say_training, say_where
from effconv_core.cli.errors import check_device
from effconv_core.cli.networks import fresh_cnn, original_sizes, placed
from effconv_core.cli.specifiers.data import Data
from effconv_core.config import check_seed
from effconv_core.cost.budget import Budgets
from effconv_core.distributed.process_group import Ranks
from effconv_core.engine.by_class import evaluate_by_class
from effconv_core.engine.choice import STAGES
from effconv_core.engine.loader import RepeatableLoader, known_count
from effconv_core.engine.race import PARTS
from effconv_core.engine.search import SearchStep, search
from effconv_core.engine.tournament import ROUNDS
from effconv_core.engine.train import evaluate, train
from effconv_core.evidence import sentences
from effconv_core.filling import filling_sentence
from effconv_core.io.progress_bar import progress_bar
from effconv_core.method.searchable import SearchableCNN
from effconv_core.plan import SizePlan, save
from effconv_core.report import finish_run, reported
from effconv_core.report.markdown import adjustment_sentence, draw_sizes, layer_table, write_report
from effconv_core.rng import seeded
from effconv_core.runs.lock import claim
from effconv_core.runs.loggers import check_logger
from effconv_core.runs.metrics import Metrics
from effconv_core.runs.names import check_name
from effconv_core.runs.options import RunOptions, SearchOptions
from effconv_core.runs.owner import mark
from effconv_core.runs.progress import step_meter
from effconv_core.runs.reader import COMPARISON
from effconv_core.runs.tests import record, write_tests
from effconv_core.runs.writer import check_run, describe, open_run
from effconv_core.scalars import in_figures
from effconv_core.space.selection import searched_layers

MISTAKES = 10
"""Mistakes of the test that a run keeps."""
LockFactory = Callable[[Path], AbstractContextManager[Any]]


def check_options(options: RunOptions) -> None:
    """Raise for a device or logger that is missing, what it cannot do, and a name that is none."""
    check_logger(options.logger)
    check_seed(options.seed)
    if options.name:
        check_name(options.name)
    check_device(options.device)
    if options.sync_batchnorm and not options.device.startswith("cuda"):
        raise ValueError(
            f"sync_batchnorm is asked for on device {options.device!r}, and PyTorch's "
            "SyncBatchNorm runs only on GPUs; leave it out"
        )


def search_and_train(
    folder: Path,
    settings: Mapping[str, Any],
    options: SearchOptions,
    model: nn.Module,
    data: Data,
    *,
    console: Console,
    ranks: Ranks,
    budget: Budgets | None = None,
    training: bool = True,
    hold: LockFactory = claim,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Learn sizes, train the found CNN, and write the reports; return the result.

    Args:
        folder: the run's folder.
        settings: everything that affects the run's outcome.
        options: options of the command line.
        model: the network to search.
        data: its images.
        console: where progress is shown.
        ranks: the processes that share the run.
        budget: as for `search`; None takes the parameter count of the options.
        training: whether the found CNN is trained.
        hold: locks the folder against other processes.
        check: called before the run writes anything, unless it is finished; raises what it finds.

    Raises:
        FileExistsError: if the run is finished, has other settings, or is held by another
            process.
        ValueError: as `search`, `train` or the data do.
    """
    done = None if options.overwrite else ranks.from_first(partial(reported, folder, settings))
    if done is not None:
        return done
    budget = options.budget if budget is None else budget
    with ranks.together():  # raises before the run writes anything
        check()
        search_batch = ranks.share(options.batch_size, "batch_size")
        train_batch = ranks.share(options.train.batch_size, "batch_size of the training")
        # Of sets all ranks have as many; a function of the user's own is called for each size.
        counts = [len(data.train(train_batch))] if training and data.first else []
        model = placed(model, options, ranks)
        searchable = SearchableCNN(model, options.search)
        searchable.plan(budget)
        test = data.test() if training else None  # first, so that a function gives all at once
        counts.append(len(data.train(search_batch)))
        validation = data.comparison(search_batch) if options.search.trains_plans else None
        if training and data.samples is not None and options.train.batch_size > data.samples:
            raise ValueError(
                f"--train.batch-size is {options.train.batch_size}, and the set has {data.samples} "
                "training samples; pass at most as many"
            )
    known = known_count(validation)
    ranks.agree(number_of_training_batches=counts, number_of_validation_batches=known)
    with begun(folder, settings, options, model, data, console=console, ranks=ranks, hold=hold):
        say_where(console, folder, options.device, model)
        loader, samples = data.train(search_batch), data.samples
        say_search(console, searchable, budget, len(loader), options.batch_size, samples)
        del searchable
        work = _RunStages(folder, options, data, console, ranks)
        plan = work.learn_sizes(model, loader, validation, options, budget)
        del loader, validation
        networks = {}
        if training:
            loaders = data.train(train_batch), test, data.val and data.val(train_batch)
            say_training(console, options.train, len(loaders[0]), samples)
            cnn = fresh_cnn(model, plan, options)
            networks["learned"] = work.train_and_test("train", cnn, *loaders)
            ranks.on_first(partial(save, cnn, plan, work.folder / "cnn.safetensors"))
            if options.baseline:
                # New initial values for the searched layers, as in the found CNN.
                original = fresh_cnn(model, original_sizes(model, plan), options)
                networks["original"] = work.train_and_test("baseline", original, *loaders)
        found = {"sizes": plan.sizes, "parameters": plan.cost, "budget": options.budget}
        found |= {} if plan.evidence is None else {"evidence": asdict(plan.evidence)}
        return work.finish(model, plan, networks, found)


def train_alone(
    folder: Path,
    settings: Mapping[str, Any],
    options: RunOptions,
    model: nn.Module,
    plan: SizePlan | None,
    data: Data,
    *,
    console: Console,
    ranks: Ranks,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Train the CNN of a plan, or a network with its own sizes, and write the reports.

    Args:
        folder: the run's folder.
        settings: everything that affects the run's outcome.
        options: options of the command line.
        model: the network of the plan.
        plan: the sizes; None takes those of the network itself.
        data: its images.
        console: where progress is shown.
        ranks: the processes that share the run.
        check: as for `search_and_train`.

    Raises:
        FileExistsError: as `search_and_train` does.
        ValueError: as `apply_plan`, `train` or the data do.
    """
    done = None if options.overwrite else ranks.from_first(partial(reported, folder, settings))
    if done is not None:
        return done
    with ranks.together():
        check()
        train_batch = ranks.share(options.train.batch_size, "batch_size of the training")
        model = placed(model, options, ranks)
        kind, phase = ("learned", "train") if plan is not None else ("original", "baseline")
        if plan is None:
            plan = SizePlan(original_sizes(model, searched_layers(model)))
        cnn = fresh_cnn(model, plan, options)
        test = data.test()  # as in a search
        loaders = data.train(train_batch), test, data.val and data.val(train_batch)
    ranks.agree(number_of_training_batches=len(loaders[0]))
    with begun(folder, settings, options, model, data, console=console, ranks=ranks, hold=claim):
        say_where(console, folder, options.device, cnn)
        say_training(console, options.train, len(loaders[0]), data.samples)
        work = _RunStages(folder, options, data, console, ranks)
        networks = {kind: work.train_and_test(phase, cnn, *loaders)}
        if plan.cost is None:
            plan = replace(plan, cost=int(networks[kind]["parameters"]))
        ranks.on_first(partial(plan.save, work.folder / "plan.json"))
        ranks.on_first(partial(save, cnn, plan, work.folder / "cnn.safetensors"))
        made = {"sizes": plan.sizes, "parameters": networks[kind]["parameters"]}
        return work.finish(model, plan, networks, made)


@contextmanager
def begun(
    folder: Path,
    settings: Mapping[str, Any],
    options: RunOptions,
    model: nn.Module,
    data: Data,
    *,
    console: Console,
    ranks: Ranks,
    hold: LockFactory,
) -> Iterator[None]:
    """Lock the run folder and create or resume the run; rank 0 does it for all."""
    ranks.on_first(partial(check_run, folder, settings, overwrite=options.overwrite))
    with ExitStack() as held:

        def begin() -> bool:
            mark(folder)
            held.enter_context(hold(folder))
            network, more = describe(model), {"overwrite": options.overwrite}
            return open_run(folder, settings, data.note, network, **more, inputs=data.inputs)

        if ranks.on_first(begin):
            console.print(f"going on with the interrupted run {folder}", soft_wrap=True)
        yield


class _RunStages:
    """The stages of a run.

    Attributes:
        metrics: metrics of the run; None on all ranks except the first.
        tests: how the networks did on the test, by `learned` and `original`.
    """

    def __init__(
        self, folder: Path, options: RunOptions, data: Data, console: Console, ranks: Ranks
    ) -> None:
        # Also after an os.chdir of the user's own code.
        self.folder, self.options = folder.absolute(), options
        self.console, self.ranks = console, ranks
        self.data, self.tests = data, {}
        self.metrics = ranks.on_first(lambda: Metrics(self.folder, options.logger))

    def learn_sizes(
        self,
        model: nn.Module,
        loader: Any,
        validation: Iterable[tuple[Any, Any]] | None,
        options: SearchOptions,
        budget: Budgets,
    ) -> SizePlan:
        device = next(model.parameters()).device

        def say(number: int, plans: int) -> None:
            enough = validation is not None or len(loader) >= PARTS
            trained = options.search.race_steps and enough
            how, rounds = ("training", STAGES) if trained else ("comparing", ROUNDS)
            self.console.print(f"{how} {plans} plan(s) side by side, round {number} of {rounds}")

        stepped = None

        def timed(step: SearchStep) -> None:
            nonlocal stepped
            meter(step)
            stepped = time.perf_counter()

        with progress_bar(self.console) as progress, seeded(options.seed, device):
            meter = step_meter(
                progress,
                self.metrics,
                "search",
                epochs=options.search.epochs_of(len(loader)),
                steps_per_epoch=len(loader),
                budget=budget if isinstance(budget, int | float) else None,
                group=self.ranks.group,
            )
            plan = search(
                model,
                RepeatableLoader(loader, options.seed, device),
                budget=budget,
                config=options.search,
                validation=validation,
                checkpoint=self.folder / "search.safetensors",
                on_step=timed,
                on_round=say,
                group=self.ranks.group,
            )

        def keep() -> None:
            if stepped is not None:
                seconds = round(time.perf_counter() - stepped, 3)
                self.metrics.log(COMPARISON, 0, 0, seconds=seconds)
            plan.save(self.folder / "plan.json")
            draw_sizes(self.folder / "sizes.png", plan, self.metrics)

        self.ranks.on_first(keep)
        for sentence in [] if plan.evidence is None else sentences(plan.evidence):
            self.console.print(sentence, soft_wrap=True)
        self.console.print(layer_table(model, plan))
        for bound in plan.budgets:
            wanted = in_figures(bound["amount"])
            amounts = f"plan {bound['cost']:,} {bound['counts']}, budget {wanted}."
            sentence = f"{amounts} {adjustment_sentence(plan)}".strip()
            self.console.print(sentence, soft_wrap=True)
        if filling := filling_sentence(plan):
            self.console.print(filling, soft_wrap=True)
        return plan

    def train_and_test(
        self,
        phase: str,
        cnn: nn.Module,
        loader: Any,
        test: Iterable[tuple[Any, Any]],
        held_out: Iterable[tuple[Any, Any]] | None,
    ) -> dict[str, float]:
        config, group = self.options.train, self.ranks.group

        def validate() -> float:
            accuracy = evaluate(cnn, held_out, group)
            cnn.train()
            return accuracy

        with progress_bar(self.console) as progress:
            meter = step_meter(
                progress,
                self.metrics,
                phase,
                epochs=config.epochs,
                steps_per_epoch=len(loader),
                validate=None if held_out is None else validate,
                group=group,
            )
            train(
                cnn,
                RepeatableLoader(loader, self.options.seed, next(cnn.parameters()).device),
                config,
                checkpoint=self.folder / f"{phase}.safetensors",
                on_step=meter,
                seed=self.options.seed,
                group=group,
            )
        if group is None:
            outcome = evaluate_by_class(cnn, test, worst=MISTAKES)
            kind, data = "learned" if phase == "train" else "original", self.data
            self.tests[kind] = record(outcome, data.classes, data.mean, data.std)
            accuracy = outcome.accuracy
        else:  # each rank has a part of the test, and no more than the accuracy is collected
            accuracy = evaluate(cnn, test, group)
        result = {"parameters": sum(p.numel() for p in cnn.parameters()), "test_accuracy": accuracy}
        if held_out is not None:
            result |= self.ranks.on_first(partial(self.say_validation, phase)) or {}
        return result

    def say_validation(self, phase: str) -> dict[str, float]:
        """Print and return the validation accuracy at the end, and the best with its epoch."""
        rows = [r for r in self.metrics.rows() if r["phase"] == phase and "val_accuracy" in r]
        if not rows:  # somebody deleted them, between the end of the training and that of the run
            return {}
        best, last = max(rows, key=lambda row: row["val_accuracy"]), rows[-1]
        self.console.print(
            f"{phase}: validation accuracy {last['val_accuracy']:.2%} at the end, the best "
            f"{best['val_accuracy']:.2%} after epoch {best['epoch'] + 1}"
        )
        return {
            "val_accuracy": last["val_accuracy"],
            "best_val_accuracy": best["val_accuracy"],
            "best_epoch": best["epoch"] + 1,
        }

    def finish(
        self,
        model: nn.Module,
        plan: SizePlan,
        networks: Mapping[str, Mapping[str, float]],
        result: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Write reports and result; return the result."""
        if networks:
            accuracy = networks["learned" if "learned" in networks else "original"]["test_accuracy"]
            result = {**result, "accuracy": accuracy, "networks": dict(networks)}
        with self.ranks.together():
            if self.metrics is not None:
                self.metrics.close()
                if self.tests:
                    write_tests(self.folder, self.tests)
                write_report(self.folder, model, plan, networks, self.metrics)
                finish_run(self.folder, result)
        for sizes, outcome in networks.items():
            self.console.print(f"{sizes} sizes: test accuracy {outcome['test_accuracy']:.2%}")
        return dict(result)
