"""Several captions for every picture of pocket world: a small grammar that says things, colours, places and light.

`world_plan.caption` says one sentence of each picture, and always the same parts of it. People don't: of one picture they
say this or that. So a sentence here names one thing or two, at times without a colour, a background or the light, and in
an order that is drawn. Whatever it says is true. All of it depends on (mode, split, seed, index, number) alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from sslcourse.data import world, writing
from sslcourse.data.imageset import ImageSet
from sslcourse.data.world_plan import BACKDROPS, COLOUR_NAMES, LIGHTS, Plan, Thing, plan, stream
from sslcourse.data.world_things import CLASSES, Draws
from sslcourse.errors import CourseError, real_number, whole_number

WRITTEN = 0.2  # of pictures of one thing carry its name, in `gallery`
EACH = 5  # captions of a picture, as in COCO (Chen et al., 2015, 1504.00325)
FREE = tuple(CLASSES.index(name) for name in ("house", "car", "boat", "person", "balloon"))  # they come in every colour
APART = 0.12  # of the picture's side, between the middles of two things of which one is said to be left of the other
TOGETHER = ("beside", "and")  # said of two things whichever of them is named first
STARTS = ("", "", "", "a picture of", "a photo of", "there is")


@dataclasses.dataclass(frozen=True)
class Choice:
    """Pictures with one caption that fits each, and one of the same words that doesn't."""

    images: Tensor  # uint8 (N, 3, H, W)
    right: tuple[str, ...]
    wrong: tuple[str, ...]


def captioned(
    split: str = "train",
    n: int | None = None,
    *,
    each: int = EACH,
    seed: int = 0,
    mode: str = "crowd",
    size: int = 32,
    progress: bool = False,
) -> ImageSet:
    """The first n pictures of a split of pocket world, by day, with `each` captions instead of one.

    Raises CourseError for what pocket world doesn't have; scenes have one caption each, of `world.split`.
    """
    each = whole_number("captions of a picture", each, 1)
    if mode == "scenes":
        raise CourseError(
            "the grammar of captions speaks of objects and of crowds; world.split gives scenes with one each."
        )
    images = world.split(split, n, seed=seed, mode=mode, size=size, labels=True, progress=progress)
    told = tuple(
        tuple(sentence(plan(mode, split, seed, i), Draws(stream(mode, split, seed, "told", i, k))) for k in range(each))
        for i in range(len(images))
    )
    return dataclasses.replace(images, captions=told)


def gallery(
    split: str = "unlabeled",
    n: int = 6_000,
    *,
    each: int = EACH,
    written: float = WRITTEN,
    seed: int = 0,
    size: int = 32,
    progress: bool = False,
) -> ImageSet:
    """What lesson 16 trains on: n pictures of one thing and n of several, with captions, and without what else is known.

    written  the share of the first kind on which the name of the thing is written, as on pictures from the web
    """
    written = real_number("written, a share of the pictures,", written)
    parts = [
        captioned(split, n, each=each, seed=seed, mode=mode, size=size, progress=progress)
        for mode in ("objects", "crowd")
    ]
    draws = Draws(stream("objects", split, seed, "written"))
    names = [CLASSES[label] if draws.chance(written) else "" for label in parts[0].require_labels().tolist()]
    images = torch.cat([writing.write(parts[0].images, names), parts[1].images])
    return ImageSet(images, classes=CLASSES, name=f"captioned {split}", captions=parts[0].captions + parts[1].captions)


def sentence(chosen: Plan, draws: Draws) -> str:
    """One true sentence about a picture by day, such as "a photo of a red boat left of a car in warm light"."""
    main, other = chosen.things[0], _another(chosen, draws)
    told = [draws.pick(STARTS), _told(main, draws)]
    if other is not None:
        first, second = (main, other) if draws.chance(0.5) else (other, main)
        told = [told[0], _told(first, draws), draws.pick(_relations(first, second)), _told(second, draws)]
    if draws.chance(0.6):
        backdrop = BACKDROPS[chosen.background]
        told.append("on a background of confetti" if backdrop == "confetti" else f"on a {backdrop} background")
    if draws.chance(0.6):
        light = f"in {LIGHTS[False, 'photo'][chosen.lighting]}"
        told = [light, *told] if not told[0] and draws.chance(0.25) else [*told, light]
    return _spelled(" ".join(filter(None, told)))


