"""What only certain modules may read with, and print with, held to by a walk through the source.

Each rule names the calls that break it, for each package the modules that may make them, and the
excused places, each with its reason. An excuse that nothing needs any more fails too.
"""

import ast
from collections.abc import Iterator

import pytest

from tests.test_source_rules import Rule, check_only_those_do_it, check_those_exist_and_do

# Reading.

OF_ANYTHING = {"read_text", "read_bytes", "safe_open", "load_file", "loadtxt", "genfromtxt"}
READERS_OF = {
    "json": {"load", "loads"},
    "torch": {"load"},
    "np": {"load"},
    "numpy": {"load"},
    "pickle": {"load", "loads"},
    "yaml": {"load", "safe_load"},
    "msgspec": {"convert"},
}


def reads(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield calls that read or decode what a file holds, but that of what was just encoded."""
    bare = {
        alias.asname or alias.name
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and node.module in READERS_OF
        for alias in node.names
        if alias.name in READERS_OF[node.module]
    }
    for node in ast.walk(module):
        if not isinstance(node, ast.Call):
            continue
        name, of = _name(node.func), _name(getattr(node.func, "value", None))
        if name in READERS_OF.get(of, ()):
            inner = node.args[0] if node.args else None
            if not (isinstance(inner, ast.Call) and _name(inner.func) == "dumps"):
                yield node.lineno, f"{of}.{name}"
        elif name in OF_ANYTHING or (isinstance(node.func, ast.Name) and name in bare):
            yield node.lineno, name


# Printing.


def prints(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield calls that print, or make a console that takes text as markup."""
    for node in ast.walk(module):
        if not isinstance(node, ast.Call):
            continue
        name, of = _name(node.func), _name(getattr(node.func, "value", None))
        bare = isinstance(node.func, ast.Name)
        made = name == "Console" and (bare or of in ("console", "rich"))
        if made or (bare and name == "print"):
            yield node.lineno, name
        elif name in ("write", "writelines") and of in ("stdout", "stderr"):
            yield node.lineno, f"{of}.{name}"


def _name(node: ast.AST | None) -> str:
    return getattr(node, "attr", "") or getattr(node, "id", "")


KERNEL = "of the system's own, below /proc"
REPOSITORY = "a file of this repository"
NAMES = "names of files of this repository"
OWN = "what this very call had made"
RULES = [
    Rule(
        "reads files",
        reads,
        "what effconv_core.io.read_json and read_tensors have for it",
        {"effconv-core": {"io/read_json.py", "io/read_tensors.py"}, "tools": set()},
        {
            ("effconv-core/cost/latency.py", "read_text"): KERNEL,
            ("tools/bench/cost.py", "json.loads"): OWN,
            ("tools/bench/cost.py", "read_text"): OWN,
            ("tools/bench/data.py", "read_bytes"): "the shard whose speed it measures",
            ("tools/bench/stream.py", "read_bytes"): KERNEL,
            ("tools/bench/stream.py", "read_text"): KERNEL,
            ("tools/bench/cost_page.py", "json.loads"): REPOSITORY,
            ("tools/bench/cost_page.py", "read_text"): REPOSITORY,
            ("tools/docs/mkdocs_hook.py", "read_text"): REPOSITORY,
            ("tools/bench/efficiency_page.py", "json.loads"): REPOSITORY,
            ("tools/bench/efficiency_page.py", "read_text"): REPOSITORY,
            ("tools/faults/drill.py", "read_text"): OWN,
            ("tools/networks/outside.py", "json.loads"): REPOSITORY,
            ("tools/networks/outside.py", "read_text"): REPOSITORY,
            ("tools/docs/commands.py", "read_text"): REPOSITORY,
            ("tools/faults/events.py", "json.loads"): OWN,
            ("tools/faults/events.py", "read_text"): OWN,
            ("tools/faults/operations.py", "json.loads"): OWN,
            ("tools/faults/operations.py", "read_bytes"): OWN,
            ("tools/faults/operations.py", "read_text"): OWN,
            ("tools/faults/operations.py", "safe_open"): OWN,
            ("tools/methods/page.py", "json.loads"): REPOSITORY,
            ("tools/methods/page.py", "read_text"): REPOSITORY,
            ("tools/release/public_api.py", "json.loads"): REPOSITORY,
            ("tools/release/public_api.py", "read_text"): REPOSITORY,
            ("tools/release/build.py", "read_bytes"): OWN,
            ("tools/release/install.py", "json.loads"): OWN,
            ("tools/release/install.py", "read_text"): OWN,
            ("tools/release/metadata.py", "read_bytes"): REPOSITORY,
            ("tools/release/metadata.py", "read_text"): REPOSITORY,
            ("tools/release/versions.py", "read_text"): REPOSITORY,
            ("tools/reproduce/__main__.py", "read_bytes"): OWN,
            ("tools/reproduce/multi_resolution.py", "read_bytes"): OWN,
            ("tools/docs/check.py", "read_text"): REPOSITORY,
            ("tools/reproduce/pictures.py", "load_file"): REPOSITORY,
            ("tools/reproduce/pictures.py", "read_bytes"): REPOSITORY,
            ("tools/support/memory.py", "read_text"): KERNEL,
            ("tools/docs/sections.py", "read_text"): REPOSITORY,
            ("tools/reproduce/tables.py", "json.loads"): REPOSITORY,
            ("tools/reproduce/tables.py", "read_text"): REPOSITORY,
        },
    ),
    Rule(
        "prints",
        prints,
        "PlainConsole of effconv_core.io.console, or write_output of io.terminal",
        {"effconv-core": {"io/terminal.py"}, "tools": set()},
        {
            ("effconv-core/cli/__init__.py", "stderr.write"): "says that rich is not installed",
            ("tools/queue/engines.py", "print"): "numbers that SLURM has given",
            ("tools/release/public_api.py", "print"): NAMES,
            ("tools/docs/check.py", "print"): NAMES,
        },
    ),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_only_those_modules_do_it(rule):
    check_only_those_do_it(rule)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_modules_that_may_do_it_exist_and_do(rule):
    check_those_exist_and_do(rule)


READ = """
json.load(file)
json.loads(text)
json.loads(path.read_text())
path.read_text(encoding="utf-8")
(folder / "a").read_bytes()
safe_open(path, framework="pt")
safetensors.safe_open(path, "np")
load_file(path)
safetensors.torch.load_file(path)
torch.load(path)
np.load(path)
pickle.load(file)
msgspec.convert(content, kind)
from json import loads; loads(text)
from json import load as read; read(file)
"""
READ_NOT = """
json.dumps(content)
json.loads(json.dumps(settings))
read_json(path, dict)
effconv_core.load(model, path)
SizePlan.load(path)
model.load_state_dict(state)
loads(text)
"""
PRINTED = """
print(text)
Console()
rich.console.Console(stderr=True)
sys.stdout.write(text)
sys.stderr.writelines(lines)
"""
PRINTED_NOT = """
console.print(text)
PlainConsole()
file.write(text)
sys.stdout.flush()
write_output(text)
"""


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        (rule, line)
        for rule, text in ((reads, READ), (prints, PRINTED))
        for line in text.split("\n")[1:-1]
    ],
)
def test_a_call_that_breaks_a_rule_is_seen(rule, line):
    assert list(rule(ast.parse(line)))


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        (rule, line)
        for rule, text in ((reads, READ_NOT), (prints, PRINTED_NOT))
        for line in text.split("\n")[1:-1]
    ],
)
def test_a_call_that_breaks_none_is_left_alone(rule, line):
    assert not list(rule(ast.parse(line)))
