"""The test of ROOM/x.py is tests/ROOM/test_x.py, for every module but those that say why not."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMAND = "a command that cli/test_found.py runs on the folder of a trained run"
TABLES = "what reproduce/test_multi_resolution.py reads and prints, from runs of its own"
FILES_OF_DATA = "names and types alone, without a function"
PROGRAMS = "a program that a test of the release runs in an environment of its own"
TWIN = "has the text of effconv_core's module, which test_twin_modules.py holds it to"
WITHOUT = {
    "packages/effconv-core/src/effconv_core/cli/found/evaluate.py": COMMAND,
    "packages/effconv-core/src/effconv_core/cli/found/export.py": COMMAND,
    "packages/effconv-core/src/effconv_core/cli/found/predict.py": COMMAND,
    "packages/effconv-core/src/effconv_core/runs/options.py": FILES_OF_DATA,
    "packages/effconv-data/src/effconv_data/io/read_json.py": TWIN,
    "packages/effconv-data/src/effconv_data/io/terminal.py": TWIN,
    "packages/effconv-data/src/effconv_data/prepare/types.py": FILES_OF_DATA,
    "tools/release/programs/core.py": PROGRAMS,
    "tools/release/programs/core_and_models.py": PROGRAMS,
    "tools/release/programs/data.py": PROGRAMS,
    "tools/release/programs/kernels.py": PROGRAMS,
    "tools/release/programs/models.py": PROGRAMS,
    "tools/reproduce/mixtures.py": TABLES,
    "tools/reproduce/multi_resolution_page.py": TABLES,
}


def mirrored() -> dict[str, Path]:
    """Return for each module the place of its test, both below the root."""
    sources = [(src, src.parents[1] / "tests") for src in ROOT.glob("packages/*/src/*")]
    sources.append((ROOT / "tools", ROOT / "tests" / "tools"))
    places = {}
    for source, tests in sources:
        for path in source.rglob("*.py"):
            if path.stem in ("__init__", "__main__"):
                continue
            room = path.relative_to(source).parent
            name = f"test_{path.stem.lstrip('_')}.py"
            places[path.relative_to(ROOT).as_posix()] = tests / room / name
    return places


def test_every_module_has_a_test_at_its_place():
    lacking = {module for module, test in mirrored().items() if not test.is_file()}
    assert lacking - WITHOUT.keys() == set()


def test_no_exception_is_out_of_date():
    lacking = {module for module, test in mirrored().items() if not test.is_file()}
    assert WITHOUT.keys() <= lacking
    assert all(WITHOUT.values())


def test_no_file_of_tests_is_longer_than_four_hundred_lines():
    files = [*ROOT.glob("packages/*/tests/**/*.py"), *ROOT.glob("tests/**/*.py")]
    assert len(files) > 100
    long = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if len(path.read_text(encoding="utf-8").splitlines()) > 400
    }
    assert long == set()
