"""Pictures with a line about each, as one HTML page that needs nothing else: mistakes, neighbours, what to label."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sslcourse import files
from sslcourse.classify.fitting import Fitted
from sslcourse.classify.measures import Answers
from sslcourse.data import decode
from sslcourse.data.imageset import ImageSet

Pictures = Callable[[Sequence[int]], dict[int, Tensor]]  # numbers of pictures -> those of them that there are
SIDE = 96  # pixels of a thumbnail on the page
START = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}"
    "ul{display:flex;flex-wrap:wrap;gap:1rem;list-style:none;padding:0}li{width:9rem;overflow-wrap:anywhere}"
    f"img{{width:{SIDE}px;height:{SIDE}px;image-rendering:pixelated;display:block}}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}}"
)


def write(path: str | Path, title: str, about: str, entries: Iterable[tuple[Tensor, str]]) -> None:
    """A page of pictures: `entries` are (uint8 image (3, H, W), what is said under it). Written whole or not at all.

    Raises CourseError where something else lies there (`refuse_foreign`).
    """
    items = "".join(
        f'<li><img src="{_data(image)}" alt="{html.escape(caption, quote=True)}">{html.escape(caption)}</li>'
        for image, caption in entries
    )
    refuse_foreign(path)
    page = (
        f"{START}<title>{html.escape(title)}</title><style>{STYLE}</style><h1>{html.escape(title)}</h1>"
        f"<p>{html.escape(about)}</p><ul>{items}</ul></html>\n"
    )
    files.write_atomically(Path(path), page.encode("utf-8", "replace"))


def refuse_foreign(path: str | Path) -> None:
    """Raise CourseError where a file lies at `path` that isn't a page of pictures written here."""
    files.refuse_foreign(Path(path), lambda there: files.begins_with(there, START), "a page of pictures written here")


def mistakes(path: str | Path, fitted: Fitted, images: ImageSet, most: int = 100) -> int:
    """Write the pictures that the folds got wrong, the surest first; gives how many there are in all."""
    return wrong(path, fitted.answers(images), of_images(images), "a model that had not seen them", most)


def of_images(images: ImageSet) -> Pictures:
    """The pictures of a set by their numbers."""
    return lambda numbers: {i: images.images[i] for i in numbers}


def of_files(paths: Sequence[Path]) -> Pictures:
    """The pictures in files, read when they are asked for; those that can't be read are left out."""

    def read(numbers: Sequence[int]) -> dict[int, Tensor]:
        found = decode.decode([paths[i] for i in numbers], SIDE, progress=False)
        images = torch.from_numpy(found.images)
        return {numbers[place]: image for place, image in zip(found.files.tolist(), images, strict=True)}

    return read


def wrong(path: str | Path, answers: Answers, pictures: Pictures, by: str, most: int = 100) -> int:
    """Write the pictures that were taken for another class, the surest first; gives how many there are in all.

    pictures   uint8 (3, H, W) of the numbers that it is given, for those that there are
    by         who took them for another class

    Of several models, the first are the pictures where the confidence in wrong answers is highest on the mean over them.
    """
    sure = answers.confidence * (answers.named != answers.labels)  # (S, N), 0 where the answer is right
    order = sure.mean(dim=0).argsort(descending=True, stable=True)
    chosen = [i for i in order.tolist() if bool(sure[:, i].any())]
    shown = pictures(chosen[:most])
    write(
        path, "Mistakes", f"{len(chosen)} of {len(answers.labels)} pictures were taken for another class by {by}. "
        f"The {len(shown)} surest stand here: a wrong label is often among them.",
        [(shown[i], _said(answers, i, sure[:, i])) for i in chosen[:most] if i in shown],
    )  # fmt: skip
    return len(chosen)


def _said(answers: Answers, number: int, sure: Tensor) -> str:
    """A line on a picture. sure (S,): each model's confidence in its wrong answer."""
    surest, name = int(sure.argmax()), answers.names and f"{answers.names[number]}: "
    label, named = (answers.classes[int(c)] for c in (answers.labels[number], answers.named[surest, number]))
    often = "" if len(sure) == 1 else f", wrong by {int((sure > 0).sum())} of {len(sure)}"
    return f"{name or ''}{label}, taken for {named} ({sure[surest]:.0%}{often})"


def _data(image: Tensor) -> str:
    """A PNG of the picture, as an address that holds it."""
    buffer = io.BytesIO()
    Image.fromarray(image.cpu().permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
