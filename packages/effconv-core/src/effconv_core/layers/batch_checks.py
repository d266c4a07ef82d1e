"""Check where data meet the network: dtypes, devices, channels, and labels against the outputs.

The targets are looked at in the first batch of an epoch, which waits for the device once. Whatever
fails in a later one is explained after it has failed, so that no step pays for it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves

from effconv_core.layers.conv import PredictedConv
from effconv_core.layers.copying import copy_network
from effconv_core.layers.inputs import arguments_of, run_on
from effconv_core.rng import kept_generators

IGNORED = -100
"""The label that `F.cross_entropy` leaves out."""


@contextmanager
def explained_pass(model: nn.Module, inputs: Any) -> Iterator[None]:
    """Raise one sentence where a network fails because its inputs do not fit it.

    Args:
        model: the network that is run.
        inputs: what it is run on, see `run_on`.

    Raises:
        TypeError: if the inputs have another dtype than the network's parameters, or are not the
            arguments that it takes, or are not tensors.
        ValueError: if they are on another device, have another number of channels or axes than the
            first convolution takes, or are one sample, over which a layer normalises.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise _input_error(model, inputs, error) or error from None
    except TypeError as error:
        raise _argument_error(model, inputs) or _kind_error(inputs) or error from None
    except ValueError as error:
        raise _single_error(model, inputs, error) or error from None


def check_one_sample(model: nn.Module, inputs: Tensor) -> None:
    """Raise unless a network is trained on a batch of one sample, as the last of an epoch may be.

    Args:
        model: a copy of it is run.
        inputs: `(B, ...)`, of which the first is taken.

    Raises:
        ValueError: if it fails, as batch normalisation of one number for each channel does.
    """
    model = copy_network(model)
    model.train()  # which may return anything
    with kept_generators(inputs.device), torch.no_grad(), explained_pass(model, inputs[:1]):
        model(inputs[:1])


def check_learnable(model: nn.Module, criterion: Any) -> None:
    """Raise for what a search cannot learn with, before it runs anything.

    Args:
        model: the network that is trained.
        criterion: the task's loss.

    Raises:
        TypeError: if the criterion is a class or nothing that is called, or a parameter is in
            float16 or of a scripted module; the message names it.
    """
    if isinstance(criterion, type) or not callable(criterion):
        raise TypeError(
            f"criterion is {criterion!r}; pass a function of outputs and targets, such as "
            "F.cross_entropy or nn.CrossEntropyLoss()"
        )
    for name, parameter in model.named_parameters():
        if parameter.dtype == torch.float16 and parameter.requires_grad:
            raise TypeError(
                f"the parameter {name!r} is torch.float16, in which steps of a search vanish or "
                "overflow; pass model.float(), with precision='bfloat16' in the config where it is "
                "to be fast, or freeze it"
            )
        if parameter.requires_grad and not parameter.is_leaf:
            raise TypeError(
                f"the parameter {name!r} cannot be trained in a copy of the network, as those of "
                "torch.jit's modules cannot; script the network that is found, or freeze it"
            )


def check_ambient(model: nn.Module) -> None:
    """Raise within a context of PyTorch in which nothing is learned, or from stale values.

    Args:
        model: the network that is trained.

    Raises:
        ValueError: if gradients are off, or autocast is on, which keeps the casts of weights, also
            when they have changed, until its end, or new tensors are made on a device that is
            neither the CPU nor the network's.
    """
    if torch.is_inference_mode_enabled() or not torch.is_grad_enabled():
        raise ValueError(
            "gradients are off, as within torch.no_grad() or torch.inference_mode(), and nothing "
            "can be learned without; call it outside of them"
        )
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if torch.is_autocast_enabled(device.type):
        raise ValueError(
            "torch.autocast is on, which keeps the casts of weights until its end, so that each "
            "step would compute with the first ones; call it outside, with precision='bfloat16' "
            "in the config"
        )
    default = torch.get_default_device()
    if default.type not in ("cpu", device.type):
        raise ValueError(
            f"the default device is {default} and the network is on {device}, so that what it, or "
            "the optimizer, makes in a step would be on the former; move the network there, or "
            "call it outside of torch.device and torch.set_default_device"
        )


