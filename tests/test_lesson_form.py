"""The form of a lesson: each rule finds its flaw, and the table of exceptions only shrinks."""

from __future__ import annotations

import importlib

import pytest
from course_notebooks import ROOT, code, markdown, notebook_of, write

form = importlib.import_module("lesson_form")  # of tools/, which course_notebooks put on the path

TITLE = "# 02 · Rotation: turned\n\n| to read | 5 minutes |"


def lesson(*cells):
    return notebook_of(markdown("title", TITLE), *cells, markdown(form.LINKS, ""))


def kind(*sources):
    """The kind of the last of these cells."""
    notebook = notebook_of(*(code(f"cell-{k}", source) for k, source in enumerate(sources)))
    return list(form.kinds(notebook).values())[-1]


DRAW = "figure = plots.grid(images)\nplots.show(figure, alt='pictures')"


@pytest.mark.parametrize(
    ("expected", "sources"),
    [
        ("imports", ["import torch\nfrom sslcourse import plots\nplots.use_style()"]),
        ("claims", ["holds('it is so', exact(True))"]),
        ("prediction", ["predictions.ask('02/a', 'How much?')"]),
        ("drawing", [DRAW]),
        ("drawing", ["images = batch[:4]\n" + DRAW]),
        ("drawing", ["def heat(axis):\n    plots.draw(axis)"]),
        ("drawing", ["def heat(axis):\n    plots.draw(axis)", "figure = plots.new()\nheat(figure)\nplots.show(figure, alt='')"]),
        ("mixed", [DRAW + "\nprint(len(images))"]),
        ("mixed", ["history = pretrain(task)\n" + DRAW]),
        ("computing", ["print(3)"]),
        ("computing", ["plots.to_picture(image)"]),
    ],
)  # fmt: skip
def test_kinds_of_cells(expected, sources):
    assert kind(*sources) == expected


def test_a_drawing_cell_leaves_nothing_behind_that_is_used():
    notebook = notebook_of(code("draws", "images = batch[:4]\n" + DRAW), code("later", "print(images)"))
    assert form.kinds(notebook)["draws"] == "mixed"
    notebook = notebook_of(code("draws", "images = batch[:4]\n" + DRAW), code("later", "images = 3\nprint(images)"))
    assert form.kinds(notebook)["draws"] == "drawing"


def test_numbers_of_a_lesson():
    long = "\n".join(f"x{k} = {k}" for k in range(form.LONGEST_CELL + 1))
    wide = "y = " + " + ".join(["1"] * 40)
    trains = "def train(task):\n    return pretrain(task)"
    cells = [code("a", long), code("b", wide), code("c", trains), code("d", "train(task)"), code("e", DRAW)]
    found = form.numbers(lesson(*cells))
    assert list(found.values()) == [0, 1, 1, form.LONGEST_CELL + 1 + 1 + 2 + 1, 5]


def test_words_are_counted_and_addresses_are_not():
    assert form.words("Read [this paper](https://example.org/a/b) <b>now</b>, it isn't long.") == 7
    assert form.words("with $x + y$ and\n$$\nz = 1\n$$") == 2 + 1 + 15


@pytest.mark.parametrize(
    "text", ["SimCLR, 2020, arXiv 2002.05709.", "SimCLR, 2020, 2002.05709.", "(1807.03748)", "arXiv:1803.07728"]
)
def test_papers_become_links_once(text):
    linked = form.linked_papers(text)
    assert "](https://arxiv.org/abs/" in linked and form.linked_papers(linked) == linked


@pytest.mark.parametrize(
    "text", ["0.5478 nats", "`2002.05709`", "[arXiv 2002.05709](https://arxiv.org/abs/2002.05709)"]
)
def test_what_is_no_paper_stays(text):
    assert form.linked_papers(text) == text


def course(tmp_path, notebook):
    """A course of three lessons, and the path of the middle one, which is in the form but for what a test plants."""
    for name in ("00_start", "03_practice"):
        write(tmp_path / "notebooks" / f"{name}.ipynb", notebook_of(markdown("title", f"# {name[:2]} · {name[3:]}")))
    write(tmp_path / "exercises" / "02_turned" / "exercises_02.ipynb", notebook_of())
    path = write(tmp_path / "notebooks" / "02_turned.ipynb", notebook)
    return path, tmp_path


def good():
    wide, answer = f"plots.grid({'pictures, ' * 9})", markdown("answer", "<details>no</details>\n\nSo")
    return lesson(
        code("imports", "import torch"),
        code("train", "pretrain(task)"),
        code("draws", DRAW),
        code("wide", wide),
        answer,
    )


def test_bringing_into_the_form_leaves_no_flaw(tmp_path):
    notebook = good()
    path, root = course(tmp_path, notebook)
    assert list(form.flaws(path, notebook, {}, root))
    form.bring_into_form(path, notebook, root)
    assert list(form.flaws(path, notebook, {}, root)) == []
    assert notebook.cells[-1].source == (
        "← [00 · start](00_start.ipynb) · [exercises](../exercises/02_turned/exercises_02.ipynb) · "
        "[03 · practice](03_practice.ipynb) →"
    )


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        (lambda cells: cells[1].metadata.pop("jupyter"), "not folded"),
        (lambda cells: cells[2].metadata.update(jupyter={"source_hidden": True}), "and folded"),
        (lambda cells: cells[0].update(source=TITLE.replace("5 min", "50 min")), "50 minutes to read"),
        (lambda cells: cells[0].update(source="# 02 · Rotation"), "no reading time"),
        (lambda cells: cells[-1].update(source="[03](03_practice.ipynb)"), "links"),
        (lambda cells: cells[0].update(source=TITLE + "\n\n2002.05709"), "is no link"),
        (lambda cells: cells[2].update(source="pretrain(task)\n" + "x = 1\n" * 30), "visible cells"),
        (lambda cells: cells[3].update(source=DRAW + "\nprint(1)"), "compute and draw"),
        (lambda cells: cells[3].update(source=f"plots.grid({'pictures, ' * 9})"), "first line has more than"),
        (lambda cells: cells[0].update(source=TITLE + "\n\n<details>no</details>\n\nSo"), "below a folded answer"),
    ],
)
def test_flaws_are_found(tmp_path, plant, says):
    notebook = good()
    path, root = course(tmp_path, notebook)
    form.bring_into_form(path, notebook, root)
    plant(notebook.cells)
    assert any(says in flaw for flaw in form.flaws(path, notebook, {}, root))


def test_the_table_of_exceptions_is_a_ratchet(tmp_path):
    notebook = good()
    path, root = course(tmp_path, notebook)
    form.bring_into_form(path, notebook, root)
    stale = {"visible lines": 400}
    assert any("still says 400" in flaw for flaw in form.flaws(path, notebook, stale, root))
    assert form.lowered(stale, form.numbers(notebook)) == {}
    assert form.lowered({"visible lines": 400}, {"visible lines": 350}) == {"visible lines": 350}
    assert form.lowered({"visible lines": 400}, {"visible lines": 450}) == {"visible lines": 400}


def test_every_lesson_in_the_table_is_there():
    names = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert form.read_allowed().keys() <= names
    for its in form.read_allowed().values():
        assert all(most > form.LIMITS[what] for what, most in its.items())
