"""Notebooks as files: what a person wrote in one, what passed, and pictures that have words.

A picture of a notebook is an output with the alternative text in `metadata["image/png"]["alt"]`. JupyterLab and nbconvert show
the picture and drop the text, and read it where the picture is an `<img alt=...>` of text/html instead. So a notebook that
people open, or a page that is made of one, holds the picture both ways (`with_words`); the committed form holds it once.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
from typing import Any

PNG, HTML, PLAIN = "image/png", "text/html", "text/plain"
WIDGET = "application/vnd.jupyter.widget-view+json"
WORDLESS = "a figure"  # where nobody wrote an alternative text
AGAIN = "Run this cell to have its controls back."
TAG = re.compile(r'<img alt="(?P<alt>[^"]*)" src="data:image/png;base64,(?P<png>[^"]+)"')
PASSED = re.compile(r": passed\b")  # what a check prints
GAP = re.compile(r"^[^#\n]*\bgaps\.filled\(\s*(?:\w+\.)*(\w+)", re.MULTILINE)  # and the check of a gap in a lesson

Notebook = dict[str, Any]  # as the JSON of nbformat 4


# --- pictures ---------------------------------------------------------------------------------------------------------


def tag(png: bytes | str, alt: str) -> str:
    """A picture, as bytes or in base64, as an element of a page, with `alt` for who can't see it."""
    text = png if isinstance(png, str) else base64.b64encode(png).decode()
    words, picture = html.escape(alt), "".join(text.split())
    return f'<img alt="{words}" src="data:image/png;base64,{picture}" style="max-width: 100%">'


def bundle(png: bytes | str, alt: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A picture as (data, metadata) of an output: whoever shows it finds a form that it can show, and the words."""
    text = png if isinstance(png, str) else base64.b64encode(png).decode()
    return {PNG: text, HTML: tag(text, alt), PLAIN: alt}, {PNG: {"alt": alt}}


def without_alpha(png: bytes | str) -> bytes:
    """The same pixels without an alpha channel, where all are opaque: a tenth smaller. `png` may be in base64, as outputs are."""
    from PIL import Image  # only a kernel draws

    raw = base64.b64decode(png) if isinstance(png, str) else png
    picture, smaller = Image.open(io.BytesIO(raw)), io.BytesIO()
    if picture.mode != "RGBA" or picture.getextrema()[3] != (255, 255):
        return raw
    picture.convert("RGB").save(smaller, "png", optimize=True)
    return smaller.getvalue()


def with_words(notebook: Notebook) -> Notebook:
    """Give every stored picture its alternative text as a page reads it (changed in place and returned)."""
    for output in _shown(notebook):
        data = output["data"]
        if PNG in data and HTML not in data:
            data[HTML] = tag(_joined(data[PNG]), output.get("metadata", {}).get(PNG, {}).get("alt", WORDLESS))
    return notebook


def without_twins(notebook: Notebook) -> Notebook:
    """Keep every picture once, as image/png (changed in place and returned): the way back from `with_words`."""
    for output in _shown(notebook):
        data = output["data"]
        if PNG in data and TAG.match(_joined(data.get(HTML, ""))):
            del data[HTML]
    return notebook


def without_dead_widgets(notebook: Notebook) -> Notebook:
    """Leave of every widget what can be shown without a kernel, its still picture or words (changed in place and returned).

    A widget is a view into its kernel; in a file that is opened again, JupyterLab says "model not found" instead.
    """
    for output in _shown(notebook):
        data = output["data"]
        if data.pop(WIDGET, None) is not None and PNG not in data:
            words = _joined(data.get(PLAIN, ""))
            data[PLAIN] = words if words and "(children=" not in words else AGAIN  # a progress bar has words
    return notebook


def keep_stills(model: dict[str, Any], **_: Any) -> None:
    """For Jupyter's `pre_save_hook`: `without_dead_widgets` of a notebook that is about to be saved."""
    if model.get("type") == "notebook" and isinstance(model.get("content"), dict):
        without_dead_widgets(model["content"])


def _shown(notebook: Notebook) -> list[dict[str, Any]]:
    outputs = [output for cell in notebook.get("cells", []) for output in cell.get("outputs", [])]
    return [output for output in outputs if "data" in output]


# --- cells --------------------------------------------------------------------------------------------------------------


def read(content: bytes) -> Notebook | None:
    """The notebook in these bytes of a file, or None where there is none."""
    try:
        notebook = json.loads(content)
    except ValueError:
        return None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    return notebook if isinstance(cells, list) and all(isinstance(cell, dict) for cell in cells) else None


def write(notebook: Notebook) -> bytes:
    """The bytes of its file, in the form that Jupyter gives it."""
    return (json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()


def sources(notebook: Notebook) -> list[tuple[str, str]]:
    """(kind, text) of every cell: what a person writes. Outputs and settings aren't part of it, nor are empty cells."""
    cells = [(cell.get("cell_type", ""), _joined(cell.get("source", "")).rstrip()) for cell in notebook["cells"]]
    return [(kind, text) for kind, text in cells if text]


def title(notebook: Notebook) -> str:
    """The first heading, without its number: "Start here" of "# 00 · Start here"; "" where there is none."""
    for kind, text in sources(notebook):
        if kind == "markdown" and (found := re.match(r"# (?:\d\d · )?(.+)", text)):
            return found[1].strip()
    return ""


def checks(notebook: Notebook) -> dict[str, bool]:
    """{id of a cell that checks an exercise: whether it passed when it was last run}."""
    return {
        str(cell["metadata"]["nbgrader"].get("grade_id")): _passed(cell)
        for cell in notebook["cells"]
        if cell.get("metadata", {}).get("nbgrader", {}).get("grade")
    }


def gaps(notebook: Notebook) -> dict[str, bool]:
    """{check of a gap in a lesson: whether it passed when it was last run}; tried in two cells, a gap is still one."""
    found: dict[str, bool] = {}
    for cell in notebook["cells"]:
        for check in GAP.findall(_joined(cell.get("source", ""))) if cell.get("cell_type") == "code" else ():
            found[check] = found.get(check, False) or _passed(cell)
    return found


def _passed(cell: dict[str, Any]) -> bool:
    outputs = cell.get("outputs", [])
    printed = " ".join(" ".join(_joined(output.get("text", "")) for output in outputs).split())
    return bool(PASSED.search(printed)) and not any(output.get("output_type") == "error" for output in outputs)


def _joined(text: str | list[str]) -> str:
    """Text of a notebook's JSON, which may be cut into lines."""
    return text if isinstance(text, str) else "".join(text)
