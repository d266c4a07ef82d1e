"""What an import of the packages brings with it."""

import subprocess
import sys

import pytest

EXPENSIVE = ("matplotlib", "scipy.optimize", "scipy.stats", "torch._dynamo", "triton", "webdataset")
"""Modules that take longer than a package itself, and that few of its functions need."""


@pytest.mark.parametrize("package", ["effconv_core", "effconv_models", "effconv_kernels"])
def test_an_import_brings_nothing_that_only_some_functions_need(package):
    found = f"import sys, torch; before = set(sys.modules); import {package}; "
    found += f"print([m for m in {EXPENSIVE} if m in set(sys.modules) - before])"
    process = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True)
    assert process.stdout == "[]\n", process.stderr
