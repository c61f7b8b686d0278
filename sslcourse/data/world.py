"""Pocket world: ten kinds of things in small pictures that this package draws itself, with everything known about them.

Picture i of a split depends on (mode, split, seed, i) alone, and looks the same in every domain and size; how many are
drawn, in which order and on which machine changes nothing. Splits share no picture.

    mode    "objects" one upright thing on a background without up and down; "scenes" a small thing on the ground under a
            sky; "crowd" two to six things that cover each other
    domain  "photo", "sketch" (pencil on paper), "night"
"""

from __future__ import annotations

import numbers
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcourse.data import cache as caches
from sslcourse.data.imageset import ImageSet
from sslcourse.data.world_batch import Arrays, draw_many
from sslcourse.data.world_draw import FACTS
from sslcourse.data.world_plan import (
    BACKDROPS,
    COLOUR_NAMES,
    DOMAINS,
    GROUNDS,
    LIGHTS,
    MODES,
    SKIES,
    SPLITS,
    WORLD_VERSION,
)
from sslcourse.data.world_things import ALL_KINDS, CLASSES
from sslcourse.errors import CourseError, suggest, whole_number

COUNTS = {"unlabeled": 10_000, "train": 5_000, "val": 1_000, "test": 2_000}
SIZES = (32, 64, 96)
WORTH_CACHING = 1_000  # 32x32 pictures: fewer are drawn again sooner than a file is worth

__all__ = ["CLASSES", "COUNTS", "DOMAINS", "MODES", "SIZES", "SPLITS", "WORLD_VERSION", "draw", "load", "split"]


def draw(
    split: str = "train",
    n: int | None = None,
    *,
    seed: int = 0,
    mode: str = "objects",
    domain: str = "photo",
    size: int = 32,
    progress: bool = False,
    workers: int | None = None,
    labels: bool | None = None,
) -> ImageSet:
    """The first n pictures of a split (by default as many as COUNTS says), drawn now.

    workers  processes that draw; None chooses, 1 draws in this one. Changes nothing but the time
    labels   True keeps everything that is known; False gives images alone. None (the default) means images alone for
             `unlabeled` and everything for the other splits
    """
    n, seed, size = _checked(split, n, seed, mode, domain, size)
    workers = None if workers is None else whole_number("workers", workers, 1)
    arrays = draw_many(mode, domain, split, seed, size, n, workers=workers, progress=progress)
    return _image_set(arrays, n, split, mode, domain, labels)


def split(
    name: str = "train",
    n: int | None = None,
    *,
    seed: int = 0,
    mode: str = "objects",
    domain: str = "photo",
    size: int = 32,
    progress: bool = False,
    workers: int | None = None,
    labels: bool | None = None,
    cache: bool = True,
) -> ImageSet:
    """What `draw` gives, kept in the cache: a later call, here or in another process, reads it.

    A set that is cached serves every smaller n, and takes the place of smaller ones.
    """
    n, seed, size = _checked(name, n, seed, mode, domain, size)
    options: dict[str, Any] = dict(seed=seed, mode=mode, domain=domain, size=size)
    held = _held(name, **options) if cache else {}
    enough = [count for count in held if count >= n]
    if not cache or (not enough and n * size**2 < WORTH_CACHING * 32**2):
        return draw(name, n, **options, progress=progress, workers=workers, labels=labels)
    count = min(enough, default=n)
    arrays = caches.load_or_make(
        _key(name, count, **options),
        lambda: draw_many(mode, domain, name, seed, size, count, workers=workers, progress=progress),
    )
    if not enough:
        _drop_others(held, n)
    return _image_set(arrays, n, name, mode, domain, labels)


def load(
    *,
    mode: str = "objects",
    domain: str = "photo",
    size: int = 32,
    seed: int = 0,
    counts: dict[str, int] | None = None,
    progress: bool = False,
    cache: bool = True,
) -> dict[str, ImageSet]:
    """All four splits: {"unlabeled": ImageSet, "train": ..., "val": ..., "test": ...}. `counts` changes how many of each."""
    counts = {**COUNTS, **(counts or {})}
    options: dict[str, Any] = dict(mode=mode, domain=domain, size=size, seed=seed, progress=progress, cache=cache)
    for name, n in counts.items():
        _checked(name, n, seed, mode, domain, size)
    return {name: split(name, n, **options) for name, n in counts.items()}


