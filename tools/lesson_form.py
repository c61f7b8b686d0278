"""The form of a lesson: what is folded, how much stands in plain sight, how long it takes to read, where it leads.

    python tools/lesson_form.py check     say what isn't in the form; `make lint` calls it
    python tools/lesson_form.py write     fold cells, write reading times and links, and lower what the table allows
    python tools/lesson_form.py show      each lesson's numbers

A cell computes or draws, never both. Drawing cells, claims, entered predictions and imports are folded
(`jupyter.source_hidden`): they run and can be read, and don't stand between two thoughts. All else is in plain sight.

Lessons that aren't in the form yet stand in lesson_form.json with their numbers. It is a ratchet: `write` lowers a number
or drops it, nothing raises one, and a lesson without a number has the form's own limits.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbnormalise import normalise

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = Path(__file__).with_suffix(".json")

LONGEST_CELL = 25  # lines of a cell in plain sight, blank ones apart
WIDEST_LINE = 88  # characters of such a line
LONGEST_LESSON = 300  # such lines in a lesson
WIDEST_BAR = 62  # characters of a folded cell's first line: a longer one widens the page at 1024 pixels
FIRST_TRAINING = 7  # the cell, text counted too, by which something is trained
LIMITS = {
    "cells that compute and draw": 0,
    f"visible cells of more than {LONGEST_CELL} lines": 0,
    f"visible lines of more than {WIDEST_LINE} characters": 0,
    "visible lines": LONGEST_LESSON,
    "cell of the first training": FIRST_TRAINING,
}

WORDS_A_MINUTE = 200
LINES_A_MINUTE = 15  # of code in plain sight
WORDS_OF_A_FORMULA = {"inline": 1, "displayed": 15}
STEP, SLACK = 5, 5  # minutes: what reading times are rounded up to, and how far a header may be off

FOLDED = ("imports", "claims", "drawing", "prediction")
DRAWS = {"plt", "plots", "widgets", "matplotlib", "Rectangle", "display"}  # whoever names one of these draws
DOESN_T_DRAW = ("plots.to_picture", "plots.use_style", "plots.as_text")
TRAINS = re.compile(r"\b(pretrain|pretrained|finetune\w*|train\.fit|collapse\.watch|backward|fit_\w+)\(")

COURSE = [f"{number:02d}" for number in (*range(19), 21, 19, 20, 22)]  # in this order
LINKS = "links"  # the id of the last cell
LONGEST_TITLE = 45  # letters of a lesson's title in a link
PAPER = re.compile(r"(?<![\d./\[])(?:(arXiv)[ :])?(?<![/\d.])(\d{4}\.\d{4,5})(?![\d\]])")
HEADER = re.compile(r"(\| to read \| |Reading: )(?:about )?(\d+)( minutes)")


# -- what a piece of code binds and uses --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Statement:
    """A statement of a cell: its lines, with the comments above it, and the names that it binds and uses."""

    node: ast.stmt
    source: str
    binds: frozenset[str]
    uses: frozenset[str]


CHANGES = {"append", "extend", "update", "add", "insert", "setdefault", "add_"}


def changed_in_place(node: ast.AST) -> set[str]:
    """Names whose objects a statement changes, functions apart: x[...] = ..., x += ..., x.append(...)."""
    match node:
        case ast.FunctionDef() | ast.ClassDef() | ast.Lambda():
            return set()
        case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store()) | ast.AugAssign(target=ast.Name(id=name)):
            found = {name}
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attr))) if attr in CHANGES:
            found = {name}
        case _:
            found = set()
    return found.union(*map(changed_in_place, ast.iter_child_nodes(node)))


class Names(ast.NodeVisitor):
    """The names that a piece of code binds at its top, and those that it uses before it has bound them.

    Code is visited in the order in which it runs; a function uses what it doesn't bind itself.
    """

    def __init__(self, bound: set[str] = frozenset()):
        self.bound, self.used = set(bound), set()

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.used |= {node.id} - self.bound
        else:
            self.bound.add(node.id)

    def visit_alias(self, node: ast.alias) -> None:
        self.bound.add((node.asname or node.name).split(".")[0])

    def visit_Assign(self, node: ast.Assign | ast.AnnAssign | ast.NamedExpr) -> None:
        self.visit_in_order(node.value, *getattr(node, "targets", [getattr(node, "target", None)]))

    visit_AnnAssign = visit_NamedExpr = visit_Assign

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.used |= {node.target.id} - self.bound
        self.visit_in_order(node.value, node.target)

    def visit_For(self, node: ast.For) -> None:
        self.visit_in_order(node.iter, node.target, *node.body, *node.orelse)

    def visit_ListComp(self, node: ast.AST) -> None:
        inner = Names(self.bound)
        for generator in node.generators:
            inner.visit_in_order(generator.iter, generator.target, *generator.ifs)
        parts = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        inner.visit_in_order(*parts)
        self.used |= inner.used

    visit_SetComp = visit_GeneratorExp = visit_DictComp = visit_ListComp

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.Lambda) -> None:
        arguments = node.args
        self.visit_in_order(*getattr(node, "decorator_list", ()), *arguments.defaults, *arguments.kw_defaults)
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        body = node.body if isinstance(node.body, list) else [node.body]
        inner = Names({argument.arg for argument in named if argument})
        inner.visit_in_order(*body)
        name = getattr(node, "name", None)
        self.used |= inner.used - inner.bound - self.bound - {name}
        self.bound |= {name} - {None}

    visit_Lambda = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.visit_in_order(*node.decorator_list, *node.bases)
        inner = Names(self.bound)
        inner.visit_in_order(*node.body)
        self.used |= inner.used
        self.bound.add(node.name)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self.visit_in_order(node.type)
        self.bound |= {node.name} - {None}
        self.visit_in_order(*node.body)

    def visit_in_order(self, *nodes: ast.AST | None) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)


def names_in(tree: ast.AST) -> tuple[set[str], set[str]]:
    """(names that the code binds at its top, names that it uses before it has bound them)."""
    names = Names()
    names.visit(tree)
    return names.bound, names.used


def statements(source: str) -> list[Statement]:
    """The statements of a cell in order; together their sources are the whole cell."""
    lines, found, begin = source.split("\n"), [], 0
    nodes = ast.parse(source).body
    for k, node in enumerate(nodes):
        end = len(lines) if k == len(nodes) - 1 else node.end_lineno
        while k < len(nodes) - 1 and end < nodes[k + 1].lineno - 1 and lines[end].strip().startswith("# fmt"):
            end += 1
        text = "\n".join(lines[begin:end])
        binds, uses = names_in(node)
        binds |= changed_in_place(node)
        found.append(Statement(node, text, frozenset(binds), frozenset(uses | changed_in_place(node))))
        begin = end
    return found


def called(node: ast.AST) -> set[str]:
    """The functions that are called in it, as they are written: `plots.show`, `holds`."""
    return {ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}


def draws(statement: Statement, drawn: set[str]) -> bool:
    """Whether the statement makes, changes or shows a figure; `drawn` are the names of figures and of what draws."""
    if isinstance(statement.node, ast.Import | ast.ImportFrom):
        return False
    text = ast.unparse(statement.node)
    for name in DOESN_T_DRAW:
        text = text.replace(name, "_")
    _, uses = names_in(ast.parse(text))
    return bool(uses & (DRAWS | drawn))


def shows(node: ast.AST) -> bool:
    """Whether a picture or a widget appears."""
    widget = isinstance(node, ast.Expr) and any(name.startswith("widgets.") for name in called(node))
    return widget or bool(called(node) & {"plots.show", "display"})


# -- kinds of cells -----------------------------------------------------------------------------------------------------


def later_uses(later: list[list[Statement]]) -> set[str]:
    """The names that later cells need from before them."""
    needed: set[str] = set()
    for cell in reversed(later):
        for statement in reversed(cell):
            needed = (needed - statement.binds) | statement.uses
    return needed


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(notebook: NotebookNode) -> dict[str, str]:
    """{cell id: "imports", "claims", "prediction", "drawing", "mixed" or "computing"} of the code cells."""
    cells = [(cell.id, statements(cell.source)) for cell in code_cells(notebook)]
    found, drawn = {}, set()
    for k, (name, its) in enumerate(cells):
        figures = set(drawn)
        drawing = []
        for statement in its:
            if draws(statement, figures):
                drawing.append(statement)
                figures |= statement.binds
        found[name] = kind_of(its, drawing, later_uses([later for _, later in cells[k + 1 :]]))
        drawn |= {s.node.name for s in drawing if isinstance(s.node, ast.FunctionDef)}
    return found


def kind_of(its: list[Statement], drawing: list[Statement], needed: set[str]) -> str:
    """The kind of a cell, given which of its statements draw and which names later cells need."""
    calls = set().union(*(called(statement.node) for statement in its))
    if its and all(isinstance(s.node, ast.Import | ast.ImportFrom) or "plots.use_style" in called(s.node) for s in its):
        return "imports"
    if "holds" in calls:
        return "claims"
    if its and all(any(name.startswith("predictions.") for name in called(s.node)) for s in its):
        return "prediction"
    functions = {s.node.name for s in drawing if isinstance(s.node, ast.FunctionDef)}
    if not any(shows(s.node) for s in drawing):
        return "drawing" if its and len(drawing) == len(its) else "computing"
    leaks = set().union(*(s.binds for s in its)) & needed - functions
    trains = any(TRAINS.search(s.source) for s in its)
    return "mixed" if leaks or trains or calls & {"print", "tables.show"} else "drawing"


# -- numbers of a lesson ------------------------------------------------------------------------------------------------


def numbers(notebook: NotebookNode) -> dict[str, int]:
    """What LIMITS limits, as it is in this lesson."""
    kind = kinds(notebook)
    cells = [cell.source.split("\n") for cell in code_cells(notebook) if kind[cell.id] not in FOLDED]
    visible = [[line for line in cell if line.strip()] for cell in cells]
    lines = [line for cell in visible for line in cell]
    found = (
        sum(one == "mixed" for one in kind.values()),
        sum(len(cell) > LONGEST_CELL for cell in visible),
        sum(len(line) > WIDEST_LINE for line in lines),
        len(lines),
        first_training(notebook),
    )
    return dict(zip(LIMITS, found, strict=True))


def first_training(notebook: NotebookNode) -> int:
    """The first cell, counted from 1 with the texts, that trains something or calls a function that does."""
    trainers: set[str] = set()
    for place, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type != "code":
            continue
        for statement in statements(cell.source):
            trains = TRAINS.search(statement.source) or called(statement.node) & trainers
            if trains and isinstance(statement.node, ast.FunctionDef | ast.ClassDef):
                trainers.add(statement.node.name)
            elif trains:
                return place
    return len(notebook.cells)


def words(text: str) -> int:
    """How many words there are to read in Markdown: a formula counts as few, an address and a tag as none."""
    text = re.sub(r"<[^<>]*>|\]\([^)]*\)", " ", text)
    text, displayed = re.subn(r"\$\$.*?\$\$", " ", text, flags=re.DOTALL)
    text, inline = re.subn(r"\$[^$\n]+\$", " ", text)
    return (
        len(re.findall(r"[^\W_][\w'’-]*", text))
        + displayed * WORDS_OF_A_FORMULA["displayed"]
        + inline * WORDS_OF_A_FORMULA["inline"]
    )


def minutes_to_read(notebook: NotebookNode) -> int:
    """Reading time at 200 words and 15 visible lines of code a minute, rounded up to five minutes."""
    texts = [cell for cell in notebook.cells if cell.cell_type == "markdown" and cell.id != LINKS]
    # the list of papers at the end is there to be looked up
    prose = sum(words(cell.source.split("\n## Further reading")[0]) for cell in texts)
    minutes = prose / WORDS_A_MINUTE + numbers(notebook)["visible lines"] / LINES_A_MINUTE
    return STEP * math.ceil(minutes / STEP)


# -- links --------------------------------------------------------------------------------------------------------------


def links(path: Path, root: Path = ROOT) -> str:
    """The last cell of the lesson at `path`: the lesson before, the exercises, the lesson after."""
    order = sorted(root.glob("notebooks/*.ipynb"), key=lambda lesson: COURSE.index(lesson.name[:2]))
    place = [lesson.name for lesson in order].index(path.name)
    parts = []
    if place > 0:
        parts.append(f"← [{title_of(order[place - 1])}]({order[place - 1].name})")
    for exercise in sorted(root.glob(f"exercises/{path.name[:2]}_*/*.ipynb")):
        parts.append(f"[exercises](../{exercise.relative_to(root).as_posix()})")
    if place < len(order) - 1:
        parts.append(f"[{title_of(order[place + 1])}]({order[place + 1].name}) →")
    return " · ".join(parts)


def title_of(path: Path) -> str:
    """The title of a lesson; of a long one, what stands before the colon."""
    first = nbformat.read(path, as_version=4).cells[0].source.split("\n")[0].removeprefix("# ")
    return first if len(first) <= LONGEST_TITLE else first.split(":")[0]


def linked_papers(text: str) -> str:
    """Markdown with every arXiv id as a link."""
    parts = re.split(r"(`[^`]*`|\]\([^)]*\)|\[arXiv [^\]]*\])", text)
    return "".join(
        part if k % 2 else PAPER.sub(r"[arXiv \2](https://arxiv.org/abs/\2)", part) for k, part in enumerate(parts)
    )


# -- check and write ----------------------------------------------------------------------------------------------------


def set_apart(text: str) -> str:
    """Room below a folded answer: JupyterLab puts none there, and a closed one with text at once below it looks open."""
    return re.sub(r"</details>\n+(?=[^\s<#])", "</details>\n\n<p></p>\n\n", text)


def named(source: str, kind: str) -> str:
    """The source of a folded cell, of which the first line alone is seen: its kind, where that line is a long one."""
    long = len(source.partition("\n")[0]) > WIDEST_BAR and kind in ("drawing", "prediction")
    return f"# {kind}\n{source}" if long else source


def flaws(path: Path, notebook: NotebookNode, allowed: dict[str, int], root: Path = ROOT) -> Iterator[str]:
    """A sentence for everything in which a lesson isn't in the form."""
    kind = kinds(notebook)
    for cell in code_cells(notebook):
        folded, its = is_folded(cell), kind[cell.id]
        if folded != (its in FOLDED):
            yield f"cell {cell.id!r} is a cell of {its}, and {'folded' if folded else 'not folded'}"
        if named(cell.source, its) != cell.source:
            yield f"cell {cell.id!r} is folded, and its first line has more than {WIDEST_BAR} characters"
    for what, number in numbers(notebook).items():
        most = allowed.get(what, LIMITS[what])
        if number > most:
            yield f"{what}: {number}, and {most} are allowed"
        elif what in allowed and number < allowed[what]:
            yield f"{what}: {number} now, and the table still says {allowed[what]}"
    found, counted = HEADER.search(notebook.cells[0].source), minutes_to_read(notebook)
    if found is None:
        yield "the first cell says no reading time, such as '| to read | 45 minutes |'"
    elif abs(int(found[2]) - counted) > SLACK:
        yield f"the first cell says {found[2]} minutes to read, and {counted} are counted"
    if notebook.cells[-1].id != LINKS or notebook.cells[-1].source != links(path, root):
        yield f"the last cell isn't {LINKS!r} with the links to the lessons beside it and to the exercises"
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and linked_papers(cell.source) != cell.source:
            yield f"cell {cell.id!r} has an arXiv id that is no link"
        if cell.cell_type == "markdown" and set_apart(cell.source) != cell.source:
            yield f"cell {cell.id!r} has text at once below a folded answer"


