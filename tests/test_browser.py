"""The course as a person meets it: in Chromium, wide and narrow, light and dark, by mouse and by keyboard.

`make test-browser` runs it, beside `test_site.py`: lessons 00, 02 and 08 and an exercise in JupyterLab as `sslcourse lab`
opens it.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("playwright.sync_api")
pytest.importorskip("axe_playwright_python")

import browser as tools
from browser import NOTEBOOK, SIZES, THEMES, choose_theme, open_notebook, pictures, run_all, scrolling, serious, watched
from course_notebooks import code, notebook_of, write

pytestmark = pytest.mark.browser
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
