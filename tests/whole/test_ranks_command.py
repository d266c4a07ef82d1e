"""The command line and its training in several processes, as torchrun starts them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from effconv_core import load
from effconv_core.cli.pipeline import check_options
from effconv_core.distributed.process_group import Ranks
from effconv_core.engine.train import evaluate
from safetensors.torch import load_file

from tests.whole import train_program
from tools.presets import demo_network, make_batches
from tools.search import parse

ROOT = Path(__file__).parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SHORT = ["demo", "--search-epochs", "2", "--train-epochs", "2", "--name", "run", "--device", "cpu"]
SHORT += ["--search-least-steps", "0", "--search-race-steps", "4"]


def started(*arguments: object, **options: object) -> subprocess.Popen:
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "COLUMNS": "100"}
    return subprocess.Popen(
        [sys.executable, *TORCHRUN, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def search(runs: Path, *words: str, **options: object) -> subprocess.Popen:
    return started("-m", "tools.search", *SHORT, "--runs", runs, *words, **options)


def lasting(folder: Path) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def test_two_ranks_train_as_one_process_does_and_see_each_image_once_an_epoch(tmp_path):
    alone = train_program.trained(0, 1, None)
    process = started(train_program.__file__, tmp_path)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    ranks = [load_file(tmp_path / f"{rank}.tensors") for rank in range(2)]
    for made in ranks:
        assert made["accuracy"] == alone["accuracy"]
        for name in alone.keys() - {"accuracy", "seen"}:
            torch.testing.assert_close(made[name], alone[name], rtol=0, atol=1e-5)
    assert alone["seen"].shape == (5, 256)
    assert len(alone["seen"][0].unique()) == 256
    for epoch, expected in enumerate(alone["seen"]):
        seen = torch.cat([made["seen"][epoch] for made in ranks])
        torch.testing.assert_close(seen.sort().values, expected.sort().values)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    process = search(runs)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output, errors, runs / "run"


@pytest.mark.long
def test_a_run_of_two_ranks_has_one_voice_and_one_folder(demo):
    output, errors, folder = demo
    assert errors == ""
    assert output.count("learned sizes: test accuracy") == 1
    rows = [(row["phase"], row["global_step"]) for row in lasting(folder)]
    assert len(rows) == len(set(rows)) > 10
    config = json.loads((folder / "config.json").read_text())
    assert config["environment"]["ranks"] == "2"
    cnn = load(demo_network(1, 4, torch.Generator()), folder / "cnn.safetensors")
    test = make_batches("demo", "test", batch_size=100, device="cpu", seed=0, scale=8.0)
    stated = re.search(
        r"\| learned sizes \| [\d,]+ \| ([\d.]+)% \|", (folder / "report.md").read_text()
    )
    assert float(stated[1]) / 100 == pytest.approx(evaluate(cnn, test), abs=1e-4)


def workers_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
@pytest.mark.parametrize("phase", ["search", "train"])
def test_where_one_rank_is_killed_all_end_and_the_run_goes_on(demo, tmp_path, phase):
    _, _, folder = demo
    process = search(tmp_path)
    checkpoint = tmp_path / "run" / f"{phase}.safetensors"
    deadline = time.monotonic() + 600
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = workers_of(process.pid)
    os.kill(workers[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "SIGKILL" in errors or "exitcode: -9" in errors
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert not (tmp_path / "run" / "report.md").exists()

    resumed = search(tmp_path)
    output, errors = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, errors
    assert "going on with the interrupted run" in output
    assert lasting(tmp_path / "run") == lasting(folder)
    for name in ("plan.json", "cnn.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_where_the_terminal_is_closed_all_ranks_end_in_order(tmp_path):
    process = search(tmp_path, start_new_session=True)
    checkpoint, deadline = tmp_path / "run" / "search.safetensors", time.monotonic() + 600
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = workers_of(process.pid)
    os.killpg(process.pid, signal.SIGHUP)  # as the system does, to all of a terminal's
    output, errors = process.communicate(timeout=100)
    assert process.returncode != 0
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert "stopped by SIGHUP; the same command goes on" in output + errors
    resumed = search(tmp_path)
    output, errors = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, errors
    assert "going on with the interrupted run" in output


@pytest.mark.long
def test_a_refusal_of_rank_0_ends_all_of_them_and_is_told_once(demo):
    process = search(demo[2].parent)
    _, errors = process.communicate(timeout=200)
    assert process.returncode != 0
    assert errors.count("is finished") == 1
    assert "search, rank 0: run" in errors


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    ranks = Ranks(0, 3, None, "cpu")
    assert ranks.share(129, "batch_size") == 43
    with pytest.raises(ValueError, match="batch_size is 128 and there are 3 ranks, .* multiple"):
        ranks.share(128, "batch_size")


def test_sync_batchnorm_is_refused_where_it_cannot_run():
    _, options = parse(["demo", "--device", "cpu", "--sync-batchnorm"])
    with pytest.raises(ValueError, match="SyncBatchNorm runs only on GPUs; leave it out"):
        check_options(options)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
def test_two_gpus_search_with_one_batch_normalisation(tmp_path):
    arguments = [*SHORT[:-1], "cuda", "--sync-batchnorm", "--runs", tmp_path]
    process = started("-m", "tools.search", *arguments)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert (tmp_path / "run" / "report.md").exists()
