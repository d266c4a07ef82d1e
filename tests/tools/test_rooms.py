"""Which room of tools may import which: arrows go down only, and nothing runs in a circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BELOW = {
    "docs": {
        *("release", "reproduce", "methods", "versus", "faults", "bench", "networks", "studies"),
        "support",
    },
    "methods": {"bench", "train", "presets", "support"},
    "versus": {"studies", "presets", "support"},
    "bench": {"studies", "presets", "support"},
    "reproduce": {"queue", "studies", "train", "presets", "support"},
    "faults": {"queue", "search", "support"},
    "queue": {"search", "support"},
    "networks": {"support"},
    "train": {"presets", "support"},
    "studies": {"presets", "support"},
    "search": {"presets", "support"},
    "release": set(),
    "root": set(),
    "presets": set(),
    "support": set(),
}
FLAT = dict.fromkeys(("run_list", "launch", "worker", "sweep"), "queue")
SOURCES = [p for p in sorted((ROOT / "tools").rglob("*.py")) if "programs" not in p.parts]


def module_of(source: Path) -> str:
    return ".".join(source.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(source): source for source in SOURCES}


def imported(source: Path) -> set[str]:
    """Give the modules of tools that a file imports, also those that are named as `module:name`."""
    found = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source} imports relatively"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else node.module)
    return {name for name in found if name in MODULES and name != "tools"}


def room_of(module: str) -> str:
    room = module.split(".")[1]
    return FLAT.get(room, room)


def test_every_room_is_known_and_none_has_more_than_fifteen_modules():
    assert {room_of(name) for name in MODULES if name != "tools"} <= BELOW.keys()
    for folder in {source.parent for source in SOURCES}:
        assert len([s for s in folder.glob("*.py") if s.name != "__init__.py"]) <= 15, folder


def test_no_file_is_longer_than_four_hundred_lines():
    for source in SOURCES:
        assert len(source.read_text(encoding="utf-8").splitlines()) <= 400, source


@pytest.mark.parametrize("room", BELOW)
def test_a_room_imports_only_rooms_below_it(room):
    for module, source in MODULES.items():
        if module != "tools" and room_of(module) == room:
            rooms = {room_of(name) for name in imported(source)} - {room}
            assert rooms <= BELOW[room], source


def test_no_modules_import_each_other_in_a_circle():
    try:
        TopologicalSorter({m: imported(s) - {m} for m, s in MODULES.items()}).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_no_page_imports_a_command():
    for module, source in MODULES.items():
        if not module.endswith("__main__"):
            assert not any(name.endswith("__main__") for name in imported(source)), source
