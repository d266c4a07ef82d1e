"""Tensors are read out of regular files of safetensors, and of nothing else."""

import os

import pytest
import torch
from effconv_core.io.read_tensors import opened_tensors
from safetensors.torch import save_file


@pytest.fixture
def path(tmp_path):
    save_file({"a": torch.arange(6.0).view(2, 3)}, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def test_tensors_are_read_by_name(path):
    with opened_tensors(path) as file:
        assert list(file.keys()) == ["a"]
        torch.testing.assert_close(file.get_tensor("a"), torch.arange(6.0).view(2, 3))


@pytest.mark.parametrize("length", [0, 7, 40, -1])
def test_a_file_that_was_cut_off_is_refused_by_name(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"a\.safetensors"), opened_tensors(path):
        pass


def test_a_missing_tensor_is_an_error_of_the_file(path):
    with pytest.raises(ValueError, match=r"a\.safetensors.*b"), opened_tensors(path) as file:
        file.get_tensor("b")


def test_an_error_of_the_caller_is_its_own(path):
    with pytest.raises(KeyError), opened_tensors(path):
        raise KeyError


def test_what_is_no_regular_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError), opened_tensors(tmp_path / "none"):
        pass
    with pytest.raises(ValueError, match="regular file"), opened_tensors(tmp_path):
        pass
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ValueError, match="pipe"), opened_tensors(tmp_path / "pipe"):
            pass