def swapped(what: str, split: str = "test", n: int | None = None, *, seed: int = 0, size: int = 32) -> Choice:
    """Of the first n pictures of a split of crowds, those with two things that can be swapped, each with two captions.

    what  "colours": "a red boat beside a blue car" against "a blue boat beside a red car"; "places": "a red boat left of a blue
          car" against "a blue car left of a red boat"

    Both captions have the same words, and the wrong one is as likely in itself: the two things are of classes that come in
    every colour, and the picture has no other thing of these classes.
    """
    if what not in ("colours", "places"):
        raise CourseError(f"captions are swapped in their colours or in their places, and {what!r} was asked for.")
    images = world.split(split, n, seed=seed, mode="crowd", size=size, labels=True).images
    chosen, right, wrong = [], [], []
    for i in range(len(images)):
        draws = Draws(stream("crowd", split, seed, "swapped", i))
        for first, second in _pairs(plan("crowd", split, seed, i), draws):
            apart = [relation for relation in _relations(first, second) if relation not in TOGETHER]
            if what == "places" and not apart:
                continue
            relation = draws.pick(apart) if what == "places" else "beside"
            if what == "colours":
                other = (
                    dataclasses.replace(first, colour=second.colour),
                    dataclasses.replace(second, colour=first.colour),
                )
            else:
                other = (second, first)
            chosen.append(i)
            right.append(_spelled(f"{_named(first)} {relation} {_named(second)}"))
            wrong.append(_spelled(f"{_named(other[0])} {relation} {_named(other[1])}"))
            break
    return Choice(images[torch.tensor(chosen, dtype=torch.int64)], tuple(right), tuple(wrong))


def _another(chosen: Plan, draws: Draws) -> Thing | None:
    """A second thing to speak of, of another class than the main one and, mostly, at all."""
    others = [thing for thing in chosen.things[1:] if thing.label != chosen.things[0].label]
    return draws.pick(others) if others and draws.chance(0.75) else None


def _pairs(chosen: Plan, draws: Draws) -> Iterator[tuple[Thing, Thing]]:
    """Two things in an order that is drawn, of classes that nothing else in the picture has, and of two colours."""
    labels = [thing.label for thing in chosen.things]
    free = [thing for thing in chosen.things if thing.label in FREE and labels.count(thing.label) == 1]
    for one, other in ((a, b) for i, a in enumerate(free) for b in free[i + 1 :] if a.colour != b.colour):
        yield (one, other) if draws.chance(0.5) else (other, one)


def _relations(first: Thing, second: Thing) -> list[str]:
    """What is true of where the first is, seen from the second."""
    told = list(TOGETHER)
    across, down = second.x - first.x, second.y - first.y
    if abs(across) > APART:
        told.append("left of" if across > 0 else "right of")
    if abs(down) > APART:
        told.append("above" if down > 0 else "below")
    return told


def _told(thing: Thing, draws: Draws) -> str:
    """The thing with its colour, before it or after it, or without."""
    share = draws.random()
    name, colour = CLASSES[thing.label], COLOUR_NAMES[thing.colour]
    return f"a {colour} {name}" if share < 0.7 else f"a {name} in {colour}" if share < 0.85 else f"a {name}"


def _named(thing: Thing) -> str:
    return f"a {COLOUR_NAMES[thing.colour]} {CLASSES[thing.label]}"


def _spelled(text: str) -> str:
    """With "an" for "a" where a vowel follows."""
    words = text.split()
    return " ".join(
        "an" if word == "a" and after and after[0] in "aeiou" else word
        for word, after in zip(words, [*words[1:], ""], strict=True)
    )
