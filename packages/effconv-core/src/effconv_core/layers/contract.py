"""The check that a CNN with plain convolutions is the network that was searched.

Both are run on the same batch with the same kernels, in training mode, as plans are compared and in
evaluation mode. What differs is told in a sentence that names the layer, before anything is
trained. Everything runs on copies, and draws random numbers as if nothing had been run.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from effconv_core.layers.batch_checks import checked_loss, explained_pass
from effconv_core.layers.conv import PredictedConv
from effconv_core.layers.copying import copy_network
from effconv_core.layers.geometry import padding_for
from effconv_core.layers.inputs import copied, run_on
from effconv_core.layers.own_forward import geometry_of
from effconv_core.layers.passes import (
    COARSE,
    TOLERANCE,
    Pass,
    Run,
    differ,
    leaves,
    magnitude,
    tolerance_for,
)
from effconv_core.rng import kept_generators

CHANGED = {"kernel_size", "padding", "padding_mode", "weight"}
"""What a layer of another size has another of."""
OWN = {
    nn.Conv2d.forward.__code__.co_filename,
    PredictedConv.forward.__code__.co_filename,
    geometry_of.__code__.co_filename,
    padding_for.__code__.co_filename,
}


def for_comparison(network: nn.Module) -> None:
    """Set the mode in which plans are compared: that of the training, without its noise.

    The network's own modules stay in their mode, so that its outputs are of the kind that the
    criterion is given in training; so does batch normalisation, whose running statistics are of
    other kernels. Other layers, such as dropout, are in evaluation mode.
    """
    for module in network.modules():
        of_torch = type(module).__module__.startswith("torch.nn.")
        is_layer = of_torch or next(module.children(), None) is None
        if is_layer and not isinstance(module, _BatchNorm):
            module.training = False


TRAINING, COMPARISON = "in training mode", "in the mode in which plans are compared"
EVALUATION, PADDED = "in evaluation mode", "with padded kernels"
MODES: dict[str, Callable[[nn.Module], Any]] = {
    TRAINING: methodcaller("train"),
    COMPARISON: for_comparison,
    EVALUATION: methodcaller("eval"),
}


class Batch(NamedTuple):
    """What networks are run on."""

    inputs: Any
    """See `run_on`."""
    targets: Any = None
    criterion: Callable[[Any, Any], Tensor] | None = None
    """None computes no loss."""


def check_same_network(
    reference: nn.Module,
    found: nn.Module,
    kernels: Mapping[str, Tensor],
    batch: Batch,
    *,
    padded: Mapping[str, Tensor] | None = None,
    original: nn.Module | None = None,
    trained: Iterable[Tensor] = (),
) -> None:
    """Raise unless a CNN does what a network with the same predicted kernels does.

    Args:
        reference: the network, which has a `PredictedConv` by each name in `kernels`; a copy, whose
            buffers and modes are changed.
        found: the CNN; a copy, as well.
        kernels: layer name to kernel, `(c_out, c_in / groups, *taps)`.
        batch: what both are run on.
        padded: the same kernels among zeros, as padded shapes have them; None checks those not.
        original: the network itself, which is not changed. Where it runs and `reference` does not,
            the message says so; None raises whatever `reference` raises.
        trained: parameters that a loss may depend on beside those of `reference`.

    Raises:
        ValueError: if the CNN is another network, the network exchanges its layers or parameters
            while it runs, a layer is not run or the loss has no gradient of its kernel, or has one
            of a parameter that nothing trains, or the outputs that plans are compared by are not
            what the criterion takes; the message names the layer.
        FloatingPointError: if a layer is given what is not finite, and padding spreads it.
    """
    modules = dict(reference.named_modules())
    convs = {name: modules[name] for name in kernels}
    for conv in convs.values():
        conv.has_run = False
    twin = None if padded is None else copy_network(reference)
    members = _members(reference)
    with _reads_noted(convs) as reads:
        for mode, set_mode in MODES.items():
            for network in (reference, found):
                set_mode(network)
            run = partial(_run_on, batch=batch, layers=kernels, mode=mode)
            given = _as_in_a_search(kernels) if mode == TRAINING else kernels
            try:
                with _kernels_set(convs, given):
                    wanted = run(reference)
            except Exception as error:
                if mode == TRAINING:
                    if original is None or isinstance(error, torch.OutOfMemoryError):
                        raise
                    set_mode(plain := copy_network(original))  # what it returns is anything
                    if _fails(run, plain, Exception):
                        raise  # the network by itself does not run on such a batch
                    reason = f"the latter fails ({type(error).__name__}: {error})"
                    why = "it cannot run with each size that is allowed"
                    raise ValueError(_sentence(mode, reason, kernels, reads, why)) from error
                if mode == EVALUATION and _fails(run, found, type(error)):
                    continue  # the network by itself cannot be evaluated on such a batch
                raise ValueError(
                    f"the network does not run {mode}, as the end of a search does "
                    f"({type(error).__name__}: {error}); let its outputs be what the criterion "
                    "takes, and gradients that it asks for itself within torch.enable_grad()"
                ) from error
            if changed := sorted(dict(_members(reference).items() ^ members.items())):
                raise ValueError(
                    f"the network makes or exchanges its own {changed} while it runs, which "
                    "no plan counts and no optimizer trains; run it on a batch before the search, "
                    "or let it keep what it has"
                )
            try:
                _compare(mode, wanted, found, run, kernels, reads, tolerance_for(wanted, TOLERANCE))
            except ValueError:
                if original is not None and _by_chance(original, mode, run):
                    raise ValueError(
                        f"the network gives other outputs in each pass on a batch, {mode}; let it "
                        "draw random numbers from the global generators of torch, NumPy or Python"
                    ) from None
                raise
            if twin is not None and mode == TRAINING:
                twin.train()
                modules = dict(twin.named_modules())
                with _kernels_set({name: modules[name] for name in kernels}, padded):
                    again = run(twin)
                # The sizes of the layers' own kernels differ, and so do what layers read of them.
                reason = differ(wanted, again, tolerance_for(wanted, COARSE))
                odd = [ran.layer for ran in wanted.runs if not ran.given.isfinite()]
                if reason and odd:  # of which the zeros around a kernel make more
                    raise FloatingPointError(
                        f"layer {odd[0]!r} is given what is not finite; check data and weights"
                    )
                if reason:
                    raise ValueError(_sentence(PADDED, reason, kernels, reads))
    idle = [name for name, conv in convs.items() if not conv.has_run]
    _refuse(idle, "did not run its layer(s)", "", reads)
    for conv in convs.values():
        conv.has_run = conv.has_gradient = False
    reference.train()
    with _kernels_set(convs, _as_in_a_search(kernels)):
        made = _run_on(reference, batch=batch, layers=(), mode=TRAINING)
        _check_taught(convs, made)
        kernels_given = [conv.kernel for conv in convs.values()]
        _check_own(made, [*reference.parameters(), *trained], kernels_given, original)


def _as_in_a_search(kernels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return kernels that require gradients and are no leaves, as in the steps of a search."""
    return {n: kernel.detach().requires_grad_().clone() for n, kernel in kernels.items()}


