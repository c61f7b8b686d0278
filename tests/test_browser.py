"""The course as a person meets it: in Chromium, wide and narrow, light and dark, by mouse and by keyboard.

`make test-browser` runs it: lessons 00, 02 and 08 and an exercise in JupyterLab as `sslcourse lab` opens it, and the site.
"""

from __future__ import annotations

import re
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
from browser import NOTEBOOK, SIZES, THEMES, choose_theme, open_notebook, pictures, run_all, scrolling, serious, watched
from course_notebooks import code, notebook_of, write

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[1]
LESSON, EXERCISE = "notebooks/00_start_here.ipynb", "exercises/02_rotation_mathematics/exercises_02.ipynb"
UNOPENED = ("notebooks/02_rotation_mathematics.ipynb", "notebooks/08_contrastive_learning.ipynb")
WIDGETS = "notebooks/widgets.ipynb"
WITH_WIDGETS = (  # those of lessons 02 and 08, and one with two lists
    "from sslcourse import backbones, pretext, widgets\nfrom sslcourse.data import world\nimport torch\n"
    "pictures = world.draw('test', 8).images\ntask = pretext.build('rotation', backbones.build(seed=0))",
    "widgets.symmetry_picker(pictures[0])",
    "widgets.rotation_slider(task, pictures)",
    "widgets.similarity_temperature_slider({'one': torch.tensor([0.9, 0.1]), 'two': torch.tensor([0.4, 0.5])})",
    "widgets.view_strength_slider(pictures)",
)
OUTPUT = f"{NOTEBOOK} .jp-OutputArea-output"
TEXT = f"{NOTEBOOK} .jp-MarkdownOutput"
PAGE = f"{NOTEBOOK} .jp-InputArea-editor .cm-scroller, {NOTEBOOK} .jp-WindowedPanel-outer"  # code, and what holds all cells
OURS = (f"{NOTEBOOK} .jp-RenderedHTMLCommon", f"{NOTEBOOK} .sslcourse-explorer")  # text, figures, widgets
NOT_OURS = re.compile(  # JupyterLab's own noise
    r"jupyterlab_news|/lab/api/news|/api/me|favicon|Content Security Policy|report-only|languagePack|lsp/status|"
    r"workspaces|listings|extensionmanager"
)


@pytest.fixture(scope="module")
def chromium():
    assert tools.chromium(), "no Chromium here: install the package chromium"
    with tools.browser() as started:
        yield started


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with tools.lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


def faults(seen):
    return [fault for fault in seen.faults if not NOT_OURS.search(fault)]


def links(page, inside):
    """Addresses of the links inside an element, as they are written in the page."""
    return page.evaluate(
        "s => [...document.querySelectorAll(s + ' a[href]')].map(a => [a.getAttribute('href'), a.href])", inside
    )


def dead(lab, page, inside, folder):
    """Links to files of the course that the server doesn't have."""
    found = []
    for written, whole in links(page, inside):
        parts = urlsplit(written if "://" in written else whole)
        if parts.scheme in ("http", "https") and parts.netloc == urlsplit(lab.url).netloc:
            path = unquote(parts.path)
            path = re.sub(r"^.*?/(?:files|lab/tree|tree)/", "", path).lstrip("/")
            if path and not path.startswith("lab") and not lab.exists(path):
                found.append(written)
    return found


# --- JupyterLab ---------------------------------------------------------------------------------------------------------


def test_the_index_leads_to_a_lesson_and_to_its_exercises(lab, chromium):
    with watched(chromium, lab.url) as seen:
        seen.page.goto(f"{lab.url}/?token={lab.token}")  # the address that `sslcourse lab` opens
        index = seen.page.locator(".jp-MarkdownViewer:visible")
        index.get_by_role("heading", name="Self-supervised vision, hands on").wait_for(timeout=60_000)
        assert dead(lab, seen.page, ".jp-MarkdownViewer", "") == [] and len(links(seen.page, ".jp-MarkdownViewer")) > 30
        assert serious(seen.page, ".jp-MarkdownViewer .jp-RenderedHTMLCommon") == []
        index.get_by_role("link", name="exercises 02").click()
        seen.page.get_by_role("tab", name="exercises_02.ipynb").wait_for()
        assert seen.page.get_by_text("Nbgrader").count() == 0  # the menus of lecturers
        assert faults(seen) == [] and seen.elsewhere == []


@pytest.fixture(scope="module")
def lesson(lab, chromium):
    """Lesson 00, executed in the page."""
    with watched(chromium, lab.url, SIZES[1]) as seen:
        open_notebook(seen, lab, LESSON)
        run_all(seen)
        yield seen


def test_a_lesson_runs_in_the_page_without_an_error(lesson):
    assert lesson.page.locator(f"{NOTEBOOK} .jp-RenderedText[data-mime-type*='error']").count() == 0
    assert faults(lesson) == [] and lesson.elsewhere == []


def test_every_picture_has_words_and_keeps_its_size(lesson):
    found = pictures(lesson.page, OUTPUT)
    assert len(found) >= 5
    assert [alt for alt, _, _ in found if len(alt) < 10] == []
    assert [(alt, own, shown) for alt, own, shown in found if shown > own] == []  # none is stretched


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]} pixels")
def test_no_output_scrolls_sideways_and_nobody_is_kept_out(lesson, size, theme):
    lesson.page.set_viewport_size({"width": size[0], "height": size[1]})
    choose_theme(lesson.page, theme)
    assert scrolling(lesson.page, OUTPUT) == [] and scrolling(lesson.page, PAGE) == []
    assert serious(lesson.page, *OURS) == []


