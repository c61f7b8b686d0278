"""A folder of pictures with the features that `embed` wrote: what is alike, odd, or worth labelling next, as a page."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sslcourse import explore
from sslcourse.classify import featurefile, pages
from sslcourse.console import shown
from sslcourse.data import decode, labels
from sslcourse.errors import CourseError
from sslcourse.files import begins_with, refuse_foreign, write_atomically
from sslcourse.transfer import clustering

TABLES = {  # what is looked for -> the columns of its table
    "search": ("path", "cosine"),
    "duplicates": ("path", "like", "cosine"),
    "outliers": ("path", "distance"),
    "clusters": ("path", "cluster", "distance"),
    "label-next": ("path", "order"),
}


@dataclass(frozen=True)
class Found:
    """What is on a page, and in a table.

    about     what it means
    numbers   int64 (n,), of the pictures on the page;  captions: a line for each
    rows      of the table, which may hold more than the page
    """

    title: str
    about: str
    numbers: Tensor
    captions: list[str]
    rows: list[tuple]


@dataclass(frozen=True)
class Heap:
    """features: float32 (N, d); names: of the N pictures, relative to the folder `top`."""

    features: Tensor
    names: tuple[str, ...]
    top: Path

    def number(self, path: Path) -> int:
        """The row of a picture, named from here or relative to the folder."""
        here = Path(os.path.realpath(path.parent), path.name)  # a folder may have several names, by links
        places = ((path.absolute(), self.top.absolute()), (here, os.path.realpath(self.top)))
        for name in (*(os.path.relpath(*place) for place in places), os.fspath(path)):
            if name in self.names:
                return self.names.index(name)
        raise CourseError(
            f"{path} is not among the {len(self.names)} pictures of these features; embed the folder again."
        )

    def like(self, number: int, count: int) -> Found:
        """The picture of a row, and those that are most like it."""
        x = explore.unit(self.features)
        similarity, found = explore.nearest(x, x[number : number + 1], count + 1)
        rows = [(self.names[i], s) for i, s in zip(found[0].tolist(), similarity[0].tolist(), strict=True)]
        captions = [f"{name}: {s:.2f}" for name, s in rows]
        about = "The nearest first, with the cosine of their features."
        return Found(f"Like {self.names[number]}", about, found[0], captions, rows)

    def duplicates(self, count: int) -> Found:
        pairs = explore.near_duplicates(self.features, most=count)
        numbers = torch.tensor([i for a, b, _ in pairs for i in (a, b)], dtype=torch.int64)
        captions = [f"{self.names[i]}: {s:.3f}, pair {n}" for n, (a, b, s) in enumerate(pairs, 1) for i in (a, b)]
        about = "Two and two, the most alike first, with the cosine of their features. They may be copies, or only look alike."
        rows = [(self.names[a], self.names[b], s) for a, b, s in pairs]
        return Found("Near-duplicates", about, numbers, captions, rows)

    def outliers(self, count: int) -> Found:
        distance = explore.oddness(self.features)
        order = distance.argsort(descending=True, stable=True)
        rows = [(self.names[i], distance[i].item()) for i in order.tolist()]  # of all pictures
        captions = [f"{name}: {far:.2f}" for name, far in rows[:count]]
        about = "The farthest from their ten nearest neighbours first, with 1 - cosine."
        return Found("Outliers", about, order[:count], captions, rows)

    def clusters(self, count: int, seed: int) -> Found:
        """The three pictures nearest to the middle of each k-means cluster, the largest cluster first."""
        x = explore.unit(self.features)
        found = clustering.k_means(x, count, seed=seed, starts=4)
        distance = (x - found.centres[found.labels]).norm(dim=1)  # (N,), to the middle of its own
        numbers, captions, rows = [], [], []
        for cluster in torch.bincount(found.labels, minlength=count).argsort(descending=True, stable=True).tolist():
            members = (found.labels == cluster).nonzero().flatten()
            for place, i in enumerate(members[distance[members].argsort()].tolist()):
                rows.append((self.names[i], cluster, distance[i].item()))
                if place < 3:
                    numbers.append(i)
                    captions.append(f"{self.names[i]}: cluster of {len(members)}")
        about = "Three pictures of each, the largest cluster first."
        return Found("Clusters", about, torch.tensor(numbers), captions, rows)

    def label_next(self, count: int, labelled: Path | None, how: str, seed: int) -> Found:
        taken = self._labelled(labelled) if labelled else None
        numbers = explore.choose(self.features, count, labelled=taken, how=how, seed=seed)
        captions = [self.names[i] for i in numbers.tolist()]
        rows = [(name, place) for place, name in enumerate(captions, 1)]
        return Found("To label next", f"In the order of their worth, chosen by {how}.", numbers, captions, rows)

    def _labelled(self, path: Path) -> Tensor:
        """Rows of the pictures to which a table gives a label, as `--labels` reads it. Raises CourseError where it gives none."""
        place = {os.path.join(self.top, name): i for i, name in enumerate(self.names)}
        found = labels.with_label(list(place), self.top, path)
        if not found:
            raise CourseError(
                f"{path} names none of the {len(self.names)} pictures of these features with a label, such as "
                f"{shown(self.names[0])}; give paths within {self.top}."
            )
        return torch.tensor(sorted(place[file] for file in found), dtype=torch.int64)

    def page(self, out: Path, found: Found) -> None:
        """Write pictures, with a line under each. Raises CourseError where none of them can be read."""
        files = [self.top / self.names[i] for i in found.numbers.tolist()]
        read = decode.decode(files, pages.SIDE, progress=False)
        if files and not len(read.files):
            raise CourseError(
                f"none of these {len(files)} pictures can be read, the first {shown(files[0])} ({read.skipped[0][1]}); give "
                "the folder that was embedded, as it was then."
            )
        images = torch.from_numpy(read.images)
        entries = [(images[place], found.captions[i]) for place, i in enumerate(read.files.tolist())]
        pages.write(out, found.title, found.about, entries)


def refuse_foreign_table(path: Path, what: str) -> None:
    """Raise CourseError where a file lies that isn't a table of `what`, a key of TABLES."""
    head = ",".join(TABLES[what])
    refuse_foreign(path, lambda path: begins_with(path, head), f"a table of {what} with the columns {head}")


def write_table(path: Path, what: str, rows: Sequence[tuple]) -> None:
    """A CSV file in UTF-8, a column for each name that TABLES has for `what`, numbers with six places."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(TABLES[what])
    table.writerows([f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    write_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"))


def load(features: Path, top: Path) -> Heap:
    """The features of a folder's pictures, from a file that `embed` wrote. Raises CourseError for any other, and for no folder."""
    if not top.is_dir():
        raise CourseError(f"{shown(top)} isn't a folder; give the one that was embedded.")
    rows, names = featurefile.read(features)
    if rows.dim() != 2:
        raise CourseError(
            f"{features} holds features of patches, and pictures are compared by one row each; embed them without --patches."
        )
    return Heap(rows, names, top)
