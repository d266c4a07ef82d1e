"""The page of what a search step costs."""

import json
from pathlib import Path

from tests.tools.bench.made_up_efficiency import made_up
from tools.bench import efficiency_page

ROOT = Path(__file__).parents[3]


def test_a_page_tells_of_every_device_that_there_is_a_result_of(tmp_path):
    path = tmp_path / "docs" / "page.md"
    nothing = efficiency_page.efficiency_page(path, tmp_path)
    assert nothing.count("Not yet measured.") == 4  # the split, and throughput, on two devices
    (tmp_path / "efficiency-cuda.json").write_text(json.dumps(made_up("a GPU")))
    one = efficiency_page.efficiency_page(path, tmp_path)
    assert one.count("Not yet measured.") == 3
    assert "| kernel assembly (map or crop, mask, layout) | 50.00 | 20.0% | 50.00 | 20.0% |" in one
    assert "Recipe `bank`: the cut step takes 250.0 ms in all, the whole one 300.0 ms" in one
    assert "(../efficiency-cuda.json)" in one
    assert "a GPU" in one.split("## An NVIDIA GPU")[1].split("## Throughput")[0]
    (tmp_path / "efficiency-cpu.json").write_text(json.dumps(made_up("a CPU")))
    assert efficiency_page.efficiency_page(path, tmp_path).count("Not yet measured.") == 2


def test_processes_side_by_side_and_ways_without_time_are_told(tmp_path):
    raw = json.loads((ROOT / "results/throughput-cpu.json").read_text())
    name = raw["epochs"]["training"]["way"]
    raw["seconds"][name]["median"] = 0.25
    raw["side_by_side"] = {name: {"2": {"steps_a_second": 6.4}, "4": {"steps_a_second": 7.6}}}
    raw["left_out"] = ["one way", "another"]
    (tmp_path / "throughput-cuda.json").write_text(json.dumps(raw))
    page = efficiency_page.efficiency_page(tmp_path / "page.md", tmp_path)
    assert (
        f"side by side, {name}: 1: 4, 2: 6, 4: 8.\nLeft out for time: one way; another.\n" in page
    )


def test_the_page_is_what_the_results_give(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert efficiency_page.PAGE.read_text() == efficiency_page.efficiency_page()
