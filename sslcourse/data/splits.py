"""Splits that can't leak: stratified by class, drawn from a seed, identical images never on both sides.

An image of the validation or test split that also stands among the training images, with or without its label, makes
every measured accuracy too good. Here *identical* means the same pixels at the size that is used; files with the same
bytes are a special case of it. Near-duplicates (a second photo of the same thing, another crop) are not looked for, but
images that are said to belong together (`ImageSet.groups`) stay on one side.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sslcourse.data.imageset import ImageSet
from sslcourse.data.stream import ImageFiles
from sslcourse.device import derive_seed, generator
from sslcourse.errors import CourseError

NAMES = ("unlabeled", "train", "val", "test")
ALL_THREE = (3, 1, 1)  # train : val : test, where a source has one set of images
ONE_MORE = (9, 1)  # train : the split that a source lacks


class Note(str):
    """A sentence on how splits came about that says what it is `about`, so that nobody has to read its words to leave it out.

    about  "a cut": which images are val or test;  "unlabeled": which ones are pretrained on, or how they are read
    """

    about: str

    def __new__(cls, sentence: str, about: str = "") -> Note:
        note = super().__new__(cls, sentence)
        note.about = about
        return note


def without(notes: Iterable[str], *about: str) -> tuple[str, ...]:
    """The notes that are about none of these."""
    return tuple(note for note in notes if getattr(note, "about", None) not in about)


@dataclass(frozen=True)
class Splits:
    """Four sets of images that share none, except that `unlabeled` may be `train` without its labels.

    unlabeled  images to pretrain on; it has no labels to read. Where they don't fit into memory, they are streamed
    train      labelled images, from which few-label sets are drawn
    val        for choices;  test: touched once, at the end
    notes      how the splits came about, one sentence each
    warnings   what went wrong, one sentence each: files that were skipped, images that were dropped. `load` says them
               on standard error

    A source without any labels fills `unlabeled` alone; the other three are then empty and have no labels.
    """

    unlabeled: ImageSet | ImageFiles
    train: ImageSet
    val: ImageSet
    test: ImageSet
    name: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def notes_of_all(self) -> tuple[str, ...]:
        """`notes` for who takes the labelled images of all splits together (`classify.fitting.together`)."""
        return without(self.notes, "a cut", "unlabeled")

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every image, in pixels."""
        return self.unlabeled.size

    def __str__(self) -> str:
        counts = ", ".join(f"{len(getattr(self, name)):,} {name}" for name in NAMES)
        return f"{self.name}: {counts}; {len(self.classes)} classes, {self.size[1]}x{self.size[0]} pixels"


class Leak(NamedTuple):
    """Image `index` of `split` is also image `other_index` of `other`, a split that is measured on."""

    split: str
    index: int
    other: str
    other_index: int


def find_leaks(splits: Splits) -> list[Leak]:
    """Every image of val that is also in test, and every one of train or unlabeled that is also in val or test."""
    return _leaks({name: fingerprints(getattr(splits, name).images) for name in NAMES})


def _leaks(prints: dict[str, list]) -> list[Leak]:
    """prints: split -> for each image, something that two images share where one may not be beside the other."""
    found, measured = [], {}
    for name in ("test", "val", "train", "unlabeled"):
        for i, content in enumerate(prints.get(name, ())):
            if content in measured and measured[content][0] != name:
                found.append(Leak(name, i, *measured[content]))
            elif name in ("test", "val"):
                measured.setdefault(content, (name, i))
    return found


def fingerprints(images: Tensor) -> list[bytes]:
    """One 16-byte digest per image of uint8 (N, C, H, W): equal where all pixels are equal."""
    pixels = np.ascontiguousarray(images.numpy())
    return [hashlib.sha256(image.data).digest()[:16] for image in pixels]


def groups_of(prints: Sequence[bytes]) -> Tensor:
    """int64 (N,): the same number for the same content, counted from 0 in order of first appearance."""
    numbers: dict[bytes, int] = {}
    return torch.tensor([numbers.setdefault(content, len(numbers)) for content in prints], dtype=torch.int64)


def joined(*groupings: Tensor) -> Tensor:
    """The finest grouping in which whatever any of these puts together is together: int64 (N,) each, and the result.

    Two images are in one group where a chain of shared groups leads from one to the other.
    """
    groups = groupings[0].unique(return_inverse=True)[1]
    while True:  # the smallest number that the chains reach; two rounds as a rule
        before = groups
        for other in groupings:
            number = other.unique(return_inverse=True)[1]
            least = torch.full((len(number),), len(number)).scatter_reduce(0, number, groups, "amin")
            groups = least[number]
        if torch.equal(groups, before):
            return groups.unique(return_inverse=True)[1]


