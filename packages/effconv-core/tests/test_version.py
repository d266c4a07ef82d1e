import importlib.metadata

import effconv_core
from effconv_core import version as module


def test_the_version_is_that_of_the_face():
    assert module.core_version() == effconv_core.__version__


def test_a_copy_that_is_not_installed_has_no_version(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(module, "version", missing)
    assert module.core_version() == "unknown"
