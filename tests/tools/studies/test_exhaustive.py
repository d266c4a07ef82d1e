"""Every plan of a small space is trained from scratch, alike."""

import json

import pytest

from tools.studies.exhaustive import open_table, train_plan
from tools.studies.small_spaces import SPACES


@pytest.mark.slow
def test_a_training_is_repeated_exactly():
    plan = SPACES["planted-8"].plans()[0]
    first, second = (train_plan("planted-8", plan, 1) for _ in range(2))
    del first["cpu_seconds"], second["cpu_seconds"]
    assert first == second
    assert first["plan"] == plan


def test_a_table_of_other_settings_is_refused(tmp_path):
    path = tmp_path / "planted-5.jsonl"
    assert open_table(path, "planted-5") == []
    assert open_table(path, "planted-5") == []
    header = json.loads(path.read_text())
    header["settings"]["samples"] = 7
    path.write_text(json.dumps(header) + "\n")
    with pytest.raises(ValueError, match="delete it to train anew"):
        open_table(path, "planted-5")
