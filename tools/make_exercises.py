"""Make exercises/ from solutions/ with nbgrader's own preprocessors, without its database.

    python tools/make_exercises.py            write what changed
    python tools/make_exercises.py --check    write nothing; exit 1 if anything is out of date

The result is the same, byte for byte, on every run, and the same as `nbgrader generate_assignment` gives.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nbformat
from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearHiddenTests,
    ClearMarkScheme,
    ClearOutput,
    ClearSolutions,
    ComputeChecksums,
    LockCells,
)
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

ROOT = Path(__file__).resolve().parents[1]
STEPS = (
    LockCells,
    ClearSolutions,
    ClearOutput,
    CheckCellMetadata,
    ClearHiddenTests,
    ClearMarkScheme,
    ComputeChecksums,
    CheckCellMetadata,
)


def settings(root: Path = ROOT) -> Config:
    """What nbgrader_config.py says: the stub comes from there."""
    return PyFileConfigLoader("nbgrader_config.py", path=str(root)).load_config()


def student_version(path: Path, config: Config) -> str:
    """The text of the exercise notebook for the solution notebook at `path`."""
    notebook, resources = nbformat.read(path, as_version=4), {}
    for step in STEPS:
        notebook, resources = step(config=config).preprocess(notebook, resources)
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = {"name": "python"}  # no patch version of Python in the diff
    nbformat.validate(notebook)
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def make(root: Path = ROOT, check: bool = False) -> list[str]:
    """Write exercises/ (unless `check`); return what was out of date, as sentences."""
    config, solutions, exercises = settings(root), root / "solutions", root / "exercises"
    changed, wanted = [], set()
    for solution in sorted(solutions.glob("*/*.ipynb")):
        exercise = exercises / solution.relative_to(solutions)
        wanted.add(exercise)
        text = student_version(solution, config)
        if exercise.exists() and exercise.read_bytes() == text.encode():
            continue
        changed.append(f"{exercise.relative_to(root)} is not what {solution.relative_to(root)} gives")
        if not check:
            exercise.parent.mkdir(parents=True, exist_ok=True)
            exercise.write_bytes(text.encode())
    for orphan in sorted(set(exercises.glob("*/*.ipynb")) - wanted):
        changed.append(f"{orphan.relative_to(root)} has no solution it comes from")
        if not check:
            orphan.unlink()
    return changed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if anything is out of date")
    check = parser.parse_args().check
    changed = make(check=check)
    for sentence in changed:
        print(sentence if check else f"{sentence}: done")
    if check and changed:
        print("run: python tools/make_exercises.py")
    return int(check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
