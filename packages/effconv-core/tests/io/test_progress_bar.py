"""The bar of search, train and frontier in Python: on a terminal, in a pipe, without rich."""

import io
import re
import sys
import time

import pytest
import torch
from effconv_core import SearchableCNN, frontier, recipe, search
from effconv_core.engine.train import TrainConfig, train
from effconv_core.io.progress_bar import shown
from torch import nn

CONFIG = recipe("bank", least_steps=0, epochs=2, race_steps=1, finalists=2, tolerance=0.3)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch):
    """Make standard error a terminal of 80 columns; pytest would undo what a fixture sets."""
    for name, value in {"COLUMNS": "80", "LINES": "25", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


def model():
    torch.manual_seed(0)
    layers = [nn.Conv2d(c_in, c_out, 3, padding=1) for c_in, c_out in ((1, 2), (2, 3), (3, 3))]
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))


def batches(count=6):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 4, 1, 8, 8, generator=generator)
    return [(batch, torch.tensor([0, 1, 0, 1])) for batch in images]


@pytest.fixture
def network():
    network = model()
    network(batches()[0][0])
    return network


def lines(drawn):
    """Split what a terminal got into the lines that it showed, one after another."""
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", drawn.getvalue())
    return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def left_behind(drawn):
    """Return the lines that stay, those before a line feed, without what was drawn over."""
    *ended, last = drawn.getvalue().split("\n")
    assert not re.sub(r"\x1b\[[\d;?]*[A-Za-z]|\r", "", last).strip()
    return [re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", line).split("\r")[-1] for line in ended]


def test_a_search_draws_its_steps_and_rounds_in_one_line_of_eighty_columns(network, monkeypatch):
    terminal = on_terminal(monkeypatch)
    steps, rounds = [], []

    def watch(step):
        steps.append(step)
        time.sleep(0.05)  # the bar is drawn ten times a second

    plan = search(
        network,
        batches(),
        config=CONFIG,
        progress=True,
        on_step=watch,
        on_round=lambda *round: rounds.append(round),
    )
    assert plan.sizes
    assert (len(steps), rounds[0][0]) == (12, 1)  # what the caller asked for is called as before
    shown_lines = lines(terminal)
    assert all(len(line) <= 76 for line in shown_lines)
    assert any(re.search(r"loss \d\.\d+ cost [+-]\d+%", line) for line in shown_lines)
    (last,) = left_behind(terminal)
    assert "100%" in last
    assert f"round {rounds[-1][0]}" in last


def test_the_plan_is_the_same_with_a_bar_and_without(network, monkeypatch):
    on_terminal(monkeypatch)
    plans = [search(network, batches(), config=CONFIG, progress=p) for p in (True, False)]
    assert plans[0].to_json() == plans[1].to_json()


def test_a_training_and_a_frontier_draw_theirs(network, monkeypatch):
    terminal = on_terminal(monkeypatch)
    train(network, batches(), TrainConfig(epochs=2, lr=0.01), progress=True)
    (last,) = left_behind(terminal)
    assert re.search("train .*100%.*loss", last)
    terminal.seek(terminal.truncate(0))
    searchable = SearchableCNN(network, CONFIG)
    own = searchable.cost(list(searchable.original_sizes.values()))
    frontier(searchable, batches(), amounts=[own, 1.3 * own], progress=True)
    (last,) = left_behind(terminal)
    assert re.search("frontier .*100%.*2 of 2", last)


@pytest.mark.parametrize("error", [KeyboardInterrupt, FloatingPointError])
def test_a_stopped_search_leaves_one_bar_at_its_place(network, monkeypatch, error):
    terminal = on_terminal(monkeypatch)

    def stop(step):
        if (step.epoch, step.step) == (1, 2):
            raise error

    with pytest.raises(error):
        search(network, batches(), config=CONFIG, progress=True, on_step=stop)
    (last,) = left_behind(terminal)
    assert "75%" in last  # nine of twelve steps


def test_the_length_is_known_after_an_epoch_where_the_loader_has_none(network, monkeypatch):
    terminal = on_terminal(monkeypatch)

    class Stream:
        def __iter__(self):
            return iter(batches())

    search(network, Stream(), config=CONFIG, progress=True)
    assert "100%" in left_behind(terminal)[-1]


def test_nothing_is_drawn_by_default_or_in_a_pipe(network, monkeypatch):
    terminal = on_terminal(monkeypatch)
    train(network, batches(), TrainConfig(epochs=1, lr=0.01))
    assert terminal.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    train(network, batches(), TrainConfig(epochs=1, lr=0.01), progress=True)
    assert sys.stderr.getvalue() == ""


def test_without_rich_it_is_said_before_a_step(network, monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "effconv_core.io.console", raising=False)
    monkeypatch.setitem(sys.modules, "rich", None)
    steps = []
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'effconv-core\[cli\]'"):
        search(network, batches(), config=CONFIG, progress=True, on_step=steps.append)
    assert steps == []
    with shown("train", batches(), show=False) as calls:  # nor is it needed where none is drawn
        assert calls == (None, None)
