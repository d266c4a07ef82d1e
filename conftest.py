"""Shared by all tests: one seed, and a torchvision that imports beside another build of torch."""

import os
import signal
import tempfile

if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread for each of the processes that share the cores, and for those that they start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell's background job has it, and its processes; some tests interrupt theirs.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if signal.getsignal(getattr(signal, "SIGHUP", signal.SIGINT)) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup; some tests hang up on theirs

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

# Hypothesis draws the same examples everywhere, and a busy machine is not a reason to fail.
settings.register_profile(
    "same",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("same")
# It would also draw from the constants of whatever local modules are imported by then.
providers._get_local_constants = lambda: providers._local_constants

# The cache of torch.compile does not tell vector widths apart, and may come from another machine.
width = torch.backends.cpu.get_cpu_capability().replace(" ", "-")
cache = f"{tempfile.gettempdir()}/torchinductor-tests-{width}"
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", cache)

if not torch.cuda.is_available():
    # Before any test imports Triton, which reads it then: its programs run in its interpreter.
    os.environ["TRITON_INTERPRET"] = "1"

import tools.support.compat  # noqa: E402, F401


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Let whatever a test draws without its own generator be the same in every run."""
    torch.manual_seed(0)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one worker more than there are cores: many tests wait for processes of their own."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    return len(cores) + 1
