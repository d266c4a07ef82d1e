"""Triton's programs run in its interpreter where there is no GPU."""

import os
import sys

import pytest
import torch

# Triton reads it when it is imported, which other packages' tests may have done by now; there the
# conftest.py of the whole repository sets it.
if not torch.cuda.is_available() and "triton" not in sys.modules:
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def triton_device():
    """Where Triton's programs run."""
    pytest.importorskip("triton", reason="Triton has no wheel for this platform")
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def unwritten_is_nan():
    """Fill new memory with NaN, so that an element that nobody writes shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)