def _members(network: nn.Module) -> dict[str, int]:
    """Return what a network learns and what is searched of it, by name, as numbers of objects."""
    convs = ((n, m) for n, m in network.named_modules() if isinstance(m, PredictedConv))
    return {n: id(held) for n, held in (*network.named_parameters(remove_duplicate=False), *convs)}


def _check_taught(convs: Mapping[str, PredictedConv], made: Pass) -> None:
    """Raise for layers that a pass in training mode has run, but has no gradient of.

    Where there is no criterion, all outputs are the loss.
    """
    ran = {name: conv for name, conv in convs.items() if conv.has_run}
    without = [name for name, conv in ran.items() if not conv.has_gradient]
    how = ", as in torch.no_grad or in a checkpoint without use_reentrant=False"
    _refuse(without, "runs without gradients its layer(s)", how, {})
    parts = _with_gradients(leaves(made.outputs) if made.loss is None else made.loss)
    found: Sequence[Tensor | None] = [None] * len(ran)
    if parts and ran:
        loss = torch.stack([part.abs().sum().double() for part in parts]).sum()
        kernels = [conv.kernel for conv in ran.values()]
        try:
            found = torch.autograd.grad(loss, kernels, allow_unused=True)
        except RuntimeError:  # of reentrant checkpoints, around other layers
            return
    untaught = [name for name, gradient in zip(ran, found, strict=True) if gradient is None]
    _refuse(untaught, "has a loss that does not depend on its layer(s)", "", {})


