"""Public names of the site are what `__all__` exports."""

import griffe

from tools.docs.public_names import PublicNames


def loaded(tmp_path, init):
    package = tmp_path / "small"
    package.mkdir()
    (package / "__init__.py").write_text(init)
    (package / "load.py").write_text('def load():\n    """Return nothing."""\n\n\nother = 1\n')
    (package / "alone.py").write_text("value = 1\n")
    extensions = griffe.load_extensions(PublicNames)
    return griffe.load("small", search_paths=[tmp_path], extensions=extensions)


def test_a_function_stands_where_a_module_of_its_name_would_hide_it(tmp_path):
    package = loaded(tmp_path, 'from small.load import load\n\n__all__ = ["load", "alone"]\n')
    assert package["load"].is_function
    assert package["load"].docstring.value == "Return nothing."
    assert package["alone"].is_module


def test_what_is_not_exported_stays_a_module(tmp_path):
    package = loaded(tmp_path, "from small.load import load\n\n__all__ = []\n")
    assert package.members["load"].is_module
