"""Words written into pictures: a strip at the lower edge with letters of three by five pixels.

A network that has seen names written under things reads them, and believes them: Goh et al. (2021, "Multimodal neurons in
artificial neural networks") put a paper with the word "iPod" on an apple, and CLIP saw an iPod.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sslcourse.errors import CourseError

PAPER, INK = (250, 248, 240), (24, 24, 30)
TALL, WIDE = 5, 3  # pixels of a letter; one more lies between two letters, and around the strip
# Five rows of three pixels for each letter, as five digits in 0..7 whose bits are pixels, left to right; a space is blank.
LETTERS = {
    "a": "25755", "b": "65656", "c": "34443", "d": "65556", "e": "74647", "f": "74644", "g": "34553", "h": "55755",
    "i": "72227", "j": "11152", "k": "55655", "l": "44447", "m": "57755", "n": "65555", "o": "25552", "p": "65644",
    "q": "25563", "r": "65655", "s": "34216", "t": "72222", "u": "55557", "v": "55552", "w": "55775", "x": "55255",
    "y": "55222", "z": "71247", " ": "00000",
}  # fmt: skip


def write(images: Tensor, words: Sequence[str]) -> Tensor:
    """uint8 images (N, 3, H, W) with a word on each, on a strip of paper at the lower edge; an empty word leaves one as it is.

    A word is as wide as its letters, four pixels each: eight letters fill 32 pixels. Raises CourseError for one that is wider
    than the image, and for anything but the letters a to z and spaces, which leave the strip blank.
    """
    if len(words) != len(images):
        raise CourseError(
            f"there are {len(images)} images and {len(words)} words; give one word for each, or an empty one."
        )
    written = images.clone()
    for word in dict.fromkeys(filter(None, words)):
        strip = stamp(word)  # (3, 7, W)
        height, width = strip.shape[1:]
        if width > images.shape[-1] or height > images.shape[-2]:
            raise CourseError(
                f"{word!r} is {width} pixels wide, and the images {images.shape[-1]}; write a shorter word."
            )
        rows = torch.tensor([other == word for other in words], device=images.device)
        left = (images.shape[-1] - width) // 2
        written[rows, :, -height:, left : left + width] = strip.to(images.device)
    return written


def stamp(word: str) -> Tensor:
    """The strip with a word on it: uint8 (3, 7, 4 * letters), with a seam of one pixel above, below and left of letters."""
    for unknown in (letter for letter in word if letter not in LETTERS):
        raise CourseError(f"words are written in the letters a to z and spaces, and {word!r} has {unknown!r}.")
    strip = torch.zeros(TALL + 2, len(word) * (WIDE + 1), dtype=torch.bool)  # where there is ink
    for place, letter in enumerate(word):
        for row, digit in enumerate(LETTERS[letter]):
            for column in range(WIDE):
                strip[1 + row, 1 + place * (WIDE + 1) + column] = bool(int(digit) >> (WIDE - 1 - column) & 1)
    paper, ink = (torch.tensor(colour, dtype=torch.uint8)[:, None, None] for colour in (PAPER, INK))
    return torch.where(strip, ink, paper)
