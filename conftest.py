"""Shared by all tests: one seed, and a torchvision that imports beside another build of torch."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread for each of the processes that share the cores, and for those that they start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

if not torch.cuda.is_available():
    # Before any test imports Triton, which reads it then: its programs run in its interpreter.
    os.environ["TRITON_INTERPRET"] = "1"

import tools.torchvision_operators  # noqa: F401


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Let whatever a test draws without a generator of its own be the same in every run."""
    torch.manual_seed(0)