def test_every_link_of_a_lesson_leads_somewhere(lab, lesson):
    found = links(lesson.page, f"{NOTEBOOK} .jp-MarkdownOutput")
    assert len(found) > 3 and dead(lab, lesson.page, f"{NOTEBOOK} .jp-MarkdownOutput", "notebooks") == []


def explorers(page):
    """The pictures of all widgets that are shown, with their controls."""
    return page.locator(f"{NOTEBOOK} .sslcourse-explorer").all()


def changed(page, box, before):
    page.wait_for_function(
        "([e, before]) => e.querySelector('img').src !== before", arg=[box.element_handle(), before], timeout=20_000
    )
    return box.locator("img").get_attribute("src")


@pytest.fixture(scope="module")
def widgets(lab, chromium):
    """A notebook with lists and with sliders, executed in the page."""
    write(lab.work / WIDGETS, notebook_of(*(code(f"cell-{i}", source) for i, source in enumerate(WITH_WIDGETS))))
    with watched(chromium, lab.url) as seen:
        open_notebook(seen, lab, WIDGETS)
        run_all(seen)
        yield seen


def test_every_widget_answers_mouse_and_keyboard(widgets):
    page, moved = widgets.page, 0
    for box in explorers(page):
        box.scroll_into_view_if_needed()
        picture = box.locator("img").get_attribute("src")
        for handle in box.locator(".noUi-handle").all():
            assert len(handle.get_attribute("aria-label")) > 1
            before = handle.get_attribute("aria-valuenow")
            handle.focus()
            page.keyboard.press("ArrowRight")
            if handle.get_attribute("aria-valuenow") == before:
                page.keyboard.press("ArrowLeft")
            picture, moved = changed(page, box, picture), moved + 1
            track = handle.locator("xpath=ancestor::*[contains(@class, 'noUi-target')]").bounding_box()
            at = handle.bounding_box()
            left = at["x"] + at["width"] / 2 - track["x"] > track["width"] / 2
            page.mouse.click(track["x"] + track["width"] * (0.1 if left else 0.9), track["y"] + track["height"] / 2)
            picture = changed(page, box, picture)
        for choice in box.locator("select").all():
            choice.focus()
            before = choice.evaluate("e => e.selectedIndex")
            page.keyboard.press("ArrowDown")
            if choice.evaluate("e => e.selectedIndex") == before:
                page.keyboard.press("ArrowUp")
            picture = changed(page, box, picture)
            assert page.evaluate("e => document.activeElement === e", choice.element_handle())  # not another cell
            choice.select_option(index=before)  # as the mouse does
            picture, moved = changed(page, box, picture), moved + 1
    assert moved >= 4 and scrolling(page, OUTPUT) == [] and serious(page, OURS[1]) == []
    found = pictures(page, OUTPUT)
    assert (
        len(found) == len(WITH_WIDGETS) - 1
        and all(len(alt) >= 10 and own >= shown for alt, own, shown in found)
        and faults(widgets) == []
    )


def test_opened_again_a_widget_is_a_still_picture_with_words(lab, widgets, chromium):
    widgets.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    widgets.page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
    with watched(chromium, lab.url) as seen:
        open_notebook(seen, lab, WIDGETS)
        seen.page.locator(f"{OUTPUT} img").first.wait_for()
        assert "model not found" not in seen.page.locator(NOTEBOOK).inner_text()
        found = pictures(seen.page, OUTPUT)
        assert len(found) == len(WITH_WIDGETS) - 1 and all(len(alt) >= 10 and own > 50 for alt, own, _ in found)
        seen.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")


@pytest.mark.parametrize("path", UNOPENED, ids=lambda path: f"lesson {path[10:12]}")
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]} pixels")
def test_a_lesson_that_was_never_run_shows_its_pictures_with_words(lab, chromium, size, path):
    """Nothing in it is trusted by JupyterLab yet, which shows such pages with care."""
    with watched(chromium, lab.url, size) as seen:
        open_notebook(seen, lab, path)
        seen.page.locator(f"{OUTPUT} img").first.wait_for()
        found = pictures(seen.page, OUTPUT)
        assert len(found) >= 5 and all(len(alt) >= 10 and own > 50 for alt, own, _ in found)
        assert scrolling(seen.page, PAGE) == [] and scrolling(seen.page, TEXT) == []  # formulas and tables fit
        assert scrolling(seen.page, OUTPUT) == [] and faults(seen) == []
        assert len(links(seen.page, TEXT)) > 3 and dead(lab, seen.page, TEXT, "notebooks") == []
        for theme in THEMES:
            choose_theme(seen.page, theme)
            assert serious(seen.page, OURS[0]) == []
        seen.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")


def test_an_exercise_says_what_to_do_and_scrolls_nowhere(lab, chromium):
    with watched(chromium, lab.url) as seen:
        open_notebook(seen, lab, EXERCISE)
        page = seen.page
        check = page.locator(f"{NOTEBOOK} .jp-CodeCell", has_text="check.").last
        seen.page.evaluate(  # an unsolved cell stops a run of all: run each
            """async () => { const { content, sessionContext } = window.jupyterapp.shell.currentWidget;
            for (let i = 0; i < content.widgets.length; i++) {
                content.activeCellIndex = i; await window.jupyterapp.commands.execute('notebook:run-cell') } }"""
        )
        check.get_by_text("not solved yet").wait_for(timeout=tools.PATIENCE)
        assert scrolling(page, OUTPUT) == [] and serious(page, *OURS) == []
        assert dead(lab, page, f"{NOTEBOOK} .jp-MarkdownOutput", "exercises/02") == [] and faults(seen) == []


# --- the site -----------------------------------------------------------------------------------------------------------


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
