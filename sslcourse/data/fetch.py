"""Files of other people, from the network or from a mirror: whole and with the right checksum, or not at all.

What arrives is written beside its place, as NAME.part, and moved there once its checksum is right. After an interruption
the next attempt goes on where that file ends; a server that can't do so begins anew. An archive is unpacked beside its
place as well, so that no half-written file ever lies among the images.

$SSLCOURSE_MIRROR, a folder or the beginning of a URL, is where all files are taken from, under their own names.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import os
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from sslcourse.errors import CourseError
from sslcourse.files import reading
from sslcourse.paths import typed

PATIENCE = 30  # seconds without a byte before a connection is given up
CHUNK = 1 << 16  # bytes that are read at once
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


class Unavailable(Exception):
    """Why a file can't be had, in a few words."""


@dataclass(frozen=True)
class Remote:
    """A file of other people: where it is offered, its MD5 checksum, and its place in the data folder."""

    url: str
    md5: str
    place: str

    @property
    def name(self) -> str:
        return self.place.rpartition("/")[2]


def fetch(remote: Remote, into: Path, progress: bool = True) -> None:
    """Put a file at its place in the folder `into`, unless it is there already.

    Raises Unavailable where it can't be had, CourseError for a mirror that isn't there, and OSError (one of UNWRITABLE)
    where it can't be written.
    """
    place, url = into / remote.place, origin(remote)
    if is_sound(place, remote.md5):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.part")
    while True:
        resumed = _length(part) > 0
        _receive(url, part, progress)
        if is_sound(part, remote.md5):
            return os.replace(part, place)
        part.unlink()
        if not resumed:  # what an earlier run left may have been of another file: that is tried once more
            raise Unavailable(f"{url} has a wrong checksum, and was thrown away")


def origin(remote: Remote) -> str:
    """The URL that a file is taken from: its own, or that of its name at the mirror."""
    mirror = os.environ.get("SSLCOURSE_MIRROR", "").strip()
    if not mirror:
        return remote.url
    if "://" not in mirror:
        try:
            folder = typed(mirror)
        except CourseError as error:
            raise CourseError(f"SSLCOURSE_MIRROR: {error}") from None
        if not folder.is_dir():
            raise CourseError(
                f"SSLCOURSE_MIRROR is {mirror!r}, and there is no such folder; set it to a folder that holds "
                f"{remote.name}, or to a URL that comes before that name."
            )
        mirror = folder.resolve().as_uri()
    return f"{mirror.rstrip('/')}/{remote.name}"


def is_sound(path: Path, md5: str) -> bool:
    """Whether a file is there and has this checksum (hexadecimal MD5, as torchvision lists them)."""
    if not path.is_file():
        return False
    with reading(path), open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == md5


def _receive(url: str, part: Path, progress: bool) -> None:
    """Fill `part` from `url`, going on after each interruption as long as that brings more."""
    while True:
        before = _length(part)
        try:
            return _attempt(url, part, progress)
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # there is nothing after what is here: whether it is right, the checksum tells
            raise Unavailable(f"{url}: {error}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, OSError) and error.errno in UNWRITABLE:
                raise
            if _length(part) <= before:
                reasons = str(getattr(error, "reason", None) or error).strip().splitlines() or [type(error).__name__]
                kept = f"; {before / 1e6:,.1f} MB of it are here, and the next run goes on from there"
                raise Unavailable(f"{url}: {reasons[-1]}{kept if before else ''}") from None


def _attempt(url: str, part: Path, progress: bool) -> None:
    """Write to `part` what it lacks of `url`, in one connection."""
    have = _length(part)
    asked = {"User-Agent": "sslcourse"} | ({"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=asked), timeout=PATIENCE) as response:
        sent = response.headers.get("Content-Range", "")
        start = have if response.status == http.HTTPStatus.PARTIAL_CONTENT and sent.startswith(f"bytes {have}-") else 0
        length = response.headers.get("Content-Length")
        whole = start + int(length) if length else None
        style = {"desc": part.stem, "unit": "B", "unit_scale": True, "leave": False, "file": sys.stderr}
        bar = tqdm(total=whole, initial=start, disable=not progress, **style)
        with open(part, "ab" if start else "wb") as file, bar:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            if whole is not None and file.tell() < whole:  # the connection ended early, which Python doesn't tell
                raise ConnectionError(f"the connection ended after {file.tell() / 1e6:,.1f} of {whole / 1e6:,.1f} MB")


def _length(path: Path) -> int:
    """Bytes in a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


# --- unpacking ---------------------------------------------------------------------------------------------------


def unpack(archive: Path) -> None:
    """Unpack a tar archive or a .gz file beside itself: each file or folder that is its own comes into its place whole.

    What was there of an earlier, unsound copy makes room.
    """
    if not tarfile.is_tarfile(archive):
        part = archive.with_name(f"{archive.stem}.part")
        with gzip.open(archive) as packed, open(part, "wb") as file:
            shutil.copyfileobj(packed, file)
        return os.replace(part, archive.with_suffix(""))
    beside = archive.with_name(f".{archive.name}.unpacking")
    shutil.rmtree(beside, ignore_errors=True)  # of a run that was killed
    try:
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on
                tar.extraction_filter = _safe
            tar.extractall(beside)
        for unpacked in list(beside.iterdir()):
            place = archive.with_name(unpacked.name)
            if place.is_dir():
                shutil.rmtree(place)
            os.replace(unpacked, place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _safe(member: tarfile.TarInfo, place: str) -> tarfile.TarInfo | None:
    """A member that stays within its place, with the mode that the umask gives, whatever the archive says."""
    safe = tarfile.data_filter(member, place)
    return None if safe is None else safe.replace(mode=None, deep=False)
