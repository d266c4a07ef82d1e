"""One search by several processes: real ones, on gloo, and on NCCL where there are two GPUs."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from effconv_core import SearchableCNN, check_ranks
from safetensors.torch import load_file

TESTS = Path(__file__).parent
ROOT = TESTS.parents[2]
BACKENDS = [
    pytest.param("", id="gloo"),
    pytest.param(
        " nccl",
        id="nccl",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs"),
        ],
    ),
]


def environment(**changes: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **changes}


def run(program: str, *arguments: object, ranks: int) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [sys.executable, *(torchrun if ranks > 1 else []), str(TESTS / program)]
    process = subprocess.run(
        [*command, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "find_unused_parameters" not in process.stderr


def alone_and_in_ranks(what: str, folder: Path, backend: str) -> list[dict[str, torch.Tensor]]:
    for ranks in (1, 2):
        run("rank_program.py", what + backend, folder / f"{ranks}.tensors", ranks=ranks)
    return [load_file(folder / f"{ranks}.tensors") for ranks in (1, 2)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "what", ["default float32 full", "paper float32 full", "default float64 idle"]
)
def test_two_ranks_have_the_parameters_of_one_process_after_20_steps(what, backend, tmp_path):
    from_one, from_two = alone_and_in_ranks(f"parameters {what}", tmp_path, backend)
    assert from_one.keys() == from_two.keys()
    for name, value in from_one.items():
        torch.testing.assert_close(from_two[name], value, rtol=0, atol=1e-5)
    assert ("model.idle.weight" in from_one) == what.endswith("idle")


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_ranks_find_the_plan_of_one_process(backend, tmp_path):
    from_one, from_two = alone_and_in_ranks("searched", tmp_path, backend)
    for name, value in from_one.items():
        torch.testing.assert_close(from_two[name], value, rtol=1e-6, atol=1e-9)
    one, two = (load_file(tmp_path / f"{ranks}.safetensors") for ranks in (1, 2))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-6, atol=1e-9)
    # Finished in two ranks, it is finished in one process too: nothing is searched again.
    (tmp_path / "1.safetensors").write_bytes((tmp_path / "2.safetensors").read_bytes())
    run("rank_program.py", "again" + backend, tmp_path / "again.tensors", ranks=1)
    again = load_file(tmp_path / "again.tensors")
    assert again["sizes"].tolist() == from_two["sizes"].tolist()
    assert not len(again["losses"])


def side_by_side(what: str, folder: Path) -> list[subprocess.Popen]:
    """Start two ranks without torchrun, which would end one where the other has ended."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [sys.executable, str(TESTS / "rank_program.py"), what, str(folder / "none")],
            env=environment(RANK=str(rank), LOCAL_RANK=str(rank), **common),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def errors_of(processes: list[subprocess.Popen]) -> list[str]:
    try:
        return [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("soft sizes", r"rank 1 has soft size "),
        ("passes", "rank 1 has drawn its sizes another number of times than rank 0 in step 4 of"),
        ("config", "rank 1 has another config than rank 0"),
        ("batches", "rank 1 has 9 batches in epoch 1 and rank 0 has more"),
    ],
)
def test_ranks_that_differ_all_say_which(what, sentence, tmp_path):
    processes = side_by_side(what, tmp_path)
    for error in errors_of(processes):
        assert sentence in error
        if what == "soft sizes":
            assert "in layer 'body.5'" in error
    assert all(process.returncode == 1 for process in processes)


def test_where_one_rank_is_killed_the_other_ends_with_an_error(tmp_path):
    started = time.monotonic()
    processes = side_by_side("killed", tmp_path)
    survivor, _ = errors_of(processes)
    assert processes[1].returncode == -9
    assert processes[0].returncode == 1
    assert "Connection" in survivor
    assert time.monotonic() - started < 110


@pytest.mark.parametrize("name", ["ddp_search", "lightning_search", "accelerate_search"])
def test_the_examples_learn_in_two_processes_what_they_learn_in_one(name, tmp_path):
    pytest.importorskip(name.split("_")[0] if name != "ddp_search" else "torch")
    plans = []
    for ranks in (1, 2):
        run("example_program.py", name, tmp_path / f"{ranks}.json", ranks=ranks)
        plans.append(json.loads((tmp_path / f"{ranks}.json").read_text()))
    assert plans[0]["sizes"] == plans[1]["sizes"]
    soft_sizes = [list(plan["soft_sizes"].values()) for plan in plans]
    assert soft_sizes[1] == pytest.approx(soft_sizes[0], abs=1e-5)


def test_nothing_is_compared_in_one_process():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.Conv2d(2, 2, 3))
    check_ranks(SearchableCNN(model), torch.distributed.group.WORLD)
