"""A network as one file for programs without this course: ONNX, or a program of torch.export.

The file takes pictures as they are decoded, uint8 (N, 3, S, S), any number of them, and gives the probabilities of a
classifier's classes or the features of a backbone, read at the stage that was measured. Preprocessing, head and temperature
are inside. What is outside is the way to S x S pixels: the centre square, resized with antialiasing (`data.decode`). A
file is kept only when it gives what the network gives, in the library that will run it.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sslcourse import device as devices
from sslcourse.backbones import LARGEST_IMAGE
from sslcourse.classify.model import Model
from sslcourse.console import shown
from sslcourse.data.decode import SMALL
from sslcourse.errors import CourseError, suggest, whole_number
from sslcourse.files import write_atomically
from sslcourse.locking import claimed

FORMATS = {"onnx": ".onnx", "torch-export": ".pt2"}
KEY = "sslcourse"  # of what the file says about itself, as JSON
OPSET = 18
TOLERANCE = 1e-4  # of the largest number in what the network gives, or of 1 where that is less
COUNTS = (1, 3)  # pictures at a time, in the comparison
LARGEST = 2**31 - 1  # bytes that an ONNX file may have
Answer = Callable[[Tensor], Tensor]  # what a file makes of images
Written = tuple[bytes, Answer]


class Deployed(nn.Module):
    """uint8 (N, 3, S, S) -> probabilities (N, C) of a model with classes, features (N, d) of one without."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        x = images.float() / 255
        return self.model.probabilities(x) if self.model.classes else self.model.features(x)


def save(model: Model, path: str | Path, format: str, *, overwrite: bool = False) -> dict[str, Any]:
    """Write a model to `path`, and return what the file says about itself. The model stays where and as it was.

    A model without classes is a backbone with its stage. Raises CourseError for an unknown format, for a stage that the
    network hasn't or a size that it can't take, without the packages that the format needs, where the file's answers
    differ by more than TOLERANCE, and where `path` is there already, unless `overwrite` is given.
    """
    path = Path(path)
    if format not in FORMATS:
        raise CourseError(
            f"format {format!r} is unknown{suggest(str(format), FORMATS)}; choose {' or '.join(FORMATS)}."
        )
    write = {"onnx": _onnx, "torch-export": _exported}[format]
    whole_number("the side of the images in pixels", model.image_size, SMALL, LARGEST_IMAGE)
    about = describe(model)
    try:
        if path.is_dir():
            raise CourseError(
                f"{shown(path)} is a directory, and a file is written; give a name such as model{FORMATS[format]}."
            )
        with claimed(path, file=True):
            if path.exists() and not overwrite:
                raise CourseError(f"{shown(path)} is there already; choose another name, or replace it with overwrite.")
            with devices.on(torch.device("cpu"), model), devices.evaluating(model), torch.no_grad():
                Deployed(model)(
                    pictures(1, model.image_size)
                )  # a size or stage that can't be is said here, in our words
                content, answer = _written(write, Deployed(model), about)
                _compare(Deployed(model), answer, model.image_size, path)
            write_atomically(path, content)
    except OSError as error:
        raise CourseError(
            f"{shown(path)} can't be written ({error.strerror or error}); choose another place."
        ) from None
    return about


def _written(write: Callable[..., Written], network: Deployed, about: dict[str, Any]) -> Written:
    try:
        return write(network, network.model.image_size, about)
    except (CourseError, MemoryError):
        raise
    except Exception as error:  # exporters raise whatever they stumble over
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CourseError(
            f"this network can't be exported so ({shown(reason[:160])}); try the other format."
        ) from error


def describe(model: Model) -> dict[str, Any]:
    """What a file says about itself: plain values."""
    side = model.image_size
    about = {
        "arch": model.backbone.arch,
        "stage": model.stage,
        "image_size": side,
        "input": f"images: uint8 (N, 3, {side}, {side}), RGB; the centre square of a picture, resized with antialiasing",
    }
    if not model.classes:
        return about | {"output": "features: float32 (N, d)"}
    return about | {
        "output": f"probabilities: float32 (N, {len(model.classes)}), calibrated; rows sum to 1",
        "classes": list(model.classes),
        "temperature": model.temperature,
    }


# --- formats ------------------------------------------------------------------------------------------------------


def _onnx(network: Deployed, side: int, about: dict[str, Any]) -> Written:
    """A file of ONNX and its answers in onnxruntime."""
    try:
        import onnx  # noqa: F401 (what torch.onnx translates with)
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as missing:
        raise CourseError(
            f"--format onnx needs the package {missing.name}, which isn't installed; install what it takes with "
            "python -m pip install onnx onnxscript onnxruntime."
        ) from None
    output = "probabilities" if network.model.classes else "features"
    with _quiet():
        program = torch.onnx.export(
            network, (pictures(2, side),), input_names=["images"], output_names=[output], opset_version=OPSET,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}}, dynamo=True, verbose=False,
        )  # fmt: skip
    program.model.metadata_props[KEY] = json.dumps(about)
    proto = program.model_proto
    if proto.ByteSize() > LARGEST:
        raise CourseError("this network is larger than an ONNX file may be, 2 GB; write it with --format torch-export.")
    content = proto.SerializeToString()
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level, settings.intra_op_num_threads = 3, torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    return content, lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _exported(network: Deployed, side: int, about: dict[str, Any]) -> Written:
    """A program of torch.export and its answers, read back."""
    shapes = {"images": {0: torch.export.Dim("batch")}}
    buffer = io.BytesIO()
    with _quiet():
        program = torch.export.export(network, (pictures(2, side),), dynamic_shapes=shapes)
        torch.export.save(program, buffer, extra_files={f"{KEY}.json": json.dumps(about)})
        content = buffer.getvalue()
        read = torch.export.load(io.BytesIO(content)).module()
    return content, read


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within it, exporters don't tell about their own inner workings."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


# --- the comparison ------------------------------------------------------------------------------------------------


def _compare(network: Deployed, answer: Answer, side: int, path: Path) -> None:
    """CourseError where a file's answers aren't the network's, for any number of pictures."""
    for count in COUNTS:
        images = pictures(count, side)
        ours = network(images)
        try:
            exported = answer(images)
        except Exception as error:  # runtimes raise whatever they stumble over
            reason = " ".join(str(error).split())[:160]
            raise CourseError(
                f"what was exported doesn't run on {count} pictures ({shown(reason)}); try the other format."
            ) from error
        bound = TOLERANCE * max(1.0, float(ours.abs().max()))
        off = float((ours - exported).abs().max()) if ours.shape == exported.shape else float("inf")
        if not off <= bound:  # NaN isn't
            raise CourseError(
                f"what was exported differs from the network by {off:.2g}, where {bound:.2g} is allowed, and {shown(path)} was "
                "not written; look whether the network gives finite numbers, and try the other format."
            )


def pictures(count: int, side: int) -> Tensor:
    """uint8 (count, 3, side, side) with what photographs have: smooth regions, an edge, grain."""
    generator = devices.generator(devices.derive_seed("pictures", count, side))
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    smooth = functional.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)  # (N, 3, S, S)
    smooth[:, :, side // 3 :, side // 2 :] *= 0.4
    grain = 0.03 * torch.randn(count, 3, side, side, generator=generator)
    return ((smooth + grain).clamp(0, 1) * 255).to(torch.uint8)
