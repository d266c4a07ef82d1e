"""Tasks of Slurm and of Ray."""

import importlib.util
import io
import os
import signal
import sys
import threading
import time

import pytest
from effconv_core.runs.reader import read_result
from rich.console import Console

from tests.toy_runs import at_work, check, counting
from tools.queue.engines import SlurmJob
from tools.queue.launchers import Launch, launch
from tools.queue.run_list import Run

linux = pytest.mark.skipif(sys.platform != "linux", reason="kills and /proc are of Linux")


def quiet():
    return Console(file=io.StringIO(), width=1000)


def wait_until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# A SLURM of one machine that runs each task of a job array in the background.
SBATCH = """#!/bin/bash
script="${@: -1}"
id=$(($(cat "$0.ids" 2>/dev/null || echo 99) + 100))
echo $id > "$0.ids"
export SLURM_LOCALID=0 SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_JOB_NODELIST=here SLURM_NODEID=0
export SLURM_JOB_NUM_NODES=1 SLURM_JOB_ID=$id
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
if [ -z "$last" ]; then
  bash "$script" > /dev/null 2>&1 < /dev/null &
else
  export SLURM_ARRAY_JOB_ID=$id SLURM_ARRAY_TASK_COUNT=$((last + 1))
  for task in $(seq 0 "$last"); do
    SLURM_JOB_ID=$((id + task)) SLURM_ARRAY_TASK_ID=$task \\
      bash "$script" > /dev/null 2>&1 < /dev/null &
  done
fi
echo "Submitted batch job $id"
"""

SRUN = """#!/bin/bash
while [[ "$1" == -* ]]; do
  case "$1" in --output|--error) shift 2;; *) shift;; esac
done
exec "$@"
"""

SACCT = "#!/bin/bash\necho 'JobID|State|NodeList'\n"


@pytest.mark.slow
@linux
def test_jobs_of_slurm(tmp_path, monkeypatch):
    commands = tmp_path / "slurm"
    commands.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "toys"
    runs = counting(2)
    runs.append(Run("sum", "tests.toy_runs:sums", {"names": ["run0", "run1"]}, ("run0", "run1")))
    options = Launch(launcher="slurm", workers=2, minutes=5, slurm=("partition=gpu", "mem=8G"))
    assert launch(folder / "list.json", runs, options, quiet()) == 0
    check(folder, runs[:2])
    assert read_result(folder / "sum") == {"sum": sum(range(12)) + sum(range(13))}
    asked = [file.read_text() for file in (folder / "list.jobs").glob("[0-9]*.sh")]
    (array,) = (text for text in asked if "#SBATCH --array=0-1" in text)
    for line in ("--array=0-1%2", "--time=5", "--partition=gpu", "--mem=8G", "--job-name=list"):
        assert f"#SBATCH {line}\n" in array


def test_a_job_that_slurm_ends_early_is_queued_again(tmp_path):
    (run,) = counting(1, seconds=0)
    job = SlurmJob(tmp_path / "run0", run)
    again = job.checkpoint().function
    assert again() is None
    check(tmp_path, [run])


@pytest.mark.slow
@linux
def test_tasks_of_a_local_ray_one_of_which_is_killed(tmp_path):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed; hatch run ray:test installs it and runs this")
    runs, killed = counting(5, seconds=0.2), []

    def kill_one():
        wait_until(lambda: list(tmp_path.glob("*/done")))
        killed.append(at_work(tmp_path)[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    options = Launch(launcher="ray", workers=2)
    assert launch(tmp_path / "list.json", runs, options, quiet()) == 0
    killer.join()
    assert killed
    check(tmp_path, runs)
