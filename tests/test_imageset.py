"""ImageSet refuses what is wrong with one sentence that says what to do, and keeps what is right together."""

import contextlib
import json
import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes
from PIL import Image

from sslcourse.data.imageset import ImageSet, effective_count
from sslcourse.errors import CourseError, suggest

CLASSES = ("cat", "dog", "owl")


def full(n: int = 12, side: int = 8) -> ImageSet:
    """A set with everything in it, where every tensor tells which image it belongs to."""
    number = torch.arange(n)
    boxes = torch.zeros(n, 2, 4)
    boxes[:, 0] = torch.stack([number * 0, number * 0, number % side + 1, number % side + 1], 1).float()
    box_labels = torch.full((n, 2), -1)
    box_labels[:, 0] = number % 3
    return ImageSet(
        images=number.to(torch.uint8)[:, None, None, None].repeat(1, 3, side, side),
        labels=number % 3,
        classes=CLASSES,
        name="pets",
        factors={"number": number, "colour": number % 2, "x": number / 10},
        factor_values={"colour": ("red", "blue")},
        boxes=boxes,
        box_labels=box_labels,
        instances=number.to(torch.uint8)[:, None, None].repeat(1, side, side),
        captions=tuple(f"picture {i}" for i in range(n)),
    )


IMAGES = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
LABELS = torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("images", "hint"),
    [
        (torch.zeros(4, 3, 8, 8), "from_floats"),
        (torch.zeros(4, 8, 8, 3, dtype=torch.uint8), r"permute\(0, 3, 1, 2\)"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), r"image\[None\]"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), "repeat"),
        (torch.zeros(4, 4, 8, 8, dtype=torch.uint8), "transparency"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.int64), "convert"),
        (torch.zeros(4, 3, 0, 8, dtype=torch.uint8), "uint8"),
        (object(), "tensor or an array"),
    ],
)
def test_wrong_images_are_refused_with_a_way_out(images, hint):
    with pytest.raises(CourseError, match=hint):
        ImageSet(images)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (dict(labels=torch.tensor([0, 1, 2])), "4 images and 3 labels"),
        (dict(labels=torch.tensor([0, 1, 2, 3])), r"0\.\.2"),
        (dict(labels=torch.tensor([0, 1, 2, -1])), r"-1\.\.2"),
        (dict(labels=torch.tensor([0.0, 1, 2, 0])), "whole numbers"),
        (dict(labels=LABELS[:, None]), "whole numbers"),
        (dict(labels=LABELS, classes=()), "without names"),
        (dict(classes=("cat", "cat")), "twice"),
        (dict(classes="cat"), "sequence of words"),
        (dict(factors={"x": torch.zeros(3)}), "4 images and 3"),
        (dict(factors={"c": torch.tensor([0, 1, 2, 0])}, factor_values={"c": ("a", "b")}), "factor 'c'"),
        (dict(factor_values={"c": ("a", "b")}), "factors has none"),
        (dict(boxes=torch.zeros(4, 1, 4)), "without box_labels"),
        (dict(box_labels=torch.zeros(4, 1).long()), "without boxes"),
        (dict(boxes=torch.zeros(4, 4), box_labels=torch.zeros(4, 1).long()), r"\(4, K, 4\)"),
        (dict(boxes=torch.tensor([0, 0, 9.0, 4]).expand(4, 1, 4), box_labels=torch.zeros(4, 1).long()), "inside"),
        (dict(boxes=torch.tensor([5, 0, 4.0, 4]).expand(4, 1, 4), box_labels=torch.zeros(4, 1).long()), "inside"),
        (dict(boxes=torch.full((4, 1, 4), torch.nan), box_labels=torch.zeros(4, 1).long()), "inside"),
        (dict(boxes=torch.zeros(4, 1, 4), box_labels=torch.full((4, 1), 3)), r"-1\.\.2"),
        (dict(boxes=torch.zeros(4, 1, 4), box_labels=torch.zeros(4, 2).long()), "one per box"),
        (dict(instances=torch.zeros(4, 8, 8)), "instances must be uint8"),
        (dict(instances=torch.zeros(4, 8, 7, dtype=torch.uint8)), "instances must be uint8"),
        (dict(captions=("one",)), "4 images and 1 captions"),
        (dict(captions="four"), "sequence of strings"),
    ],
)
def test_whatever_does_not_fit_the_images_is_refused(wrong, hint):
    with pytest.raises(CourseError, match=hint):
        ImageSet(IMAGES, **{"classes": CLASSES, **wrong})


