"""Import this before torchvision: it then imports beside another build of torch.

The registry's torchvision is built for CUDA. Beside a CPU build of torch it only lacks the
declarations of two operators, which nothing here calls.
"""

import importlib

import torch

try:
    importlib.import_module("torchvision")
except RuntimeError:
    # The library object must stay alive.
    _operators = torch.library.Library("torchvision", "DEF")
    _operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
