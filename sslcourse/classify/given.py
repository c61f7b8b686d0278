"""Labels of the pictures of a folder whose classes a model is asked about: what its answers are held against."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sslcourse.classify.measures import Answers
from sslcourse.console import shown
from sslcourse.data import labels, layout, walk
from sslcourse.data.imageset import effective_count
from sslcourse.errors import CourseError, suggest


@dataclass(frozen=True)
class Given:
    """label: name of a picture -> its class; group: name -> what it belongs to; notes: a sentence each on how they were read."""

    label: dict[str, str]
    group: dict[str, str]
    classes: tuple[str, ...]
    notes: tuple[str, ...]

    @classmethod
    def read(cls, source: Path, top: Path, names: Sequence[str], classes: tuple[str, ...]) -> Given:
        """The labels that a table gives to the pictures of the folder `top`, or its folders, where `source` is `top` itself.

        names     of the pictures, relative to the folder
        classes   that the model knows

        Raises CourseError as `labels.labelled` does, for another folder, where no picture has a label, and for a class that
        the model doesn't know.
        """
        found = _layout(source, top, names)
        label = {
            os.path.relpath(file, top): name
            for by_class in found.classes.values()
            for name, files in by_class.items()
            for file in files
        }
        if not label:
            raise CourseError(f"{shown(source)} gives none of the {len(names)} pictures of {shown(top)} a label.")
        if unknown := sorted(set(label.values()) - set(classes)):
            raise CourseError(
                f"{shown(source)} has classes that the model doesn't know: {walk.named(unknown)}"
                f"{suggest(unknown[0], classes)}; it knows {walk.named(classes)}, so spell them as it does, or give such "
                "pictures no label."
            )
        group = {os.path.relpath(file, top): name for file, name in found.groups.items()}
        return cls(label, group, classes, (*dict.fromkeys(found.notes), *found.warnings))

    def answers(self, rows: Sequence[Sequence[str]]) -> Answers:
        """rows: name, class ("" where there is none) and probability of each picture. Of those that have a label and a class."""
        rows = [row for row in rows if row[0] in self.label and row[1]]
        names, number = tuple(row[0] for row in rows), {name: c for c, name in enumerate(self.classes)}
        named = torch.tensor([[number[row[1]] for row in rows]], dtype=torch.int64)  # (1, N)
        confidence = torch.tensor([[float(row[2]) for row in rows]])  # (1, N)
        labels = torch.tensor([number[self.label[name]] for name in names], dtype=torch.int64)  # (N,)
        return Answers(named, confidence, labels, self.classes, names, self._independent(names))

    def _independent(self, names: Sequence[str]) -> int | None:
        if not names or not self.group:
            return None
        groups: dict[tuple, int] = {}
        for name in names:
            groups.setdefault(self._key(name), len(groups))
        return effective_count(torch.tensor([groups[self._key(name)] for name in names]))

    def _key(self, name: str) -> tuple:
        """The same for pictures of a group, and for no others: a group may be called as a file is."""
        return ("group", self.group[name]) if name in self.group else ("alone", name)


def _layout(source: Path, top: Path, names: Sequence[str]) -> layout.Layout:
    if not source.is_dir():
        return labels.labelled([os.path.join(top, name) for name in names], top, source)
    if not os.path.samefile(source, top):
        raise CourseError(
            f"{shown(source)} is another folder than {shown(top)}; labels are a CSV file with a path and a label in each row, "
            "or the folder of the pictures itself, where it is sorted by classes."
        )
    return layout.read(walk.walk(top)[0])
