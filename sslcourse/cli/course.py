"""`sslcourse lab`, `reset`, `progress`: a person's own copy of the course, and how far they are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from sslcourse import overview
from sslcourse import progress as the_progress
from sslcourse import work as copies
from sslcourse.cli import options, texts
from sslcourse.cli.running import command
from sslcourse.console import say
from sslcourse.files import write_atomically
from sslcourse.paths import work_folder

SETTINGS = Path(__file__).resolve().parents[1] / "lab_settings"  # JupyterLab's, without the menus of lecturers
Number = Annotated[str, typer.Argument(help="Number of the lesson.")]


@command(stopped=texts.lab_stopped)
def lab(
    lesson: Annotated[str | None, typer.Argument(help="Number of the lesson to open (default: the index).")] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Of the server on this machine (default: 8888, or the next free)."),
    ] = None,
    teach: Annotated[
        bool, typer.Option("--teach", help="Open the course itself instead of your copy, with nbgrader's menus.")
    ] = False,
) -> None:
    """Open your copy of the course in JupyterLab: its index, or the lesson that is named."""
    page = None if lesson is None else copies.lesson(lesson)
    if teach:
        root, page = copies.COURSE, page or copies.lesson("00")
    else:
        root, changes = copies.begin()
        for sentence in texts.changes(changes, root):
            say(sentence)
        page = page or _write_index(root)
    words = _jupyterlab(root, page, browser, port, teach)
    before = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for JupyterLab, which asks back
    try:
        sys.exit(subprocess.call(words, cwd=root))
    finally:
        signal.signal(signal.SIGINT, before)


def _jupyterlab(root: Path, page: str, browser: bool, port: int | None, teach: bool) -> list[str]:
    """The command that opens a page. The root is the whole course, so that links to exercises and documents lead there."""
    words = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url=/lab/tree/{quote(page)}",
    ]
    if not teach:
        words.append(f"--LabApp.app_settings_dir={SETTINGS}")
        words.append("--ContentsManager.pre_save_hook=sslcourse.notebook.keep_stills")
    words += [] if browser else ["--no-browser"]
    words += [] if port is None else [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # in a container there is nobody else, and Jupyter would refuse
        words.append("--ServerApp.allow_root=True")
    return words


def _write_index(work: Path) -> str:
    """Write the first page of a person's copy anew, and return its name; in the course itself nothing is written."""
    if work.samefile(copies.COURSE):
        return copies.lesson("00")
    write_atomically(work / overview.INDEX, overview.index(overview.of(work)).encode())
    return overview.INDEX


@command(stopped=texts.reset_stopped, computes=False)
def reset(lesson: Number) -> None:
    """Give you a fresh lesson and its exercises, and keep what you had."""
    names, kept = copies.reset(lesson)
    print(texts.reset(names, kept, work_folder()))


@command(stopped=texts.listing_stopped, computes=False)
def progress(as_json: options.Json = False) -> None:
    """Show which exercises and gaps are solved, as your notebooks were saved last, and how far off your predictions were."""
    work = work_folder()
    lessons = overview.of(work)
    if work.is_dir():
        _write_index(work)
    found = {"folder": str(work), "next": lessons[overview.next_one(lessons)].number} | {
        "lessons": {
            one.number: {
                "title": one.title,
                "begun": one.begun,
                "checks": one.checks,
                "solved": one.solved,
                "gaps": one.gaps,
            }
            for one in lessons
        },
        "predictions": the_progress.predictions(),
    }
    texts.show(found, texts.progress(lessons, found["predictions"], work), as_json)
