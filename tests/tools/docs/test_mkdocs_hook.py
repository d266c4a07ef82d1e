"""The hook of the site: what it adds, and where links lead."""

from pathlib import Path

import pytest
from mkdocs.config import load_config
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tools.docs import mkdocs_hook

ROOT = Path(__file__).parents[3]


def test_two_sources_of_one_address_end_the_build():
    config = load_config(str(ROOT / "mkdocs.yml"))
    config.plugins._current_plugin = "test"  # mkdocs sets it while it calls a hook
    names = ("results.md", "results/index.md")
    files = Files([File.generated(config, name, content="# a") for name in names])
    with pytest.raises(PluginError, match=r"results\.md and results/index\.md"):
        mkdocs_hook.on_files(files, config)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Give a repository that has a package, an example and results."""
    for name, text in {
        "packages/a/README.md": "# a\n",
        "packages/a/CHANGELOG.md": "# Changelog\n\n- one\n",
        "packages/a/examples/run.py": "print()\n",
        "examples/b/README.md": "# b\n",
        "results/README.md": "# Results\n\n[more](deep/README.md)\n",
        "results/rows.jsonl": "{}\n",
        "results/deep/own.json": "{}\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(mkdocs_hook, "ROOT", tmp_path)
    return tmp_path


def added():
    config = load_config(str(ROOT / "mkdocs.yml"))
    config.plugins._current_plugin = "test"
    return {file.src_uri: file for file in mkdocs_hook.on_files(Files([]), config)}, config


def test_readmes_results_and_changes_are_pages(root):
    files, _ = added()
    assert set(files) == {
        "packages/a.md",
        "packages/a/examples/index.md",
        "packages/a/examples/run.py",
        "examples/b.md",
        "changes/a.md",
        "raw-results/index.md",
        "raw-results/rows.jsonl",
        "raw-results/deep/index.md",
        "raw-results/deep/own.json",
    }
    assert "# Changes of a\n\n- one" in files["changes/a.md"].content_string
    index = files["raw-results/index.md"].content_string
    assert "[more](deep/index.md)" in index
    assert "- [rows.jsonl](rows.jsonl)" in index
    assert "- [deep](deep/index.md)" in index


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("index.md", "../results/rows.jsonl", "raw-results/rows.jsonl"),
        ("index.md", "../results", "raw-results/index.md"),
        ("index.md", "../results/deep", "raw-results/deep/index.md"),
        ("index.md", "../packages/a/README.md", "packages/a.md"),
        ("index.md", "../packages/a/README.md#b", "packages/a.md#b"),
        ("deep/page.md", "../../examples/b/README.md", "../examples/b.md"),
        ("index.md", "other.md", "other.md"),
        ("packages/a.md", "examples/run.py", "a/examples/run.py"),
        ("packages/a.md", "../../docs/method.md", "../method.md"),
        ("packages/a.md", "../../results/rows.jsonl", "../raw-results/rows.jsonl"),
    ],
)
def test_links_lead_to_pages_of_the_site(page, link, expected, root):
    files, config = added()
    of = Page(None, File.generated(config, page, content=""), config)
    found = mkdocs_hook.on_page_markdown(f"[it]({link})", of, config, files)
    assert found == f"[it]({expected})"
