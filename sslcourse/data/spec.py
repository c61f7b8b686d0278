"""Data sets by name: `load("world")`, `load("cifar10")`, `load("folder:photos")`.

world                pocket world, drawn on this machine; with a mode, a domain and a size in any order, such as
                     world:scenes, world:crowd,night or world:sketch,64
digits               scikit-learn's digits; with a size, such as digits:64
cifar10, stl10, fashion-mnist, imagenette, flowers
                     downloaded on first use; with a size, such as stl10:64
folder:PATH          your own images (see sslcourse/data/folder.py)
huggingface:PATH     a directory of Hugging Face's `datasets` (see sslcourse/data/huggingface.py)
shards:PATTERN       tar files of images, in WebDataset's layout (see sslcourse/data/shards.py)
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from sslcourse.console import say
from sslcourse.data import sources, world
from sslcourse.data.folder import load_folder
from sslcourse.data.huggingface import load_huggingface
from sslcourse.data.options import LoadOptions
from sslcourse.data.photos import PHOTOS, load_photos
from sslcourse.data.shards import load_shards
from sslcourse.data.splits import Splits, without
from sslcourse.data.stl10 import load_stl10
from sslcourse.errors import CourseError, suggest
from sslcourse.paths import typed

SPECS = (
    "world",
    "digits",
    "cifar10",
    "stl10",
    "fashion-mnist",
    "imagenette",
    "flowers",
    "folder:PATH",
    "huggingface:PATH",
    "shards:PATTERN",
)
KINDS = tuple(spec.partition(":")[0] for spec in SPECS)
WITH_PATH = {"folder": "a folder of images", "huggingface": "a directory of Hugging Face's datasets"}
WITH_PATH["shards"] = "tar files"
LISTED = {  # kinds whose images can stay on disk, and what loads them
    "stl10": load_stl10,
    **dict.fromkeys(PHOTOS, load_photos),
    "folder": load_folder,
    "huggingface": load_huggingface,
    "shards": load_shards,
}

__all__ = ["KINDS", "SPECS", "Spec", "Splits", "load", "parse"]


@dataclass(frozen=True)
class Spec:
    """A data specification, taken apart. `mode` and `domain` are pocket world's; `path` is a folder's or directory's."""

    kind: str
    size: int | None = None
    mode: str = "objects"
    domain: str = "photo"
    path: str = ""


def load(
    spec: str | os.PathLike,
    *,
    size: int | None = None,
    seed: int = 0,
    cache: bool = True,
    progress: bool = True,
    stream: bool | None = None,
    labels: str | os.PathLike | None = None,
) -> Splits:
    """The four splits of a data set: unlabeled, train, val and test.

    spec   see above
    size   height and width of the images in pixels, where `spec` doesn't say; by default each source's own
    labels a CSV file with the classes of the files in a folder (see sslcourse/data/labels.py)

    seed, cache, progress and stream are explained in `LoadOptions`; what streams is stl10, imagenette, flowers, folder,
    huggingface and shards. What went wrong on the way (files skipped, images dropped) is said on standard error and stays in
    `warnings`. Raises CourseError for an unknown spec, and for whatever is wrong with what it names.
    """
    parsed = parse(spec)
    table = None if labels is None else typed(labels)
    options = LoadOptions(_agreed_size(spec, parsed.size, size), seed, cache, progress, stream, table)
    if stream and parsed.kind not in LISTED:
        able = _listed(spec for spec in SPECS if spec.partition(":")[0] in LISTED)
        raise CourseError(f"only photographs can be streamed from disk, and data {spec!r} was asked for; use {able}.")
    if table is not None and parsed.kind != "folder":
        raise CourseError(f"labels from a file are for folder:PATH, and data {spec!r} was asked for; leave them out.")
    if parsed.kind in LISTED:
        splits = LISTED[parsed.kind](parsed.path or parsed.kind, options)
    elif parsed.kind == "world":
        splits = _load_world(parsed, options)
    elif parsed.kind == "digits":
        splits = sources.load_digits(options)
    else:
        splits = sources.load_download(parsed.kind, options)
    for line in splits.warnings:
        say(f"{splits.name}: {line}")
    return splits