def _with_gradients(parts: Any) -> list[Tensor]:
    """Return the tensors that have gradients, of one or of a list."""
    parts = parts if isinstance(parts, list) else [parts]
    return [p for p in parts if isinstance(p, Tensor) and p.requires_grad]


def _check_own(
    made: Pass, own: Iterable[Tensor], kernels: Iterable[Tensor], original: nn.Module | None
) -> None:
    """Raise for parameters that a pass has a gradient of, and that nothing trains.

    Those are what the network keeps where `parameters()` does not find it, and parameters of the
    original, of which a copy is searched. What else a criterion holds, `on_step` may train.
    """
    known = {id(parameter) for parameter in own}
    before = {kernel.grad_fn for kernel in kernels}
    names = {} if original is None else {id(p): n for n, p in original.named_parameters()}
    of_loss = _parameters_behind(_with_gradients(made.loss), before)
    of_outputs = _parameters_behind(_with_gradients(leaves(made.outputs)), before)
    for held in (*of_loss, *of_outputs):
        if id(held) in names.keys() - known:
            raise ValueError(
                f"the loss depends on {names[id(held)]!r} of the model itself, and a search trains "
                "a copy of it; let the network compute such a term and give it with its outputs"
            )
    for held in of_outputs:
        if id(held) not in known:
            raise ValueError(
                f"the network uses a parameter of shape {tuple(held.shape)} that is none of its "
                "parameters(), so nothing trains it; register it in the network, or, where it is "
                "to stay as it is, call its requires_grad_(False)"
            )


def _parameters_behind(tensors: Iterable[Tensor], seen: Iterable[Any]) -> list[nn.Parameter]:
    """Return the parameters that tensors have gradients of, not looking beyond nodes seen."""
    found, seen = [], set(seen)
    waiting = [tensor.grad_fn for tensor in tensors]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            held = getattr(node, "variable", None)
            found += [held] if isinstance(held, nn.Parameter) else []
            waiting += [earlier for earlier, _ in node.next_functions]
    return found


def _refuse(layers: Sequence[str], what: str, how: str, reads: Mapping[str, str]) -> None:
    if layers:
        read = "; ".join(reads[name] for name in layers if name in reads)
        raise ValueError(
            f"the network {what} {list(layers)} in the first step{how}, so nothing can be learned "
            f"of their sizes{f' ({read})' if read else ''}; leave them out with `searched`"
        )


def _compare(
    mode: str,
    wanted: Pass,
    found: nn.Module,
    run: Callable[[nn.Module], Pass],
    kernels: Mapping[str, Tensor],
    reads: Mapping[str, str],
    tolerance: float,
) -> None:
    try:
        given = run(found)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = f"it fails ({type(error).__name__}: {error})"
        raise ValueError(_sentence(mode, reason, kernels, reads)) from error
    reason = differ(wanted, given, tolerance)
    if reason:
        raise ValueError(_sentence(mode, reason, kernels, reads))


