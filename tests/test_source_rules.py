"""What only certain modules may do, held to by a walk through the source.

Each rule names the calls that break it, for each package the modules that may make them, and the
excused places, each with its reason. An excuse that nothing needs any more fails too.
"""

import ast
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {
    "effconv-core": ROOT / "packages" / "effconv-core" / "src" / "effconv_core",
    "tools": ROOT / "tools",
}
"""Where the modules of each package lie."""


@dataclass(frozen=True)
class Rule:
    """What only some modules may do."""

    name: str
    breaks: Callable[[ast.Module], Iterator[tuple[int, str]]]
    """Yields line and call of each place in a module that breaks it."""
    instead: str
    """What to call."""
    modules: dict[str, set[str]]
    """Package to the modules that may; a package that is not named is not held to the rule."""
    excused: dict[tuple[str, str], str] = field(default_factory=dict)
    """(`package/module`, call) to the reason why it may all the same."""


# Writing.

WRITING = set("wax+")
METHODS = {  # of paths, and of modules such as os, shutil, tempfile, torch and numpy
    *("write_text", "write_bytes", "unlink", "rmtree", "rmdir", "removedirs", "remove_tree"),
    *("rename", "renames", "touch", "hardlink_to", "symlink_to", "truncate", "chmod", "lchmod"),
    *("mkstemp", "mktemp", "NamedTemporaryFile", "copy", "copy2", "copyfile", "copytree"),
    *("copymode", "copystat", "move", "unpack_archive", "extractall", "extract", "savefig"),
    *("save_file", "tofile", "savez", "savetxt"),
}
COPIED = {"copy", "move", "extract", "truncate"}  # of other things too, so of these modules alone
OF_FILES = {"shutil", "os", "tarfile", "zipfile"}
OF_MODULES = {
    "os": {"remove", "replace", "link", "symlink", "open", "utime"},
    "torch": {"save"},
    "np": {"save"},
    "numpy": {"save"},
}
WRITERS = {"write_text", "write_bytes"}  # also functions of io/atomic.py, called by their bare name


