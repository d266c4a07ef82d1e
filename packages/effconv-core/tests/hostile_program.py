"""Mutated files through every command and function that reads them; a program, to be measured.

`python hostile_program.py FOLDER SEED COUNT [ONLY]` works through so many cases, and writes a line
of JSON for each that ends otherwise than it should, and one at the end. ONLY is the number of one.
"""

import contextlib
import io
import json
import os
import random
import resource
import shutil
import sys
import time
import traceback
from pathlib import Path

import torch
from effconv_core import (
    Latency,
    SearchableCNN,
    SizePlan,
    apply_plan,
    load,
    load_training_state,
    save,
)
from effconv_core.cli import main
from effconv_core.io.checkpoint import _digest
from effconv_core.runs.reader import read_result, read_run
from safetensors import safe_open
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

SECONDS, MEGABYTES = 5, 500
HOSTILE = [
    "[" * 100_000 + "]" * 100_000,
    '{"a":' * 100_000 + "1" + "}" * 100_000,
    "1" + "0" * 400,
    "1" + "0" * 5000,
    str(2**63),
    str(2**63 - 1),
    *("-1", "0", "-0.0", "0.5", "1000", "1001", "200000", "1000000000", "1e15", "1e30", "1e38"),
    *("1e308", "-1e308", "5e-324", "1e999", "NaN", "-Infinity"),
    r'"\ud800"',
    r'"\u001b[2J\u001b]0;owned\u0007"',
    r'"[red]\u202e\n| a | b |\n"',
    "[" + "0," * 300_000 + "0]",
    "[" + "[]," * 300_000 + "0]",
    "{" + ",".join(f'"layer{i}": 3' for i in range(100_000)) + "}",
    '"' + "a" * 1_000_000 + '"',
    *("null", "true", '""', '"3"', "[]", "{}", "[[]]", '{"": null}', "[1, 2, 3]", '[{"a": 1}]'),
]
NAMES = [r"\u001b[31m", r"\ud800", "", "a" * 600, "__class__", "[/red]"]


def network():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.Conv2d(2, 2, 3, padding=1),
        nn.Conv2d(2, 2, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def loaders(batch_size, seed):
    images = torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    data = TensorDataset(images, torch.arange(8) % 2)
    return DataLoader(data, batch_size), DataLoader(data, 8)


WORDS = ["hostile_program:network", "hostile_program:loaders", "--device=cpu"]
TRAIN = ["train", *WORDS, "--train.epochs=2", "--train.batch-size=4", "--runs=.", "--name=run"]
SEARCH = ["search", *WORDS, "--budget=76", "--search.epochs=1"]
SEARCH += ["--search.least-steps=0", "--search.finalists=1"]
SEARCH += ["--train.epochs=1", "--train.batch-size=4", "--batch-size=4", "--runs=.", "--name=run"]


def make(folder):
    """Write what is mutated: a finished run, one that was interrupted, a plan, a latency table."""
    with _at(folder):
        assert main(SEARCH) == 0
        Path("run").rename("finished")
        assert main(TRAIN) == 0
        Path("run").rename("stopped")
        for name in ("result.json", "report.html", "report.md", "cnn.safetensors"):
            Path("stopped", name).unlink()
        plan = SizePlan(
            {"1": 2, "2": (3, 5)},
            {"1": 2.25, "2": (3.0, 4.5)},
            cost=86,
            budget=90,
            allowed={"1": (1, 7, 1), "2": (1, 7, 2)},
            model="Sequential",
            versions={"torch": "2"},
            budgets=({"counts": "macs", "amount": 9, "at_most": True, "weight": 1.0, "cost": 8},),
        )
        plan.save("plan.json")
        save(apply_plan(network(), plan), plan, "cnn.safetensors")
        Latency(torch.zeros(1, 1, 6, 6), "table.json", repetitions=1)(SearchableCNN(network()))


@contextlib.contextmanager
def _at(folder):
    before = Path.cwd()
    os.chdir(folder)
    yield
    os.chdir(before)


def mutated(text, dice):
    """Change JSON as text: what it holds, what it says twice or not at all, and its bytes."""
    how = dice.random()
    if how < 0.08:
        return text[: dice.randrange(len(text))]
    if how < 0.16:
        place = dice.randrange(len(text))
        return text[:place] + bytes([text[place] ^ 1 << dice.randrange(8)]) + text[place + 1 :]
    if how < 0.2:
        return dice.choice(HOSTILE).encode()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):  # it was changed before
        return text + dice.choice(HOSTILE).encode()
    if not isinstance(content, dict | list):
        return text
    raw = {}
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        content = _changed(content, dice, raw)
    text = json.dumps(content)
    for mark, value in raw.items():
        text = text.replace(json.dumps(mark), value)
    return text.encode()


