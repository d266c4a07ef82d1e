"""The build backend of the repository's root, which holds packages and is none itself."""

from typing import Any, NoReturn

SENTENCE = (
    "the root of this repository is not a package; build all packages with `hatch build --all`, or "
    "install them with `pip install -r requirements.txt`"
)


def _refuse(*arguments: Any, **settings: Any) -> NoReturn:
    """Exit with the sentence that says what to do instead."""
    raise SystemExit(SENTENCE)


# The hooks of PEP 517 and 660 that pip and build call first.
build_wheel = build_sdist = build_editable = _refuse
get_requires_for_build_wheel = get_requires_for_build_sdist = _refuse
get_requires_for_build_editable = _refuse
