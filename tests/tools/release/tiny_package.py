"""Changes to the package of the fixture `tiny`, and what is built of it."""

from tools.release.build import build
from tools.release.metadata import metadata_problems

EPOCH = "1700000000"


def replace(path, old, new):
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def raise_version(folder, old, new):
    replace(folder / "src/effconv_tiny/__init__.py", old, new)


def root_of(folder):
    return folder.parents[1]


def built(folder):
    return build(folder, root_of(folder).parent / "dist", EPOCH)


def metadata_of(folder):
    return metadata_problems(root_of(folder), folder, built(folder))
