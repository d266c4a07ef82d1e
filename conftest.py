"""Shared by all tests: one seed, and a torchvision that imports beside another build of torch."""

import importlib

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Let whatever a test draws without a generator of its own be the same in every run."""
    torch.manual_seed(0)


try:
    importlib.import_module("torchvision")
except RuntimeError:
    # The registry's torchvision is built for CUDA. Beside a CPU build of torch it only lacks the
    # declarations of these two operators, which no test calls. The library object must stay alive.
    _operators = torch.library.Library("torchvision", "DEF")
    _operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