# --- the border --------------------------------------------------------------------------------------------------


def _checked(split: str, n: int | None, seed: int, mode: str, domain: str, size: int) -> tuple[int, int, int]:
    """n (or the usual number), seed and size; CourseError for anything that pocket world doesn't have."""
    for what, given, options in (("split", split, SPLITS), ("mode", mode, MODES), ("domain", domain, DOMAINS)):
        if given not in options:
            raise CourseError(
                f"pocket world has no {what} {given!r}{suggest(given, options)}; choose one of {', '.join(options)}."
            )
    if not isinstance(size, numbers.Integral) or size not in SIZES:
        raise CourseError(f"pocket world is drawn 32, 64 or 96 pixels wide, and {size!r} was asked for.")
    n = COUNTS[split] if n is None else whole_number("the number of pictures", n, 0)
    return n, whole_number("the seed", seed, 0), int(size)


def _image_set(arrays: Arrays, n: int, split: str, mode: str, domain: str, labels: bool | None) -> ImageSet:
    """The first n pictures, with or without what is known about them."""
    name = f"pocket world {mode}, {domain}, {split}"
    images = _tensor(arrays["images"][:n])
    if not (split != "unlabeled" if labels is None else labels):
        return ImageSet(images, classes=CLASSES, name=name)
    factors, factor_values = _factors(arrays["facts"][:n], mode, domain)
    captions = arrays["captions"].tobytes().decode().splitlines()[:n]
    return ImageSet(
        images,
        labels=factors["class"].clone(),
        classes=CLASSES,
        name=name,
        factors=factors,
        factor_values=factor_values,
        boxes=_tensor(arrays["boxes"][:n]).float(),
        box_labels=_tensor(arrays["box_labels"][:n]).long(),
        instances=_tensor(arrays["instances"][:n]),
        captions=tuple(captions),
    )


def _factors(facts: np.ndarray, mode: str, domain: str) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """Named factors, and the names of their categories; a factor that this mode doesn't have is left out."""
    scene = mode == "scenes"
    names = {
        "class": CLASSES,
        "kind": ALL_KINDS,
        "colour": COLOUR_NAMES,
        "mirror": ("facing right", "facing left"),
        "background": GROUNDS if scene else BACKDROPS,
        "lighting": LIGHTS[scene, domain],
        "domain": DOMAINS,
        **({"sky": SKIES} if scene else {}),
    }
    absent = {"sky"} - names.keys() | ({"count"} if mode != "crowd" else set())
    factors = {
        name: _tensor(facts[:, k]).long() if name in names or name == "count" else _tensor(facts[:, k]).clone()
        for k, name in enumerate(FACTS)
        if name not in absent
    }
    factors["domain"] = torch.full((len(facts),), DOMAINS.index(domain))
    return factors, names


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array if array.flags.writeable else array.copy())


# --- the cache ---------------------------------------------------------------------------------------------------


def _key(split: str, n: int, *, seed: int, mode: str, domain: str, size: int) -> dict[str, Any]:
    name = f"world{WORLD_VERSION}-{mode}-{domain}-{split}-{size}-seed{seed}-n{n}"
    return {"name": name, "world": WORLD_VERSION, "seed": seed, "mode": mode, "domain": domain, "size": size, "n": n}


def _held(split: str, **options: Any) -> dict[int, Any]:
    """Cached sets of a split: how many pictures -> file."""
    start = _key(split, 0, **options)["name"].removesuffix("n0")
    held = {}
    for path in caches.folder().glob(f"{start}n*{caches.ENDING}"):
        found = re.match(r"n(\d+)-", path.name.removeprefix(start))
        if found and caches.entry(_key(split, int(found[1]), **options)) == path:
            held[int(found[1])] = path
    return held


def _drop_others(held: dict[int, Any], n: int) -> None:
    """Delete smaller sets of the same split, and every set of another version of the world."""
    old = [p for p in caches.folder().glob(f"world*{caches.ENDING}") if not p.name.startswith(f"world{WORLD_VERSION}-")]
    for path in [*old, *(path for count, path in held.items() if count < n)]:
        try:
            path.unlink()
        except OSError:
            continue  # read-only, or in use on Windows: it stays until the cache is full
