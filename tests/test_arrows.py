"""Which package, and which module, may import which; a hatch workspace installs all of them.

Imports are read from the statements, from the strings given to `import_module`, and from the entry
points that a package declares.
"""

import ast
import re
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "effconv_kernels": set(),
    "effconv_core": {"effconv_kernels"},
    "effconv_models": set(),
    "effconv_data": set(),
}
DEPENDENCIES = {
    "effconv_kernels": {"torch", "triton"},
    # The last five are of the extra `cli`, onnxruntime of `onnx`, and the loggers of their own; a
    # test of effconv-core does without them.
    "effconv_core": {
        *("torch", "numpy", "scipy", "safetensors", "msgspec", "filelock", "effconv_kernels"),
        *("onnxruntime", "wandb", "mlflow"),
        *("tyro", "rich", "matplotlib", "jinja2", "PIL"),
    },
    "effconv_models": {"torch"},
    "effconv_data": {
        *("torch", "numpy", "webdataset", "PIL", "msgspec", "urllib3"),
        *("tyro", "rich"),
    },
}
# typing_extensions is for type checkers alone, and torch has it; compression is of Python 3.14.
STANDARD = sys.stdlib_module_names | {"typing_extensions", "compression"}
ASKED_FOR = {"effconv_core": {"timm", "torchvision"}}  # by the words of a command line
LINES = 400


def folder_of(package: str) -> Path:
    return ROOT / "packages" / package.replace("_", "-")


def sources(package: str) -> list[Path]:
    return sorted((folder_of(package) / "src").rglob("*.py"))


def name_of(source: Path) -> str:
    """The module that a file is."""
    root = ROOT if source.is_relative_to(ROOT / "tools") else folder_of_source(source) / "src"
    parts = source.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def folder_of_source(source: Path) -> Path:
    return ROOT / "packages" / source.relative_to(ROOT / "packages").parts[0]


def strings_to_import(tree: ast.AST) -> set[str]:
    """Modules given to `import_module`, as they are or as the head of an f-string.

    A table of strings `"package.module:function"` is taken for one of modules to import.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            for given in node.args[:1]:
                text = given.values[0] if isinstance(given, ast.JoinedStr) else given
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    found.add(text.value.rstrip("."))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            match = re.fullmatch(r"((?:effconv_\w+|tools)[\w.]*):\w+", node.value)
            found |= {match[1]} if match else set()
    return found


def imports(source: Path, modules: set[str] = frozenset()) -> set[str]:
    """What a file imports, dotted; of `from a import b` it is a.b where that is a module."""
    tree, names = ast.parse(source.read_text(encoding="utf-8")), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source} imports relatively"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                names.add(whole if whole in modules else node.module)
    return names | strings_to_import(tree)


def entry_points(package: str) -> set[str]:
    declared = (folder_of(package) / "pyproject.toml").read_text(encoding="utf-8")
    return set(re.findall(r'"(\w[\w.]*):\w+"', declared))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_stands_below_it(package):
    assert sources(package)
    for source in sources(package):
        ours = {name.partition(".")[0] for name in imports(source) if name.startswith("effconv_")}
        assert ours <= MAY_IMPORT[package] | {package}, source
    assert {name.partition(".")[0] for name in entry_points(package)} <= {package}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_it_declares(package):
    for source in sources(package):
        foreign = {name.partition(".")[0] for name in imports(source)} - STANDARD - {package}
        assert foreign <= DEPENDENCIES[package] | ASKED_FOR.get(package, set()), source
    declared = (folder_of(package) / "pyproject.toml").read_text()
    for name in DEPENDENCIES[package]:
        name = {"PIL": "pillow"}.get(name, name).replace("_", "-")
        assert f'"{name}>=' in declared


def test_strings_are_read_too(tmp_path):
    source = tmp_path / "odd.py"
    source.write_text(
        "import importlib\nfrom importlib import import_module\n"
        "import_module('effconv_data.cli')\nimportlib.import_module(f'effconv_models.{1}')\n"
        "TABLE = {'a': 'effconv_core.engine.search:search', 'b': 'effconv_core.engine.search'}\n"
    )
    found = imports(source) - {"importlib"}
    assert found == {"effconv_data.cli", "effconv_models", "effconv_core.engine.search"}


def graph_of(files: list[Path]) -> dict[str, set[str]]:
    modules = {name_of(source) for source in files}
    # A program that starts itself anew names itself; that is no circle.
    return {
        (own := name_of(source)): (imports(source, modules) & modules) - {own} for source in files
    }


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """Name the modules of a circle; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize("package", [*MAY_IMPORT, "tools"])
def test_no_modules_import_each_other_in_a_circle(package):
    files = sorted((ROOT / "tools").rglob("*.py")) if package == "tools" else sources(package)
    graph = graph_of(files)
    assert sum(map(len, graph.values())) > len(graph) / 2  # edges are seen
    assert circle_in(graph) == []


def test_a_circle_is_found():
    assert set(circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}


def test_files_can_be_read_from_top_to_bottom():
    files = [source for package in MAY_IMPORT for source in sources(package)]
    lengths = {str(f.relative_to(ROOT)): len(f.read_text().splitlines()) for f in files}
    assert {name: count for name, count in lengths.items() if count > LINES} == {}


# Floors of effconv-core, from the ground up; a room imports rooms of lower floors and itself only.
# What lies beside the rooms has a floor too, and nothing imports the face.
FLOORS = [
    {"scalars", "rng"},
    {"config", "evidence", "version", "io", "layers"},
    {"space", "distributed"},
    {"plan", "cost"},
    {"method", "filling"},
    {"engine"},
    {"training"},
    {"runs", "figures"},
    {"report"},
    {"cli"},
]
MODULES = 15


def room_of(module: str) -> str:
    return [*module.split("."), ""][1]


def test_every_room_of_core_has_a_floor():
    rooms = {room_of(name_of(source)) for source in sources("effconv_core")} - {""}
    assert rooms == set().union(*FLOORS)


def test_a_room_of_core_imports_only_from_the_floors_below():
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    for module, others in graph_of(sources("effconv_core")).items():
        if module == "effconv_core":  # the face imports what is public
            continue
        room = room_of(module)
        for other in others:
            below = room_of(other)
            assert below, f"{module} imports the face"
            assert below == room or floor[below] < floor[room], f"{module} imports {other}"


def test_a_folder_holds_no_more_modules_than_one_reads_at_a_glance():
    for package in MAY_IMPORT:
        files = sources(package)
        for folder in {source.parent for source in files}:
            assert sum(source.parent == folder for source in files) <= MODULES, folder


def test_files_of_tools_can_be_read_from_top_to_bottom_too():
    lengths = {f: len(f.read_text().splitlines()) for f in (ROOT / "tools").rglob("*.py")}
    assert {str(f): count for f, count in lengths.items() if count > LINES} == {}