def _changed(content, dice, raw):
    places = list(_places(content))
    if not places:
        return content
    parent, key = dice.choice(places[:20] if dice.random() < 0.3 else places)
    how = dice.random()
    if how < 0.12:
        del parent[key]
    elif how < 0.2 and isinstance(parent, list):
        parent.append(parent[key])
    elif how < 0.3 and isinstance(parent, dict):
        mark = f"mark {len(raw)}"
        raw[mark] = '"' + dice.choice(NAMES) + '"'
        parent[mark] = parent.pop(key)
    else:
        mark = f"mark {len(raw)}"
        raw[mark] = dice.choice(HOSTILE)
        parent[key] = mark
    return content


def _places(content):
    keys = content.keys() if isinstance(content, dict) else range(len(content))
    for key in keys:
        yield content, key
        if isinstance(content[key], dict | list) and len(content[key]) < 1000:
            yield from _places(content[key])


def mutate_lines(path, dice):
    lines = path.read_bytes().splitlines(keepends=True)
    for _ in range(dice.randrange(1, 4)):
        place = dice.randrange(len(lines))
        lines[place] = mutated(lines[place], dice) + dice.choice((b"\n", b"\n", b""))
    path.write_bytes(b"".join(lines * dice.choice((1, 1, 1, 50))))


def mutate_header(path, dice):
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size]
    if dice.random() < 0.6:  # the JSON that we keep within the header
        outer = json.loads(header)
        name = dice.choice(sorted(outer["__metadata__"]))
        inner = mutated(outer["__metadata__"][name].encode(), dice)
        outer["__metadata__"][name] = inner.decode("utf-8", "replace")
        if "sha256" in outer["__metadata__"] and dice.random() < 0.8:  # as a forger would
            with safe_open(path, "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            outer["__metadata__"]["sha256"] = _digest(tensors, outer["__metadata__"])
            path.with_name(f"{path.stem}.previous.safetensors").unlink(missing_ok=True)
        header = json.dumps(outer).encode()
    else:
        header = mutated(header, dice)
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])


def mutate(path, dice):
    if path.suffix == ".jsonl":
        mutate_lines(path, dice)
    elif path.suffix == ".safetensors":
        mutate_header(path, dice)
    else:
        path.write_bytes(mutated(path.read_bytes(), dice))


