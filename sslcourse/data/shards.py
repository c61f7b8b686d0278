"""Tar files of images as a data set, in WebDataset's layout, for what doesn't fit a file system as single files.

PATTERN is one tar file, a folder of them, or a name with *, ? or braces: shards/train-{000..146}.tar. Within a tar, files
whose names agree up to the first dot of the last part are one sample: cat/0001.jpg, cat/0001.cls. A sample has one image, and
where it has a .cls, the text in it is its class. Images of samples without one are for pretraining; where all have none, so
are all. Other files (.json, .txt) are passed over, and counted. Only tars without compression: a compressed one has no
middle to begin at.

The course's loop asks for the images of step s by their numbers, so that a run goes on anywhere with the same bits. The
library `webdataset` reads shards from front to back through a shuffling buffer, whose state no checkpoint holds, and its
`wids` wants an index that was written before. So each tar is looked through once, and the name of an image says where it
lies: SHARD::NAME@START+LENGTH. No tar is held open, and of N images nothing but N names is in memory.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from sslcourse.console import shown
from sslcourse.data import cache as caches
from sslcourse.data import decode
from sslcourse.data.listing import Listing, load_listed
from sslcourse.data.options import LoadOptions
from sslcourse.data.splits import Splits
from sslcourse.data.walk import Passed, named
from sslcourse.errors import CourseError
from sslcourse.files import reading, refuse_pipe
from sslcourse.paths import typed

BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
MOST_SHARDS = 1_000_000  # that one pattern may stand for
COMPRESSED = re.compile(r"(?i)\.(tar\.\w+|tgz|tbz2?|txz)$")
BETWEEN = "::"  # a tar's path and what is in it
PLACE = re.compile(rf"(?s)(.*?){BETWEEN}.*@(\d+)\+(\d+)")
CLASS = ".cls"
CLASS_LENGTH = 200  # bytes of the name of a class
VERSION = 2  # counts changes of what is kept of a tar


def load_shards(pattern: str | Path, options: LoadOptions) -> Splits:
    """The splits of tar files (see above), every image a square of `options.size` pixels.

    Raises CourseError as `load_listed` does, where no tar is found, for one that is cut short, damaged or compressed, for a
    sample with two images or classes, or whose class lies apart from its image, and without any image.
    """
    listing = survey(pattern, options.cache)
    listing.spec = f"shards:{shown(pattern)}"
    return load_listed(listing, options)


def survey(pattern: str | Path, cache: bool = True) -> Listing:
    """Find the images of tar files and the class of each. Raises CourseError as `load_shards` says."""
    paths = expanded(pattern)
    top = Path(os.path.commonpath([path.parent for path in paths]))
    listing = Listing(top, f"shards:{shown(Path(pattern).name)}", f"shards:{shown(pattern)}", shelf=Tars())
    labelled, others, passed = [], [], Passed()
    for path in paths:
        images, endings = _images(path, cache)
        passed.endings.update(endings)
        for label, name in images:
            (labelled if label else others).append((label, f"{path}{BETWEEN}{name}"))
    if not labelled and not others:
        raise CourseError(f"there are no images in {shown(pattern)}; a shard holds files such as 0001.jpg.")
    listing.classes = tuple(sorted({label for label, _ in labelled}))
    if len(listing.classes) == 1:
        raise CourseError(
            f"{shown(pattern)} has one class, {listing.classes[0]!r}; measuring needs images of two classes or more, and to "
            f"pretrain without labels, leave the {CLASS} files out."
        )
    listing.files = {"train": labelled} if labelled else {}
    if others:
        listing.files["unlabeled"] = others
    listing.notes = [f"{len(paths):,} shard{'s' * (len(paths) > 1)}, {len(labelled) + len(others):,} images."]
    listing.notes += passed.notes()
    if compressed := _compressed(typed(pattern)):
        listing.warnings.append(
            f"shards that are compressed were left out, since they can't be read: {named(compressed)}."
        )
    return listing


def expanded(pattern: str | Path) -> list[Path]:
    """The tar files that a pattern stands for, in the order of their names. Raises CourseError for none, and for numbers
    in braces of which one isn't there."""
    asked = typed(pattern)
    found: list[Path] = _tars_in(asked) if asked.is_dir() else []
    for name in () if asked.is_dir() else _numbered(str(asked)):
        some = [Path(path) for path in sorted(glob.glob(name))] if glob.has_magic(name) else [Path(name)]
        if not some or not some[0].exists():
            raise CourseError(
                f"there is no tar file {shown(name)}; shards: takes one, a folder of them, or a pattern such as "
                "shards/train-{000..146}.tar or shards/*.tar."
            )
        found += some
    if odd := next((path for path in found if BETWEEN in str(path)), None):
        raise CourseError(
            f"{shown(odd)} has {BETWEEN} in its name, which parts a tar from what is in it; call it otherwise."
        )
    return found


def _tars_in(folder: Path) -> list[Path]:
    with reading(folder):
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".tar")
    if not found:
        raise CourseError(
            f"there is no tar file in {shown(folder)}; shards: takes one, a folder of them, or a pattern."
        )
    return found


def _compressed(asked: Path) -> list[str]:
    """The names of compressed tars in a folder of shards."""
    names = sorted(os.listdir(asked)) if asked.is_dir() else []
    return [name for name in names if COMPRESSED.search(name)]


def _numbered(text: str) -> Iterator[str]:
    """ "a-{08..10}.tar" to "a-08.tar", "a-09.tar", "a-10.tar"; zeros in front are kept."""
    braces = BRACES.search(text)
    if not braces:
        yield text
        return
    first, last = int(braces[1]), int(braces[2])
    if not first <= last < first + MOST_SHARDS:
        raise CourseError(f"{braces[0]} in {shown(text)} counts upwards, to at most {MOST_SHARDS:,} shards.")
    for number in range(first, last + 1):
        yield from _numbered(f"{text[: braces.start()]}{number:0{len(braces[1])}d}{text[braces.end() :]}")


