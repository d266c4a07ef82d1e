"""The test of ROOM/x.py is tests/ROOM/test_x.py, for every module but those that say why not."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES_OF_DATA = "names and types alone, without a function"
PROGRAMS = "a program that a test of the release runs in an environment of its own"
TWIN = "has the text of effconv_core's module, which test_twin_modules.py holds it to"
LATER = "is shown by the test of its room"
WITHOUT = {
    "packages/effconv-data/src/effconv_data/io/read_json.py": TWIN,
    "packages/effconv-data/src/effconv_data/io/terminal.py": TWIN,
    "packages/effconv-data/src/effconv_data/prepare/types.py": FILES_OF_DATA,
    "tools/bench/cost_page.py": LATER,
    "tools/bench/data.py": LATER,
    "tools/bench/efficiency_page.py": LATER,
    "tools/bench/generated_shard.py": LATER,
    "tools/docs/formulas.py": LATER,
    "tools/docs/mkdocs_hook.py": LATER,
    "tools/docs/picture.py": LATER,
    "tools/docs/public_names.py": LATER,
    "tools/faults/events.py": LATER,
    "tools/faults/operations.py": LATER,
    "tools/faults/page.py": LATER,
    "tools/methods/accuracy.py": LATER,
    "tools/methods/cost.py": LATER,
    "tools/methods/networks.py": LATER,
    "tools/methods/page.py": LATER,
    "tools/networks/outside.py": LATER,
    "tools/networks/page.py": LATER,
    "tools/queue/engines.py": LATER,
    "tools/release/build.py": LATER,
    "tools/release/contents.py": LATER,
    "tools/release/install.py": LATER,
    "tools/release/metadata.py": LATER,
    "tools/release/programs/core.py": PROGRAMS,
    "tools/release/programs/core_and_models.py": PROGRAMS,
    "tools/release/programs/data.py": PROGRAMS,
    "tools/release/programs/kernels.py": PROGRAMS,
    "tools/release/programs/models.py": PROGRAMS,
    "tools/release/versions.py": LATER,
    "tools/reproduce/answer.py": LATER,
    "tools/reproduce/page.py": LATER,
    "tools/reproduce/pictures.py": LATER,
    "tools/reproduce/rows.py": LATER,
    "tools/reproduce/run.py": LATER,
    "tools/reproduce/tables.py": LATER,
    "tools/root/no_package.py": LATER,
    "tools/studies/proving_page.py": LATER,
    "tools/support/compat.py": LATER,
    "tools/train/multi_resolution_report.py": LATER,
    "tools/versus/autonas.py": LATER,
    "tools/versus/count.py": LATER,
    "tools/versus/page.py": LATER,
    "tools/versus/runs.py": LATER,
    "tools/versus/scales.py": FILES_OF_DATA,
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
