"""ModelOpt's search, where it is installed."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from effconv_core import SearchableCNN

from tools.versus import runs
from tools.versus.autonas import autonas, import_modelopt
from tools.versus.count import Count
from tools.versus.scales import SCALES

DATA = os.environ.get("EFFCONV_DATA")

needs_cifar10 = pytest.mark.skipif(
    not DATA or not (Path(DATA) / "cifar10" / "index.json").is_file(),
    reason="EFFCONV_DATA holds no CIFAR-10",
)


@needs_cifar10
@pytest.mark.skipif(not importlib.util.find_spec("modelopt"), reason="ModelOpt is not installed")
def test_autonas_gives_odd_sizes_at_the_budget():
    torch.set_num_threads(1)
    space, settings, count = SCALES["smoke"].space("cpu"), SCALES["smoke"].autonas, Count()
    plan, told = autonas(space, settings, 0, count)
    searchable = SearchableCNN(space.network(0))
    assert list(plan) == searchable.layers
    assert set(plan.values()) <= {1, 3, 5, 7}
    assert abs(searchable.cost(list(plan.values())) / space.budget - 1) <= 0.02
    assert count.steps == 2 * 20
    assert count.forwards > told["subnets_scored"]
    assert told["iterations"] == settings.settings["num_iters"]


def test_without_modelopt_the_reason_is_in_the_row(monkeypatch):
    def missing():
        raise ImportError("no modelopt")

    monkeypatch.setattr(runs, "import_modelopt", missing)
    monkeypatch.setattr(runs, "_prepared", lambda scale, seed, device: None)
    monkeypatch.setattr(runs, "data_note", lambda data: "drawn")
    row = runs.search_by("smoke", "AutoNAS", 4, "cpu", None)
    assert (row["method"], row["seed"], row["failed"]) == ("AutoNAS", 4, "ImportError: no modelopt")
    assert "plan" not in row
    assert row["environment"]["data"] == "drawn"


def test_handlers_of_torchprofile_are_looked_for(monkeypatch):
    for name in ("modelopt", "modelopt.torch", "modelopt.torch.nas", "torchprofile"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    profile = ModuleType("torchprofile.profile")
    monkeypatch.setitem(sys.modules, "torchprofile.profile", profile)
    sys.modules["modelopt"].torch = sys.modules["modelopt.torch"]
    sys.modules["modelopt.torch"].nas = sys.modules["modelopt.torch.nas"]
    sys.modules["torchprofile"].profile = profile
    with pytest.raises(ImportError, match=r"torchprofile==0\.0\.4"):
        import_modelopt()
    profile.handlers = []
    assert import_modelopt() == (sys.modules["modelopt"], sys.modules["modelopt.torch.nas"])
