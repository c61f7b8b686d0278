"""Pocket world: the same bytes everywhere, no picture twice, and annotations that agree with the pixels."""

import hashlib
import math
import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcourse.data import cache, world, world_batch
from sslcourse.data.world_draw import draw_range, picture
from sslcourse.data.world_pen import Inks, Pen, Sheet
from sslcourse.data.world_plan import label_of, plan
from sslcourse.data.world_things import SHARES
from sslcourse.errors import CourseError

# SHA-256, shortened, of images, instances and boxes of the first 20 training pictures: another value means another world,
# which needs another WORLD_VERSION (and new values here: run this file as a script).
CHECKSUMS = {
    ("objects", "photo", 32): "de954f2db769348f",
    ("objects", "sketch", 32): "2aa593b2adeb6ad3",
    ("objects", "night", 32): "a4881d198a5011be",
    ("scenes", "photo", 32): "599e939004775ed2",
    ("scenes", "sketch", 32): "91039556d665bd63",
    ("scenes", "night", 32): "2af20557db853060",
    ("crowd", "photo", 32): "bd3a90ee1abbf748",
    ("crowd", "sketch", 32): "7ab9319505c2fd29",
    ("crowd", "night", 32): "5bd3e2b5d70ec790",
    ("objects", "photo", 64): "8f874df1f39eb33e",
    ("objects", "sketch", 64): "1ebea9a14f995a11",
    ("objects", "night", 64): "de2166e843eea0cb",
    ("scenes", "photo", 64): "414723d84e953cc7",
    ("scenes", "sketch", 64): "72cf48cfbaa4ed1b",
    ("scenes", "night", 64): "2fa63eddec54d076",
    ("crowd", "photo", 64): "4346394f5eea19e1",
    ("crowd", "sketch", 64): "c71ac568507df48e",
    ("crowd", "night", 64): "2cb9f218d6f7c927",
    ("objects", "photo", 96): "2fa0c76039d59007",
    ("objects", "sketch", 96): "0c880606f476e667",
    ("objects", "night", 96): "add7a40aa5bca798",
    ("scenes", "photo", 96): "ab18684495ccae8d",
    ("scenes", "sketch", 96): "c2558d9b06fb3ec7",
    ("scenes", "night", 96): "fe6f173aa5f4dca2",
    ("crowd", "photo", 96): "c623574d170d9203",
    ("crowd", "sketch", 96): "5fe9b17f3abb4362",
    ("crowd", "night", 96): "e50fd03809aa42f3",
}

ROOT = Path(__file__).parents[1]
COMBINATIONS = [(mode, domain) for mode in world.MODES for domain in world.DOMAINS]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "cache"))


def checksum(mode: str, domain: str, size: int) -> str:
    arrays = draw_range(mode, domain, "train", 0, size, 0, 20 if size == 32 else 5)
    content = b"".join(
        np.ascontiguousarray(arrays[name]).tobytes() for name in ("images", "instances", "boxes", "captions")
    )
    return hashlib.sha256(content).hexdigest()[:16]


# --- the same bytes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "domain"), COMBINATIONS)
@pytest.mark.parametrize("size", world.SIZES)
def test_checksums_are_what_they_were(mode, domain, size):
    assert checksum(mode, domain, size) == CHECKSUMS[mode, domain, size]


@given(st.sampled_from(COMBINATIONS), st.sampled_from(world.SPLITS), st.integers(0, 2**40), st.integers(0, 30))
@settings(max_examples=15, deadline=None)
def test_a_picture_is_the_same_alone_and_in_a_batch(combination, split, seed, index):
    mode, domain = combination
    alone = draw_range(mode, domain, split, seed, 32, index, index + 1)
    batch = draw_range(mode, domain, split, seed, 32, max(0, index - 2), index + 2)
    at = index - max(0, index - 2)
    for name in ("images", "instances", "boxes", "box_labels", "facts"):
        assert np.array_equal(alone[name][0], batch[name][at])
    assert alone["captions"].tobytes().decode().strip() == batch["captions"].tobytes().decode().splitlines()[at]