def _run_on(network: nn.Module, *, batch: Batch, layers: Iterable[str], mode: str) -> Pass:
    """Run a network from the present random state, which is as before afterwards."""
    runs: list[Run] = []

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            if torch._C._functorch.is_functorch_wrapped_tensor(output):
                return  # within vmap and the like, out of which no tensor gets
            given = inputs[0].detach()
            shapes = given.shape, output.shape
            runs.append(Run(name, magnitude(given), magnitude(output.detach()), shapes))

    modules = dict(network.named_modules())
    hooks = [modules[name].register_forward_hook(partial(note, name)) for name in layers]
    inputs = copied(batch.inputs)
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    try:
        # Training may ask for gradients within the pass, and nothing else has any.
        with (
            kept_generators(device),
            torch.set_grad_enabled(mode == TRAINING),
            torch.compiler.set_stance("force_eager"),  # nothing is compiled for a few passes
        ):
            with explained_pass(network, inputs):
                outputs = run_on(network, inputs)
            loss = None
            if batch.criterion is not None and mode != EVALUATION:
                targets = copied(batch.targets)
                loss = checked_loss(batch.criterion, outputs, targets, first=True)
    finally:
        for hook in hooks:
            hook.remove()
    return Pass(outputs, loss, runs)


def _by_chance(original: nn.Module, mode: str, run: Callable[[nn.Module], Pass]) -> bool:
    """Return whether two passes differ that begin from one state of the global generators."""
    for network in (copies := [copy_network(original), copy_network(original)]):
        MODES[mode](network)
    first, second = map(run, copies)
    return differ(first, second, tolerance_for(first, TOLERANCE)) is not None


def _fails(run: Callable[[nn.Module], Pass], network: nn.Module, kind: type[Exception]) -> bool:
    try:
        run(network)
    except kind:
        return True
    return False


@contextmanager
def _kernels_set(
    convs: Mapping[str, PredictedConv], kernels: Mapping[str, Tensor]
) -> Iterator[None]:
    for name, conv in convs.items():
        conv.kernel = kernels[name]
    try:
        yield
    finally:
        for conv in convs.values():
            conv.kernel = None


@contextmanager
def _reads_noted(convs: Mapping[str, PredictedConv]) -> Iterator[dict[str, str]]:
    """Note for each layer where code outside of it reads what changes with its size."""
    names, reads = {id(conv): name for name, conv in convs.items()}, {}

    def note_read(self: PredictedConv, attribute: str) -> Any:
        if attribute in CHANGED and id(self) in names:
            code, line = (frame := sys._getframe(1)).f_code, frame.f_lineno
            if code.co_filename not in OWN:
                place = f"{Path(code.co_filename).name}:{line}"
                words = f"{code.co_name} ({place}) reads {attribute} of {names[id(self)]!r}"
                reads.setdefault(names[id(self)], words)
        return object.__getattribute__(self, attribute)

    kinds = {conv: type(conv) for conv in convs.values()}
    for conv, kind in kinds.items():
        conv.__class__ = type(kind.__name__, (kind,), {"__getattribute__": note_read})
    try:
        yield reads
    finally:
        for conv, kind in kinds.items():
            conv.__class__ = kind


def _sentence(
    mode: str,
    reason: str,
    kernels: Mapping[str, Tensor],
    reads: Mapping[str, str],
    why: str = "a layer is used in another way than by calling it, or something holds the model's",
) -> str:
    sizes = {name: "x".join(map(str, kernel.shape[2:])) for name, kernel in kernels.items()}
    if reads:
        why = f"{'; '.join(list(reads.values())[:3])}, which changes with its size"
    layers = list(reads or kernels)
    remedy = "pass shapes='exact' or " if mode == PADDED else ""
    told = ", ".join(f"{name!r} {sizes[name]}" for name in layers[:3] if name in sizes)
    return (
        f"the CNN of a plan is another network than the one that is searched: {mode}, with {told}, "
        f"{reason}; {why}, so {remedy}leave out the layer with `searched`"
    )
