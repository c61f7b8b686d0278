"""From a plan to pixels: backgrounds, the object on top, and the three domains (by day, in pencil, by night).

Objects are drawn at four times the size and averaged down. Arithmetic on pixels is in whole numbers, so that every
machine makes the same bytes. This module doesn't import torch: processes that only draw start quickly.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from sslcourse.data.world_pen import Colour, Inks, Pen, Sheet
from sslcourse.data.world_plan import BACKDROPS, CROWD, GROUNDS, Plan, caption, plan
from sslcourse.data.world_things import COLOURS, KINDS, Draws, darker, lighter

OUTLINE = (40, 36, 48)  # a dark line around every object
FINE = 4  # pixels of the objects' sheet per pixel of the picture, each way
COARSE = 2  # the same for what is behind: a little softer, and sooner drawn
FACTS = ("class", "kind", "colour", "x", "y", "scale", "tilt", "mirror", "background", "lighting", "sky", "count")
# red, green and blue gain in 1/256 of each value of the factor "lighting"
DAYLIGHT = {
    False: ((256, 256, 256), (276, 248, 208), (222, 248, 280), (176, 176, 182)),
    True: ((262, 262, 262), (270, 250, 222), (262, 214, 190), (206, 212, 220)),
}
NIGHT = ((118, 138, 204), (182, 142, 98), (90, 100, 150), (164, 98, 184))
PENCILS = ((74, 74, 82), (34, 34, 38), (112, 72, 44), (52, 76, 138))

PALETTE = tuple(COLOURS.values())
_DRAWINGS = [drawing for kinds in KINDS.values() for drawing, _ in kinds.values()]  # in the order of ALL_KINDS

Picture = tuple[np.ndarray, np.ndarray]


def picture(chosen: Plan, domain: str, size: int) -> Picture:
    """One picture: uint8 (size, size, 3), and whose pixels they are: uint8 (size, size), 0 or the object's number."""
    inks = Inks()
    inks.get(OUTLINE)  # becomes ink 1
    behind = _scene(inks, chosen, size) if chosen.mode == "scenes" else _backdrop(inks, chosen, size)
    sheet = Sheet(size * FINE)
    for number in range(len(chosen.things), 0, -1):
        thing = chosen.things[number - 1]
        draws = Draws(thing.detail)
        pen = Pen(
            sheet, inks, owner=number, centre=(thing.x, thing.y), scale=thing.scale, stretch=thing.stretch,
            mirror=thing.mirror, tilt=thing.tilt,
        )  # fmt: skip
        _DRAWINGS[thing.kind](pen, _varied(PALETTE[thing.colour], draws), draws)
    front = sheet.filled()
    front, owners = _outlined(front, np.array(inks.owners, np.uint8)[front], size * 2 // 32)  # (4s, 4s) each
    cover = _sum_blocks((owners > 0).view(np.uint8))  # (s, s) in 0..16
    render = {"photo": _photo, "sketch": _sketch, "night": _night}[domain]
    return render(chosen, inks, behind, front, cover, size), _instances(owners, cover, len(chosen.things))


def facts(chosen: Plan) -> list[float]:
    """The plan's factors, those of the main object, in the order of FACTS."""
    t = chosen.things[0]
    return [
        t.label, t.kind, t.colour, t.x, t.y, t.scale, t.tilt, t.mirror,
        chosen.background, chosen.lighting, chosen.sky, len(chosen.things),
    ]  # fmt: skip


def draw_range(
    mode: str, domain: str, split: str, seed: int, size: int, start: int, stop: int
) -> dict[str, np.ndarray]:
    """Pictures start..stop-1 as arrays, with everything that is known about them; captions as UTF-8 lines."""
    n, most = stop - start, CROWD if mode == "crowd" else 1
    images, instances = np.empty((n, 3, size, size), np.uint8), np.empty((n, size, size), np.uint8)
    boxes, box_labels = np.zeros((n, most, 4), np.uint8), np.full((n, most), -1, np.int8)
    known, captions = np.empty((n, len(FACTS)), np.float32), []
    for i in range(n):
        chosen = plan(mode, split, seed, start + i)
        pixels, owner = picture(chosen, domain, size)
        images[i], instances[i] = pixels.transpose(2, 0, 1), owner
        for k, thing in enumerate(chosen.things):
            boxes[i, k], box_labels[i, k] = _box(owner == k + 1), thing.label
        known[i] = facts(chosen)
        captions.append(caption(chosen, domain))
    text = np.frombuffer("".join(line + "\n" for line in captions).encode(), np.uint8)
    return {
        "images": images, "instances": instances, "boxes": boxes, "box_labels": box_labels, "facts": known, "captions": text,
    }  # fmt: skip


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """left, top, right, bottom of a mask (H, W), right and bottom one past the last pixel; zeros for an empty mask."""
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _sum_blocks(fine: np.ndarray) -> np.ndarray:
    """Sums over blocks of 4x4: uint8 (4s, 4s) with values up to 15 -> uint8 (s, s)."""
    rows = fine[0::4] + fine[1::4] + fine[2::4] + fine[3::4]
    return rows[:, 0::4] + rows[:, 1::4] + rows[:, 2::4] + rows[:, 3::4]


def _outlined(front: np.ndarray, owners: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Put a line of ink 1 around every object, over what is behind it; the line belongs to the object."""
    depth = owners - np.uint8(1)  # 0 in front, 255 where there is no object
    near = depth
    for axis in (0, 1):
        wide = near.copy()
        for step in range(1, width + 1):
            before, after = [slice(None)] * 2, [slice(None)] * 2
            before[axis], after[axis] = slice(None, -step), slice(step, None)
            before, after = tuple(before), tuple(after)
            np.minimum(wide[before], near[after], out=wide[before])
            np.minimum(wide[after], near[before], out=wide[after])
        near = wide
    return np.where(near < depth, np.uint8(1), front), near + np.uint8(1)


def _instances(owners: np.ndarray, cover: np.ndarray, count: int) -> np.ndarray:
    """A pixel belongs to objects when at least half of it does, and then to the one that has most of it."""
    if count == 1:
        return (cover >= 8).view(np.uint8)
    parts = np.stack([_sum_blocks((owners == k).view(np.uint8)) for k in range(1, count + 1)])  # (count, s, s)
    return np.where(cover >= 8, parts.argmax(0) + 1, 0).astype(np.uint8)


def _varied(colour: Colour, draws: Draws) -> Colour:
    by = draws.whole(-22, 22)
    return tuple(min(255, max(0, c + by + draws.whole(-12, 12))) for c in colour)


# --- what is behind ----------------------------------------------------------------------------------------------


def _backdrop(inks: Inks, chosen: Plan, size: int) -> np.ndarray:
    """A background with no up and down: whatever is drawn is turned by a random symmetry of the square."""
    draws = Draws(chosen.detail)
    base, second = _ground_colours(chosen, draws)
    ground = inks.get(base)
    sheet = Sheet(size * COARSE)
    pen = Pen(sheet, inks)
    ink = pen.ink(second)
    name = BACKDROPS[chosen.background]
    pitch = draws.between(0.3, 0.6)
    shift_u, shift_v = draws.between(0, pitch), draws.between(0, pitch)
    steps = range(-1, int(2 / pitch) + 2)
    if name == "dotted":
        for a in steps:
            for b in steps:
                pen.disc(-1 + a * pitch + shift_u, -1 + b * pitch + shift_v, pitch * 0.27, ink)
    elif name == "striped":
        slope = draws.pick((0.0, 0.5, 1.0))
        for a in range(-8, len(steps) + 8):
            u = -1 + a * pitch + shift_u
            pen.shape(
                [(u, -1.1), (u + pitch / 2, -1.1), (u + pitch / 2 + slope * 2.2, 1.1), (u + slope * 2.2, 1.1)], ink
            )
    elif name == "checked":
        for a in steps:
            for b in steps:
                if (a + b) % 2:
                    u, v = -1 + a * pitch + shift_u, -1 + b * pitch + shift_v
                    pen.box(u, v, u + pitch, v + pitch, ink)
    elif name == "bubbly":
        for k in range(12):
            tone = ink if k % 2 else pen.ink(lighter(second, 0.2))
            pen.disc(draws.between(-1, 1), draws.between(-1, 1), draws.between(0.1, 0.36), tone)
    elif name == "confetti":
        tones = [pen.ink(draws.pick(PALETTE)) for _ in range(3)] + [ink]
        for k in range(26):
            u, v, turn = draws.between(-1, 1), draws.between(-1, 1), draws.whole(0, 179)
            pen.oval(u, v, 0.1, 0.04, tones[k % 4], turn=turn)
    elif name == "patchwork":
        tones = [ink, pen.ink(darker(base, 0.12)), pen.ink(lighter(second, 0.2))]
        for k in range(6):
            pen.shape([(draws.between(-1.3, 1.3), draws.between(-1.3, 1.3)) for _ in range(4)], tones[k % 3])
    elif name == "ringed":
        u, v = draws.between(-1, 1), draws.between(-1, 1)
        for k in range(9, 0, -1):
            pen.disc(u, v, pitch * 0.6 * k, ink if k % 2 else pen.ink(base))
    _distractors(pen, draws)
    turn = draws.whole(0, 7)
    turned = np.rot90(sheet.filled(ground), turn // 2)
    return np.ascontiguousarray(turned[:, ::-1] if turn % 2 else turned)


def _distractors(pen: Pen, draws: Draws) -> None:
    """A few small shapes that mean nothing."""
    for _ in range(draws.whole(0, 5)):
        ink = pen.ink(_varied(draws.pick(PALETTE), draws))
        u, v, size, turn = draws.between(-1, 1), draws.between(-1, 1), draws.between(0.06, 0.16), draws.whole(0, 359)
        form = draws.whole(0, 2)
        if form == 0:
            pen.disc(u, v, size, ink)
        elif form == 1:
            pen.oval(u, v, size * 1.5, size * 0.5, ink, turn=turn)
        else:
            corners = (
                ((0.0, -1.0), (0.87, 0.5), (-0.87, 0.5)) if draws.chance(0.5) else ((-1, -1), (1, -1), (1, 1), (-1, 1))
            )
            pen.shape([(u + size * a, v + size * b) for a, b in corners], ink)


def _ground_colours(chosen: Plan, draws: Draws) -> tuple[Colour, Colour]:
    """Two neighbouring tones, muted, that the main object's colour stands out from."""
    main = PALETTE[chosen.things[0].colour]
    while True:
        pale, mute = draws.between(0.0, 0.6), draws.between(0.35, 0.85)
        hue = draws.pick(PALETTE)
        gray = draws.whole(90, 225)
        base = lighter(tuple(int(gray * mute + c * (1 - mute)) for c in hue), pale)
        if sum(abs(a - b) for a, b in zip(base, main, strict=True)) > 130:
            break
    by = draws.between(0.07, 0.18)
    return base, (darker(base, by) if draws.chance(0.5) else lighter(base, by * 1.6))


def _scene(inks: Inks, chosen: Plan, size: int) -> np.ndarray:
    """Sky above, ground below: the horizon tells which way is up, whatever stands on the ground."""
    draws = Draws(chosen.detail)
    sheet = Sheet(size * COARSE)
    pen = Pen(sheet, inks)
    line = 2 * chosen.horizon - 1
    dusk, dull = chosen.lighting == 2, chosen.lighting == 3
    top, low = ((72, 134, 214), (176, 214, 240))
    if dusk:
        top, low = (92, 84, 152), (250, 176, 116)
    elif dull:
        top, low = (128, 142, 158), (190, 198, 206)
    elif chosen.lighting == 1:
        top, low = (106, 160, 220), (248, 220, 190)
    bands = 7
    for k in range(bands):
        tone = tuple((a * (bands - 1 - k) + b * k) // (bands - 1) for a, b in zip(top, low, strict=True))
        pen.box(-1.1, -1.1 + (line + 1.1) * k / bands, 1.1, line + 0.05, pen.ink(tone))
    if not dull:
        u, v = draws.between(-0.8, 0.8), draws.between(-0.85, line - 0.25 if dusk else -0.45)
        pen.disc(u, v, 0.17, pen.ink(lighter(low, 0.4)))
        pen.disc(u, v, 0.125, pen.ink((255, 240, 190), glow=True))
    if chosen.sky:
        for _ in range(draws.whole(3, 5)):
            u, v, size = draws.between(-1, 1), draws.between(-0.9, line - 0.2), draws.between(0.1, 0.2)
            for du, dv, part in ((-1.1, 0.25, 0.8), (0, 0, 1.1), (1.1, 0.2, 0.85)):
                pen.disc(u + du * size, v + dv * size, part * size, pen.ink(lighter(low, 0.55)))
            pen.box(u - 1.6 * size, v + 0.4 * size, u + 1.7 * size, v + 0.95 * size, pen.ink(lighter(low, 0.55)))
    _hills_and_ground(pen, draws, line, GROUNDS[chosen.background], low)
    return sheet.filled()


def _hills_and_ground(pen: Pen, draws: Draws, line: float, ground: str, haze: Colour) -> None:
    soil = {"meadow": (112, 172, 84), "beach": (232, 206, 150), "snow": (234, 240, 246), "field": (164, 124, 80)}[
        ground
    ]
    far = tuple((2 * a + 3 * b) // 5 for a, b in zip(soil, haze, strict=True))
    if draws.chance(0.7):
        for _ in range(3):
            pen.oval(draws.between(-1, 1), line + 0.12, draws.between(0.4, 0.8), draws.between(0.22, 0.4), pen.ink(far))
    pen.box(-1.1, line, 1.1, 1.1, pen.ink(soil))
    if ground == "beach":
        pen.box(-1.1, line, 1.1, line + draws.between(0.1, 0.22), pen.ink((74, 148, 186)))
    elif ground == "field":
        u = draws.between(-0.4, 0.4)
        for k in range(-6, 7):
            pen.shape(
                [(u + k * 0.12, line), (u + k * 0.5 - 0.07, 1.1), (u + k * 0.5 + 0.07, 1.1)],
                pen.ink(darker(soil, 0.15)),
            )
    for _ in range(draws.whole(6, 12)):
        depth = draws.random()
        u, v = draws.between(-1, 1), line + 0.1 + (0.9 - line) * depth
        mark = darker(soil, 0.16) if ground != "meadow" or draws.chance(0.6) else draws.pick(PALETTE)
        pen.oval(u, v, 0.03 + 0.07 * depth, 0.015 + 0.03 * depth, pen.ink(mark))


# --- the three domains -------------------------------------------------------------------------------------------


def _down(indices: np.ndarray, colours: list[Colour], times: int = FINE) -> np.ndarray:
    """Colour ink numbers (times * s, times * s) and average them down: int32 (s, s, 3)."""
    canvas = Image.frombuffer("P", indices.shape, indices, "raw", "P", 0, 1)
    canvas.putpalette([channel for colour in colours for channel in colour])
    return np.asarray(canvas.convert("RGB").reduce(times)).astype(np.int32)


def _finer(behind: np.ndarray) -> np.ndarray:
    """A coarse sheet (2s, 2s) as a fine one (4s, 4s)."""
    return behind.repeat(FINE // COARSE, 0).repeat(FINE // COARSE, 1)


def _over(front: np.ndarray, behind: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """The object's pixels, already weighted with how much of them it covers (0..16), over the background's."""
    return front + (behind * (16 - cover.astype(np.int32))[:, :, None] + 8) // 16


def _photo(chosen: Plan, inks: Inks, behind: np.ndarray, front: np.ndarray, cover: np.ndarray, size: int) -> np.ndarray:
    scene = chosen.mode == "scenes"
    back, grain = _down(behind, inks.colours, COARSE), _noise(chosen.detail, size)
    if not scene:
        back = back * _mottle(chosen.detail, size)[:, :, None] // 256
    pixels = _over(_down(front, inks.colours), back, cover)
    gain = np.array(DAYLIGHT[scene][chosen.lighting], np.int32)
    return np.clip(pixels * gain * _vignette(size)[:, :, None] // 65536 + grain * 8 // 128, 0, 255).astype(np.uint8)


def _night(chosen: Plan, inks: Inks, behind: np.ndarray, front: np.ndarray, cover: np.ndarray, size: int) -> np.ndarray:
    tint = NIGHT[chosen.lighting]
    dark = [
        colour if glow else tuple(c * t // 256 for c, t in zip(colour, tint, strict=True))
        for colour, glow in zip(inks.colours, inks.glows, strict=True)
    ]
    glows = np.array(inks.glows, np.uint8)
    lit = _sum_blocks(glows[front]).astype(np.int32)  # (s, s) in 0..16
    back = _down(behind, dark, COARSE)
    if chosen.mode != "scenes":
        back = back * _mottle(chosen.detail, size)[:, :, None] // 340
    else:
        lit = lit + _sum_blocks(glows[_finer(behind)]) * (16 - cover.astype(np.int32)) // 16
    _stars(back, chosen, size)
    pixels = _over(_down(front, dark), back, cover)
    halo = _spread(lit * 16, size)[:, :, None] * np.array((150, 118, 52), np.int32) // 256
    grain = _noise(chosen.detail, size) * 8 // 128
    return np.clip(pixels * _vignette(size)[:, :, None] // 256 + halo + grain, 0, 255).astype(np.uint8)


def _stars(back: np.ndarray, chosen: Plan, size: int) -> None:
    """Points of light, in a scene above the horizon only."""
    draws = Draws(chosen.detail + 1)
    width = max(1, size // 32)
    for _ in range(draws.whole(4, 14)):
        u, v, shine = (
            draws.random(),
            draws.random() * (chosen.horizon if chosen.mode == "scenes" else 1),
            draws.whole(70, 200),
        )
        row, column = int(v * (size - width + 1)), int(u * (size - width + 1))
        back[row : row + width, column : column + width] += np.array((shine, shine, shine * 3 // 4), np.int32)


def _spread(light: np.ndarray, size: int) -> np.ndarray:
    """Blur (s, s) with two box averages each way, an eighth of the side wide in all."""
    radius = size // 16
    for axis in (0, 1, 0, 1):
        total = sum(_shifted(light, offset, axis) for offset in range(-radius, radius + 1))
        light = total // (2 * radius + 1)
    return light


def _shifted(a: np.ndarray, offset: int, axis: int) -> np.ndarray:
    """`a` moved by `offset` along an axis, with zeros coming in."""
    moved = np.zeros_like(a)
    source, target = [slice(None)] * a.ndim, [slice(None)] * a.ndim
    n = a.shape[axis]
    target[axis], source[axis] = slice(max(0, offset), n + min(0, offset)), slice(max(0, -offset), n - max(0, offset))
    moved[tuple(target)] = a[tuple(source)]
    return moved


def _sketch(
    chosen: Plan, inks: Inks, behind: np.ndarray, front: np.ndarray, cover: np.ndarray, size: int
) -> np.ndarray:
    paper, drawn = _finer(behind), front
    there = drawn > 0
    width = size * 3 // 32
    lines = _outline(drawn, width) | (drawn == 1)
    faint = _outline(paper, max(1, width * 2 // 3)) & ~there & ~lines
    tones = np.array([(c[0] * 77 + c[1] * 150 + c[2] * 29) // 256 for c in inks.colours], np.uint8)[drawn]
    ahead, period = Draws(chosen.detail + 2).chance(0.5), size * 11 // 32
    rows, columns = np.arange(len(drawn))[:, None], np.arange(len(drawn))[None, :]
    slant = (rows + columns if ahead else rows - columns) % period  # (4s, 4s)
    hatch = (
        there & ~lines & (((tones < 130) & (slant < width)) | ((tones < 80) & ((slant + period // 2) % period < width)))
    )
    strength = (
        np.where(lines, 15, 0)
        + np.where(hatch, 8, 0)
        + np.where(faint, 4, 0)
        + np.where(there, (255 - tones.astype(np.int32)) // 64, 0)
    )
    shade = strength.astype(np.int32).reshape(size, FINE, size, FINE).sum((1, 3))  # (s, s) in 0..240
    grain = _noise(chosen.detail, size)[:, :, :1]
    sheet, pencil = np.array((246, 242, 232), np.int32), np.array(PENCILS[chosen.lighting], np.int32)
    shade = np.clip(shade[:, :, None] * (256 + grain) // 256, 0, 240)
    return np.clip((sheet * (240 - shade) + pencil * shade) // 240 + grain * 5 // 128, 0, 255).astype(np.uint8)


def _outline(inks: np.ndarray, width: int) -> np.ndarray:
    """Where ink numbers (S, S) change, as lines about `width` pixels wide: bool (S, S)."""
    edge = np.zeros(inks.shape, bool)
    edge[1:] = inks[1:] != inks[:-1]
    edge[:, 1:] |= inks[:, 1:] != inks[:, :-1]
    wide = edge.copy()
    before, after = (width - 1) // 2, width // 2
    for k in range(1, before + 1):
        wide[:-k] |= edge[k:]
    for k in range(1, after + 1):
        wide[k:] |= edge[:-k]
    edge = wide.copy()
    for k in range(1, before + 1):
        wide[:, :-k] |= edge[:, k:]
    for k in range(1, after + 1):
        wide[:, k:] |= edge[:, :-k]
    return wide


# --- noise and light ---------------------------------------------------------------------------------------------


@cache
def _places(size: int) -> np.ndarray:
    return (np.arange(size * size * 3, dtype=np.uint32) * np.uint32(0x9E3779B1)).reshape(size, size, 3)


def _noise(seed: int, size: int) -> np.ndarray:
    """Bell-shaped noise, int32 (s, s, 3) in -128..127: a hash of seed and place, no generator's stream."""
    h = _places(size) ^ np.uint32(seed & 0xFFFFFFFF)
    h = (h ^ (h >> 16)) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * np.uint32(0xC2B2AE35)
    h ^= h >> 16
    return (((h & 255) + ((h >> 8) & 255) + ((h >> 16) & 255) + (h >> 24)) // 4).astype(np.int32) - 128


@cache
def _vignette(size: int) -> np.ndarray:
    """A gain in 1/256, int32 (s, s): 256 in the middle and less towards the corners, the same in all directions."""
    steps = 2 * np.arange(size, dtype=np.int32) + 1 - size
    return 256 - 44 * (steps[:, None] ** 2 + steps[None, :] ** 2) // (2 * size * size)


@cache
def _spline(size: int, knots: int) -> np.ndarray:
    """Weights in 1/64 of smooth interpolation between knots, int32 (size, knots)."""
    weights = np.zeros((size, knots), np.int32)
    for i in range(size):
        place = (2 * i + 1) * (knots - 1) * 32 // size  # in 1/64 of a knot
        k, part = min(place // 64, knots - 2), place - 64 * min(place // 64, knots - 2)
        part = part * part * (192 - 2 * part) // 4096  # smooth at the knots
        weights[i, k], weights[i, k + 1] = 64 - part, part
    return weights


def _mottle(seed: int, size: int, knots: int = 5) -> np.ndarray:
    """Soft patches of light: a gain in 1/256, int32 (s, s) in about 200..312."""
    values = _noise(seed ^ 0x5BD1E995, 8)[:knots, :knots, 0] * 3 // 4  # (knots, knots)
    weights = _spline(size, knots)
    return 256 + np.clip(weights @ values @ weights.T // 4096, -56, 56)
