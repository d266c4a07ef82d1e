"""A loss that is not finite: the step, where it began, and the state that is still good."""

import logging
import math
import time
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from effconv_core import recipe, search
from effconv_core.engine import loader as batches_module
from effconv_core.engine.nonfinite import check_parameters, finite_soon
from effconv_core.io.checkpoint import read_training_state
from torch import nn

pytestmark = pytest.mark.faults


class Overflow(nn.Module):
    """Gives infinite values in the sixth forward pass."""

    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, x):
        self.passes += self.training
        return x * (torch.inf if self.passes >= 6 else 1.0)


def net(*more):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.Conv2d(4, 4, 3),
        *more,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def batches(bad=None):
    generator = torch.Generator().manual_seed(0)
    rows = [(torch.randn(4, 1, 9, 9, generator=generator), torch.arange(4) % 3) for _ in range(4)]
    if bad is not None:
        rows[bad][0][1, 0, 2, 3] = torch.nan
    return rows


def run(model, loader, **options):
    config = recipe("paper", epochs=3, finalists=1)
    return search(model, loader, budget=203, config=config, **options)


def test_a_loader_that_gives_nan_is_named_with_the_step(tmp_path):
    before = net()
    with pytest.raises(
        FloatingPointError,
        match="loss is nan in step 3 of epoch 1: the loader gave inputs that are not finite, so "
        "check the data; no state was written before it",
    ):
        run(before, batches(bad=2), checkpoint=tmp_path / "s.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_layer_and_the_last_good_state_are_named(tmp_path):
    path = tmp_path / "s.safetensors"
    with pytest.raises(
        FloatingPointError,
        match=rf"step 2 of epoch 2: the first outputs that are not finite are those of layer "
        rf"'model\.2'; lower the rates; the last good state is {path}, of 1 epoch",
    ):
        run(net(Overflow()), batches(), checkpoint=path)
    assert read_training_state(path).progress["epoch"] == 1
    # What the state holds is good: the search goes on from it once the cause is gone.
    assert run(net(nn.Identity()), batches(), checkpoint=path).cost == 203


def test_a_criterion_that_overflows_is_told_from_the_layers():
    def criterion(outputs, targets):
        return F.cross_entropy(outputs, targets) + math.inf

    with pytest.raises(FloatingPointError, match="loss is inf in step 1 .* look at the criterion"):
        run(net(), batches(), criterion=criterion)


def test_a_gradient_that_is_not_finite_never_reaches_a_kept_state(tmp_path):
    def criterion(outputs, targets):
        # Zero, with the gradient 0 * inf: the square root of what is exactly zero.
        return F.cross_entropy(outputs, targets) + (outputs - outputs).square().sum().sqrt()

    with pytest.raises(FloatingPointError, match=r"gradient of an earlier|soft size of .* is nan"):
        run(net(), batches(), criterion=criterion, checkpoint=tmp_path / "s")
    one_step = batches()[:1]
    with pytest.raises(FloatingPointError, match="not finite after epoch 1"):
        run(net(), one_step, criterion=criterion, checkpoint=tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["0.weight", "1.bias"])
def test_a_network_that_is_not_finite_is_told_from_one_that_a_step_made_so(name):
    model = net()
    with torch.no_grad():
        model.get_parameter(name).view(-1)[0] = torch.nan
    with pytest.raises(FloatingPointError, match=rf"step 1 .*{name}' of the network is not finite"):
        run(model, batches())


def test_parameters_are_named():
    model = net()
    check_parameters(model, 0)
    with torch.no_grad():
        model[1].bias[2] = torch.inf
    with pytest.raises(
        FloatingPointError, match=r"parameter '1\.bias' is not finite after epoch 5"
    ):
        check_parameters(model, 4)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_finite_or_not(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    for value, finite in ((1.0, True), (math.nan, False), (-math.inf, False)):
        assert finite_soon(torch.tensor(value, device=device))() is finite


def test_the_host_waits_for_the_gpu_that_the_loss_is_on(monkeypatch):
    class Elsewhere:
        """A loss of the second GPU, while the first is the current one."""

        device, is_cuda, shape, dtype = torch.device("cuda:1"), True, (), torch.bool

        def detach(self):
            return self

        isfinite = all = detach

    recorded = []

    class Event:
        def record(self, stream=None):
            recorded.append(stream)

    on_host = SimpleNamespace(copy_=lambda *_, **__: None)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: on_host)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"stream of {device}")
    finite_soon(Elsewhere())
    assert recorded == ["stream of cuda:1"]


def test_a_loader_that_hangs_is_told_of(monkeypatch, caplog):
    monkeypatch.setattr(batches_module, "STALL", 0.05)

    class Hangs:
        def __iter__(self):
            for number, batch in enumerate(batches()):
                while number == 2 and "at batch 3 of epoch 1" not in caplog.text:
                    time.sleep(0.01)
                yield batch

    caplog.set_level(logging.WARNING)
    run(net(), Hangs())
    assert "at batch 3 of epoch 1; if it hangs, stop the search" in caplog.text


def test_an_error_of_the_loader_comes_through_and_the_search_goes_on(tmp_path):
    class Raises:
        def __init__(self):
            self.passes = 0

        def __iter__(self):
            self.passes += 1
            yield from batches()[:2]
            if self.passes == 2:
                raise OSError("the disk with the pictures is gone")
            yield from batches()[2:]

    torch.manual_seed(1)
    model = net()
    expected = run(model, batches())
    with pytest.raises(OSError, match="the disk with the pictures is gone"):
        run(model, Raises(), checkpoint=tmp_path / "s")
    assert read_training_state(tmp_path / "s").progress["epoch"] == 1
    assert run(model, batches(), checkpoint=tmp_path / "s") == expected
