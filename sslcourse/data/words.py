"""The course's vocabulary: captions to the numbers of their words, and back.

A word is a number, as a patch of a picture is a token. Four groups of words mean something of a picture (things, colours,
backgrounds and light); the others hold a sentence together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from sslcourse.data.world_plan import BACKDROPS, COLOUR_NAMES, GROUNDS, SKIES
from sslcourse.data.world_things import CLASSES
from sslcourse.errors import CourseError, suggest, whole_number

LENGTH = 26  # words of a caption, at most: those of the fullest crowd; a shorter one is filled up
PLURALS = ("trees", "houses", "cars", "boats", "flowers", "people", "mushrooms", "cacti", "balloons", "windmills")
LIGHTS = (
    "daylight", "warm", "cool", "dim", "light", "noon", "morning", "dusk", "dull", "moonlight", "lamplight", "starlight",
    "neon", "day", "night",
)  # fmt: skip
PLACES = ("beside", "left", "right", "above", "below", "facing", "next", "to", "of")
OTHERS = (
    "a", "the", "and", "another", "more", "two", "three", "four", "five", "in", "on", "at", "under", "with", "there", "is",
    "picture", "photo", "drawing", "sketch", "background", "sky", "ploughed", "small", "large", "graphite", "charcoal",
    "sepia", "pencil",
)  # fmt: skip
# Number 0 is no word: it fills captions up. New words go to the end, since networks were trained on these numbers.
WORDS = tuple(
    dict.fromkeys(("", *CLASSES, *COLOUR_NAMES, *BACKDROPS, *LIGHTS, *PLACES, *OTHERS, *PLURALS, *GROUNDS, *SKIES))
)
NUMBER = {word: number for number, word in enumerate(WORDS)} | {"an": WORDS.index("a")}  # two spellings of one word


def encode(sentences: Sequence[str], length: int = LENGTH) -> Tensor:
    """The words of each sentence as numbers: int64 (N, length), 0 where a sentence has ended.

    Capitals, commas and full stops make no difference, and neither does "an" for "a", which would tell which word was
    there before another took its place. Raises CourseError for a word outside WORDS, and for a sentence that is too long.
    """
    length = whole_number("the number of words", length, 1)
    tokens = torch.zeros(len(sentences), length, dtype=torch.int64)
    for row, sentence in zip(tokens, sentences, strict=True):
        words = re.findall(r"[^\s.,;:!?]+", sentence.lower())
        if len(words) > length:
            raise CourseError(
                f"a caption has at most {length} words, and {sentence!r} has {len(words)}; cut it, or give a larger length."
            )
        for unknown in (word for word in words if word not in NUMBER):
            raise CourseError(
                f"the course's vocabulary has no word {unknown!r}{suggest(unknown, WORDS[1:])}, as in {sentence!r}; say it in "
                "words of sslcourse.data.words.WORDS."
            )
        row[: len(words)] = torch.tensor([NUMBER[word] for word in words], dtype=torch.int64)
    return tokens


def decode(tokens: Tensor) -> list[str]:
    """The sentences of token numbers (N, L), without what fills them up."""
    return [" ".join(WORDS[number] for number in row if number) for row in tokens.tolist()]


def encode_several(captions: Sequence[str | Sequence[str]], length: int = LENGTH) -> Tensor:
    """Captions of N pictures, one or several each: int64 (N, K, length). Who has fewer than K says them again, in turn."""
    each = [(told,) if isinstance(told, str) else tuple(told) for told in captions]
    most = max(map(len, each), default=1)
    flat = [told[k % len(told)] for told in each for k in range(most)]
    known = {
        sentence: row
        for sentence, row in zip(dict.fromkeys(flat), encode(list(dict.fromkeys(flat)), length), strict=True)
    }
    rows = torch.stack([known[sentence] for sentence in flat]) if flat else torch.zeros(0, length, dtype=torch.int64)
    return rows.view(len(each), most, length)


def group(words: Sequence[str]) -> tuple[bool, ...]:
    """For every number of the vocabulary, whether its word is among these."""
    return tuple(word in words for word in WORDS)


def exchanged(tokens: Tensor, member: Tensor) -> Tensor:
    """Each caption with its first and its second word of a group in each other's place; as it was, where it has no two.

    tokens (N, L) int64; member (V,) bool, on the same device: the group's words. With colours, "a red boat beside a blue
    car" becomes "a blue boat beside a red car".
    """
    belongs = member[tokens]  # (N, L)
    order = belongs.cumsum(dim=1)  # 1 from the first word of the group on, 2 from the second
    first, second = belongs & (order == 1), belongs & (order == 2)  # (N, L), one place each at most
    a, b = ((tokens * place).sum(dim=1, keepdim=True) for place in (first, second))  # (N, 1) their words, 0 for none
    return torch.where(first & (b > 0), b, torch.where(second, a, tokens))
