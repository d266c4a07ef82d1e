"""The page of networks of other packages."""

import json
from pathlib import Path

from tools.networks import page
from tools.networks.outside import networks
from tools.release.versions import tomllib
from tools.support.rows import read_rows

ROOT = Path(__file__).parents[3]

NETWORKS = {network["name"]: network for network in networks()}


def test_the_results_are_of_the_listed_networks_and_the_page_is_of_the_results(monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = {row["name"]: row["outcome"] for row in read_rows(page.RESULTS)}
    assert rows == {name: network["expect"] for name, network in NETWORKS.items()}
    assert page.PAGE.read_text(encoding="utf-8") == page.networks_page()


def test_networks_are_run_only_in_the_environment_that_has_the_packages():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    environments = settings["tool"]["hatch"]["envs"]
    assert [
        f"{name}:{script}"
        for name, environment in environments.items()
        for script, command in environment.get("scripts", {}).items()
        if "-m tools.networks" in command
    ] == ["networks:run"]


def test_a_failure_stands_on_the_page(monkeypatch, tmp_path):
    environment = {"commit": "c", "device": "d", "torch": "t", "timm": "1"}
    row = {"package": "timm", "name": "n", "outcome": "failed", "sentence": "a | b"}
    row |= {"layers": 0, "alone": {"has one tap": 2}, "environment": environment}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setattr(page, "RESULTS", tmp_path / "rows.jsonl")
    assert "1 failed" in page.networks_page()
    assert "a \\| b" in page.networks_page()
