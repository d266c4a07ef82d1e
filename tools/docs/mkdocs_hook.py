"""An MkDocs hook that adds the raw results and READMEs that pages link to.

In the repository they are outside of `docs`, where links to them work unchanged.
"""

import re
from collections import defaultdict
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
KINDS = ("packages", "examples")
"""Folders whose subfolders have a README, which is their page in the site."""
RAW = "raw-results"
"""The folder of `results` in the site, where `results/` is the address of the page results.md."""
OUTSIDE = re.compile(r"\]\(((?:\.\./)+)(results|packages|examples)(/[^)#\s]*)?(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add results, an index of each of their folders, and READMEs."""
    for path in sorted((ROOT / "results").rglob("*")):
        name = _in_site(path)
        if path.name == "README.md":
            continue
        if path.is_file():
            files.append(File.generated(config, name, abs_src_path=str(path)))
        else:
            files.append(_listing(config, path, name))
    files.append(_listing(config, ROOT / "results", RAW))
    for readme in sorted(p for kind in KINDS for p in ROOT.glob(f"{kind}/*/README.md")):
        name = f"{readme.parent.relative_to(ROOT).as_posix()}.md"
        files.append(File.generated(config, name, content=readme.read_text(encoding="utf-8")))
    for examples in sorted(ROOT.glob("packages/*/examples")):
        name = examples.relative_to(ROOT).as_posix()
        files.append(_listing(config, examples, name))
        for path in sorted(examples.glob("*.py")):
            files.append(File.generated(config, f"{name}/{path.name}", abs_src_path=str(path)))
    for changelog in sorted(ROOT.glob("packages/*/CHANGELOG.md")):
        package = changelog.parent.name
        text = changelog.read_text(encoding="utf-8")
        text = text.replace("# Changelog", f"# Changes of {package}", 1)
        files.append(File.generated(config, f"changes/{package}.md", content=text))
    _check_addresses(files)
    return files


def _in_site(path: Path) -> str:
    """Return the site's name of a path of the repository."""
    name = path.relative_to(ROOT).as_posix()
    return re.sub(r"^results(?=/|$)", RAW, name)


def _check_addresses(files: Files) -> None:
    """Raise `PluginError` where one file of the site would be written from two sources."""
    sources = defaultdict(list)
    for file in files:
        sources[file.dest_uri].append(file.src_uri)
    for address, names in sources.items():
        if len(names) > 1:
            raise PluginError(f"{' and '.join(names)} share the address {address}; rename one")


def _listing(config: MkDocsConfig, folder: Path, name: str) -> File:
    """Make the page of a folder: its README, if it has one, or its name; and what lies in it."""
    readme = folder / "README.md"
    if readme.exists():
        text = readme.read_text(encoding="utf-8").replace("../docs/", "../")
        lines = [re.sub(r"\]\(([\w-]+)(/README\.md)?\)", r"](\1/index.md)", text)]
    else:
        lines = [f"# {name}", ""]
    for path in sorted(p for p in folder.iterdir() if p != readme and p.name[:2] != "__"):
        target = f"{path.name}/index.md" if path.is_dir() else path.name
        lines.append(f"- [{path.name}]({target})")
    return File.generated(config, f"{name}/index.md", content="\n".join(lines) + "\n")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave `docs` to their pages in the site."""
    # A package's README is one folder deeper in the repository than its page in the site.
    depth = page.file.src_uri.count("/")

    def inside(match: re.Match[str]) -> str:
        _, kind, rest, anchor = match.groups()
        path = ROOT / kind / (rest or "").strip("/")
        target = _in_site(path)
        if path.name == "README.md":
            target = _in_site(path.parent)
            target += ".md" if kind in KINDS else "/index.md"
        elif path.is_dir():
            target += "/index.md"
        return f"]({'../' * depth}{target}{anchor or ''})"

    if page.file.src_uri.startswith("packages/"):
        # Its examples are beside the README.
        package = page.file.src_uri.removeprefix("packages/").removesuffix(".md")
        markdown = re.sub(r"\]\(examples\)", "](examples/index.md)", markdown)
        markdown = markdown.replace("](examples/", f"]({package}/examples/")
        markdown = markdown.replace("](../../docs/", "](../")
    return OUTSIDE.sub(inside, markdown)
