"""One search by several processes: real ones, on gloo, and on NCCL where there are two GPUs."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from effconv_core import Frontier, SearchableCNN, SizePlan, check_ranks
from effconv_core.distributed.consistency import _may_skip
from safetensors.torch import load_file
from torch.utils.checkpoint import checkpoint

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parents[2]
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs"),
        ],
    ),
]


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TESTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


alone = program("rank_program")


def by_torchrun(name: str, *arguments: object, cwd: Path = ROOT) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.run(
        [sys.executable, *torchrun, str(TESTS / f"{name}.py"), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "find_unused_parameters" not in process.stderr


@pytest.fixture(scope="module", params=DEVICES)
def one_and_two(request, two_ranks, tmp_path_factory):
    """What one process makes, what two ranks make of the same, and the folder of both."""
    folder = tmp_path_factory.mktemp("ranks")
    from_one = alone.everything(None, request.param, folder)
    statuses, said = two_ranks("rank_program", "everything", request.param, folder)
    assert statuses == [0, 0], said
    assert "find_unused_parameters" not in "".join(said)
    return from_one, load_file(folder / "2.tensors"), folder


@pytest.mark.parametrize("case", alone.CASES)
def test_two_ranks_have_the_parameters_of_one_process_after_20_steps(case, one_and_two):
    from_one, from_two, _ = one_and_two
    names = [name for name in from_one if name.startswith(f"{case}/")]
    assert len(names) > 10
    for name in names:
        torch.testing.assert_close(from_two[name], from_one[name], rtol=0, atol=1e-5)
    # The tolerance tells averaged gradients from those of one half of each batch.
    name, dtype, idle = case.split()
    half = alone.after_20_steps(
        None, "cpu", name, getattr(torch, dtype), idle=idle == "idle", part=(0, 2)
    )
    assert max((half[n] - from_one[f"{case}/{n}"]).abs().max() for n in half) > 1e-3


def test_two_ranks_find_the_plan_of_one_process(one_and_two):
    from_one, from_two, folder = one_and_two
    for name in ("sizes", "soft_sizes", "losses"):
        torch.testing.assert_close(from_two[f"search/{name}"], from_one[f"search/{name}"])
    one, two = (load_file(folder / f"{ranks}.safetensors") for ranks in (1, 2))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value)


def test_two_ranks_train_the_plans_that_one_process_does(one_and_two):
    one, two, _ = one_and_two
    for name in ("sizes", "evidence"):
        torch.testing.assert_close(two[f"raced/{name}"], one[f"raced/{name}"], rtol=1e-6, atol=1e-7)


def test_what_two_ranks_have_finished_is_finished_in_one_process(one_and_two):
    _, from_two, folder = one_and_two
    found, steps = alone.searched(None, "cpu", folder / "2.safetensors")
    assert steps == 0
    torch.testing.assert_close(found["sizes"], from_two["search/sizes"])


@pytest.mark.parametrize("device", DEVICES)
def test_ranks_that_differ_all_say_which_does(device, two_ranks, tmp_path):
    statuses, errors = two_ranks("rank_program", "differences", device, tmp_path)
    assert statuses == [0, 0], errors
    for rank in range(2):
        said = json.loads((tmp_path / f"{rank}.json").read_text())
        assert "RanksDifferError: rank 1 has soft size 4." in said["soft sizes"]
        assert "in layer 'body.5', and rank 0 4." in said["soft sizes"]
        assert "in step 5 of epoch 2" in said["soft sizes"]
        assert "rank 1 has drawn its sizes another number of times than rank 0" in said["passes"]
        assert "in step 4 of epoch 2" in said["passes"]
        assert "RanksDifferError: rank 1 has another config than rank 0" in said["config"]
        assert "ValueError: rank 1 has 9 batches in epoch 1 and rank 0 has more" in said["batches"]


def test_where_one_rank_is_killed_the_other_ends_with_an_error(two_ranks, tmp_path):
    statuses, (survivor, _) = two_ranks("rank_program", "killed", "cpu", tmp_path)
    assert statuses == [1, -9]
    assert "Connection" in survivor


@pytest.mark.long
@pytest.mark.parametrize("name", ["ddp_search", "lightning_search", "accelerate_search"])
def test_the_examples_learn_in_two_processes_what_they_learn_in_one(name, tmp_path):
    pytest.importorskip("torch" if name == "ddp_search" else name.split("_")[0])
    program("example_program").main(name, tmp_path / "1.json")
    by_torchrun("example_program", name, tmp_path / "2.json")
    one, two = (SizePlan.load(tmp_path / f"{ranks}.json") for ranks in (1, 2))
    assert one.sizes == two.sizes
    expected = pytest.approx(list(one.soft_sizes.values()), abs=1e-5)
    assert list(two.soft_sizes.values()) == expected
    by_torchrun("example_program", name, cwd=tmp_path)
    assert SizePlan.load(tmp_path / "plan.json").cost == pytest.approx(13_600, rel=0.02)


def test_reentrant_checkpoints_are_refused_before_ranks_average_gradients():
    class Net(torch.nn.Sequential):
        def forward(self, images):
            return checkpoint(self[1], self[0](images), use_reentrant=True)

    convs = [torch.nn.Conv2d(3, 3, 3) for _ in range(3)]
    searchable = SearchableCNN(Net(torch.nn.Sequential(*convs[:2]), convs[2]), searched="0.1")
    with pytest.raises(ValueError, match="use_reentrant=False"):
        _may_skip(searchable, ((torch.zeros(1, 3, 9, 9),), {}))


def test_nothing_is_compared_in_one_process():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.Conv2d(2, 2, 3))
    check_ranks(SearchableCNN(model), torch.distributed.group.WORLD)


def test_two_ranks_find_the_frontier_of_one(two_ranks, tmp_path):
    alone, both = tmp_path / "alone", tmp_path / "both"
    alone.mkdir()
    both.mkdir()
    program("frontier_program").main(alone)
    statuses, said = two_ranks("frontier_program", both)
    assert statuses == [0, 0], said
    one, two = Frontier.load(alone / "found.0"), Frontier.load(both / "found.0")
    assert Frontier.load(both / "found.1") == two
    assert [point.sizes for point in two.points] == [point.sizes for point in one.points]
    for mine, theirs in zip(two.points, one.points, strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-3)
    # A second run repeats nothing, and the checkpoint of another frontier ends both ranks.
    for rank in (0, 1):
        assert Frontier.load(both / f"again.{rank}") == two
        assert (both / f"other.{rank}").read_text().startswith("refused")
