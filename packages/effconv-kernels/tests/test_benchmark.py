"""What the benchmark says and refuses to say."""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import effconv_kernels
import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "bench.py"


def loaded(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    spec = importlib.util.spec_from_file_location("bench", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bench(monkeypatch):
    module = loaded(monkeypatch)
    monkeypatch.setattr(module, "NETWORKS", {"small": [(4, 3), (4, 4)]})
    monkeypatch.setattr(module, "copy_bandwidth", lambda device: 1e10)
    return module


@pytest.fixture
def rivals(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module("rivals")


def run(bench, monkeypatch, path, *options):
    arguments = [
        "bench.py",
        "--rounds",
        "5",
        "--sizes",
        "3",
        "--device",
        "cpu",
        "--out",
        str(path),
        *options,
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    bench.main()
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_side_of_both_passes_is_reported(bench, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "passes", lambda operator: True)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # takes a minute
    result = run(
        bench,
        monkeypatch,
        tmp_path / "r.json",
        *["--operators", "gru_unroll", "--batches", "1", "3"],
    )
    assert {"device", "python", "torch", "effconv-kernels", "commit", "H"} <= result.keys()
    rows = [(row["batch"], row["pass"]) for row in result["timings"]]
    assert rows == [(b, part) for b in (1, 3) for part in ("forward", "forward+backward")]
    printed = capsys.readouterr().out
    for row in result["timings"]:
        assert {"ours", "nn.GRU a layer", "batched loop", "torch.compile"} == row["seconds"].keys()
        for side, found in row["seconds"].items():
            assert found["p25"] <= found["median"] <= found["p75"]
            assert found["rounds"] == 5
            assert side in printed
    assert printed.count("times ours") == sum(len(row["seconds"]) for row in result["timings"])


def test_the_shapes_are_those_of_the_networks(monkeypatch):
    bench = loaded(monkeypatch)
    layers = {name: len(channels) for name, channels in bench.NETWORKS.items()}
    assert layers == {"ResNet-20": 18, "ResNet-56": 54, "WRN-28-10": 24, "ResNet-18": 16}
    # 3 x 3 weights after the first convolution: 36.5, 11.2, 0.85 and 0.27 million parameters less
    # the first convolution, shortcuts, normalisation and classifier.
    weights = {n: 9 * sum(a * b for a, b in channels) for n, channels in bench.NETWORKS.items()}
    assert weights["ResNet-20"] == 267_264
    assert weights["ResNet-18"] == 10_985_472
    assert weights["WRN-28-10"] == pytest.approx(36.3e6, rel=0.01)


@pytest.mark.slow
def test_an_operator_that_is_broken_gets_no_speed_up(tmp_path):
    """The benchmark's own tests run against a copy of the package with one wrong sign."""
    copy = tmp_path / "effconv_kernels"
    shutil.copytree(Path(effconv_kernels.__file__).parent, copy)
    form = copy / "eager" / "gru.py"
    source = form.read_text(encoding="utf-8")
    broken = source.replace(
        "torch.lerp(candidate, hidden, update", "torch.lerp(hidden, candidate, update"
    )
    assert broken != source
    form.write_text(broken, encoding="utf-8")
    path = tmp_path / "result.json"
    command = [sys.executable, SCRIPT, "--operators", "gru_unroll", "--out", path]
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [*command, "--networks", "ResNet-20", "--sizes", "3", "--rounds", "5"],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert "not timed, because their tests do not pass: gru_unroll" in result.stderr
    assert "times ours" not in result.stdout
    assert json.loads(path.read_text(encoding="utf-8"))["timings"] == []


def test_a_refused_operator_does_not_hold_back_the_other(bench, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "passes", lambda operator: operator == "gru_unroll")
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # takes a minute
    with pytest.raises(SystemExit, match="do not pass: assemble_kernels"):
        run(bench, monkeypatch, tmp_path / "r.json")
    result = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert {row["operator"] for row in result["timings"]} == {"gru_unroll"}
    assert "assemble_kernels" not in capsys.readouterr().out


@pytest.mark.slow
def test_assembly_is_compared_with_eager_and_compiled(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "passes", lambda operator: True)
    result = run(bench, monkeypatch, tmp_path / "r.json", "--operators", "assemble_kernels")
    forward, both = result["timings"]
    for row in (forward, both):
        assert row["seconds"].keys() == {"ours", "eager", "torch.compile"}
        for found in row["seconds"].values():
            assert found["of_copy_bandwidth"] == pytest.approx(
                row["bytes"] / found["median"] / 1e10
            )
    # Maps with their biases, states, kernels; then all of these again, and the maps' gradient.
    maps, states, kernels = 28 * 65, 18 * 64, 28 * 9
    assert forward["bytes"] == 4 * (maps + states + kernels)
    assert both["bytes"] == 4 * (3 * maps + 2 * states + 2 * kernels)


def test_no_comparison_begins_past_the_minutes(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "passes", lambda operator: True)
    result = run(bench, monkeypatch, tmp_path / "r.json", "--minutes", "1e-9")
    assert result["timings"] == []
    assert result["not begun within the minutes"] == [
        *(["small", "3", "gru_unroll", "float32", batch] for batch in (1, 64)),
        ["small", "3", "assemble_kernels", "float32", 1],
    ]


def test_the_errors_of_each_precision_are_those_of_the_operator(rivals):
    """On a CPU all are float32, so that each has the error of sums in float32."""
    found = rivals.precision_errors([(4, 3), (2, 4)], [3, 2], 8, "cpu")
    assert found.keys() == {"ieee", "tf32x3", "tf32"}
    assert all(0 < error < 1e-5 for error in found.values())


def test_the_eager_expression_is_the_operator(rivals):
    forward, _ = rivals.assembly_sides([(4, 3), (2, 4)], [3, 2], 8, "cpu")
    assert forward.keys() == {"ours", "eager", "torch.compile"}
    found = {}
    for name in ("ours", "eager"):
        inner = forward[name].__closure__[0].cell_contents
        found[name] = [kernel.detach() for kernel in inner()]
    torch.testing.assert_close(found["ours"], found["eager"])


@pytest.mark.parametrize("batch", [1, 3])
def test_all_sides_unroll_the_same_grus(rivals, batch):
    forward, _ = rivals.unroll_sides(2, [4, 2], 8, "cpu", batch)
    inner = {name: side.__closure__[0].cell_contents for name, side in forward.items()}
    found = {name: inner[name]() for name in ("ours", "nn.GRU a layer", "batched loop")}
    assert found["ours"].shape == (batch, 6, 8)
    for states in found.values():
        torch.testing.assert_close(states, found["ours"])


def test_a_call_is_warm_before_it_is_captured(rivals, monkeypatch):
    """On a GPU a first call compiles and copies tables, which no capture allows."""
    log = []

    class Stream:
        def wait_stream(self, other):
            log.append("waits")

    class Graph:
        def replay(self):
            log.append("replayed")

    @contextlib.contextmanager
    def graph(graph):
        log.append("begins")
        yield
        log.append("ends")

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: log.append("synchronised"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    rivals.captured(lambda: log.append("call"))()
    assert log == [
        *("waits", "call", "call", "call", "synchronised"),
        *("begins", "call", "ends", "replayed"),
    ]
