"""The tools for notebooks: executing in place, and the text that `git diff` shows."""

from __future__ import annotations

import subprocess
import sys

import pytest
from course_notebooks import ROOT, code, markdown, notebook_of, read, write
from nbformat.v4 import new_output


def tool(name: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8")


def test_the_text_shows_claims_and_figures(tmp_path):
    claim = code("claim-log4", "print(1.386)", ("nbval-check-output",))
    figure = new_output("display_data", {"image/png": "aGVsbG8=", "text/plain": "<Figure>"})
    figure.metadata["image/png"] = {"alt": "A rising line."}
    claim.outputs = [new_output("stream", name="stdout", text="1.386\n"), figure]
    path = write(tmp_path / "a.ipynb", notebook_of(markdown("title", "# 99 · Größe"), claim))
    text = tool("nbtext.py", path).stdout
    assert (
        "--- markdown title\n# 99 · Größe" in text and "--- code claim-log4 #nbval-check-output\nprint(1.386)" in text
    )
    assert "    > 1.386" in text and ": A rising line." in text and "aGVsbG8" not in text
    claim.outputs[0].text = "1.387\n"
    write(path, notebook_of(claim))
    assert "    > 1.387" in tool("nbtext.py", path).stdout


@pytest.mark.commands
def test_normalising_checks_and_writes(tmp_path):
    path = write(tmp_path / "a.ipynb", notebook_of(code("one", "1", ())))
    assert tool("nbnormalise.py", "--check", path).returncode == 0
    before = path.read_bytes()
    path.write_bytes(before.replace(b'"metadata": {},', b'"metadata": {"collapsed": true},', 1))
    assert tool("nbnormalise.py", "--check", path).returncode == 1 and path.read_bytes() != before
    assert tool("nbnormalise.py", path).returncode == 0 and path.read_bytes() == before


@pytest.mark.notebooks
def test_executing_is_repeatable_offline_and_leaves_a_failing_notebook_alone(tmp_path):
    offline = """
        import socket
        try:
            socket.create_connection(("192.0.2.1", 80), timeout=5)
        except OSError as error:
            print("network off" in str(error))
        """
    figure = """
        import matplotlib.pyplot as plt
        plt.plot([0, 1])
        plt.show()
        """
    bar = "from tqdm.auto import tqdm\nfor _ in tqdm(range(3)): pass"
    good = write(
        tmp_path / "good.ipynb", notebook_of(code("offline", offline), code("figure", figure), code("bar", bar))
    )
    bad = write(tmp_path / "bad.ipynb", notebook_of(code("fine", "1"), code("failing", "1 / 0")))
    before = bad.read_bytes()
    first = tool("execute.py", good, bad)
    assert first.returncode == 1 and "bad.ipynb: FAILED" in first.stdout and "ZeroDivisionError" in first.stdout
    assert bad.read_bytes() == before
    once = good.read_bytes()
    cells = read(good).cells
    assert cells[0].outputs[0].text == "True\n" and "image/png" in cells[1].outputs[-1].data and cells[2].outputs == []
    assert [cell.execution_count for cell in cells] == [1, 2, 3]
    assert tool("execute.py", good).returncode == 0 and good.read_bytes() == once
