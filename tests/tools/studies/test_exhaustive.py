"""Every plan of a small space is trained from scratch, alike."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tools.studies.exhaustive import open_table, train_plan
from tools.studies.small_spaces import SPACES, TABLES

ROOT = Path(__file__).parents[3]


def test_a_training_is_repeated_exactly(monkeypatch):
    space = SPACES["planted-8"]
    small = replace(space, samples=256, train=replace(space.train, epochs=2))
    monkeypatch.setitem(TABLES, "planted-8", small)
    plan = SPACES["planted-8"].plans()[0]
    first, second = (train_plan("planted-8", plan, 1) for _ in range(2))
    del first["cpu_seconds"], second["cpu_seconds"]
    assert first == second
    assert first["plan"] == plan


def test_a_table_of_other_settings_is_refused(tmp_path):
    path = tmp_path / "planted-5.jsonl"
    open_table(path, "planted-5")
    before = path.read_text()
    open_table(path, "planted-5")
    assert path.read_text() == before
    header = json.loads(path.read_text())
    header["settings"]["samples"] = 7
    path.write_text(json.dumps(header) + "\n")
    with pytest.raises(ValueError, match="delete it to train again"):
        open_table(path, "planted-5")


@pytest.mark.parametrize("table", ["planted-8", "every"])
def test_the_committed_tables_can_be_gone_on_with(table):
    path = ROOT / "results/ground-truth" / f"{table}.jsonl"
    before = path.read_bytes()
    open_table(path, table)
    assert path.read_bytes() == before
