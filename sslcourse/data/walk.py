"""What lies in a folder of images: its folders and picture files as a tree, and a count of everything passed over."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sslcourse.console import shown
from sslcourse.data import decode
from sslcourse.errors import CourseError, suggest
from sslcourse.paths import typed

NOT_OURS = {"__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found"}
PHOTOGRAPHS = {  # what cameras and programs write and Pillow doesn't read by itself
    ".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf",
    ".rw2", ".raf", ".eps", ".pdf",
}  # fmt: skip
NAMED = 5  # things named in a note; the others are counted


@dataclass
class Branch:
    """A folder with pictures in it or below. `files` are its own, as paths; both are in the order of their names."""

    path: str
    name: str
    files: list[str] = field(default_factory=list)
    branches: dict[str, Branch] = field(default_factory=dict)

    def everything(self) -> list[str]:
        """The files of this folder, and then those of the folders in it."""
        found, waiting = [], [self]
        while waiting:
            branch = waiting.pop()
            found += branch.files
            waiting += reversed(branch.branches.values())
        return found


@dataclass
class Passed:
    """What isn't read, by what it is."""

    endings: Counter[str] = field(default_factory=Counter)  # files that aren't taken for pictures
    pipes: list[str] = field(default_factory=list)  # neither files nor folders, or links to nothing
    links: list[str] = field(default_factory=list)  # to folders that are read anyway
    closed: list[str] = field(default_factory=list)  # folders that can't be opened

    def photographs(self) -> str:
        """ "3 .heic, 1 .svg", of those files that a person would call pictures; "" where there are none."""
        return counted({ending: count for ending, count in self.endings.items() if ending in PHOTOGRAPHS})

    def notes(self) -> list[str]:
        """A sentence for each kind."""
        lines = []
        if self.photographs():
            lines.append(
                f"files of kinds that can't be read were left out: {self.photographs()}; save them as JPEG or PNG."
            )
        if others := counted({ending: n for ending, n in self.endings.items() if ending not in PHOTOGRAPHS}):
            lines.append(f"files that aren't pictures by their names were left out: {others}.")
        if self.pipes:
            lines.append(f"what is neither file nor folder was left out, such as pipes: {named(self.pipes)}.")
        if self.links:
            lines.append(f"links to folders that are read already were left out: {named(self.links)}.")
        lines += [f"the folder {shown(path)} can't be opened, and was left out." for path in self.closed]
        return lines


def counted(endings: dict[str, int]) -> str:
    """ "3 .heic, 1 without an ending"."""
    return ", ".join(f"{count:,} {shown(ending) or 'without an ending'}" for ending, count in sorted(endings.items()))


def named(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = [shown(name) for name in names]
    more = [f"and {len(names) - NAMED:,} more"] if len(names) > NAMED else []
    return ", ".join(names[:NAMED] + more)


def spelled(name: str) -> str:
    """A name as text that can be shown, the same for file systems that write an accented letter as one character or two."""
    return shown(unicodedata.normalize("NFC", name))


def walk(top: Path) -> tuple[Branch, Passed]:
    """The tree of a folder, without what is hidden and without folders that hold no pictures.

    Every folder is read once, however many links lead to it: as itself where it lies within `top`, otherwise as the
    first link to it. Raises CourseError for a path that is no folder or can't be opened.
    """
    require_folder(top)
    root, passed, known = Branch(str(top), spelled(top.name)), Passed(), decode.endings()
    seen, links = {os.path.realpath(top)}, []
    made = [root]  # parents before what is in them
    for branch in made:
        made += _fill(branch, known, passed, links, seen)
        while branch is made[-1] and links:  # all that isn't behind a link has been read: now the next link
            above, path, name = links.pop(0)
            real = os.path.realpath(path)
            if real in seen or os.path.realpath(top).startswith(os.path.join(real, "")):
                passed.links.append(os.path.relpath(path, top))
            else:
                seen.add(real)
                made.append(_added(above, path, name))
    for branch in reversed(made):
        branch.branches = {
            name: inner for name, inner in sorted(branch.branches.items()) if inner.files or inner.branches
        }
    return root, passed


def _fill(branch: Branch, known: frozenset[str], passed: Passed, links: list, seen: set[str]) -> list[Branch]:
    """Put the pictures of a folder into its branch; the branches of the folders in it. Links to folders are put off."""
    try:
        entries = sorted(os.scandir(branch.path), key=lambda entry: spelled(entry.name))
    except OSError:
        passed.closed.append(branch.path)
        return []
    inner = []
    for entry in entries:
        ending = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith(".") or entry.name.lower() in NOT_OURS:
            continue
        if _is_folder(entry):
            if entry.is_symlink():
                links.append((branch, entry.path, spelled(entry.name)))
            else:
                seen.add(os.path.realpath(entry.path))
                inner.append(_added(branch, entry.path, spelled(entry.name)))
        elif not (entry.is_symlink() and not os.path.exists(entry.path)) and not entry.is_file():
            passed.pipes.append(entry.name)
        elif ending in known:
            branch.files.append(entry.path)
        else:
            passed.endings[ending] += 1
    return inner


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _added(above: Branch, path: str, name: str) -> Branch:
    """A new branch. A second folder of a name, spelled with other characters, is the same branch as the first."""
    first = above.branches.setdefault(name, Branch(path, name))
    return first if first.path == path else Branch(path, name, first.files, first.branches)


def pictures(top: str | Path) -> tuple[list[str], list[str]]:
    """The paths of all picture files in a folder and the folders in it, relative to it, in the order of their names; and
    a sentence for each kind of what isn't among them."""
    top = typed(top)
    root, passed = walk(top)
    return [os.path.relpath(file, top) for file in root.everything()], passed.notes()


def require_folder(top: Path) -> None:
    """Raise CourseError for a path that is no folder or can't be opened."""
    try:
        is_there, is_folder = top.exists(), top.is_dir()
    except OSError:  # a folder above can't be opened
        is_there = is_folder = False
    if not is_there:
        near = ""
        if top.parent.is_dir() and os.access(top.parent, os.R_OK):
            near = suggest(shown(top.name), [shown(path.name) for path in top.parent.iterdir() if path.is_dir()])
        raise CourseError(f"there is no folder {shown(top)}{near}; folder: takes the path of a folder of images.")
    if not is_folder:
        raise CourseError(
            f"{shown(top)} is a file; folder: takes the path of a folder of images, such as {shown(top.parent)}."
        )
    if not os.access(top, os.R_OK | os.X_OK):
        raise CourseError(f"the folder {shown(top)} can't be opened: no permission to read it.")