def is_folded(cell: NotebookNode) -> bool:
    return bool(cell.metadata.get("jupyter", {}).get("source_hidden", False))


def bring_into_form(path: Path, notebook: NotebookNode, root: Path = ROOT) -> None:
    """Fold, write the reading time and the links, in place; what a person must do stays."""
    if notebook.cells[-1].id != LINKS:
        notebook.cells.append(nbformat.v4.new_markdown_cell(id=LINKS))
    notebook.cells[-1].source = links(path, root)
    kind = kinds(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = set_apart(linked_papers(cell.source))
        elif kind[cell.id] in FOLDED:
            cell.source = named(cell.source, kind[cell.id])
            cell.metadata["jupyter"] = {"source_hidden": True}
        else:
            cell.metadata.pop("jupyter", None)
    counted, first = minutes_to_read(notebook), notebook.cells[0]
    found = HEADER.search(first.source)
    if found and abs(int(found[2]) - counted) > SLACK:
        first.source = HEADER.sub(rf"\g<1>{counted}\g<3>", first.source)


def lowered(allowed: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    """What is allowed after a lesson came to these numbers: never more than before, and nothing that the form allows."""
    lower = {what: min(most, now[what]) for what, most in allowed.items()}
    return {what: most for what, most in lower.items() if most > LIMITS[what]}


def read_allowed() -> dict[str, dict[str, int]]:
    return json.loads(ALLOWED.read_text(encoding="utf-8"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("check", "write", "show"))
    action, allowed, wrong = parser.parse_args().action, read_allowed(), False
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if action == "write":
            bring_into_form(path, notebook)
            path.write_bytes((nbformat.writes(normalise(notebook)).rstrip("\n") + "\n").encode())
            allowed[path.stem] = lowered(allowed.get(path.stem, {}), numbers(notebook))
        if action == "show":
            print(f"{path.stem}: {minutes_to_read(notebook)} minutes to read, {numbers(notebook)}")
            continue
        for sentence in flaws(path, notebook, allowed.get(path.stem, {})):
            wrong = True
            print(f"lesson {path.stem[:2]}: {sentence}")
    if action == "write":
        kept = {lesson: its for lesson, its in sorted(allowed.items()) if its}
        ALLOWED.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    if wrong and action == "check":
        print("run: python tools/lesson_form.py write")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
