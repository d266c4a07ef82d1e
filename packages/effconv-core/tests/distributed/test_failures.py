"""What fails on one rank ends on all of them, each with a sentence that says where."""

import json
from unittest.mock import patch

import pytest
import torch
from effconv_core import search
from effconv_core.distributed.failures import (
    advanced,
    called_together,
    device_of,
    in_lockstep,
    together,
)
from torch import nn

FAULTS = {
    "search, the bar": (0, "ModuleNotFoundError: no rich"),
    "search, statistics of all ranks": (1, "ValueError: "),
    "search, the comparison": (1, "KeyError: 'frame 3'"),
    "search, a batch": (1, "KeyError: 'frame 3'"),
    "search, the first batch": (1, "ValueError: "),
    "search, the arguments": (1, "ValueError: "),
    "search, the disk": (0, "OSError: no space left"),
    "train, the loader": (1, "ValueError: the loader gives no batch"),
    "train, the first batch": (1, "KeyError: 'frame 0'"),
    "train, a label": (1, "ValueError: "),
    "train, the disk": (0, "OSError: no space left"),
    "evaluate, a batch": (1, "KeyError: 'frame 3'"),
    "probe, the loader": (1, "KeyError: 'frame 3'"),
    "tournament, the loader": (1, "TypeError: the loader is a NoneType"),
    "search, a round": (1, "OSError: no space left"),
    "tournament, a round": (1, "OSError: no space left"),
    "frontier, its settings": (1, "TypeError: Object of type set is not JSON serializable"),
}
DIFFERENCES = {
    "search, validation": "validation",
    "train, its length": "number of batches",
    "probe, its length": "number of batches",
    "frontier, its length": "number of batches",
    "frontier, validation": "number of validation batches",
    "probe, its repeats": "repeats",
    "train, its config": "config",
    "search, its progress": "progress",
}


@pytest.fixture(scope="module")
def raised(two_ranks, tmp_path_factory):
    """What each of two ranks raised in each case."""
    folder = tmp_path_factory.mktemp("faults")
    statuses, said = two_ranks("failure_program", folder)
    assert statuses == [0, 0], said
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("case", FAULTS)
def test_the_other_rank_names_the_one_that_failed_and_why(case, raised):
    rank, words = FAULTS[case]
    assert raised[rank][case].startswith(words)
    other = raised[1 - rank][case]
    assert other.startswith(f"OtherRankError: rank {rank} has failed ({raised[rank][case][:40]}")


@pytest.mark.parametrize("case", DIFFERENCES)
def test_what_differs_is_named_on_both_ranks(case, raised):
    one, other = (said[case] for said in raised)
    assert one == other
    assert one.startswith(f"RanksDifferError: rank 1 has another {DIFFERENCES[case]} than rank 0")


def test_the_ranks_go_on_together_after_all_of_that(raised):
    one, other = (said["and then"] for said in raised)
    assert one == other == "0.5"


def test_another_choice_of_what_is_compared_is_told_on_both_ranks(raised):
    one, other = (said["what is compared"] for said in raised)
    assert one == other
    assert one.startswith("RanksDifferError: rank 1 is given another choice of arguments than rank")


def test_a_group_need_not_have_the_first_of_all_ranks(raised):
    assert [said["train, the last rank only"] for said in raised] == ["None", "None"]


def test_a_rank_says_what_failed_on_it_where_the_others_are_gone():
    def failing():
        yield 1
        raise KeyError("frame") from OSError("disk")

    batches, gone = failing(), RuntimeError("Connection closed by peer")
    next(batches)
    with (
        patch("effconv_core.distributed.failures.gathered", side_effect=gone),
        pytest.raises(KeyError, match="frame") as caught,
    ):
        advanced(batches, 1, object(), "cpu", "in epoch 1")
    assert isinstance(caught.value.__cause__, OSError)


def test_one_process_raises_its_own_error_whatever_it_is():
    class MuteError(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    with pytest.raises(MuteError), together(None, "cpu"):
        raise MuteError
    with pytest.raises(StopIteration), together(None, "cpu"):
        raise StopIteration
    with pytest.raises(StopIteration):
        called_together(lambda number: next(iter(())), None, "cpu")(1)
    called_together(None, None, "cpu")(1)
    assert list(in_lockstep(iter("abc"), None, "cpu", "in epoch 1")) == ["a", "b", "c"]


def test_the_class_of_a_network_is_refused_as_such():
    with pytest.raises(TypeError, match=r"the model is a type; pass a torch\.nn\.Module"):
        search(nn.Linear, [])
    assert device_of(nn.Linear) == device_of(nn.ReLU()) == torch.device("cpu")
    assert device_of(nn.Linear(1, 1, device="meta")) == torch.device("meta")


@pytest.mark.parametrize(
    ("command", "function", "words"),
    [
        ("search", "missing", ["", "FileNotFoundError: images.bin"]),
        ("search", "fewer", ["rank 1 has another number of validation batches than rank 0"] * 2),
        ("search", "uneven", ["rank 1 has another number of training batches than rank 0"] * 2),
        ("train", "shorter", ["rank 1 has another number of training batches than rank 0"] * 2),
        ("search", "other_labels", ["", "none of the network's classes"]),
    ],
)
def test_a_command_refuses_on_all_ranks_and_writes_nothing(
    command, function, words, two_ranks, tmp_path
):
    statuses, said = two_ranks("failure_program", command, function, tmp_path)
    assert statuses == [2, 2], said
    for rank, expected in enumerate(words):
        assert "Traceback" not in said[rank]
        lines = [line for line in said[rank].splitlines() if line.startswith("effconv ")]
        assert len(lines) == bool(expected), said[rank]
        assert expected in said[rank]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("function", "expected", "words"),
    [
        ("breaking", [2, 2], ["", "image 9 is damaged"]),
        ("ending", [2, 7], ["another rank has ended or does not answer", ""]),
        ("unreported", [2, 2], ["no space left", ""]),
    ],
)
def test_a_command_ends_on_all_ranks_with_one_sentence_of_the_one_that_failed(
    function, expected, words, two_ranks, tmp_path
):
    statuses, said = two_ranks("failure_program", "train", function, tmp_path)
    assert statuses == expected, said
    for rank, told in enumerate(words):
        assert "Traceback" not in said[rank]
        lines = [line for line in said[rank].splitlines() if line.startswith("effconv ")]
        assert len(lines) == bool(told), said[rank]
        assert told in said[rank]
