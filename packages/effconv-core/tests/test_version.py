import importlib.metadata
import sys

import effconv_core
from effconv_core.runs.environment import environment
from effconv_core.version import core_version


def test_the_version_is_that_of_the_code_whatever_is_installed(monkeypatch):
    monkeypatch.setattr("effconv_core.runs.environment.version", lambda name: "0.0.1")
    assert core_version() == effconv_core.__version__
    assert environment("cpu")["effconv-core"] == effconv_core.__version__


def test_packages_that_are_not_loaded_have_the_version_that_is_installed(monkeypatch):
    loaded = environment("cpu")
    for name in ("effconv_models", "effconv_data"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    installed = environment("cpu")
    for name in ("effconv-models", "effconv-data"):
        assert installed.get(name) in (None, importlib.metadata.version(name))
    assert installed["effconv-core"] == loaded["effconv-core"]