def apportion(count: int, parts: Sequence[int]) -> list[int]:
    """`count` things divided in the ratio of `parts`, by largest remainder; none gets nothing while it can be helped."""
    whole = sum(parts)
    sizes = [count * part // whole for part in parts]
    by_remainder = sorted(range(len(parts)), key=lambda i: -(count * parts[i] % whole))  # stable: the first one wins
    for i in by_remainder[: count - sum(sizes)]:
        sizes[i] += 1
    while count >= len(parts) and 0 in sizes:
        sizes[sizes.index(max(sizes))] -= 1
        sizes[sizes.index(0)] += 1
    return sizes


def stratified_split(labels: Tensor, parts: Sequence[int], seed: int, groups: Tensor | None = None) -> list[Tensor]:
    """Divide range(N) in the ratio of `parts`, class by class.

    labels  int64 (N,)
    parts   as many positive integers as splits are wanted: (3, 1, 1) is 60%, 20% and 20%
    groups  int64 (N,); images of one group stay together. A group counts once, for the class of its first image

    Returns one int64 tensor of sorted indices per part; together they hold every index once.
    """
    groups = torch.arange(len(labels)) if groups is None else groups
    _, first, member = np.unique(groups.numpy(), return_index=True, return_inverse=True)
    class_of_group = labels[torch.from_numpy(first)]
    part_of_group = torch.zeros(len(first), dtype=torch.int64)
    for label in class_of_group.unique().tolist():
        members = (class_of_group == label).nonzero().flatten()
        shuffled = members[torch.randperm(len(members), generator=generator(derive_seed(seed, "split", label)))]
        sizes = torch.tensor(apportion(len(members), parts))
        part_of_group[shuffled] = torch.repeat_interleave(torch.arange(len(parts)), sizes)
    part = part_of_group[torch.from_numpy(member.reshape(-1))]
    return [(part == i).nonzero().flatten() for i in range(len(parts))]


def complete(
    name: str,
    train: ImageSet,
    *,
    val: ImageSet | None = None,
    test: ImageSet | None = None,
    unlabeled: ImageSet | None = None,
    seed: int = 0,
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> Splits:
    """The four splits from those that a source has.

    Images that are also in a measured split are dropped from the other one, with a warning. Then val, test or both, where missing,
    are cut from train, and unlabeled, where missing, is what remains of train without the labels.
    """
    sets = {"unlabeled": unlabeled, "train": train, "val": val, "test": test}
    sets = {key: images for key, images in sets.items() if images is not None}
    prints = {key: fingerprints(images.images) for key, images in sets.items()}
    warnings = [*warnings, *_drop_leaks(name, sets, prints), *_drop_torn_groups(name, sets, prints)]

    notes = list(notes)
    missing = [key for key in ("val", "test") if key not in sets]
    if missing:
        whole = sets["train"]
        parts = ALL_THREE if len(missing) == 2 else ONE_MORE
        cut = stratified_split(whole.require_labels(), parts, seed, together(whole, prints["train"]))
        for key, indices in zip(["train", *missing], cut, strict=True):
            sets[key] = whole.select(indices)
        shares = " and ".join(f"{key} ({part / sum(parts):.0%})" for key, part in zip(missing, parts[1:], strict=True))
        for label, class_name in enumerate(whole.classes):
            if any(label not in sets[key].require_labels() for key in ("train", *missing)):
                notes.append(
                    f"class {class_name!r} has too few different images, or groups of them, to be in every split."
                )
        notes.append(Note(f"{shares} cut from the training images by seed {seed}, class by class.", "a cut"))
    if "unlabeled" not in sets:
        sets["unlabeled"] = sets["train"].without_labels()
        notes.append(Note("unlabeled is the training images without their labels.", "unlabeled"))
    return Splits(**sets, name=name, notes=tuple(notes), warnings=tuple(warnings))


def together(images: ImageSet, prints: Sequence[bytes] | None = None) -> Tensor:
    """int64 (N,): what must stay on one side, images with the same pixels (`prints`, computed where not given) or group."""
    alike = groups_of(fingerprints(images.images.cpu()) if prints is None else prints)
    return alike if images.groups is None else joined(alike, images.groups.cpu())


def _drop_torn_groups(name: str, sets: dict[str, ImageSet], prints: dict[str, list[bytes]]) -> list[str]:
    """Take labelled images whose group is also in a split that is measured on out of the other split, likewise.

    Images to pretrain on stay: they bring no labels.
    """
    labelled = {key: part for key, part in sets.items() if key != "unlabeled" and part.groups is not None}
    leaks = _leaks({key: part.groups.tolist() for key, part in labelled.items()})
    return _drop(leaks, name, sets, prints, "of a group that is also in")


def _drop_leaks(name: str, sets: dict[str, ImageSet], prints: dict[str, list[bytes]]) -> list[str]:
    """Take leaking images out of `sets` and `prints`, in place; one sentence for every pair of splits that shared any."""
    return _drop(_leaks(prints), name, sets, prints, "also in")


def _drop(
    leaks: list[Leak], name: str, sets: dict[str, ImageSet], prints: dict[str, list[bytes]], why: str
) -> list[str]:
    """Take images out of `sets` and `prints`, in place; one sentence for every pair of splits that shared any."""
    sentences = []
    for split in {leak.split: None for leak in leaks}:
        dropped = {leak.index for leak in leaks if leak.split == split}
        kept = [i for i in range(len(sets[split])) if i not in dropped]
        if not kept:
            raise CourseError(
                f"every image of {split} in {name} is {why} a split that is measured on, so nothing could be "
                f"learnt honestly; give {split} images of its own."
            )
        sets[split] = sets[split].select(torch.tensor(kept))
        prints[split] = [prints[split][i] for i in kept]
    for (split, other), count in Counter((leak.split, leak.other) for leak in leaks).items():
        images = "image was" if count == 1 else "images were"
        sentences.append(f"{count:,} {images} dropped from {split}, being {why} {other}.")
    return sentences
