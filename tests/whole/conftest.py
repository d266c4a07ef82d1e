"""Shared by the tests that install the packages: a Python, and a torch installed once for all."""

import sys
from pathlib import Path

import pytest

from tools.release.install import install_torch, places

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def place():
    return places(ROOT)[-1]._replace(python=sys.executable)


@pytest.fixture(scope="session")
def torch(place, tmp_path_factory):
    return install_torch(place, tmp_path_factory.mktemp("torch"))