# --- one tar -------------------------------------------------------------------------------------------------------


def _images(path: Path, cache: bool) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """(class or "", NAME@START+LENGTH) of each sample of a tar, in its order, and how many other files of each ending there
    are; kept, since a large tar takes a while."""

    def make() -> caches.Arrays:
        found = list(_walked(path))
        images = [(label, name) for label, name in found if label is not None]
        others = Counter(ending for label, ending in found if label is None)
        return {"images": caches.pack({"rows": images, "others": others})}

    key = {"name": "shard", "path": os.path.realpath(path), "files": decode.DISK.stamp([path]), "version": VERSION}
    arrays = caches.load_or_make(key, make) if cache else make()
    found = caches.unpack(arrays["images"])
    return [(label, name) for label, name in found["rows"]], found["others"]


def _walked(path: Path) -> Iterator[tuple[str | None, str]]:
    """(class or "", NAME@START+LENGTH) of each sample, and (None, its ending) for each file that is neither."""
    refuse_pipe(path)
    known = decode.endings()
    alone: dict[str, set[str]] = {"image": set(), "class": set()}  # samples that have but the one
    sample, image, label = "", "", ""

    def ended() -> Iterator[tuple[str, str]]:
        if bool(image) != bool(label):
            alone["image" if image else "class"].add(sample)
        if image:
            yield label, image

    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                tar.members = []  # it would keep every header
                if member.isdir() or os.path.basename(member.name).startswith("."):
                    continue
                key, ending = _parts(member.name)
                if key != sample:
                    yield from ended()
                    sample, image, label = key, "", ""
                if not member.isfile() or (ending != CLASS and ending not in known):
                    yield None, ending if member.isfile() else "links"
                    continue
                if label if ending == CLASS else image:
                    what = "classes" if ending == CLASS else "images"
                    raise CourseError(
                        f"the sample {shown(key)} in {shown(path)} has two {what}; give each image its own name."
                    )
                if ending == CLASS:
                    label = _class(path, tar, member)
                else:
                    image = f"{member.name}@{member.offset_data}+{member.size}"
            yield from ended()
            _refuse_cut(path, tar)
            _refuse_apart(path, alone)
    except (tarfile.TarError, EOFError) as error:
        raise CourseError(
            f"{shown(path)} can't be read as a tar without compression ({error}); unpack it with gunzip, or write it again."
        ) from None
    except OSError as error:
        raise CourseError(f"{shown(path)} can't be read ({error.strerror or error}); give another one.") from None


def _refuse_apart(path: Path, alone: dict[str, set[str]]) -> None:
    """CourseError where the class of a sample isn't beside its image: what is between them is taken for other samples."""
    if apart := sorted(alone["image"] & alone["class"]):
        raise CourseError(
            f"in {shown(path)} the image and the class of {len(apart):,} samples lie apart, such as {shown(apart[0])}; write "
            "the files of a sample one after the other, as tar --sort=name does."
        )


def _refuse_cut(path: Path, tar: tarfile.TarFile) -> None:
    """CourseError for a tar that ends without the zeros of an end, or goes on behind them: what follows isn't read."""
    with open(path, "rb") as file:
        file.seek(tar.offset)
        block = file.read(tarfile.BLOCKSIZE)
        whole = len(block) == tarfile.BLOCKSIZE and not any(block)
        while whole and block and not any(block):
            block = file.read(tarfile.BLOCKSIZE)
    if not whole or (block and _is_header(block)):
        raise CourseError(
            f"{shown(path)} is cut short, or damaged at byte {tar.offset:,}, or two tars in one; what follows would be lost: "
            "get it or write it again."
        )


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _parts(name: str) -> tuple[str, str]:
    """ "cat/0001.seg.png" to "cat/0001", ".seg.png": as WebDataset divides names."""
    folder, _, last = name.rpartition("/")
    stem, dot, ending = last.partition(".")
    return f"{folder}/{stem}" if folder else stem, f"{dot}{ending}".lower()


def _class(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    content = tar.extractfile(member).read(CLASS_LENGTH + 1)
    text = content.decode("utf-8-sig", "replace").strip()
    if not text or len(content) > CLASS_LENGTH or not text.isprintable():
        raise CourseError(
            f"{shown(member.name)} in {shown(path)} is no class, which is a number or a word; leave such files out."
        )
    return text


class Tars(decode.Disk):
    """The shelf of images in tar files, whose names say where they lie. It holds nothing."""

    def file(self, name: str | Path) -> decode.File:
        """The bytes of an image; none, where its tar has become shorter or is gone."""
        path, start, length = self.place(name)
        try:
            with open(path, "rb") as tar:
                tar.seek(start)
                return tar.read(length)
        except OSError:
            return b""

    def length(self, name: str | Path) -> int:
        return self.place(name)[2]

    def stamp(self, names: Sequence[str | Path]) -> str:
        tars = super().stamp(sorted({self.place(name)[0] for name in names}))
        digest = hashlib.blake2b(tars.encode(), digest_size=16)
        for name in names:
            digest.update(os.fsencode(name) + b"\n")
        return digest.hexdigest()

    @staticmethod
    def place(name: str | Path) -> tuple[str, int, int]:
        """The tar, where in it an image starts, and its length in bytes."""
        whole = PLACE.fullmatch(os.fspath(name))
        return whole[1], int(whole[2]), int(whole[3])
