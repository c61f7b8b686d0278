"""What is in picture i of pocket world: class, colour, place, light and background, decided by numbers before drawing.

A plan depends on (mode, split, seed, index) alone. Domain and size are ways of drawing the same plan, so picture i by day,
by night and in pencil shows the same thing in the same place. This module imports neither torch nor NumPy.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sslcourse.data.world_things import ALL_KINDS, CLASSES, COLOURS, KINDS, SHARES, Draws

WORLD_VERSION = 1  # changes whenever any byte of any picture does
MODES, DOMAINS, SPLITS = (
    ("objects", "scenes", "crowd"),
    ("photo", "sketch", "night"),
    ("unlabeled", "train", "val", "test"),
)
COLOUR_NAMES = tuple(COLOURS)
BACKDROPS = ("plain", "dotted", "striped", "checked", "bubbly", "confetti", "patchwork", "ringed")
GROUNDS = ("meadow", "beach", "snow", "field")
SKIES = ("clear", "cloudy")
PEN_NAMES = ("graphite", "charcoal", "sepia", "blue pencil")
LIGHTS = {  # (is it a scene, domain) -> what the four values of the factor "lighting" are called
    (False, "photo"): ("daylight", "warm light", "cool light", "dim light"),
    (True, "photo"): ("noon", "morning", "dusk", "dull light"),
    (False, "night"): ("moonlight", "lamplight", "starlight", "neon light"),
    (True, "night"): ("moonlight", "lamplight", "starlight", "neon light"),
    (False, "sketch"): PEN_NAMES,
    (True, "sketch"): PEN_NAMES,
}
CROWD = 6  # objects in a crowd, at most
FRONT = ("car", "boat")  # classes with a front, whose captions say which way they face


@dataclass(frozen=True)
class Thing:
    """One object: what it is, and where. Lengths are fractions of the picture's side."""

    label: int  # into CLASSES
    kind: int  # into ALL_KINDS
    colour: int  # into COLOUR_NAMES
    x: float  # of its middle
    y: float
    scale: float  # half its height
    stretch: float  # width relative to what is usual
    mirror: bool  # its front is to the left
    tilt: int  # degrees clockwise
    detail: int  # the seed of everything smaller


@dataclass(frozen=True)
class Plan:
    mode: str
    things: tuple[Thing, ...]  # the main one first; later ones lie behind earlier ones
    background: int  # into BACKDROPS, or in a scene into GROUNDS
    lighting: int
    sky: int  # into SKIES; scenes only
    horizon: float  # scenes only
    detail: int  # the seed of everything behind the objects


