"""What only some modules may do: write and delete files, read JSON, ask servers, run programs."""

import ast
from pathlib import Path

import effconv_data
import pytest

SOURCE = Path(effconv_data.__file__).parent

WRITES = {
    *("write_text", "write_bytes", "unlink", "rmtree", "rmdir", "rename", "touch", "mkdir"),
    *("symlink_to", "hardlink_to", "chmod", "save", "savez", "tofile", "extractall", "extract"),
    *("copyfile", "copytree", "copy2", "move", "NamedTemporaryFile", "mkstemp", "mkdtemp"),
    *("SpooledTemporaryFile", "TemporaryFile", "truncate", "ftruncate"),
}
READS_JSON = {"json.load", "json.loads", "msgspec.json.decode"}
ASKS = {
    "urlopen",
    "urlretrieve",
    "PoolManager",
    "ProxyManager",
    "create_connection",
    "HTTPConnection",
}
RUNS = {"gopen", "Popen", "system", "popen", "check_output", "exec", "eval", "import_module"}

RULES = {
    "writes": {"io/atomic.py"},
    "reads JSON": {"io/read_json.py"},
    "asks servers": {"io/web.py"},
    "runs programs": set(),
}
EXCUSED = {
    ("io/terminal.py", "open", "writes"): "the null device",
    ("io/terminal.py", "os.open", "writes"): "the null device",
    ("shards/stages.py", "SpooledTemporaryFile", "writes"): "has no name that anybody could know",
    ("io/packed.py", "import_module", "runs programs"): "Python's own zstd, where it has one",
    ("shards/samples.py", "save", "writes"): "a picture into memory",
    ("prepare/encode.py", "save", "writes"): "a picture into memory",
    ("prepare/encode.py", "open", "writes"): "a tar into memory",
    ("io/read_json.py", "os.open", "writes"): "opens to read, and waits for no pipe",
    ("shards/contact_sheet.py", "save", "writes"): "into what written_whole gave",
    ("io/web.py", "truncate", "writes"): "of the nameless copy of a shard",
    ("prepare/download.py", "mkdir", "writes"): "the folder that the user named",
    ("prepare/download.py", "truncate", "writes"): "of what opened_for_appending checked",
    ("prepare/download.py", "replace", "writes"): "of the partial file, to its own name",
    ("prepare/journal.py", "mkdir", "writes"): "the folder that the user named",
    (
        "prepare/journal.py",
        "unlink",
        "writes",
    ): "shards, index, progress, lock: of a folder of ours",
    ("verify.py", "json.loads", "reads JSON"): "a member of 16 MiB, whose content is not used",
    (
        "shards/stages.py",
        "gopen",
        "runs programs",
    ): "behind check_address, with allow_commands alone",
}


def calls(path):
    """Yield the dotted end of what is called, and the call."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            function = node.func
            name = getattr(function, "attr", None) or getattr(function, "id", "")
            holder = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
            yield name, f"{holder}.{name}", node
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in READS_JSON:
            yield node.attr, ast.unparse(node), node


def opens_to_write(name, node):
    if name not in ("open", "fdopen"):
        return False
    texts = [
        argument.value
        for argument in (*node.args, *(keyword.value for keyword in node.keywords))
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]
    return any(set(text) & set("wax+") and len(text) < 5 for text in texts)


def broken(path):
    """Return what a file does that some rule is about: (call, rule)."""
    found = set()
    for name, dotted, node in calls(path):
        call = isinstance(node, ast.Call)
        replaces = name == "replace" and call and len(node.args) == 1
        ours = call and isinstance(node.func, ast.Name) and name == "write_bytes"  # of io/atomic.py
        if call and ((name in WRITES and not ours) or replaces or opens_to_write(name, node)):
            found.add((name, "writes"))
        if dotted == "os.open" or (call and dotted in ("os.remove", "os.replace", "os.link")):
            found.add((dotted, "writes"))
        if dotted in READS_JSON:
            found.add((dotted, "reads JSON"))
        if call and name in ASKS:
            found.add((name, "asks servers"))
        if call and (name in RUNS or dotted.startswith("subprocess.")):
            found.add((name, "runs programs"))
    return found


def test_only_some_modules_write_read_json_ask_servers_and_run_programs():
    unexcused, used = [], set()
    for path in sorted(SOURCE.rglob("*.py")):
        module = path.relative_to(SOURCE).as_posix()
        for call, rule in broken(path):
            if module in RULES[rule]:
                continue
            if (module, call, rule) in EXCUSED:
                used.add((module, call, rule))
            else:
                unexcused.append((module, call, rule))
    assert unexcused == []
    assert used == set(EXCUSED)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("path.write_text('x')", "writes"),
        ("open('x', 'w')", "writes"),
        ("path.open('ab')", "writes"),
        ("partial.replace(path)", "writes"),
        ("os.remove(path)", "writes"),
        ("shutil.rmtree(path)", "writes"),
        ("json.loads(text)", "reads JSON"),
        ("decoders = {'json': json.loads}", "reads JSON"),
        ("urllib.request.urlopen(url)", "asks servers"),
        ("subprocess.run(words)", "runs programs"),
        ("gopen(url)", "runs programs"),
    ],
)
def test_the_rules_see_what_they_are_about(text, rule, tmp_path):
    (tmp_path / "module.py").write_text(text)
    assert [found for _, found in broken(tmp_path / "module.py")] == [rule]