def test_processes_and_the_number_of_pictures_change_nothing():
    serial = world.draw("val", 620, workers=1)
    helped = world.draw("val", 620, workers=3)
    assert torch.equal(serial.images, helped.images) and torch.equal(serial.instances, helped.instances)
    assert serial.captions == helped.captions
    assert torch.equal(world.draw("val", 7).images, serial.images[:7])


def test_helpers_draw_and_a_lost_helper_is_made_good(monkeypatch):
    calls = []
    monkeypatch.setattr(world_batch, "draw_range", lambda *given: calls.append(given) or draw_range(*given))
    expected = world.draw("test", 510, workers=2).images
    assert calls == []  # the helpers did it all

    start = world_batch._start

    def dying(job):
        helper = start(job)
        if len(calls) == 0 and not hasattr(dying, "done"):
            dying.done = True
            helper.kill()
        return helper

    monkeypatch.setattr(world_batch, "_start", dying)
    assert torch.equal(world.draw("test", 510, workers=2).images, expected)
    assert calls  # this process drew what the killed helper owed


@pytest.mark.parametrize("executable", ["", None, "/nowhere/python", "/usr/bin/some-program"])
def test_without_helpers_this_process_draws(monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    assert len(world.draw("test", 260, workers=2)) == 260


def test_helpers_start_without_torch():
    code = "import sys, sslcourse.data.world_batch; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def _even_odd(corners: list[tuple[int, int]], row: int, column: int) -> bool:
    """Whether the middle of a pixel is inside a polygon, by exact fractions."""
    inside = False
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (2 * y0 <= 2 * row + 1) != (2 * y1 <= 2 * row + 1):
            crossing = x0 + Fraction((2 * row + 1 - 2 * y0) * (x1 - x0), 2 * (y1 - y0))
            inside ^= math.floor(crossing + Fraction(1, 2)) <= column
    return inside


@given(st.lists(st.lists(st.tuples(st.integers(-9, 25), st.integers(-9, 25)), min_size=3, max_size=7), max_size=4))
@settings(max_examples=40, deadline=None)
def test_shapes_are_filled_exactly_and_in_their_order(polygons):
    sheet = Sheet(16)
    for number, corners in enumerate(polygons, start=1):
        sheet.polygons.append((len(sheet.inks), len(corners)))
        sheet.inks.append(number)
        sheet.corners += [float(c) for corner in corners for c in corner]
    expected = [
        [
            max([k for k, p in enumerate(polygons, start=1) if _even_odd(p, row, column)], default=9)
            for column in range(16)
        ]
        for row in range(16)
    ]
    assert sheet.filled(ground=9).tolist() == expected


def test_an_oval_has_its_area_and_a_turn_turns_it():
    upright, turned, by_hand = Sheet(128), Sheet(128), Sheet(128)
    Pen(upright, Inks()).oval(0.1, -0.2, 0.5, 0.25, 1)
    Pen(turned, Inks()).oval(0.1, -0.2, 0.25, 0.5, 1, turn=90)
    Pen(by_hand, Inks(), centre=(0.5, 0.5), tilt=90).oval(-0.2, -0.1, 0.25, 0.5, 1)
    area = upright.filled().sum()
    assert abs(area / (math.pi * 32 * 16) - 1) < 0.03
    assert (upright.filled() != turned.filled()).sum() < 0.05 * area
    assert (upright.filled() != by_hand.filled()).sum() < 0.05 * area


def test_no_picture_runs_out_of_inks():
    from sslcourse.data import world_draw

    made = []
    original = world_draw.Inks
    world_draw.Inks = lambda: made.append(original()) or made[-1]
    try:
        draw_range("crowd", "photo", "train", 0, 32, 0, 150)
    finally:
        world_draw.Inks = original
    most = max(len(inks.colours) for inks in made)
    assert 40 < most <= 256


# --- splits and classes ------------------------------------------------------------------------------------------


def test_splits_share_no_picture():
    seen: dict[bytes, str] = {}
    for split, n in (("unlabeled", 1000), ("train", 600), ("val", 300), ("test", 300)):
        for seed in (0, 1):
            for image in world.draw(split, n // 2, seed=seed).images.numpy():
                key = image.tobytes()
                assert key not in seen, f"{split} repeats a picture of {seen[key]}"
                seen[key] = split


def test_no_object_stands_in_the_same_place_in_two_splits_modes_or_seeds():
    places = [
        (thing.x, thing.y, thing.detail)
        for mode in world.MODES
        for split in world.SPLITS
        for seed in (0, 1)
        for index in range(100)
        for thing in plan(mode, split, seed, index).things
    ]
    assert len(set(places)) == len(places)


@given(st.sampled_from(world.SPLITS), st.sampled_from(world.MODES), st.integers(0, 2**30), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_each_ten_pictures_have_every_class_once(split, mode, seed, tens):
    assert sorted(label_of(mode, split, seed, 10 * tens + k) for k in range(10)) == list(range(10))


def test_classes_come_in_no_fixed_order():
    orders = {tuple(label_of("objects", "train", 0, 10 * tens + k) for k in range(10)) for tens in range(20)}
    assert len(orders) == 20


def test_unlabeled_tells_no_labels_unless_asked():
    bare = world.draw("unlabeled", 20)
    assert bare.labels is None and bare.captions is None and bare.boxes is None and bare.instances is None
    assert bare.factors == {}
    with pytest.raises(CourseError, match="no labels"):
        bare.require_labels()
    known = world.draw("unlabeled", 20, labels=True)
    assert torch.equal(known.images, bare.images) and known.counts() == dict.fromkeys(world.CLASSES, 2)
    assert world.draw("train", 20, labels=False).labels is None


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (dict(split="tain"), "'train'"),
        (dict(mode="scene"), "'scenes'"),
        (dict(domain="sketches"), "'sketch'"),
        (dict(size=48), "32, 64 or 96"),
        (dict(n=-1), "at least 0"),
        (dict(n=2.5), "whole number"),
        (dict(seed=-1), "seed"),
        (dict(workers=0), "workers"),
    ],
)
def test_what_the_world_does_not_have_is_refused(wrong, hint):
    with pytest.raises(CourseError, match=hint):
        world.draw(**{"n": 1, **wrong})


def test_no_pictures_are_a_set_too():
    assert len(world.draw("train", 0)) == 0


# --- annotations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "domain"), [*((mode, "photo") for mode in world.MODES), ("objects", "sketch")])
@pytest.mark.parametrize("size", [32, 96])
def test_boxes_are_tight_around_masks(mode, domain, size):
    s = world.draw("train", 120 if size == 32 else 40, mode=mode, domain=domain, size=size)
    for i in range(len(s)):
        present = [k for k in range(s.boxes.shape[1]) if s.box_labels[i, k] >= 0]
        assert present == list(range(len(present))) and set(s.instances[i].unique().tolist()) <= {
            0,
            *(k + 1 for k in present),
        }
        assert len(present) == 1 if mode != "crowd" else 2 <= len(present) <= 6
        assert s.box_labels[i, 0] == s.labels[i]
        for k in present:
            rows, columns = (s.instances[i] == k + 1).nonzero().unbind(1)
            assert len(rows) >= 3 * (size // 32) ** 2, f"object {k} of picture {i} is hidden"
            assert s.boxes[i, k].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("domain", ["photo", "night"])
def test_masks_are_the_visible_pixels(domain):
    """Without its objects a picture changes where the masks are, and (noise and glow apart) hardly anywhere else."""
    import dataclasses

    inside = outside = inside_changed = outside_changed = 0
    for i in range(30):
        chosen = plan("crowd", "train", 0, i)
        moved = dataclasses.replace(
            chosen, things=tuple(dataclasses.replace(t, x=t.x + 10) if k else t for k, t in enumerate(chosen.things))
        )
        pixels, owners = picture(chosen, domain, 64)
        without, _ = picture(moved, domain, 64)
        changed = np.abs(pixels.astype(int) - without).max(2) > 24
        others = owners > 1
        inside, inside_changed = inside + others.sum(), inside_changed + (changed & others).sum()
        outside, outside_changed = outside + (~others).sum(), outside_changed + (changed & ~others).sum()
    assert inside_changed > (0.6 if domain == "photo" else 0.35) * inside
    assert outside_changed < 0.05 * outside


@pytest.mark.parametrize("size", [32, 64, 96])
def test_all_sizes_and_domains_show_the_same_picture(size):
    small, other = world.draw("test", 60), world.draw("test", 60, size=size, domain="night")
    assert torch.equal(small.labels, other.labels)
    for name in ("kind", "colour", "x", "y", "scale", "mirror", "background"):
        assert torch.equal(small.factors[name], other.factors[name])
    # Boxes agree within a pixel and a bit of the small picture: a thin part may fall below half a pixel.
    assert (small.boxes - other.boxes * 32 / size).abs().max() <= 2.5
    again = torch.nn.functional.avg_pool2d(world.draw("test", 60, size=size).images.float(), size // 32)
    assert (again - small.images.float()).abs().mean() < 8


def test_factors_describe_the_pixels():
    s = world.draw("train", 400)
    left, top, right, bottom = s.boxes[:, 0].unbind(1)
    x, y, height = (left + right) / 64, (top + bottom) / 64, (bottom - top) / 64
    for name, measured in (("x", x), ("y", y), ("scale", height)):
        pair = torch.stack([s.factors[name], measured])
        assert torch.corrcoef(pair)[0, 1] > 0.45, name
    light = s.images.float().mean((1, 2, 3))
    dim = s.factor_values["lighting"].index("dim light")
    assert light[s.factors["lighting"] == dim].mean() < light[s.factors["lighting"] != dim].mean() - 20
    mask = (s.instances == 1)[:, None]
    colour = (s.images * mask).sum((2, 3)) / mask.sum((2, 3))  # (N, 3)
    names = s.factor_values["colour"]
    red, blue = (colour[s.factors["colour"] == names.index(name)].mean(0) for name in ("red", "blue"))
    assert red[0] - red[2] > 40 > blue[0] - blue[2] + 40
    for name, values in s.factor_values.items():
        counts = torch.bincount(s.factors[name], minlength=len(values))
        assert name in ("domain", "kind") or (counts > 0).all(), name  # a set is of one domain; some kinds are rare


def test_every_class_comes_as_each_of_its_kinds_the_first_most_often():
    kinds = [plan("objects", "train", 0, i).things[0].kind for i in range(3000)]
    shares = np.bincount(kinds, minlength=30).reshape(10, 3) / 300
    assert np.abs(shares - np.array(SHARES)).max() < 0.09


def test_a_mirrored_car_is_the_car_mirrored():
    import dataclasses

    chosen = plan("objects", "train", 0, next(i for i in range(40) if label_of("objects", "train", 0, i) == 2))
    thing = dataclasses.replace(chosen.things[0], x=0.5, y=0.5, tilt=0)
    _, one = picture(dataclasses.replace(chosen, things=(dataclasses.replace(thing, mirror=False),)), "photo", 96)
    _, two = picture(dataclasses.replace(chosen, things=(dataclasses.replace(thing, mirror=True),)), "photo", 96)
    assert (one != two[:, ::-1]).mean() < 0.02 < (one != two).mean()


def _symmetry(kind: str, turn) -> float:
    """How far the masks of one kind, upright in the middle, differ from themselves after `turn`, relative to their area."""
    import dataclasses

    from sslcourse.data.world_things import ALL_KINDS

    differ = area = 0
    found = (plan("objects", "train", 0, i) for i in range(600))
    for chosen in [p for p in found if p.things[0].kind == ALL_KINDS.index(kind)][:8]:
        thing = dataclasses.replace(chosen.things[0], x=0.5, y=0.5, tilt=0, stretch=1.0)
        _, mask = picture(dataclasses.replace(chosen, things=(thing,)), "photo", 96)
        differ, area = differ + (mask != turn(mask)).sum(), area + mask.sum()
    return differ / area


def test_symmetric_things_are_symmetric_and_others_are_not():
    for kind in ("striped balloon", "banded balloon", "spotted balloon"):
        assert _symmetry(kind, np.fliplr) < 0.06
        assert _symmetry(kind, np.flipud) > 0.15
    assert _symmetry("blossom", np.rot90) < 0.45
    for kind in ("sedan", "truck", "fishing boat"):
        assert _symmetry(kind, np.fliplr) > 0.1
        assert _symmetry(kind, np.rot90) > 0.55


def test_captions_are_true():
    for mode, domain in COMBINATIONS:
        s = world.draw("train", 60, mode=mode, domain=domain)
        for i, told in enumerate(s.captions):
            assert s.classes[s.labels[i]] in told
            assert re.fullmatch(r"an? [a-z ,]+", told), told
            colour = s.factor_values["colour"][s.factors["colour"][i]]
            said = re.search(rf"\b{colour}\b(?! pencil)", told.split(" on a ")[0].split(",")[0]) is not None
            assert said == (domain != "sketch"), told
            lighting = s.factor_values["lighting"][s.factors["lighting"][i]]
            assert lighting in told
            assert s.factor_values["background"][s.factors["background"][i]] in told
            assert (" facing left" in told) <= (s.factors["mirror"][i].item() == 1)
    assert world.draw("train", 60, mode="scenes").captions[0].count("sky") == 1


# --- no way up in the background of objects ----------------------------------------------------------------------


def _thirds(images: torch.Tensor) -> torch.Tensor:
    """Means of the first and the last third of rows, then of columns: (N, 4)."""
    x = images.float().mean(1)
    third = x.shape[-1] // 3
    parts = (x[:, :third], x[:, -third:], x[:, :, :third], x[:, :, -third:])
    return torch.stack([part.mean((1, 2)) for part in parts], 1)


def _background(mode: str, domain: str, count: int) -> torch.Tensor:
    """Pictures whose objects have been moved far away."""
    import dataclasses

    empty = []
    for i in range(count):
        chosen = plan(mode, "train", 0, i)
        away = tuple(dataclasses.replace(thing, x=20.0) for thing in chosen.things)
        empty.append(picture(dataclasses.replace(chosen, things=away), domain, 32)[0])
    return torch.from_numpy(np.stack(empty)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("domain", world.DOMAINS)
def test_backgrounds_of_objects_have_no_up_and_down(domain):
    images = _background("objects", domain, 800)
    thirds = _thirds(images)
    edges = torch.stack(
        [images.float().diff(dim=2).abs().mean((1, 2, 3)), images.float().diff(dim=3).abs().mean((1, 2, 3))], 1
    )
    for a, b in [
        (thirds[:, 0], thirds[:, 1]),
        (thirds[:, 2], thirds[:, 3]),
        (thirds[:, 0], thirds[:, 2]),
        edges.unbind(1),
    ]:
        difference = a - b
        assert difference.mean().abs() < 4 * difference.std() / len(difference) ** 0.5  # no more than chance


def test_scenes_have_an_up_and_down():
    thirds = _thirds(_background("scenes", "photo", 200))
    differs = (thirds[:, 0] - thirds[:, 1]).abs().mean()
    assert differs > 3 * (thirds[:, 2] - thirds[:, 3]).abs().mean()


# --- the cache ---------------------------------------------------------------------------------------------------


def files() -> list[Path]:
    return sorted(cache.folder().glob("*"))


def never(*given, **named):
    raise AssertionError("drawn again, although it is in the cache")


def test_the_second_time_nothing_is_drawn(monkeypatch):
    first = world.split("val")
    assert len(files()) == 1
    monkeypatch.setattr(world, "draw_many", never)
    again = world.split("val")
    assert torch.equal(first.images, again.images) and torch.equal(first.instances, again.instances)
    assert first.captions == again.captions and torch.equal(first.boxes, again.boxes)
    assert all(torch.equal(first.factors[name], again.factors[name]) for name in first.factors)
    assert torch.equal(world.split("val", 100).images, first.images[:100])  # a smaller set comes out of the larger one
    assert len(files()) == 1


def test_few_pictures_are_not_cached_and_cache_false_leaves_no_file():
    world.split("val", 50)
    world.split("val", 1000, cache=False, workers=1)
    assert files() == []


def test_a_larger_set_takes_the_place_of_a_smaller_one_and_old_worlds_go(monkeypatch):
    old = cache.folder() / f"world0-objects-photo-val-32-seed0-n1000-x{cache.ENDING}"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    monkeypatch.setattr(world, "WORTH_CACHING", 10)
    small = world.split("val", 20)
    assert not old.exists() and len(files()) == 1
    large = world.split("val", 30)
    assert len(files()) == 1 and torch.equal(large.images[:20], small.images)
    world.split("test", 20), world.split("val", 20, domain="night"), world.split("val", 20, seed=1)
    assert len(files()) == 4


@pytest.mark.parametrize("damage", ["truncated", "changed", "emptied"])
def test_a_damaged_file_is_drawn_again_with_one_line(monkeypatch, capsys, damage):
    monkeypatch.setattr(world, "WORTH_CACHING", 10)
    first = world.split("val", 40)
    content = bytearray(files()[0].read_bytes())
    if damage == "changed":
        content[len(content) // 2] ^= 255
    files()[0].write_bytes({"truncated": content[:-100], "changed": content, "emptied": b""}[damage])
    capsys.readouterr()
    assert torch.equal(world.split("val", 40).images, first.images)
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "damaged" in told
    world.split("val", 40)
    assert capsys.readouterr().err == ""


def test_an_unwritable_cache_costs_a_line_and_no_more(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(world, "WORTH_CACHING", 10)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "file"))
    assert len(world.split("val", 30)) == 30
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "could not write" in told


def test_two_processes_at_once_make_one_sound_file(tmp_path):
    code = (
        "import hashlib, sys\n"
        "from sslcourse.data import world\n"
        "world.WORTH_CACHING = 10\n"
        "print(hashlib.sha256(world.split('val', 200).images.numpy().tobytes()).hexdigest())\n"
    )
    env = {**os.environ, "SSLCOURSE_CACHE": str(tmp_path / "shared"), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    told = [process.communicate() for process in running]
    assert [err for _, err in told] == ["", ""]
    assert told[0][0] == told[1][0] and len(told[0][0].strip()) == 64
    assert len(list((tmp_path / "shared").iterdir())) == 1


def test_load_gives_all_four_splits():
    sets = world.load(counts=dict(unlabeled=30, train=20, val=10, test=10), domain="night")
    assert {name: len(s) for name, s in sets.items()} == dict(unlabeled=30, train=20, val=10, test=10)
    assert sets["unlabeled"].labels is None and sets["test"].labels is not None
    with pytest.raises(CourseError, match="'train'"):
        world.load(counts=dict(tran=3))


if __name__ == "__main__":  # the values for CHECKSUMS
    for size in world.SIZES:
        for mode, domain in COMBINATIONS:
            print(f'    ("{mode}", "{domain}", {size}): "{checksum(mode, domain, size)}",')
