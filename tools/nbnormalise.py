"""Bring notebooks into the one form in which they are committed, so that a diff shows what changed and nothing else.

    python tools/nbnormalise.py [FILES]            write (default: all of notebooks/ and solutions/)
    python tools/nbnormalise.py --check [FILES]    write nothing; exit 1 if a file isn't in that form

Fixed kernelspec and language_info; no widget state, timestamps or editor's settings; tags, folding, nbgrader's metadata and
locks kept; executed cells numbered 1, 2, ...; progress bars dropped from the outputs, and live widgets but for their still
picture (without a kernel they can't be shown); a picture held once, as image/png with its alternative text; tracebacks cut
to their message. Outputs that name this machine are reported.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from sslcourse.notebook import PNG, WIDGET, without_dead_widgets, without_twins

ROOT = Path(__file__).resolve().parents[1]
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
CELL_METADATA = ("tags", "nbgrader", "deletable", "editable", "jupyter")
MACHINE = re.compile(
    r"/(?:home|Users|root|tmp|var|private|mnt|opt|usr|work|content)/[\w.~-]+|[A-Z]:\\+\w+|site-packages|ipykernel_\d+"
    r"|\bat 0x[0-9a-fA-F]{6,}"
)


def notebooks(root: Path = ROOT) -> list[Path]:
    """Every notebook that people write (exercises/ is generated)."""
    return sorted([*root.glob("notebooks/*.ipynb"), *root.glob("solutions/*/*.ipynb")])


def is_bar(output: NotebookNode) -> bool:
    """Is the output a progress bar, or a live widget that shows nothing without a kernel?"""
    if output.output_type == "stream":
        return output.name == "stderr" and "\r" in output.text
    return WIDGET in output.get("data", {}) and PNG not in output.data


def normal_output(output: NotebookNode, count: int | None) -> NotebookNode:
    if output.output_type == "execute_result":
        output.execution_count = count
    if output.output_type == "error":
        quiet = output.ename in ("CheckFailed", "NotSolvedYet")  # their message is all that is shown live, too
        output.traceback = output.evalue.splitlines() if quiet else [f"{output.ename}: {output.evalue}"]
    for mime, content in output.get("data", {}).items():
        if mime.startswith("image/") and isinstance(content, str):
            output.data[mime] = content.strip()
    return output


def joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Pieces of one stream, which a kernel cuts by its clock, as one."""
    result: list[NotebookNode] = []
    for output in outputs:
        before = result[-1] if result else None
        if before is not None and before.output_type == output.output_type == "stream" and before.name == output.name:
            before.text += output.text
        else:
            result.append(output)
    return result


def normalise(notebook: NotebookNode) -> NotebookNode:
    """The notebook in its normal form (changed in place and returned)."""
    notebook.metadata = NotebookNode(kernelspec=NotebookNode(KERNELSPEC), language_info=NotebookNode(name="python"))
    notebook.nbformat_minor = 5
    count = 0
    for cell in notebook.cells:
        cell.metadata = NotebookNode({key: cell.metadata[key] for key in CELL_METADATA if key in cell.metadata})
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type != "code":
            continue
        if cell.execution_count is not None:  # a cell that never ran must not look as if it had
            count += 1
            cell.execution_count = count
        outputs = joined([output for output in joined(cell.outputs) if not is_bar(output)])  # a bar may part a stream
        cell.outputs = [normal_output(output, cell.execution_count) for output in outputs]
    return without_twins(without_dead_widgets(notebook))


def text_of(output: NotebookNode) -> str:
    """Everything readable in an output."""
    readable = [v for k, v in output.get("data", {}).items() if not k.startswith("image/") or k == "image/svg+xml"]
    return "\n".join([output.get("text", ""), output.get("evalue", ""), *map(str, readable)])


def machine_traces(notebook: NotebookNode) -> list[str]:
    """Paths and addresses of one machine in the outputs, as sentences."""
    return [
        f"cell {cell.id!r} has {found.group()!r} in its output"
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        for found in MACHINE.finditer(text_of(output))
    ]


def normal_text(path: Path) -> str:
    return nbformat.writes(normalise(nbformat.read(path, as_version=4))).rstrip("\n") + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file isn't normal")
    options = parser.parse_args()
    bad = False
    for path in options.files or notebooks():
        text = normal_text(path)
        if text.encode() != path.read_bytes():
            bad = True
            print(f"{path}: {'not normal; run python tools/nbnormalise.py' if options.check else 'normalised'}")
            if not options.check:
                path.write_bytes(text.encode())
        for sentence in machine_traces(nbformat.reads(text, as_version=4)):
            print(f"{path}: {sentence}")
    return int(options.check and bad)


if __name__ == "__main__":
    sys.exit(main())
