"""`sslcourse doctor`, `tasks`, `store`, `data`: this machine, and what there is to work with."""

from __future__ import annotations

import io
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sslcourse.cli import options, texts
from sslcourse.cli.running import command
from sslcourse.errors import CourseError
from sslcourse.files import refuse_foreign, write_atomically
from sslcourse.locking import claimed_files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sslcourse.data.imageset import ImageSet
    from sslcourse.data.splits import Splits

PREVIEWED = 40  # images of a preview without labels
PER_CLASS, CLASSES = 4, 20  # of one with labels


@command(stopped=texts.doctor_stopped, computes=False)
def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the ten seconds in which speed is measured.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Look at this machine and say what works, what doesn't, and what to do about it."""
    from sslcourse import doctor as the_doctor

    sys.exit(the_doctor.run(json=as_json, quick=quick))


@command(stopped=texts.listing_stopped, computes=False)
def tasks(as_json: options.Json = False) -> None:
    """List the pretext tasks and their options."""
    from sslcourse import pretext

    found = [
        {
            "task": name,
            "about": task.__doc__.split("\n\n")[0].strip(),
            "backbone": task.arch,
            "options": pretext.option_defaults(task),
        }
        for name, task in (pretext.tasks() | pretext.tasks(captioned=True)).items()
    ]
    texts.show(found, texts.tasks(found), as_json, indent=2)


@command(name="store", stopped=texts.listing_stopped, computes=False)
def show_store(as_json: options.Json = False) -> None:
    """List the backbones that come with the package: trained longer than a lesson can wait."""
    from sslcourse import bundled

    found = [one.record for one in bundled.listed()]
    texts.show(found, texts.bundled(found), as_json, indent=2)


@command(name="data", stopped=texts.data_stopped)
def show_data(
    spec: Annotated[str, typer.Argument(help="Which data; see --data of the other commands.")],
    preview: Annotated[
        Path | None, options.path_option(help="Save a labelled grid of images to this PNG file.")
    ] = None,
    labels: options.Labels = None,
    size: options.Size = None,
    as_json: options.Json = False,
) -> None:
    """Say what is in a data set, and show it."""
    from sslcourse.data import load

    if preview is not None:
        if preview.suffix.lower() != ".png":
            raise CourseError(f"a preview is a PNG file, and {preview} doesn't end in .png.")
        refuse_foreign(preview, _is_figure, "a preview written here")
    with claimed_files(preview):
        splits = load(spec, size=size, labels=labels)
        about = _about(spec, splits)
        if preview is not None:
            _save_preview(splits, preview)
            about["preview"] = str(preview)
    texts.show(about, texts.data(about), as_json)


def _about(spec: str, splits: Splits) -> dict[str, Any]:
    """What is in a data set, as plain numbers and words."""
    sets = {part: getattr(splits, part) for part in ("unlabeled", "train", "val", "test")}
    labelled = splits.train
    return {
        "data": spec,
        "image_size": list(splits.size),
        "splits": {part: len(images) for part, images in sets.items()},
        "classes": list(labelled.classes),
        "images_per_class": labelled.counts() if labelled.labels is not None else {},
        "factors": list(labelled.factors),
        "annotations": [name for name in ("boxes", "instances", "captions") if getattr(labelled, name) is not None],
        "notes": list(splits.notes),
        "warnings": list(splits.warnings),
    }


def _save_preview(splits: Splits, path: Path) -> None:
    """A grid of images, a row of some classes where there are labels, as a PNG file."""
    os.environ["MPLBACKEND"] = "Agg"  # whatever a person's is for: nothing is shown here
    figure = _preview(splits.train if len(splits.train) else splits.unlabeled)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a letter that no font here has becomes a box
        figure.savefig(content, format="png")
    write_atomically(path, content.getvalue())


def _is_figure(path: Path) -> bool:
    """Whether a PNG file is a drawing of Matplotlib's and no photograph."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            return str(image.info.get("Software", "")).startswith("Matplotlib")
    except (OSError, SyntaxError, ValueError):
        return False


def _preview(part: ImageSet) -> Figure:
    from sslcourse import plots

    if part.labels is None:
        return plots.grid(part.images[:PREVIEWED], title=part.name)
    classes = range(min(len(part.classes), CLASSES))
    per_class = [(part.labels == c).nonzero().squeeze(1)[:PER_CLASS] for c in classes]
    chosen = [int(i) for members in per_class for i in members]
    return plots.grid(part.images[chosen], [part.classes[int(part.labels[i])] for i in chosen], title=part.name)
