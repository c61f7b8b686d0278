"""How far a person is: which exercises and gaps in lessons passed, what was predicted, and where to go on.

All of it is read from their notebooks as they were saved last, and from the predictions that they entered (progress.py).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sslcourse import notebook as notebooks
from sslcourse import progress
from sslcourse import work as copies
from sslcourse.files import reading

INDEX = "index.md"
MINUTES = re.compile(r"(?:\| to read \| |Reading: )(?:about )?(\d+) minutes?")


@dataclass(frozen=True)
class Lesson:
    """A lesson as it stands with one person."""

    number: str
    title: str
    notebook: str  # names of files below the folder that they work in
    exercise: str | None
    minutes: int | None  # to read
    checks: dict[str, bool]  # {id of a check in the exercise: whether it passed}
    gaps: dict[str, bool]  # {check of a gap in the lesson itself: whether it passed}
    predicted: int  # predictions that were entered
    begun: bool  # something was written, run or predicted

    @property
    def solved(self) -> int:
        return sum(self.checks.values())

    @property
    def finished(self) -> bool:
        """All of its exercises and gaps are solved; a lesson without any is finished once it was begun."""
        return self.begun and all(self.checks.values()) and all(self.gaps.values())


def of(work: Path, course: Path = copies.COURSE) -> list[Lesson]:
    """Every lesson, in the order of the course, as it stands in the folder `work`."""
    begun = copies.begun(work)
    predicted = Counter(prediction.partition("/")[0] for prediction in progress.predictions())
    return [_lesson(number, name, work, begun, predicted[number]) for number, name in copies.lessons(course).items()]


def _lesson(number: str, name: str, work: Path, begun: set[str], predicted: int) -> Lesson:
    stem = Path(name).stem
    exercise = next(iter(sorted((work / "exercises" / stem).glob("*.ipynb"))), None)
    lesson, solved = _read(work / name), _read(exercise) if exercise else None
    found = MINUTES.search("\n".join(text for _, text in notebooks.sources(lesson)[:3])) if lesson else None
    inside = exercise and exercise.relative_to(work).as_posix()
    return Lesson(
        number=number,
        title=(lesson and notebooks.title(lesson)) or stem[3:].replace("_", " "),
        notebook=name,
        exercise=inside,
        minutes=int(found[1]) if found else None,
        checks=notebooks.checks(solved) if solved else {},
        gaps=notebooks.gaps(lesson) if lesson else {},
        predicted=predicted,
        begun=bool({name, inside} & begun or predicted),
    )


def _read(path: Path) -> notebooks.Notebook | None:
    if not path.is_file():
        return None
    with reading(path):
        return notebooks.read(path.read_bytes())


def next_one(lessons: list[Lesson]) -> int:
    """The place of the lesson to go on with: the last that was begun, or, where that is finished, the one after it."""
    begun = [place for place, lesson in enumerate(lessons) if lesson.begun]
    if not begun:
        return 0
    return min(begun[-1] + lessons[begun[-1]].finished, len(lessons) - 1)


# --- in words -------------------------------------------------------------------------------------------------------


def table(lessons: list[Lesson]) -> list[list[str]]:
    """Rows of cells, headings first: lesson, exercises and gaps solved, predictions entered.

    Of a title, what stands before the colon: a row fits into a terminal.
    """
    rows = [
        [
            f"{one.number} {one.title.partition(':')[0]}",
            share(one.checks),
            share(one.gaps),
            str(one.predicted or ""),
        ]
        for one in lessons
    ]
    total = [share(*(one.checks for one in lessons)), share(*(one.gaps for one in lessons))]
    return [
        ["lesson", "exercises solved", "gaps", "predictions"],
        *rows,
        ["in all", *total, str(sum(one.predicted for one in lessons))],
    ]


def share(*found: dict[str, bool]) -> str:
    """How many passed of all, "1 of 2"; "" where there is none."""
    passed = [one for part in found for one in part.values()]
    return f"{sum(passed)} of {len(passed)}" if passed else ""


def index(lessons: list[Lesson]) -> str:
    """The first page of a person's copy, in Markdown: where to go on, and every lesson with its exercises and progress."""
    place = next_one(lessons)
    here = lessons[place]
    around = [f"[{here.number} · {here.title}]({here.notebook})"]
    if here.exercise:
        around.append(f"[its exercises]({here.exercise})")
    if place > 0:
        around.append(
            f"previous: [{lessons[place - 1].number} · {lessons[place - 1].title}]({lessons[place - 1].notebook})"
        )
    if place + 1 < len(lessons):
        around.append(
            f"next: [{lessons[place + 1].number} · {lessons[place + 1].title}]({lessons[place + 1].notebook})"
        )
    lines = [
        "# Self-supervised vision, hands on",
        "",
        f"**{'Go on with' if here.begun or place else 'Begin with'}** " + " · ".join(around),
        "",
        "| | Lesson | To read | Exercises | Solved | Gaps | Predictions |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in lessons:
        exercises = f"[exercises {one.number}]({one.exercise})" if one.exercise else ""
        minutes = f"{one.minutes} minutes" if one.minutes else ""
        mark = "begun" if one.begun and not one.checks else share(one.checks)
        counts = f"{mark} | {share(one.gaps)} | {one.predicted or ''}"
        lines.append(f"| {one.number} | [{one.title}]({one.notebook}) | {minutes} | {exercises} | {counts} |")
    lines += [
        "",
        "To look something up: [reference](docs/reference.md) · [glossary](docs/glossary.md) · [the course](README.md) · "
        "[results](benchmarks/README.md) · [a cluster: a plan](docs/cluster.md).",
        "",
        "These are your own copies: write in them what you like. In a terminal, `sslcourse reset 02` gives you a fresh lesson",
        "02 and its exercises, and keeps yours in the folder `kept`; `sslcourse progress` brings this page up to date.",
        "A gap is a function in a lesson itself whose line is yours; what is solved is read from your notebooks as they were",
        "saved last.",
    ]
    return "\n".join(lines) + "\n"
