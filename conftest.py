"""Shared by all tests: a torchvision that imports beside a torch it was not built for."""

import importlib

import torch

try:
    importlib.import_module("torchvision")
except RuntimeError:
    # The registry's torchvision is built for CUDA. Beside a CPU build of torch it only lacks the
    # declarations of these two operators, which no test calls. The library object must stay alive.
    _operators = torch.library.Library("torchvision", "DEF")
    _operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
