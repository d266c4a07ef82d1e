"""The latency benchmark with a clock that counts multiplications, so that both sides are equal."""

import json

import pytest
from effconv_core.cost import latency
from effconv_core.cost.latency import Stopwatch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from tools.bench import core
from tools.bench.latency import LatencyOptions, run


@pytest.mark.parametrize("late", [0, 10**12])
def test_predicted_and_measured_are_of_the_same_networks(monkeypatch, tmp_path, capsys, late):
    reads, path = [], tmp_path / "result.json"
    with FlopCounterMode(display=False) as counter:

        def mark():
            reads.append(None)
            return counter.get_total_flops() * 500

        # Every built network takes `late` more than the table can know of.
        own = Stopwatch(mark, lambda start, end: end - start + late)
        monkeypatch.setattr(
            latency, "stopwatch", lambda _: Stopwatch(mark, lambda start, end: end - start)
        )
        monkeypatch.setattr(core, "stopwatch", lambda _: own)
        options = LatencyOptions(
            batch_size=1,
            image_size=8,
            random_plans=2,
            rounds=1,
            repetitions=1,
            warmups=0,
            device="cpu",
            out=path,
        )
        run(options, Console())
    content = json.loads(path.read_text())
    assert [row["plan"] for row in content["plans"]] == [
        "all 3",
        "all 5",
        "all 7",
        "random 1",
        "random 2",
        "for a budget",
    ]
    for row in content["plans"]:
        assert row["measured"] == pytest.approx([p + late / 1e9 for p in row["predicted"]])
        assert row["error"] == pytest.approx(row["predicted"][0] / row["measured"][0] - 1)
    assert (content["largest_error"] > 0.5) == bool(late)
    assert {"commit", "device", "torch"} <= content["environment"].keys()
    assert (
        f"largest error of the medians: {content['largest_error']:.1%}" in capsys.readouterr().out
    )