def checked_loss(
    criterion: Callable[[Any, Any], Tensor], outputs: Any, targets: Any, *, first: bool
) -> Tensor:
    """Compute the task's loss, and raise one sentence where cross entropy cannot take the targets.

    A criterion of any other kind decides for itself what it takes.

    Args:
        criterion: the task's loss of `(outputs, targets)`.
        outputs: of the network, for cross entropy scores `(B, classes, ...)`.
        targets: for cross entropy class indices `(B, ...)` or probabilities `(B, classes, ...)`.
        first: whether this is the first batch of an epoch, whose targets are looked at beforehand.

    Returns:
        What the criterion gives, a scalar.

    Raises:
        TypeError: if the targets are of a kind that cross entropy does not take.
        ValueError: if their shape does not fit the outputs, a class index is out of range, or the
            criterion gives anything but one number.
    """
    ignored = _ignored_label(criterion)
    if ignored is None:
        return _scalar(criterion(outputs, targets))
    if first:
        check_targets(outputs, targets, ignored)
    try:
        return _scalar(criterion(outputs, targets))
    except (IndexError, RuntimeError, TypeError, ValueError):
        # After a failed assertion on a GPU nothing can be read from it any more.
        if not isinstance(targets, Tensor) or targets.device.type == "cpu":
            check_targets(outputs, targets, ignored)
        raise