def load_labelled(spec: str | os.PathLike, **given: Any) -> Splits:
    """`load` for who asks for labelled images alone: of photographs, those without a label aren't read.

    given  size, seed, cache, progress and labels, as `load` takes them
    """
    splits = load(spec, stream=parse(spec).kind in LISTED or None, **given)
    return replace(splits, notes=without(splits.notes, "unlabeled"))


def parse(spec: str | os.PathLike) -> Spec:
    """Take a specification apart. Raises CourseError for one that can't be understood, with the nearest that can."""
    if isinstance(spec, os.PathLike):
        return Spec("folder", path=os.fsdecode(spec))
    if not isinstance(spec, str):
        raise CourseError(
            f"a data set is named by a word such as 'world', and {spec!r} was given; use {_listed(SPECS)}."
        )
    before, _, path = spec.strip().partition(":")
    if before.strip().lower() in WITH_PATH and path.strip():
        return Spec(before.strip().lower(), path=path.strip())
    first, *words = (word.strip().lower() for word in re.split("[:,]", spec))
    kind = _kind(spec, first)
    if kind == "world":
        return _world(spec, words)
    sizes = [int(word) for word in words if _is_number(word)]
    if len(sizes) < len(words) or len(words) > 1:
        raise CourseError(f"{spec!r} can't be understood; after {kind} there can only be a size, such as {kind}:64.")
    return Spec(kind, *sizes)


def _kind(spec: str, word: str) -> str:
    plain = {kind.replace("-", ""): kind for kind in KINDS}
    found = plain.get(re.sub("[-_ ]", "", word))
    if found in WITH_PATH:
        raise CourseError(f"{found}: needs the path of {WITH_PATH[found]}, such as {found}:photos.")
    if found:
        return found
    near = f" (did you mean folder:{spec}?)" if word and _is_folder(spec) else suggest(word, KINDS)
    raise CourseError(f"data {spec!r} is unknown{near}; use {_listed(SPECS)}.")


def _is_folder(spec: str) -> bool:
    with contextlib.suppress(CourseError):
        return typed(spec).is_dir()
    return False


def _world(spec: str, words: list[str]) -> Spec:
    chosen: dict[str, str | int] = {}
    kinds = {**dict.fromkeys(world.MODES, "mode"), **dict.fromkeys(world.DOMAINS, "domain")}
    for word in words:
        name = "size" if _is_number(word) else kinds.get(word)
        if name is None:
            raise CourseError(
                f"{word!r} in data {spec!r} is unknown{suggest(word, kinds)}; "
                f"after world can come {_listed(kinds)}, and a size such as 64."
            )
        if name in chosen:
            raise CourseError(f"{spec!r} asks for two values of {name}, {chosen[name]} and {word}; keep one.")
        chosen[name] = int(word) if name == "size" else word
    return Spec("world", **chosen)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 10


def _agreed_size(spec: object, inside: int | None, beside: int | None) -> int | None:
    """The size that was asked for, within the specification or beside it."""
    if inside is not None and beside is not None and inside != beside:
        raise CourseError(f"{spec!r} asks for size {inside}, and size {beside} was asked for beside it; keep one.")
    return beside if inside is None else inside


def _listed(words: Iterable[object]) -> str:
    *head, last = map(str, words)
    return f"{', '.join(head)} or {last}"


def _load_world(spec: Spec, options: LoadOptions) -> Splits:
    usual = {"mode": "objects", "domain": "photo", "size": world.SIZES[0]}
    chosen = {"mode": spec.mode, "domain": spec.domain, "size": options.size or usual["size"]}
    words = [str(chosen[name]) for name in usual if chosen[name] != usual[name]]
    sets = world.load(**chosen, seed=options.seed, cache=options.cache, progress=options.progress)
    return Splits(**sets, name=f"world:{','.join(words)}" if words else "world")
