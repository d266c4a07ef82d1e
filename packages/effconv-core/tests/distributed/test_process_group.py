"""The ranks of a run: shares of a batch, and what the first does for all."""

import socket

import pytest
import torch.distributed as dist
from effconv_core.distributed.process_group import Ranks, joined


def test_a_batch_is_shared_evenly_or_refused():
    ranks = Ranks(1, 4, None, "cpu")
    assert ranks.share(128, "batch_size") == 32
    with pytest.raises(ValueError, match="batch_size is 130 .* 4 ranks"):
        ranks.share(130, "batch_size")
    assert Ranks(0, 1, None, "cpu").share(7, "batch_size") == 7


def test_only_the_first_calls_a_function():
    called = []
    assert Ranks(0, 2, None, "cpu").on_first(lambda: called.append("first") or 5) == 5
    assert Ranks(1, 2, None, "cpu").on_first(lambda: called.append("second") or 6) is None
    assert called == ["first"]


def test_an_error_of_the_first_is_its_own():
    def fail():
        raise FileExistsError("runs/a")

    for method in (Ranks(0, 1, None, "cpu").on_first, Ranks(0, 1, None, "cpu").from_first):
        with pytest.raises(FileExistsError, match="runs/a"):
            method(fail)


@pytest.fixture
def environment(monkeypatch):
    """Give the variables with which torchrun starts one process."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    found = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_program_of_torchrun_joins_a_group_and_leaves_it(environment):
    with joined("cpu") as ranks:
        assert (ranks.rank, ranks.world_size, ranks.device) == (0, 1, "cpu")
        assert dist.is_initialized()
        assert ranks.from_first(lambda: {"a": [1]}) == {"a": [1]}
        with pytest.raises(KeyError):
            ranks.on_first(lambda: {}["a"])
    assert not dist.is_initialized()


def test_the_group_is_left_after_an_error_too(environment):
    with pytest.raises(ZeroDivisionError), joined("cpu"):
        raise ZeroDivisionError
    assert not dist.is_initialized()


@pytest.mark.parametrize("missing", ["RANK", "WORLD_SIZE"])
def test_any_other_program_is_alone(environment, missing):
    environment.delenv(missing)
    with joined("cuda:3") as ranks:
        assert ranks == Ranks(0, 1, None, "cuda:3")
        assert not dist.is_initialized()