def test_numpy_arrays_and_other_integers_become_what_the_fields_promise():
    s = ImageSet(
        np.zeros((4, 3, 8, 8), np.uint8), np.array([0, 1, 2, 0], np.int32), list(CLASSES), factors={"x": np.zeros(4)}
    )
    assert s.images.dtype == torch.uint8 and s.labels.dtype == torch.int64
    assert s.classes == CLASSES and s.factors["x"].dtype == torch.float32


def test_a_set_does_not_change():
    with pytest.raises(AttributeError):
        full().labels = None


@given(st.lists(st.integers(-12, 11), max_size=30))
@settings(max_examples=50, deadline=None)
def test_select_keeps_everything_about_an_image_together(indices):
    chosen = full().select(indices)
    number = [i % 12 for i in indices]
    assert len(chosen) == len(number)
    assert chosen.images[:, 0, 0, 0].tolist() == number
    assert chosen.labels.tolist() == [i % 3 for i in number]
    assert chosen.factors["number"].tolist() == number
    assert chosen.factors["colour"].tolist() == [i % 2 for i in number]
    assert chosen.boxes[:, 0, 2].tolist() == [i % 8 + 1 for i in number]
    assert chosen.box_labels[:, 0].tolist() == [i % 3 for i in number]
    assert chosen.instances[:, 0, 0].tolist() == number
    assert chosen.captions == tuple(f"picture {i}" for i in number)
    assert (chosen.name, chosen.classes, chosen.factor_values) == ("pets", CLASSES, {"colour": ("red", "blue")})


@given(st.slices(12))
@settings(max_examples=50, deadline=None)
def test_select_takes_slices_as_lists_do(part):
    assert full().select(part).factors["number"].tolist() == list(range(12))[part]


@given(st.lists(st.booleans(), min_size=12, max_size=12))
@settings(max_examples=30, deadline=None)
def test_select_takes_masks(mask):
    assert full().select(torch.tensor(mask)).factors["number"].tolist() == [i for i in range(12) if mask[i]]


@pytest.mark.parametrize("wrong", [[12], [-13], torch.tensor([0.5]), torch.tensor([True]), torch.zeros(2, 2).long()])
def test_select_refuses_what_is_not_there(wrong):
    with pytest.raises(CourseError):
        full().select(wrong)


def test_items_and_iteration():
    s = full()
    image, label = s[-1]
    assert image.shape == (3, 8, 8) and label == 2
    assert [label for _, label in s] == s.labels.tolist()
    with pytest.raises(IndexError):
        s[12]
    with pytest.raises(CourseError, match="select"):
        s[1:3]


def test_without_labels_nothing_tells_the_class():
    bare = full().without_labels()
    assert torch.equal(bare.images, full().images) and bare.classes == CLASSES
    assert bare.labels is None and bare.boxes is None and bare.box_labels is None
    assert bare.instances is None and bare.captions is None and bare.factors == {}
    assert bare[0][1] is None
    for needs_labels in (bare.require_labels, bare.counts, lambda: bare.few(1)):
        with pytest.raises(CourseError, match="no labels"):
            needs_labels()


@given(st.integers(1, 4), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_few_takes_as_many_of_each_class_and_grows(k, seed):
    s = full()
    few = s.few(k, seed)
    assert few.counts() == dict.fromkeys(CLASSES, k)
    numbers = few.factors["number"].tolist()
    assert len(set(numbers)) == 3 * k
    assert numbers == s.sample_per_class(k, seed).factors["number"].tolist()
    assert set(numbers) <= set(s.few(4, seed).factors["number"].tolist())


def test_few_depends_on_the_seed_and_says_which_class_has_too_few():
    assert len({tuple(full().few(2, seed).factors["number"].tolist()) for seed in range(8)}) > 1
    with pytest.raises(CourseError, match="class 'cat' of pets has 4; ask for at most 4"):
        full().few(5)
    with pytest.raises(CourseError, match="at least 1"):
        full().few(0)


@given(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3))
@settings(max_examples=50, deadline=None)
def test_from_floats_rounds_to_the_nearest_step(colour):
    s = ImageSet.from_floats(torch.tensor(colour)[None, :, None, None])
    assert s.images.flatten().tolist() == [round(float(np.float64(np.float32(c)) * 255)) for c in colour]


