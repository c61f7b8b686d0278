"""Data sets of other people: scikit-learn's digits, which come with it, and those that are downloaded when asked for.

Downloads (see fetch.py) go to the user's data folder and are checked against torchvision's checksums before anything in
them is read. Those that are arrays of small images are here, photographs in photos.py and stl10.py.
"""

from __future__ import annotations

import contextlib
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcourse.data import decode, fetch
from sslcourse.data.cache import say
from sslcourse.data.fetch import Remote
from sslcourse.data.imageset import ImageSet
from sslcourse.data.options import LoadOptions
from sslcourse.data.splits import Splits, complete
from sslcourse.errors import CourseError
from sslcourse.locking import claimed
from sslcourse.paths import data_folder as folder

Part = tuple[Tensor, Tensor]  # images uint8 (N, 3, H, W), labels int64 (N,)


def load_digits(options: LoadOptions) -> Splits:
    """1,797 handwritten digits of 8x8 gray pixels (Alpaydin and Kaynak, 1998), enlarged to 32x32 RGB. No network."""
    from sklearn import datasets

    digits = datasets.load_digits()
    gray = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)  # [1797, 8, 8], from 0..16
    images = resize(_three_channels(gray), options.size or 32)
    labels = torch.from_numpy(digits.target).long()
    return complete("digits", ImageSet(images, labels, tuple("0123456789"), name="digits"), seed=options.seed)


@dataclass(frozen=True)
class Source:
    """A data set that torchvision reads.

    torchvision  the name of its class there
    place        the folder, in the data folder, that its archives are unpacked to
    megabytes    what is downloaded
    files        from the class to the files that are downloaded; those to unpack end in .gz or .tgz
    """

    name: str
    torchvision: str
    place: str
    megabytes: int
    files: Callable[[type], list[Remote]]

    @property
    def kind(self) -> type:
        from torchvision import datasets

        return getattr(datasets, self.torchvision)

    @property
    def remotes(self) -> list[Remote]:
        return self.files(self.kind)


@dataclass(frozen=True)
class Download(Source):
    """One whose images come as one array: how many they are, and how to read them."""

    images: int
    read: Callable[[object], Part]


def _one_archive(kind) -> list[Remote]:
    return [Remote(kind.url, kind.tgz_md5, kind.filename)]


def _four_files(kind) -> list[Remote]:
    return [Remote(kind.mirrors[0] + name, md5, f"{kind.__name__}/raw/{name}") for name, md5 in kind.resources]


def _read_cifar(data) -> Part:
    return torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets)


def _read_fashion(data) -> Part:
    return F.pad(_three_channels(data.data), (2, 2, 2, 2)), data.targets.long()  # 28x28, with a black rim: 32x32


DOWNLOADS = {
    source.name: source
    for source in (
        Download("cifar10", "CIFAR10", "cifar-10-batches-py", 170, _one_archive, 60_000, _read_cifar),
        Download("fashion-mnist", "FashionMNIST", "FashionMNIST/raw", 31, _four_files, 70_000, _read_fashion),
    )
}
SIDE = 32  # pixels, of the images of both


def load_download(name: str, options: LoadOptions) -> Splits:
    """CIFAR-10 (Krizhevsky, 2009) or Fashion-MNIST (Xiao et al., 2017, 1708.07747).

    Test is the official test split; val is a tenth of the training images, by `seed`; unlabeled is what remains of them,
    without labels.

    Raises CourseError without a copy and a network, for a damaged copy, and where memory doesn't suffice.
    """
    source = DOWNLOADS[name]
    size = options.size or SIDE
    decode.require_memory(source.images, max(size, SIDE))
    sets = {}
    for part in ("train", "test"):
        data = opened(source, options.progress, train=part == "train")
        with damage_named(source):
            images, labels = source.read(data)
            sets[part] = ImageSet(resize(images, size), labels, tuple(data.classes), name=name)
    return complete(name, **sets, seed=options.seed)


def opened(source: Source, progress: bool, **choice):
    """The torchvision data set for a `choice` of its options, downloaded first where it isn't in the data folder.

    One process downloads at a time. Raises CourseError with the way out.
    """

    def there():
        with damage_named(source), contextlib.suppress(RuntimeError):  # torchvision's "not found or corrupted"
            return source.kind(folder(), download=False, **choice)

    if (data := there()) is not None:
        return data
    with _download_named(source):
        folder().mkdir(parents=True, exist_ok=True)
        with claimed(folder() / source.name, file=True, wait=True):
            if (data := there()) is not None:  # another process has brought it meanwhile
                return data
            _obtain(source, progress)
    with damage_named(source):
        return source.kind(folder(), download=False, **choice)


def _obtain(source: Source, progress: bool) -> None:
    """Bring a data set into the data folder: what is missing there is downloaded, and all archives are unpacked."""
    if not all((folder() / remote.place).exists() for remote in source.remotes):
        say(f"{source.name} is not in {folder()} yet: getting {source.megabytes:,} MB.")
    for remote in source.remotes:
        fetch.fetch(remote, folder(), progress)
        if remote.place.endswith((".gz", ".tgz")):
            fetch.unpack(folder() / remote.place)


@contextlib.contextmanager
def _download_named(source: Source) -> Iterator[None]:
    """Errors of a download as one sentence that says how to go on."""
    try:
        yield
    except fetch.Unavailable as reason:
        needed = ", ".join(remote.place for remote in source.remotes)
        raise CourseError(
            f"no sound copy of {source.name} is in {folder()}, and it could not be downloaded ({reason}); to go on "
            f"offline, use --data world or --data folder:PATH, put {needed} into {folder()}, or set "
            f"SSLCOURSE_MIRROR to a folder or a URL that has {'it' if len(source.remotes) == 1 else 'them'}."
        ) from None
    except OSError as error:
        if error.errno not in fetch.UNWRITABLE:
            raise damaged(source, error) from None
        raise CourseError(
            f"could not write {source.name} to {folder()} ({error.strerror}); "
            "set SSLCOURSE_DATA to a folder that has room."
        ) from None
    except (EOFError, tarfile.TarError, zlib.error) as error:
        raise damaged(source, error) from None


@contextlib.contextmanager
def damage_named(source: Source) -> Iterator[None]:
    """Errors of reading a local copy as one sentence."""
    try:
        yield
    except (MemoryError, CourseError):
        raise
    except PermissionError as error:
        raise CourseError(
            f"the copy of {source.name} in {folder() / source.place} can't be read by you ({error.filename}); ask whoever "
            "made it for leave (chmod -R a+rX), or set SSLCOURSE_DATA to a folder of your own."
        ) from None
    except Exception as error:
        raise damaged(source, error) from None


def damaged(source: Source, error: object) -> CourseError:
    return CourseError(
        f"the copy of {source.name} in {folder() / source.place} is damaged ({str(error)[:80] or type(error).__name__}); "
        "delete that folder, and the next run makes it again."
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
