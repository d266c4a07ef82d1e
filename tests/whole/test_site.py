"""The built site: addresses, links, public names of the packages, and titles of the pages."""

import importlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import pytest
from mkdocs.config import load_config

from tools.docs import formulas

ROOT = Path(__file__).parents[2]
PACKAGES = ("core", "data", "kernels", "models")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The site as `hatch run docs:build` makes it; once a session, seconds."""
    folder = tmp_path_factory.mktemp("site") / "site"
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="session")
def pages(site):
    """Path to HTML of each page."""
    return {path: path.read_text("utf-8") for path in sorted(site.rglob("*.html"))}


def ids(html):
    return set(re.findall(r'\bid="([^"]+)"', html))


def broken(pages, site):
    """Return `page: link` for each link within the site that leads nowhere."""
    anchors = {page: ids(html) for page, html in pages.items()}
    found = []
    for page, html in pages.items():
        for link in re.findall(r'(?:href|src)="([^"]*)"', html):
            if re.match(r"[a-z]+:|//", link):
                continue
            path, _, anchor = unquote(link).partition("#")
            start = site if path.startswith("/") else page.parent
            target = (start / path.lstrip("/")).resolve() if path else page
            target = target / "index.html" if target.is_dir() else target
            known = anchors.get(target, ())
            if not target.exists() or (anchor and target in anchors and anchor not in known):
                found.append(f"{page.relative_to(site)}: {link}")
    return found


def test_each_link_of_the_site_leads_somewhere(pages, site):
    assert len(pages) > 30
    assert broken(pages, site) == []


def test_a_link_to_no_page_and_one_to_no_heading_are_found(tmp_path):
    good, bad = tmp_path / "a.html", tmp_path / "b.html"
    pages = {
        good: '<h1 id="one"></h1><a href="b.html">',
        bad: '<a href="a.html#one"><a href="a.html#two"><a href="/c/"><img src="d.png">',
    }
    for path, html in pages.items():
        path.write_text(html)
    assert broken(pages, tmp_path) == ["b.html: a.html#two", "b.html: /c/", "b.html: d.png"]


@pytest.mark.parametrize("package", PACKAGES)
def test_each_public_name_is_on_the_api_page(package, pages, site):
    public = importlib.import_module(f"effconv_{package}").__all__
    anchors = ids(pages[site / "api" / package / "index.html"])
    assert [name for name in public if f"effconv_{package}.{name}" not in anchors] == []


def nav_pages(entries):
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [value] if isinstance(value, str) else nav_pages(value)


def test_each_page_of_the_navigation_is_its_source(pages, site):
    """Its address holds the headings of its source, and not another file's."""
    sources = list(nav_pages(load_config(str(ROOT / "mkdocs.yml"))["nav"]))
    assert len(sources) > 25
    for source in sources:
        if not (ROOT / "docs" / source).exists():  # a README or changelog
            continue
        text = re.sub(r"^```.*?^```", "", (ROOT / "docs" / source).read_text("utf-8"), flags=16 | 8)
        headings = re.findall(r"^#+ ([\w ,-]+)$", text, re.MULTILINE)
        page = site / source.replace("index.md", "index.html")
        page = page if page.name == "index.html" else page.with_suffix("") / "index.html"
        for heading in headings:
            assert re.search(rf"<h\d[^>]*>{heading}", pages[page]), (source, heading)


def test_titles_differ(pages, site):
    told = {page for page in pages if "raw-results" not in page.parts and page.name != "404.html"}
    titles = Counter(re.search("<title>(.*?)</title>", pages[page])[1] for page in told)
    assert [title for title, count in titles.items() if count > 1] == []


def test_formulas_are_drawn_and_their_source_can_be_read_aloud(pages, site):
    page = pages[site / "method" / "index.html"]
    assert page.count('class="formula"') == (ROOT / "docs/method.md").read_text().count("```math")
    assert "\\tanh" in page
    with pytest.raises(ValueError, match=r"frac"):
        formulas.formula(r"\frac{1}{")
