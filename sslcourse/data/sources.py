"""Data sets of other people: scikit-learn's digits, which come with it, and three that are downloaded when asked for.

Downloads go to the user's data folder and are checked against torchvision's checksums before anything in them is read.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
import torch
from torch import Tensor
from torch.nn import functional as F

from sslcourse.data import decode
from sslcourse.data.cache import say
from sslcourse.data.imageset import ImageSet
from sslcourse.data.splits import Splits, complete
from sslcourse.errors import CourseError

PATIENCE = 30  # seconds without a byte before a download is given up
UNWRITABLE = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST)
Part = tuple[Tensor, Tensor]  # images uint8 (N, 3, H, W), labels int64 (N,)


def folder() -> Path:
    """Where downloads lie: $SSLCOURSE_DATA, or the user's data folder."""
    chosen = os.environ.get("SSLCOURSE_DATA")
    return Path(chosen).expanduser() if chosen else platformdirs.user_data_path("sslcourse", appauthor=False)


def load_digits(*, size: int | None = None, seed: int = 0) -> Splits:
    """1,797 handwritten digits of 8x8 gray pixels (Alpaydin and Kaynak, 1998), enlarged to 32x32 RGB. No network."""
    from sklearn import datasets

    digits = datasets.load_digits()
    gray = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)  # [1797, 8, 8], from 0..16
    images = resize(_three_channels(gray), size or 32)
    labels = torch.from_numpy(digits.target).long()
    return complete("digits", ImageSet(images, labels, tuple("0123456789"), name="digits"), seed=seed)


@dataclass(frozen=True)
class Download:
    """A data set of torchvision: its class there, what to download by hand and how many images it holds."""

    name: str
    torchvision: str
    archive: str
    megabytes: int
    images: int
    side: int
    read: Callable[[object], Part]


def _read_cifar(data) -> Part:
    return torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets)


def _read_stl(data) -> Part:
    return torch.from_numpy(np.ascontiguousarray(data.data)), torch.from_numpy(data.labels.astype(np.int64))


def _read_fashion(data) -> Part:
    return F.pad(_three_channels(data.data), (2, 2, 2, 2)), data.targets.long()  # 28x28, with a black rim: 32x32


DOWNLOADS = {
    source.name: source
    for source in (
        Download("cifar10", "CIFAR10", "cifar-10-python.tar.gz", 170, 60_000, 32, _read_cifar),
        Download("stl10", "STL10", "stl10_binary.tar.gz", 2640, 113_000, 96, _read_stl),
        Download("fashion-mnist", "FashionMNIST", "FashionMNIST/raw/*-ubyte.gz", 31, 70_000, 32, _read_fashion),
    )
}


def load_download(name: str, *, size: int | None = None, seed: int = 0) -> Splits:
    """CIFAR-10 (Krizhevsky, 2009), STL-10 (Coates et al., 2011) or Fashion-MNIST (Xiao et al., 2017, 1708.07747).

    Test is the official test split; val is a tenth of the training images, by `seed`; unlabeled is STL-10's own, and
    elsewhere what remains of the training images, without labels.

    Raises CourseError without a copy and a network, for a damaged copy, and where memory doesn't suffice.
    """
    source = DOWNLOADS[name]
    size = size or source.side
    decode.require_memory(source.images, source.side)
    if name == "stl10":
        parts = {part: {"split": part} for part in ("train", "test", "unlabeled")}
    else:
        parts = {"train": {"train": True}, "test": {"train": False}}
    sets = {}
    for part, choice in parts.items():
        data = _open(source, choice, checked=bool(sets))
        with _damage_named(source):
            images, labels = source.read(data)
            classes = tuple(data.classes)
        labelled = part != "unlabeled"
        sets[part] = ImageSet(
            resize(images, size), labels if labelled else None, classes if labelled else (), name=name
        )
    return complete(name, **sets, seed=seed)


def _open(source: Download, choice: dict, checked: bool):
    """The torchvision data set, from the data folder, downloaded first where it isn't there."""
    from torchvision import datasets

    kind = getattr(datasets, source.torchvision)
    if checked:  # all files were, with the first split; those of STL-10 take seconds
        kind = type(kind.__name__, (kind,), {"_check_integrity": lambda self: True})
    with _damage_named(source), contextlib.suppress(RuntimeError):  # torchvision's "not found or corrupted"
        return kind(folder(), download=False, **choice)
    if not any(folder().glob(source.archive)):
        say(f"{source.name} is not in {folder()} yet: downloading {source.megabytes:,} MB.")
    with _download_named(source), _impatience(), contextlib.redirect_stdout(sys.stderr):
        return kind(folder(), download=True, **choice)


@contextlib.contextmanager
def _impatience() -> Iterator[None]:
    """A silent connection fails after PATIENCE seconds; by default it would hang for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def _download_named(source: Download) -> Iterator[None]:
    """Errors of a download as one sentence that says how to go on."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            raise CourseError(
                f"could not write {source.name} to {folder()} ({error.strerror}); "
                "set SSLCOURSE_DATA to a folder that has room."
            ) from None
        gave_up = isinstance(error, RuntimeError) and re.search("downloading|not found", str(error))  # torchvision's
        if not isinstance(error, OSError | http.client.HTTPException) and not gave_up:
            raise _damaged(source, error) from None
        reason = str(getattr(error, "reason", None) or error).strip().splitlines() or [type(error).__name__]
        raise CourseError(
            f"no sound copy of {source.name} is in {folder()}, and it could not be downloaded ({reason[-1]}); to go on "
            f"offline, use --data world or --data folder:PATH, or put {source.archive} into {folder()}."
        ) from None


@contextlib.contextmanager
def _damage_named(source: Download) -> Iterator[None]:
    """Errors of reading a local copy as one sentence."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(source, error) from None


def _damaged(source: Download, error: Exception) -> CourseError:
    return CourseError(
        f"the copy of {source.name} in {folder()} is damaged ({str(error)[:80] or type(error).__name__}); "
        "delete it, and the next run downloads it again."
    )


def _three_channels(gray: Tensor) -> Tensor:
    """uint8 (N, H, W) -> (N, 3, H, W)."""
    return gray.unsqueeze(1).repeat(1, 3, 1, 1)


def resize(images: Tensor, size: int) -> Tensor:
    """uint8 (N, 3, H, W) -> (N, 3, size, size), bilinear and antialiased."""
    if images.shape[-2:] == (size, size):
        return images
    resized = torch.empty(len(images), images.shape[1], size, size, dtype=torch.uint8)
    for i in range(0, len(images), 1024):  # in parts, since floats take four times the memory
        part = images[i : i + 1024].float()
        part = F.interpolate(part, (size, size), mode="bilinear", antialias=True, align_corners=False)
        resized[i : i + 1024] = part.round_().clamp_(0, 255).to(torch.uint8)
    return resized
