"""Build the course as static pages, from the stored outputs: nothing is executed, and the pages need no network.

    python tools/make_site.py             into build/site; open build/site/index.html
    python tools/make_site.py --out DIR   into another folder

Pages keep their places (notebooks/, exercises/, docs/, benchmarks/), so that the links between them hold. Figures become
files with their alternative texts, folded cells stay folded, and every module of the package gets a page. Sphinx and
myst-nb do the rest (docs/conf.py); they come with the extra `site`.
"""

from __future__ import annotations

import argparse
import ast
import base64
import html
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from sslcourse import overview, work
from sslcourse.notebook import PNG

ROOT = Path(__file__).resolve().parents[1]
PICTURES = "_static/figures"
COPIED = ("README.md", "CONTRIBUTING.md", "LICENSE", "CITATION.cff", "docs/*", "benchmarks/README.md")
INDEX = """# Self-supervised vision, hands on

Pretrain a network on pictures without labels, then fine-tune it with few. This is the whole course to read: the lessons with
their results, the exercises, and what stands behind them. To work through it, install it: [the course](README.md) says how.

{lessons}
"""


# --- pages --------------------------------------------------------------------------------------------------------------


def write_sources(folder: Path) -> None:
    """Everything that Sphinx reads, laid out as in the course."""
    for pattern in COPIED:
        for path in ROOT.glob(pattern):
            place = folder / path.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    shutil.move(folder / "docs" / "conf.py", folder / "conf.py")
    (folder / "_static").mkdir()
    for name in ("course.css", "course.js"):
        shutil.move(folder / "docs" / name, folder / "_static" / name)
    notebooks = [*sorted(ROOT.glob("notebooks/[0-9][0-9]_*.ipynb")), *sorted(ROOT.glob("exercises/*/*.ipynb"))]
    for path in notebooks:
        place = folder / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(page(nbformat.read(path, as_version=4), path.stem, folder), place)
    for name, text in api_pages(ROOT / "sslcourse"):
        (folder / "api").mkdir(exist_ok=True)
        (folder / "api" / f"{name}.md").write_text(text, encoding="utf-8")
    (folder / "index.md").write_text(INDEX.format(lessons=contents(folder)), encoding="utf-8")


def contents(folder: Path) -> str:
    """The table of the lessons, and the tree of all pages for Sphinx."""
    lessons = work.lessons(ROOT)
    exercises = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("exercises/*/*.ipynb"))]
    modules = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("api/*.md"))]
    documents = sorted(path.relative_to(folder).as_posix() for path in folder.glob("docs/*.md"))
    rows = ["| | Lesson | To read | Exercises |", "|---|---|---|---|"]
    for one in overview.of(ROOT, ROOT):
        minutes = f"{one.minutes} minutes" if one.minutes else ""
        more = f"[exercises {one.number}]({one.exercise})" if one.exercise else ""
        rows.append(f"| {one.number} | [{one.title}]({one.notebook}) | {minutes} | {more} |")
    parts = {
        "Lessons": list(lessons.values()),
        "Exercises": exercises,
        "To look up": ["The course <README.md>", *documents, "benchmarks/README.md", "CONTRIBUTING.md"],
        "The package": modules,
    }
    trees = [
        "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"])
        for caption, pages in parts.items()
    ]
    return "\n".join(rows) + "\n\n" + "\n\n".join(trees)


def page(notebook: NotebookNode, name: str, folder: Path) -> NotebookNode:
    """A notebook as the site shows it: pictures as files with their words, folded cells folded."""
    count = 0
    for cell in notebook.cells:
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata.setdefault("tags", []).append("hide-input")
        for output in cell.get("outputs", []):
            if PNG not in output.get("data", {}):
                continue
            count += 1
            place = folder / PICTURES / f"{name}-{count}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(base64.b64decode(output.data[PNG]))
            alt = html.escape(output.metadata.get(PNG, {}).get("alt", ""))
            output.data = NotebookNode(
                {"text/html": f'<img alt="{alt}" src="../{PICTURES}/{place.name}" loading="lazy">'}
            )
    return notebook


# --- the package, from its source -----------------------------------------------------------------------------------


def api_pages(package: Path) -> Iterator[tuple[str, str]]:
    """(name, Markdown) of a page for every module: what is public, with its signature and its words."""
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if parts[-1] == "__main__" or ".checks.lesson" in name:  # these hold the answers
            continue
        about = ast.get_docstring(tree) or ""
        lines = [f"# {name}", "", *_words(about)]
        for node in tree.body:
            lines += _described(node, "")
        yield name, "\n".join(lines) + "\n"


def _described(node: ast.stmt, owner: str) -> list[str]:
    """A public function or class, and a class's public methods."""
    if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
        return []
    words = ast.get_docstring(node)
    if owner and not words:
        return []
    level = "###" if owner else "##"
    lines = [f"{level} {owner}{node.name}", "", "```python", _signature(node), "```", "", *_words(words or "")]
    for inner in node.body if isinstance(node, ast.ClassDef) else []:
        lines += _described(inner, f"{node.name}.")
    return lines


def _signature(node: ast.FunctionDef | ast.ClassDef) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    whole = f"def {node.name}({ast.unparse(node.args)}){returns}"
    if len(whole) <= 88:
        return whole
    pieces = ast.unparse(node.args).split(", ")
    return f"def {node.name}(\n    " + ",\n    ".join(pieces) + f",\n){returns}"


def _words(text: str) -> list[str]:
    """A docstring as it stands: its columns and its symbols mean something."""
    return ["```text", text, "```", ""] if text else []


def build(out: Path) -> int:
    """Build the site into `out`; the exit code of Sphinx, for which a broken link is an error."""
    scratch = out.parent / f"{out.name}-scratch"  # also what myst-nb and Sphinx write beside the pages
    for folder in (scratch, out):
        shutil.rmtree(folder, ignore_errors=True)
    source, pages = scratch / "source", scratch / "pages"
    source.mkdir(parents=True)
    write_sources(source)
    words = ["-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-d", scratch / "read", source, pages]
    code = subprocess.run([sys.executable, *map(str, words)]).returncode
    if code == 0:
        shutil.move(pages, out)
        shutil.rmtree(scratch)
    return code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=ROOT / "build" / "site", help="the folder of the pages (default: build/site)"
    )
    options = parser.parse_args()
    code = build(options.out)
    if code == 0:
        print(f"the site: {options.out / 'index.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
