"""The packages as their users get them: wheels, installed into clean environments."""

import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.wheels

ROOT = Path(__file__).parent.parent
CONSTRAINTS = ROOT / "constraints.txt"

OWN_SEARCH = """
import json, torch
from torch import nn
from effconv_core import apply_plan, recipe, search
from effconv_models import create_model
torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
    nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
    nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
)
loader = [(torch.randn(8, 3, 16, 16), torch.randint(10, (8,))) for _ in range(4)]
plan = search(model, loader, budget=15_000, config=recipe("default", epochs=2))
cnn = apply_plan(model, plan)
resnet = create_model("cifar_resnet20")
plan20 = search(resnet, loader[:1], budget=0.27e6, config=recipe("default", epochs=1))
print(json.dumps({
    "off": plan.cost / plan.budget - 1,
    "counted": sum(p.numel() for p in cnn.parameters()) == plan.cost,
    "output": list(cnn(loader[0][0]).shape),
    "off20": plan20.cost / plan20.budget - 1,
    "fits": sum(p.numel() for p in create_model("cifar_resnet20", kernel_sizes=plan20).parameters())
    == plan20.cost,
}))
"""

KERNELS_ALONE = """
import json, sys, torch
from effconv_kernels import assemble_kernels, gru_unroll
weight = torch.randn(2, 24, 8, requires_grad=True)
hidden = gru_unroll(torch.randn(2, 24), weight, torch.zeros(2, 24), [4, 9])
soft = torch.tensor([2.2, 3.4], requires_grad=True)
kernels = assemble_kernels(
    hidden, torch.randn(14, 8), torch.zeros(14), soft, sizes=[2, 3], channels=[(2, 3), (4, 2)]
)
sum(k.sum() for k in kernels).backward()
print(json.dumps({
    "shapes": [list(k.shape) for k in kernels],
    "gradients": bool(weight.grad.abs().sum() > 0 and soft.grad.abs().min() > 0),
    "ours": sorted(n for n in sys.modules if n.startswith("effconv_") and "." not in n),
}))
"""

MODELS_ALONE = """
import json, torch
from effconv_models import create_model
model = create_model("cifar_resnet20", kernel_sizes=[5] * 9 + [2] * 9)
print(json.dumps({
    "output": list(model(torch.randn(2, 3, 32, 32)).shape),
    "sizes": [model.layer1[0].conv1.kernel_size, model.layer3[2].conv1.kernel_size],
    "parameters": sum(p.numel() for p in create_model("cifar_resnet20").parameters()),
}, default=list))
"""


def run(*arguments: object, **options: object) -> str:
    process = subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """Build every package from what git would hand to somebody who clones."""
    clone = tmp_path_factory.mktemp("clone")
    files = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines()
    for name in files:
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_bytes((ROOT / name).read_bytes())
    # As from a plain shell: the environment that runs this test is none of the clone's.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HATCH_")}
    run("hatch", "build", "--all", cwd=clone, env=plain)
    return clone / "dist"


@pytest.fixture
def clean(dist, tmp_path):
    """Give a function that installs wheels into an empty environment and runs a script in it."""

    def installed_and_run(script: str, *packages: str) -> tuple[dict, set[str]]:
        venv.create(tmp_path / "venv", with_pip=True)
        python = tmp_path / "venv" / "bin" / "python"
        run(
            *(python, "-m", "pip", "install", "--quiet", "--constraint", CONSTRAINTS),
            *("--find-links", dist, *packages),
        )
        listed = json.loads(run(python, "-m", "pip", "list", "--format", "json"))
        result = json.loads(run(python, "-c", script, cwd=tmp_path).splitlines()[-1])
        return result, {entry["name"] for entry in listed if entry["name"].startswith("effconv")}

    return installed_and_run


def test_all_four_packages_are_built_with_types_and_licence(dist):
    wheels = sorted(path.name for path in dist.glob("*.whl"))
    assert [re.match(r"effconv_\w+?(?=-)", name)[0] for name in wheels] == [
        "effconv_core",
        "effconv_data",
        "effconv_kernels",
        "effconv_models",
    ]
    assert len(list(dist.glob("*.tar.gz"))) == 4
    for path in dist.glob("*.whl"):
        listing = run(sys.executable, "-m", "zipfile", "-l", path)
        assert "py.typed" in listing
        assert "LICENSE" in listing
        assert "tests/" not in listing


def test_core_and_models_search_a_network_of_ones_own(clean):
    result, ours = clean(OWN_SEARCH, "effconv-core", "effconv-models")
    assert abs(result["off"]) <= 0.02
    assert abs(result["off20"]) <= 0.02
    assert result["counted"]
    assert result["fits"]
    assert result["output"] == [8, 10]
    assert ours == {"effconv-core", "effconv-models", "effconv-kernels"}


def test_kernels_alone_bring_no_other_package_of_ours(clean):
    result, ours = clean(KERNELS_ALONE, "effconv-kernels")
    assert result["shapes"] == [[2, 3, 2, 2], [4, 2, 3, 3]]
    assert result["gradients"]
    assert result["ours"] == ["effconv_kernels"]
    assert ours == {"effconv-kernels"}


def test_models_alone_give_a_plain_resnet20(clean):
    result, ours = clean(MODELS_ALONE, "effconv-models")
    assert result == {"output": [2, 10], "sizes": [[5, 5], [2, 2]], "parameters": 269_722}
    assert ours == {"effconv-models"}
