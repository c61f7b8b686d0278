"""The course as pages: every link and picture of the site, and how it reads in Chromium, wide and narrow, light and dark."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("playwright.sync_api")
pytest.importorskip("axe_playwright_python")
pytest.importorskip("sphinx")

import browser as tools
from browser import SIZES, serious, watched

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[1]


class Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors, self.pictures = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors.update(filter(None, (found.get("id"), found.get("name"))))
        self.links += [found[name] for name in ("href", "src") if found.get(name)]
        if tag == "img":
            self.pictures.append(found)


def broken(site: Path) -> list[str]:
    """Links of a site's pages that lead nowhere in it."""
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or not (parts.path or parts.fragment):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                found.append(f"{path.relative_to(site)}: {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{path.relative_to(site)}: {link} (no such place)")
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "pages"
    words = [sys.executable, "tools/make_site.py", "--out", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_link_of_the_site_leads_somewhere(site):
    assert broken(site) == []
    for name in ("index", "notebooks/00_start_here", "exercises/02_rotation_mathematics/exercises_02", "docs/glossary",
                 "docs/cluster", "benchmarks/README", "api/sslcourse.train", "search"):  # fmt: skip
        assert (site / f"{name}.html").is_file(), name
    assert not list(site.rglob("*solutions*"))


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html#there">b</a><a href="b.html#gone">b</a><img src="c.png"><a href="#x">x</a>'
    )
    (tmp_path / "b.html").write_text('<p id="there">b</p>')
    assert broken(tmp_path) == ["a.html: b.html#gone (no such place)", "a.html: c.png", "a.html: #x (no such place)"]


def test_every_picture_of_the_site_has_words(site):
    wordless = [
        f"{path.relative_to(site)}: {picture.get('src', '')[:60]}"
        for path in site.rglob("*.html")
        for picture in Page(path.read_text(encoding="utf-8")).pictures
        if len(picture.get("alt") or "") < 10
    ]
    assert wordless == []


PAGES = (
    "index",
    "notebooks/00_start_here",
    "notebooks/02_rotation_mathematics",
    "docs/glossary",
    "benchmarks/README",
    "api/sslcourse.train",
)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]} pixels")
def test_the_site_reads_without_a_network(site, chromium, size, dark):
    with tools.files(site) as address, watched(chromium, address, size, dark) as seen:
        for name in PAGES:
            seen.page.goto(f"{address}/{name}.html")
            assert seen.page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"), name
            assert serious(seen.page, "article") == [], name
        assert seen.faults == [] and seen.elsewhere == []


def test_formulas_are_drawn_and_the_site_can_be_searched(site, chromium):
    with tools.files(site) as address, watched(chromium, address) as seen:
        seen.page.goto(f"{address}/notebooks/02_rotation_mathematics.html")
        formulas = seen.page.locator("math")
        assert formulas.count() > 20 and formulas.first.bounding_box()["width"] > 5
        assert "\\mathcal" not in seen.page.locator("article").inner_text()  # nothing is left as it was typed
        seen.page.goto(f"{address}/search.html?q=stabilizer")
        seen.page.locator("#search-results a", has_text="Rotation").first.wait_for()
        assert seen.faults == [] and seen.elsewhere == []