@given(st.integers(0, 255))
@settings(max_examples=30, deadline=None)
def test_from_floats_undoes_division_by_255(value):
    images = torch.full((1, 3, 2, 2), value, dtype=torch.uint8)
    assert torch.equal(ImageSet.from_floats(images.float() / 255).images, images)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (1.01, "scale or clamp|divide"),
        (-0.01, "scale or clamp"),
        (200.0, "divide them by 255"),
        (torch.nan, "NaN"),
        (torch.inf, "NaN"),
    ],
)
def test_from_floats_refuses_what_is_outside(value, hint):
    images = torch.full((2, 3, 4, 4), 0.5)
    images[1, 2, 3, 3] = value
    with pytest.raises(CourseError, match=hint):
        ImageSet.from_floats(images)
    with pytest.raises(CourseError, match="takes uint8 itself"):
        ImageSet.from_floats(images.to(torch.uint8))


def test_a_set_tells_what_it_holds():
    assert repr(full()) == "ImageSet('pets', 12 images of 8x8, 3 classes)"
    told = full().describe()
    for word in ("cat 4", "red, blue", "12 objects", "picture 0", "0 to 1.1"):
        assert word in told
    assert "no labels" in repr(full().without_labels())
    ImageSet(IMAGES[:0]).describe()


def test_suggest_names_the_nearest_option():
    assert "'sketch'" in suggest("skecth", ("photo", "sketch", "night"))
    assert suggest("zzz", ("photo", "sketch")) == ""


# --- arrays in every layout, and everything that isn't one ---------------------------------------------------------


class Subclass(torch.Tensor):
    pass