def writes(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield calls that write, replace or delete files, but to what `written_whole` gave."""
    given = {
        item.optional_vars.id: (node.lineno, node.end_lineno)
        for node in ast.walk(module)
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.optional_vars, ast.Name)
        and isinstance(item.context_expr, ast.Call)
        and _name(item.context_expr.func) == "written_whole"
    }
    for node in ast.walk(module):
        if not isinstance(node, ast.Call) or not (name := _writing_call(node)):
            continue
        target = node.func.value if isinstance(node.func, ast.Attribute) else None
        names = [each.id for each in (target, *node.args) if isinstance(each, ast.Name)]
        if not any(n in given and given[n][0] <= node.lineno <= given[n][1] for n in names):
            yield node.lineno, name


def _writing_call(call: ast.Call) -> str:
    name = _name(call.func)
    if isinstance(call.func, ast.Name):
        if name in ("open", "fdopen"):
            return name if _opens_to_write(call, 1) else ""
        return name if name in METHODS - WRITERS - COPIED else ""
    if not isinstance(call.func, ast.Attribute):
        return ""
    of = _name(call.func.value)
    full = f"{of}.{name}" if of else name
    if of == "os" and name in ("open", "fdopen"):
        return full if _opens_to_write(call, 1) else ""
    if of in OF_MODULES and name in OF_MODULES[of]:
        return full
    if name in COPIED:
        return full if of in OF_FILES else ""
    if name == "open":  # of paths, tarfile, gzip and the like, with the mode in either place
        return full if _opens_to_write(call, 0) or _opens_to_write(call, 1) else ""
    if name == "replace":  # of a path; that of text has two arguments, that of a dataclass names
        return full if len(call.args) == 1 and not call.keywords and of != "dataclasses" else ""
    if of in ("atomic", "figures"):
        return ""
    return name if name in METHODS else ""


def _opens_to_write(call: ast.Call, place: int) -> bool:
    modes = [keyword.value for keyword in call.keywords if keyword.arg in ("mode", "flags")]
    if len(call.args) > place:
        modes.append(call.args[place])
    for mode in modes:
        if isinstance(mode, ast.Constant):
            if isinstance(mode.value, str) and len(mode.value) < 5 and set(mode.value) & WRITING:
                return True
            continue
        flags = {n.attr for n in ast.walk(mode) if isinstance(n, ast.Attribute)}
        if flags & {"O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND"}:
            return True
    return False


def _name(node: ast.expr) -> str:
    return getattr(node, "attr", "") or getattr(node, "id", "")


IN_A_TEMPORARY_FOLDER = "within a TemporaryDirectory of this very call"
RULES = [
    Rule(
        "writes files",
        writes,
        "what effconv_core.io.atomic has for it",
        {"effconv-core": {"io/atomic.py"}, "tools": set()},
        {
            ("effconv-core/io/terminal.py", "open"): "the null device",
            ("effconv-core/io/terminal.py", "os.open"): "the null device",
            ("tools/release/build.py", "shutil.copy"): IN_A_TEMPORARY_FOLDER,
            ("tools/release/build.py", "unpack_archive"): IN_A_TEMPORARY_FOLDER,
            ("tools/release/build.py", "rename"): IN_A_TEMPORARY_FOLDER,
            ("tools/release/install.py", "write_text"): IN_A_TEMPORARY_FOLDER,
            ("tools/faults/operations.py", "shutil.copy"): IN_A_TEMPORARY_FOLDER,
            ("tools/faults/operations.py", "write_text"): IN_A_TEMPORARY_FOLDER,
            ("tools/faults/operations.py", "os.open"): IN_A_TEMPORARY_FOLDER,
            ("tools/faults/events.py", "os.truncate"): IN_A_TEMPORARY_FOLDER,
            ("tools/bench/data.py", "write_bytes"): IN_A_TEMPORARY_FOLDER,
            ("tools/bench/generated_shard.py", "tarfile.open"): "to the standard output",
            ("tools/support/memory.py", "write_text"): "a switch of the kernel below /proc/self",
        },
    ),
]


def broken(rule: Rule) -> dict[tuple[str, str], list[int]]:
    """Give (`package/module`, call) to the lines that break a rule."""
    found: dict[tuple[str, str], list[int]] = {}
    for package, allowed in rule.modules.items():
        folder = SOURCES[package]
        for path in sorted(folder.rglob("*.py")):
            module = path.relative_to(folder).as_posix()
            if module in allowed:
                continue
            for line, call in rule.breaks(ast.parse(path.read_text(encoding="utf-8"))):
                found.setdefault((f"{package}/{module}", call), []).append(line)
    return found


def check_only_those_do_it(rule: Rule) -> None:
    """Check that no other module breaks a rule, and that every excuse is needed."""
    found = broken(rule)
    told = [f"{place}, lines {lines}: {call}" for (place, call), lines in found.items()
            if (place, call) not in rule.excused]  # fmt: skip
    assert not told, "\n".join([f"call {rule.instead} instead:", *told])
    assert set(rule.excused) <= set(found), "an excuse that nothing needs"


def check_those_exist_and_do(rule: Rule) -> None:
    """Check that each module that may break a rule is there, and breaks it."""
    for package, modules in rule.modules.items():
        for module in modules:
            path = SOURCES[package] / module
            assert list(rule.breaks(ast.parse(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_only_those_modules_do_it(rule):
    check_only_those_do_it(rule)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_modules_that_may_do_it_exist_and_do(rule):
    check_those_exist_and_do(rule)


BREAKS = """
open(path, "w")
open(path, mode="ab")
path.open("r+")
path.open(mode="x")
gzip.open(path, "wb")
os.open(path, os.O_WRONLY | os.O_CREAT)
os.fdopen(handle, "w")
path.write_text("a")
path.with_name("b").write_bytes(b"")
path.unlink()
os.remove(path)
os.unlink(path)
shutil.rmtree(path)
rmtree(path)
path.rename(other)
path.replace(other)
path.with_suffix(".x").replace(other)
os.replace(path, other)
shutil.copy(path, other)
shutil.move(path, other)
copyfile(path, other)
tempfile.mkstemp()
mkstemp()
save_file(tensors, path)
safetensors.torch.save_file(tensors, path)
torch.save(state, path)
np.save(path, array)
figure.savefig(path)
path.touch()
path.symlink_to(other)
path.hardlink_to(other)
path.chmod(0o600)
tar.extractall(path)
"""
KEEPS = """
open(path)
open(path, "rb")
path.open("rb")
tarfile.open(next(shards))
os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
os.fdopen(handle, "rb")
safe_open(path, framework="pt")
write_text(path, "a")
atomic.write_text(path, "a")
text.replace("a", "b")
dataclasses.replace(config, epochs=1)
signature.replace(parameters=[])
copy.copy(model)
network.save(path)
figures.save_figure(figure, path)
"""


@pytest.mark.parametrize("line", BREAKS.strip().splitlines())
def test_a_call_that_writes_is_seen(line):
    assert list(writes(ast.parse(line)))
    within = f"with written_whole(target) as temporary:\n    {line}"
    assert list(writes(ast.parse(within)))


@pytest.mark.parametrize("line", KEEPS.strip().splitlines())
def test_a_call_that_writes_nothing_is_left_alone(line):
    assert not list(writes(ast.parse(line)))


def test_what_written_whole_gave_may_be_written_within_it_alone():
    opened = 'temporary.open("w")', "figure.savefig(temporary)"
    for call, inside in itertools.product(opened, (True, False)):
        text = f"with written_whole(p) as temporary:\n    {call if inside else 'pass'}\n{call}"
        assert [line for line, _ in writes(ast.parse(text))] == [3]
