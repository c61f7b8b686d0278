"""Put exercises that learners handed in where nbgrader looks for them.

    python tools/submissions.py FOLDER 02

FOLDER holds a file NAME.ipynb or a folder NAME/ for each learner. A file is known by the cells of the exercise in it, not by
its name: browsers and platforms rename what they pass on, and the exercises themselves had another name once. It is copied to
submitted/NAME/02_.../exercises_02.ipynb below the folder that you are in, the course's.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path

from sslcourse import notebook as notebooks


def checks_in(path: Path) -> set[str]:
    """Ids of the checks in a notebook; none in what isn't one."""
    found = notebooks.read(path.read_bytes())
    return set(notebooks.checks(found)) if found else set()


def handed_in(folder: Path) -> dict[str, list[Path]]:
    """{learner: files}, from NAME.ipynb and NAME/...ipynb."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.ipynb")):
        inside = path.relative_to(folder)
        if not any(part.startswith(".") for part in inside.parts):
            name = inside.parts[0] if len(inside.parts) > 1 else path.stem
            found.setdefault(re.sub(r"[^\w.@-]+", "_", name), []).append(path)
    return found


def collect(folder: Path, number: str, course: Path) -> int:
    """Copy what was handed in; the number of learners of whom nothing, or more than one file, fits."""
    sources = sorted(course.glob(f"solutions/{number.zfill(2)}_*/*.ipynb"))
    if not sources:
        sys.exit(f"there is no exercise {number} in {course / 'solutions'}; run this in the folder of the course.")
    source, unclear = sources[0], 0
    wanted = checks_in(source)
    for learner, files in handed_in(folder).items():
        fitting = [path for path in files if checks_in(path) & wanted]
        if len(fitting) != 1:
            unclear += 1
            print(f"{learner}: {len(fitting)} files hold exercise {number}; nothing was taken")
            continue
        place = course / "submitted" / learner / source.parent.name / source.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(fitting[0], place)
        print(f"{learner}: {fitting[0].relative_to(folder)}")
    return unclear


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what was handed in")
    parser.add_argument("lesson", help="number of the lesson, such as 02")
    options = parser.parse_args()
    return int(collect(options.folder, options.lesson, Path.cwd()) > 0)


if __name__ == "__main__":
    sys.exit(main())