def stream(*parts: int | str) -> int:
    """A 64-bit seed that depends on every part."""
    text = f"pocket world {WORLD_VERSION}/" + "/".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def label_of(mode: str, split: str, seed: int, index: int) -> int:
    """The class of picture `index`: each run of ten pictures has every class once, in an order of its own."""
    draws = Draws(stream(mode, split, seed, "classes", index // len(CLASSES)))
    order = list(range(len(CLASSES)))
    for last in range(len(order) - 1, 0, -1):  # Fisher and Yates
        chosen = draws.whole(0, last)
        order[last], order[chosen] = order[chosen], order[last]
    return order[index % len(CLASSES)]


def plan(mode: str, split: str, seed: int, index: int) -> Plan:
    draws = Draws(stream(mode, split, seed, "picture", index))
    label = label_of(mode, split, seed, index)
    horizon = draws.between(0.42, 0.62)
    if mode == "objects":
        scale, room = draws.between(0.33, 0.42), 0.095
        things = [
            _thing(draws, label, draws.between(0.5 - room, 0.5 + room), draws.between(0.5 - room, 0.5 + room), scale)
        ]
    elif mode == "scenes":
        scale = draws.between(0.1, 0.15)
        foot = draws.between(horizon + 0.04, 0.92)
        things = [_thing(draws, label, draws.between(0.16, 0.84), foot - scale, scale, most_tilt=3)]
    else:
        things = _crowd(draws, label)
    backgrounds = GROUNDS if mode == "scenes" else BACKDROPS
    return Plan(
        mode,
        tuple(things),
        background=draws.whole(0, len(backgrounds) - 1),
        lighting=draws.whole(0, 3),
        sky=draws.whole(0, 1),
        horizon=horizon,
        detail=stream(mode, split, seed, "detail", index),
    )


def _thing(draws: Draws, label: int, x: float, y: float, scale: float, most_tilt: int = 6) -> Thing:
    kinds, share = tuple(KINDS[CLASSES[label]]), draws.random()
    kind = kinds[0 if share < SHARES[0] else 1 if share < SHARES[0] + SHARES[1] else 2]
    colour = draws.pick(KINDS[CLASSES[label]][kind][1])
    return Thing(
        label,
        ALL_KINDS.index(kind),
        COLOUR_NAMES.index(colour),
        x,
        y,
        scale,
        stretch=draws.between(0.85, 1.15),
        mirror=draws.chance(0.5),
        tilt=draws.whole(-most_tilt, most_tilt),
        detail=draws.whole(0, 2**40),
    )


def _crowd(draws: Draws, label: int) -> list[Thing]:
    """Two to six things, the main one in front and largest; none is covered so far that too little of it is seen."""
    wanted = draws.whole(2, CROWD)
    size = draws.between(0.2, 0.3) if wanted < 4 else draws.between(0.17, 0.23)
    things = [_thing(draws, label, draws.between(0.28, 0.72), draws.between(0.28, 0.72), size)]
    for attempt in range(60):
        if len(things) == wanted:
            break
        scale = size * draws.between(0.62, 0.95)
        x, y = draws.between(0.16, 0.84), draws.between(0.16, 0.84)
        # Squares around the things may overlap, but the one behind keeps half of its own free of each one in front.
        # (An attempt that fails often lowers the demand a little, so that there are always at least two things.)
        free = 0.55 if attempt < 40 else 0.3
        if all(_overlap(x, y, scale, other) <= 1 - free for other in things):
            things.append(_thing(draws, draws.whole(0, len(CLASSES) - 1), x, y, scale))
    return things


def _overlap(x: float, y: float, scale: float, other: Thing) -> float:
    """How much of the square around (x, y) the square around `other` covers, in 0..1."""
    across = min(x + scale, other.x + other.scale) - max(x - scale, other.x - other.scale)
    down = min(y + scale, other.y + other.scale) - max(y - scale, other.y - other.scale)
    return max(0.0, across) * max(0.0, down) / (2 * scale) ** 2


# --- captions ----------------------------------------------------------------------------------------------------


def caption(chosen: Plan, domain: str) -> str:
    """One true sentence, without a capital or a full stop: "a small red boat facing left on a striped background in dim light"."""
    light = LIGHTS[chosen.mode == "scenes", domain][chosen.lighting]
    if chosen.mode == "scenes":
        ground = ("on a meadow", "on the beach", "in the snow", "on a ploughed field")[chosen.background]
        sky = ("a clear sky", "a cloudy sky")[chosen.sky]
        where = f"{ground} under {sky}"
        when = {"noon": "at noon", "morning": "in the morning", "dusk": "at dusk"}.get(light, f"in {light}")
    else:
        backdrop = BACKDROPS[chosen.background]
        where = "on a background of confetti" if backdrop == "confetti" else f"on a {backdrop} background"
        when = f"in {light}"
    if domain == "sketch":
        return f"a {light} sketch of {_things(chosen, coloured=False)} {where}"
    return f"{_things(chosen, coloured=True)} {where} {when}"


def _things(chosen: Plan, coloured: bool) -> str:
    main = chosen.things[0]
    name = CLASSES[main.label]
    colour = COLOUR_NAMES[main.colour]
    words = [colour] if coloured and name != "person" else []
    if chosen.mode == "objects":
        words = [*(["small"] if main.scale < 0.36 else ["large"] if main.scale > 0.39 else []), *words]
    elif chosen.mode == "scenes":
        words = ["small", *words]
    told = _with_article(" ".join([*words, name])) + (f" in {colour}" if coloured and name == "person" else "")
    if name in FRONT:
        told += " facing left" if main.mirror else " facing right"
    if len(chosen.things) == 1:
        return told
    counts: dict[int, int] = {}
    for thing in chosen.things[1:]:
        counts[thing.label] = counts.get(thing.label, 0) + 1
    others = [_counted(label, count, main.label) for label, count in counts.items()]
    return ", ".join([told, *others[:-1]]) + f" and {others[-1]}"


def _counted(label: int, count: int, main: int) -> str:
    name, more = CLASSES[label], "more " if label == main else ""
    if count == 1:
        return f"another {name}" if label == main else _with_article(name)
    plural = {"person": "people", "cactus": "cacti"}.get(name, name + "s")
    return f"{('two', 'three', 'four', 'five')[count - 2]} {more}{plural}"


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