def command(*words):
    """Run a command; return what is wrong with how it ended."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            status = main(list(words))
        except SystemExit as stop:
            status = stop.code
        except Exception:
            return traceback.format_exc()
    said = errors.getvalue()
    told = [line for line in said.splitlines() if line.startswith("effconv")]
    if status not in (0, 2) or (status == 2 and len(told) != 1) or len(said) > 10_000:
        return f"{words} ended with {status}: {said[:2000]}"
    if any(c < " " and c != "\n" for c in out.getvalue() + said):
        return f"{words} sent a control character: {said[:300]!r}"
    return ""


def call(function, *arguments):
    """Call a function; return what is wrong with how it ended."""
    try:
        function(*arguments)
    except (ValueError, TypeError, OSError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        ours = "effconv_core" in last.filename or isinstance(error, OSError)
        return "" if ours and len(str(error)) < 20_000 else traceback.format_exc()
    except Exception:
        return traceback.format_exc()
    return ""


def state(path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    return load_training_state(path, model, optimizer)


def latency(path):
    return Latency(torch.zeros(1, 1, 6, 6), path, repetitions=1)(SearchableCNN(network()))


PLAN = [
    lambda: call(SizePlan.load, "plan.json"),
    lambda: command("plan", "show", "plan.json"),
    lambda: command("plan", "show", "plan.json", "--json"),
    lambda: command("plan", "show", "plan.json", "--out", "plan.svg"),
    lambda: command("plan", "diff", "plan.json", "finished/plan.json"),
    lambda: command("plan", "apply", "plan.json", "--model", WORDS[0], "--out", "made.safetensors"),
]
REPORT = [
    lambda: call(read_run, "finished"),
    lambda: command("report", "finished", "--overwrite"),
    lambda: command("report", "finished", "stopped", "--out", "both.html"),
]
GO_ON = [lambda: command("report", "stopped"), lambda: command(*TRAIN[:-1], "--name=stopped")]
# File, how often it is drawn, and who reads it.
READERS = [
    ("plan.json", 6, PLAN),
    ("plan.json", 1, [lambda: command(*TRAIN[:-1], "--name=new", "--plan=plan.json")]),
    ("cnn.safetensors", 3, [lambda: call(load, network(), "cnn.safetensors")]),
    ("table.json", 3, [lambda: call(latency, "table.json")]),
    ("finished/plan.json", 2, REPORT),
    ("finished/config.json", 3, REPORT),
    ("finished/metrics.jsonl", 5, REPORT),
    ("finished/result.json", 2, [*REPORT, lambda: call(read_result, Path("finished"))]),
    ("finished/cnn.safetensors", 3, REPORT),
    ("stopped/config.json", 1, GO_ON),
    ("stopped/metrics.jsonl", 1, GO_ON),
    ("stopped/baseline.safetensors", 3, [lambda: call(state, "stopped/baseline.safetensors")]),
    ("stopped/baseline.safetensors", 1, GO_ON),
]


def case(base, seed, number):
    """Mutate one file, and let one of its readers loose on it."""
    dice = random.Random(f"{seed} {number}")
    name, _, readers = dice.choices(READERS, [weight for _, weight, _ in READERS])[0]
    work = base / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(base / "made", work)
    mutate(work / name, dice)
    reader = dice.choice(readers)
    with _at(work):
        began = time.process_time()
        wrong = reader()
        seconds = time.process_time() - began
    if not wrong and seconds > SECONDS:
        wrong = f"it took {seconds:.1f} s"
    return name, wrong, seconds


def peak():
    """Return the most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def work(base, seed, numbers):
    torch.set_num_threads(1)
    if not (base / "made").exists():
        (base / "made").mkdir()
        make(base / "made")
    with _at(base / "made"):  # so that what is imported late is not counted
        assert not command("report", "finished", "--overwrite")
        assert not command("plan", "show", "plan.json", "--out", "plan.png")
    before, slowest = peak(), 0.0
    for number in numbers:
        name, wrong, seconds = case(base, seed, number)
        slowest = max(slowest, seconds)
        if not wrong and peak() - before > MEGABYTES:
            wrong, before = f"it took {peak() - before:.0f} MiB", peak()
        if wrong:
            sys.stdout.write(json.dumps({"case": number, "file": name, "wrong": wrong}) + "\n")
    end = {"cases": len(numbers), "slowest": slowest, "mebibytes": peak() - before}
    sys.stdout.write(json.dumps(end) + "\n")


if __name__ == "__main__":
    sys.modules["hostile_program"] = sys.modules["__main__"]  # as the commands import it
    folder, seed, count, *only = sys.argv[1:]
    work(Path(folder), int(seed), [int(n) for n in only] or range(int(count)))
