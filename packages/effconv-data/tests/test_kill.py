"""Real processes, really killed: nothing is lost and nothing comes twice."""

import hashlib
import json
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch
from effconv_data import load

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX")


def consume(root, state_file, workers):
    """Take two epochs from where a state says, and after each batch write what was seen."""
    torch.set_num_threads(1)
    batches = load("uneven", root=root, batch_size=3, resident=False, workers=workers, seed=4)
    seen = []
    if state_file.exists():
        content = json.loads(state_file.read_text())
        batches.load_state_dict(content["state"])
        seen = content["seen"]
    while batches.epoch < 2:
        for batch in batches:
            seen.append(digest(*batch))
            partial = state_file.with_suffix(".partial")
            partial.write_text(json.dumps({"state": batches.state_dict(), "seen": seen}))
            partial.replace(state_file)
            time.sleep(0.02)


def digest(images, labels):
    return hashlib.sha256(images.numpy().tobytes() + bytes(labels.tolist())).hexdigest()


@pytest.mark.slow
def test_a_killed_process_goes_on_at_the_next_batch(sets, tmp_path):
    batches = load("uneven", root=sets, batch_size=3, resident=False, workers=0, seed=4)
    whole = [digest(*batch) for _ in range(2) for batch in batches]
    state_file, kills, random_source = tmp_path / "state.json", 0, random.Random(0)
    for attempt in range(30):
        arguments = sets, state_file, attempt % 3
        process = multiprocessing.get_context("fork").Process(target=consume, args=arguments)
        process.start()
        have = len(json.loads(state_file.read_text())["seen"]) if state_file.exists() else 0
        want = have + random_source.randint(1, 5)
        while process.is_alive():
            if state_file.exists() and len(json.loads(state_file.read_text())["seen"]) >= want:
                time.sleep(random_source.random() * 0.02)
                process.kill()
                break
            time.sleep(0.002)
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:
            break
    assert kills >= 3
    assert json.loads(state_file.read_text())["seen"] == whole


# DataLoader raises from a signal handler, which may happen to run in the loader's own __del__.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("position", range(4))
def test_a_killed_worker_is_an_error_and_the_rest_can_be_had(sets, position):
    def batches():
        return load("uneven", root=sets, batch_size=2, resident=False, workers=2)

    whole = list(batches())
    broken, given = batches(), []

    def take_and_kill():
        for images, labels in broken:
            given.append((images, labels))
            if len(given) == position + 1:
                os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    with pytest.raises(RuntimeError, match=r"process that reads the shards|killed by signal"):
        take_and_kill()
    resumed = batches()
    resumed.load_state_dict(broken.state_dict())
    # Where the error came between a batch and its use, that batch is given and not seen.
    assert len(given) <= broken.state_dict()["batch"] <= len(given) + 1
    for (a, b), (c, d) in zip(resumed, whole[broken.state_dict()["batch"] :], strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)
