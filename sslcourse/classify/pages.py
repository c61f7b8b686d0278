"""Pictures with a line about each, as one HTML page that needs nothing else: mistakes, neighbours, what to label."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from sslcourse import files
from sslcourse.classify.fitting import Fitted
from sslcourse.data.imageset import ImageSet

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
        f'<li><img src="{_data(image)}" alt="{html.escape(said, quote=True)}">{html.escape(said)}</li>'
        for image, said in entries
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
    shares = (fitted.logits / fitted.model.temperature).softmax(dim=1)  # (N, C)
    confidence, named = shares.max(dim=1)
    labels = images.require_labels().cpu()
    wrong = (named != labels).nonzero().flatten()
    wrong = wrong[confidence[wrong].argsort(descending=True, stable=True)]
    classes, names = images.classes, images.names
    write(
        path, "Mistakes", f"{len(wrong)} of {len(labels)} pictures were taken for another class by a model that had not "
        f"seen them. The {min(most, len(wrong))} surest stand here: a wrong label is often among them.",
        [
            (images.images[i], _said(classes, int(labels[i]), int(named[i]), float(confidence[i]), names and names[i]))
            for i in wrong[:most].tolist()
        ],
    )  # fmt: skip
    return len(wrong)


def _said(classes: Sequence[str], label: int, named: int, confidence: float, name: str | None) -> str:
    return f"{f'{name}: ' if name else ''}{classes[label]}, taken for {classes[named]} ({confidence:.0%})"


def _data(image: Tensor) -> str:
    """A PNG of the picture, as an address that holds it."""
    buffer = io.BytesIO()
    Image.fromarray(image.cpu().permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
