"""What a task of any kind learns from, for tests that ask the same of every task: images, and captions where it needs them."""

from sslcourse import pretext
from sslcourse.data.imageset import ImageSet
from sslcourse.data.words import CLASSES, COLOUR_NAMES

EVERY_TASK = pretext.tasks() | pretext.tasks(captioned=True)


def told(count):
    """Two captions for each of `count` pictures, of two things and two colours each; the first hundred pictures differ."""
    pairs = []
    for i in range(count):
        thing, other = CLASSES[i % 10], CLASSES[(i + 3) % 10]
        colour, another = COLOUR_NAMES[(i + i // 10) % 10], COLOUR_NAMES[(i + i // 10 + 4) % 10]
        pairs.append((f"a {colour} {thing} left of a {another} {other}", f"a {another} {other} and a {colour} {thing}"))
    return tuple(pairs)


def material(name, images):
    """Images (N, 3, H, W) as they are, or with captions where the task needs some."""
    return ImageSet(images, captions=told(len(images))) if pretext.find(name).captioned else images