PIXELS = np.random.default_rng(0).integers(0, 256, (4, 3, 6, 5), dtype=np.uint8)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS = {
    "mirrored": lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
    "channels reversed": lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
    "Fortran": np.asfortranarray,
    "permuted": lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "every second": lambda x: np.repeat(x, 2, 0)[::2],
    "read-only": read_only,
    "masked, with nothing masked": np.ma.asarray,
    "tensor": torch.from_numpy,
    "channels last": lambda x: torch.from_numpy(x).to(memory_format=torch.channels_last),
    "subclass": lambda x: torch.from_numpy(x).as_subclass(Subclass),
    "list of arrays": list,
    "list of tensors": lambda x: list(torch.from_numpy(x)),
    "list of pictures": lambda x: [Image.fromarray(image.transpose(1, 2, 0)) for image in x],
    "nested lists": lambda x: np.asarray(x.tolist(), np.uint8),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_any_layout_of_the_same_images_is_taken(layout):
    s = ImageSet(layout(PIXELS), np.array([0, 1, 2, 0]), CLASSES)
    assert type(s.images) is torch.Tensor and np.array_equal(s.images.numpy(), PIXELS)
    assert np.array_equal(s.select([2, 0]).images.numpy(), PIXELS[[2, 0]])


@pytest.mark.parametrize("kind", [">i4", "<i8", "u1", "u2", "u4", "u8", "i1"])
def test_labels_of_any_whole_type_are_taken(kind):
    labels = ImageSet(IMAGES, np.array([0, 1, 2, 0], kind)[::-1], CLASSES).labels
    assert labels.dtype == torch.int64 and labels.tolist() == [0, 2, 1, 0]


@pytest.mark.parametrize("value", [1.0, 1.5, 2**63, -1, True, None, "cat", 1j, float("nan"), [1]])
def test_labels_that_are_none_are_refused(value):
    with pytest.raises(CourseError, match="labels") as error:
        ImageSet(IMAGES, np.array([value] * 4) if value != 2**63 else np.array([2**63] * 4, np.uint64), CLASSES)
    assert "\n" not in str(error.value)


NO_IMAGES = {
    "object dtype": (np.zeros((4, 3, 8, 8), object), "an array of object"),
    "text": ("photo.jpg", "got str"),
    "texts": (["a.jpg", "b.jpg"], "a list of str"),
    "nothing": (None, "got NoneType"),
    "dates": (np.zeros(3, "M8[s]"), "an array of datetime64"),
    "records": (np.zeros(3, [("a", int)]), "an array of void"),
    "NaN": (np.full((4, 3, 8, 8), np.nan), "got float64 .*from_floats"),
    "long floats": (np.zeros((4, 3, 8, 8), np.longdouble), "got float64 .*from_floats"),
    "five dimensions": (np.zeros((1, 4, 3, 8, 8), np.uint8), r"got uint8 \(1, 4, 3, 8, 8\); bring them into that shape"),
    "no dimension": (np.uint8(3), r"got uint8 \(\)"),
    "no pixels": (np.zeros((4, 3, 0, 8), np.uint8), "at least one pixel"),
    "no channels": (np.zeros((4, 0, 8, 8), np.uint8), "at least one pixel"),
    "masks": (np.zeros((4, 3, 8, 8), bool), "got bool .*convert"),
    "complex": (np.zeros((4, 3, 8, 8), complex), "got complex128"),
    "long complex": (np.zeros((4, 3, 8, 8), np.clongdouble), "got complex128"),
    "16 bits": (np.zeros((4, 3, 8, 8), np.uint16), "got uint16 .*black is 0 and white 255"),
    "masked": (np.ma.masked_equal(np.zeros((4, 3, 8, 8), np.uint8), 0), "masked values"),
    "ragged": ([np.zeros((3, 8, 8), np.uint8), np.zeros((3, 9, 8), np.uint8)], r"alike.*\(3, 8, 8\) and uint8 \(3, 9, 8\)"),
    "pictures of two sizes": ([Image.new("RGB", (8, 8)), Image.new("RGB", (9, 8))], "alike"),
    "ragged lists": ([[1, 2], [3]], "a list of list"),
    "mixed": ([np.zeros((3, 8, 8), np.uint8), "a"], "must be a tensor"),
    "one picture": (Image.new("RGB", (8, 8)), r"permute|image\[None\]"),
    "sparse": (torch.zeros(4, 3, 8, 8).to_sparse(), "dense tensor"),
    "meta": (torch.zeros(4, 3, 8, 8, dtype=torch.uint8, device="meta"), "dense tensor.*meta"),
    "nested": (torch.nested.nested_tensor([torch.zeros(3), torch.zeros(2)]), "dense tensor"),
    "a set": (ImageSet(PIXELS, name="pets"), "got an ImageSet, pets"),
    "a generator": ((x for x in PIXELS), "got generator"),
    "a dictionary": ({"images": PIXELS}, "got dict"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*nested tensors.*")
@pytest.mark.parametrize(("images", "sentence"), NO_IMAGES.values(), ids=NO_IMAGES.keys())
def test_what_is_no_array_of_images_is_told_in_one_true_sentence(images, sentence):
    with pytest.raises(CourseError, match=sentence) as error:
        ImageSet(images)
    assert "\n" not in str(error.value) and "ndarray" not in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (dict(classes=None), "class names must be a sequence of words"),
        (dict(classes=3), "class names must be a sequence of words"),
        (dict(classes=("cat", None, "owl")), "class names must be a sequence of words"),
        (dict(classes=("cat", "", "owl")), "class names must be a sequence of words"),
        (dict(classes={"cat": 0}), "class names must be a sequence of words"),
        (dict(factors=None), "factors must be a dictionary"),
        (dict(factors=[1, 2]), "factors must be a dictionary"),
        (dict(factor_values=3), "factor_values must be a dictionary"),
        (dict(factors={"x": [None] * 4}), "factor 'x'"),
        (dict(captions=3), "captions must be a sequence of strings"),
        (dict(captions=(1, 2, 3, 4)), "captions must be a sequence of strings"),
        (dict(names=("a", "b")), "4 images and 2 names"),
        (dict(groups=[0, 1]), "4 images and 2 groups"),
        (dict(groups=[0.0, 1.0, 2.0, 3.0]), "groups must be whole numbers"),
        (dict(groups=[[0, 1, 2, 3]]), "groups must be whole numbers"),
        (dict(names="abcd"), "names must be a sequence of strings"),
        (dict(names=(1, 2, 3, 4)), "names must be a sequence of strings"),
        (dict(boxes=torch.zeros(4, 1, 4), box_labels=torch.zeros(4, 1).bool()), "box_labels must be whole numbers"),
        (dict(boxes="four", box_labels="four"), "boxes must be a tensor"),
        (dict(instances=None, labels="abcd"), "labels must be a tensor"),
    ],
)
def test_whatever_else_is_given_is_refused_in_one_sentence(wrong, sentence):
    with pytest.raises(CourseError, match=sentence) as error:
        ImageSet(IMAGES, **{"classes": CLASSES, **wrong})
    assert "\n" not in str(error.value)


@given(
    st.one_of(
        st.none(), st.text(max_size=3), st.integers(), st.floats(), st.binary(max_size=3), st.complex_numbers(),
        st.lists(st.one_of(st.integers(-9, 300), st.floats(), st.none(), st.text(max_size=2)), max_size=4),
        arrays(scalar_dtypes(), array_shapes(min_dims=0, max_dims=5, max_side=4)),
    )
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_whatever_is_given_as_images_labels_or_indices_ends_in_a_set_or_a_sentence(anything):
    for use in (ImageSet, ImageSet.from_floats, lambda x: ImageSet(IMAGES, x, CLASSES), full(4).select):
        with contextlib.suppress(CourseError):
            assert isinstance(use(anything), ImageSet)


@given(
    arrays(np.uint8, st.tuples(st.integers(0, 3), st.just(3), st.integers(1, 4), st.integers(1, 4))),
    st.tuples(*[st.sampled_from([1, -1, 2, -2])] * 4),
)
def test_any_strides_keep_every_pixel(array, steps):
    seen = array[:: steps[0], :, :: steps[2], :: steps[3]]
    assert np.array_equal(ImageSet(seen).images.numpy(), seen)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_groups_of_different_sizes_count_as_fewer_images(sizes):
    """Groups that are right or wrong as a whole: their mean varies as much as that of so many unrelated images."""
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    share = 0.3
    variance = sum((n / sum(sizes)) ** 2 for n in sizes) * share * (1 - share)  # of a weighted mean of Bernoullis
    exact = share * (1 - share) / variance
    assert effective_count(groups) in (math.floor(exact), round(exact))  # 4.999... by floating point is 5
    assert 1 <= effective_count(groups) <= len(sizes)
    assert (effective_count(groups) == len(sizes)) == (len(set(sizes)) == 1)


def test_groups_stay_with_their_images():
    s = ImageSet(IMAGES, LABELS, CLASSES, groups=np.array([7, 7, 2, -1], dtype=np.int16))
    assert s.groups.dtype == torch.int64 and s.select([3, 1]).groups.tolist() == [-1, 7]
    assert s.to("cpu").groups.tolist() == [7, 7, 2, -1] and s.without_labels().groups is None


def test_names_stay_with_their_images():
    s = ImageSet(IMAGES, LABELS, CLASSES, names=("a/0.png", "b/0.png", "c/0.png", os.fsdecode(b"a/\xe9.png")))
    assert s.select([3, 1]).names == (os.fsdecode(b"a/\xe9.png"), "b/0.png")
    few = s.few(1, seed=3)
    assert [name[0] for name in few.names] == ["a", "b", "c"]
    assert s.to("cpu").names == s.names and s.without_labels().names is None


def test_class_names_that_cannot_be_written_are_escaped():
    s = ImageSet(IMAGES, LABELS, (os.fsdecode(b"caf\xe9"), "two\nlines", "猫"))
    assert s.classes == ("caf\\udce9", "two\\nlines", "猫")
    json.dumps(s.counts(), ensure_ascii=False).encode()
    s.describe().encode()


def test_numbers_of_numpy_count_as_well():
    assert len(full().few(np.int64(2), seed=np.uint8(3))) == 6
    assert full().few(np.int8(2), np.int64(3)).names is None
    for wrong in (2.0, True, "2", None, np.float32(2)):
        with pytest.raises(CourseError, match="images per class must be a whole number"):
            full().few(wrong)


def test_a_class_without_images_is_not_told_to_ask_for_none():
    with pytest.raises(CourseError, match="class 'owl' of images has 0; give every class some"):
        ImageSet(IMAGES[:2], LABELS[:2], CLASSES).few(1)
