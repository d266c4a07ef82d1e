"""What every timing shares."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from effconv_core.cost.latency import Stopwatch
from rich.console import Console

from tools.bench import core
from tools.bench.core import BenchOptions, interleave, quantiles, result, run_bench, write


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the sides move, in nanoseconds."""
    now = [0]
    monkeypatch.setattr(
        core, "stopwatch", lambda device: Stopwatch(lambda: now[0], lambda start, end: end - start)
    )
    return now


def test_sides_take_turns_and_each_time_is_its_own(clock):
    order = []

    def side(name, seconds):
        def run():
            order.append(name)
            clock[0] += int(seconds * 1e9)

        return run

    sides = {"a": side("a", 1), "b": side("b", 2), "c": side("c", 4)}
    times = interleave(
        sides,
        2,
        device="cpu",
        warmups=1,
        before=lambda: order.append("before"),
        after=lambda: order.append("after"),
    )
    assert times == {"a": [1, 1], "b": [2, 2], "c": [4, 4]}
    assert " ".join(order) == ("before a b c after before c b a after before a b c after")


def test_a_timing_ends_when_it_is_told_and_a_refusal_comes_through(clock):
    assert interleave({"a": lambda: None}, 9, device="cpu", warmups=2, until=(3).__le__) == {
        "a": [0, 0, 0]
    }
    with pytest.raises(RuntimeError, match="left"):
        interleave({"a": lambda: None}, 1, device="cpu", after=refuse)


def refuse():
    raise RuntimeError("the sizes left 5")


def test_quantiles_by_hand():
    assert quantiles([float(n) for n in range(1, 10)]) == {"median": 5, "p20": 2, "p80": 8}


@dataclass(frozen=True, kw_only=True)
class Few(BenchOptions):
    """Options of a benchmark."""

    rounds: int = 2
    where: str = "here"


@pytest.mark.parametrize("change", [{"rounds": 0}, {"threads": 0}])
def test_what_cannot_be_timed_is_refused(change):
    with pytest.raises(ValueError, match="must be at least"):
        Few(**change)


def test_a_result_is_written_with_settings_and_environment(tmp_path, monkeypatch, capsys):
    out = tmp_path / "new" / "a.json"
    monkeypatch.setattr(sys, "argv", ["bench:few", "--rounds", "3", "--out", str(out)])

    def run(options: Few, console: Console) -> None:
        write(result(options, "drawn", rows=[1.5]), options.out, console)
        write({}, None, console)

    with pytest.raises(SystemExit) as ended:
        run_bench("bench:few", Few, run)
    assert ended.value.code == 0
    content = json.loads(out.read_text())
    assert list(content) == ["settings", "environment", "rows"]
    assert content["settings"].items() >= {"rounds": 3, "where": "here"}.items()
    assert "out" not in content["settings"]
    assert content["environment"]["data"] == "drawn"
    assert {"commit", "device", "torch"} <= content["environment"].keys()
    assert list(Path(tmp_path).iterdir()) == [out.parent]


def test_a_device_that_is_not_there_is_refused_in_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench:few", "--device", "abacus"])
    with pytest.raises(SystemExit) as ended:
        run_bench("bench:few", Few, refuse)
    assert ended.value.code == 2
    assert "'abacus'" in capsys.readouterr().err