def _scalar(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
        raise ValueError(
            f"the criterion gave {what[:200]}, and a loss is a tensor of one number; let it take "
            "the mean, as reduction='mean' does"
        )
    if not loss.is_floating_point():
        raise ValueError(
            f"the criterion gave {loss.dtype}, and a loss is a real number with a gradient; let it "
            "compute with what the network gives, and take the absolute value of complex numbers"
        )
    return loss.reshape(())


def check_targets(outputs: Any, targets: Any, ignored: int = IGNORED) -> None:
    """Raise unless cross entropy takes these outputs and targets; waits for the device.

    Args:
        outputs: scores `(B, classes, ...)`.
        targets: class indices `(B, ...)` or class probabilities `(B, classes, ...)`.
        ignored: a label that is left out, whatever the number of classes.

    Raises:
        TypeError: if one is not a tensor, or the targets have a dtype that no class index has.
        ValueError: if the shapes do not fit, or a class index is not in 0..classes - 1.
    """
    for what, values in (("network gives", outputs), ("loader gives targets as", targets)):
        if not isinstance(values, Tensor):
            raise TypeError(
                f"the {what} a {type(values).__name__}, and cross entropy takes tensors; give a "
                f"tensor, or pass search a criterion that takes it{_own_loss(outputs)}"
            )
    if outputs.dim() < 2:
        raise ValueError(
            f"the network gives outputs of shape {tuple(outputs.shape)}, and cross entropy takes "
            "(images, classes), a score for each class; let its last layer give them"
        )
    shape, classes = (outputs.shape[0], *outputs.shape[2:]), outputs.shape[1]
    if targets.is_floating_point() and targets.shape == outputs.shape:
        return
    if targets.dtype not in (torch.int64, torch.uint8):
        raise TypeError(
            f"the loader gives targets of {targets.dtype} and shape {tuple(targets.shape)}; class "
            f"indices are torch.int64 of shape {shape}, so pass targets.long(), and class "
            f"probabilities are floating point of shape {tuple(outputs.shape)}"
        )
    if targets.shape != shape:
        raise ValueError(
            f"the loader gives targets of shape {tuple(targets.shape)}, and outputs of shape "
            f"{tuple(outputs.shape)} need class indices of shape {shape}; give one for each image"
        )
    labels = targets[targets != ignored]
    if not labels.numel():
        return
    least, most = (int(label) for label in torch.stack(labels.aminmax()).tolist())
    if least < 0 or most >= classes:
        raise ValueError(
            f"the loader gives the label {least if least < 0 else most}, and the network gives "
            f"{classes} scores, for the labels 0 to {classes - 1}; number the classes from 0, or "
            "build the network for more"
        )


def _own_loss(outputs: Any) -> str:
    """Return how to take the loss that the outputs of a network hold, if they do."""
    if isinstance(getattr(outputs, "loss", None), Tensor):
        return ", such as lambda outputs, targets: outputs.loss"
    if isinstance(outputs, Mapping) and isinstance(outputs.get("loss"), Tensor):
        return ", such as lambda outputs, targets: outputs['loss']"
    return ""


def _ignored_label(criterion: Callable[[Any, Any], Tensor]) -> int | None:
    """Return the label that a cross entropy leaves out, None for any other criterion."""
    if isinstance(criterion, nn.CrossEntropyLoss):
        return criterion.ignore_index
    if isinstance(criterion, partial) and criterion.func is F.cross_entropy:
        return criterion.keywords.get("ignore_index", IGNORED)
    return IGNORED if criterion is F.cross_entropy else None


def _argument_error(model: nn.Module, inputs: Any) -> TypeError | None:
    """Return one sentence if a network does not take inputs as its arguments, else None."""
    try:
        run_on(signature(model.forward).bind, inputs)
    except TypeError as error:
        name = type(model).__name__
        return TypeError(
            f"the loader gave inputs that {name}.forward() does not take ({error}); give a pair of "
            "its arguments and the targets as a batch"
        )
    except ValueError:  # it has no signature
        return None
    return None


def _kind_error(inputs: Any) -> TypeError | None:
    """Return one sentence if inputs hold arrays or pictures in place of tensors, else None."""
    leaves = (Tensor, bool, int, float, complex, str, type(None))
    other = next((leaf for leaf in tree_leaves(inputs) if not isinstance(leaf, leaves)), None)
    if other is None:
        return None
    return TypeError(
        f"the loader gave inputs of class {type(other).__name__}, which the network did not take; "
        "give tensors, as torch.as_tensor makes of arrays and a DataLoader's collate_fn of both"
    )


def _single_error(model: nn.Module, inputs: Any, error: ValueError) -> ValueError | None:
    """Return one sentence if a batch of one sample was normalised over the batch, else None."""
    first = next((a for a in arguments_of(inputs) if isinstance(a, Tensor) and a.dim()), None)
    norms = (n for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.training)
    name = next(norms, None)
    if first is None or len(first) != 1 or name is None:
        return None
    return ValueError(
        f"a batch of one sample cannot be normalised, as by {name!r} in training ({error}); pass "
        "drop_last=True to the DataLoader, or another batch size"
    )


def _input_error(model: nn.Module, inputs: Any, error: RuntimeError) -> Exception | None:
    """Return why a network failed on its inputs, None where that is not their fault."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    arguments = arguments_of(inputs)
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    if weight is None:
        return None
    away = next((tensor for tensor in tensors if tensor.device != weight.device), None)
    if away is not None:
        return ValueError(
            f"the images are on {away.device} and the network is on {weight.device}; move one of "
            "them"
        )
    if len(arguments) != 1 or not tensors:  # which of several is to be an image is not known
        return None
    inputs = tensors[0]
    if not inputs.is_floating_point() and not isinstance(_first_layer(model), nn.Embedding):
        return TypeError(
            f"the images are {inputs.dtype}, and the network computes in {weight.dtype}; scale "
            f"them to floating point, as images.float() / 255 does ({error})"
        )
    if inputs.is_floating_point() and inputs.dtype != weight.dtype:
        return TypeError(
            f"the images are {inputs.dtype}, and the network computes in {weight.dtype}; pass "
            f"images.to({weight.dtype}) ({error})"
        )
    kinds = (PredictedConv, _ConvNd)
    named = ((n, m) for n, m in model.named_modules() if isinstance(m, kinds))
    name, conv = next(named, ("", None))
    if conv is None or inputs.dim() != 2 + len(conv.kernel_size):
        return None
    if inputs.shape[1] != conv.in_channels:
        return ValueError(
            f"the images have {inputs.shape[1]} channel(s), but the model's first convolution "
            f"{name!r} takes {conv.in_channels}; build the model for {inputs.shape[1]} or convert "
            "the images"
        )
    return None


def _first_layer(model: nn.Module) -> nn.Module | None:
    """Return the first module that has parameters itself."""
    return next((m for m in model.modules() if any(True for _ in m.parameters(False))), None)
