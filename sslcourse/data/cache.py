"""One cache of decoded and drawn images, under the user's cache folder: arrays in, the same arrays out.

An entry is one safetensors file with a checksum. It is written beside its place and moved there, so that a
reader (or a second process that makes the same thing) sees the whole of it or nothing. A damaged entry is made
again; a cache that can't be written costs time, never a run. This module doesn't import torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sslcourse.console import say
from sslcourse.files import written
from sslcourse.paths import cache_folder as folder

LIMIT = 2 * 1024**3  # bytes that all entries together may take; the entries read longest ago go first
ENDING = ".safetensors"
Arrays = dict[str, np.ndarray]


def load_or_make(key: dict[str, Any], make: Callable[[], Arrays], notice: Callable[[str], None] = say) -> Arrays:
    """The arrays that `make` returns, from the cache where it has them.

    key     everything that decides the content, as JSON can write it: source, sizes, seed, code version.
            key["name"], if there is one, begins the file's name
    make    called when there is no sound entry: a dict of named arrays (numbers; `pack` turns text into one)
    notice  told, in one line, of a damaged entry and of a cache that can't be written
    """
    path = entry(key)
    try:
        return _read(path)
    except (FileNotFoundError, NotADirectoryError):
        pass  # nothing cached yet
    except PermissionError:
        notice(f"the cached file {path} belongs to someone who doesn't let you read it, and is made again.")
    except (OSError, SafetensorError, ValueError, KeyError):
        notice(f"the cached file {path} is damaged, and is made again.")
    arrays = make()
    try:
        _write(path, arrays)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        notice(f"could not write to the cache folder {path.parent} ({reason}), so this will take as long next time.")
    return arrays


def entry(key: dict[str, Any]) -> Path:
    """The file that belongs to a key."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
    return folder() / f"{key.get('name', 'data')}-{digest}{ENDING}"


def pack(thing: Any) -> np.ndarray:
    """Anything that JSON can write, as an array of bytes: uint8 (length,)."""
    return np.frombuffer(json.dumps(thing).encode(), np.uint8)


def unpack(array: np.ndarray) -> Any:
    """The inverse of `pack` (tuples come back as lists)."""
    return json.loads(array.tobytes())


def checksum(arrays: Arrays) -> str:
    """SHA-256 over names, types, shapes and content."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _read(path: Path) -> Arrays:
    with safe_open(path, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}
        expected = (file.metadata() or {})["checksum"]
    if checksum(arrays) != expected:
        raise ValueError("wrong checksum")
    with contextlib.suppress(OSError):
        os.utime(path)  # read now: the last to be dropped
    return arrays


def _write(path: Path, arrays: Arrays) -> None:
    size = sum(array.nbytes for array in arrays.values())
    if size > LIMIT:
        raise OSError(0, f"{size / 1e9:.1f} GB is more than the {LIMIT / 1e9:.1f} GB that the cache may hold")
    path.parent.mkdir(parents=True, exist_ok=True)
    _make_room(path.parent, LIMIT - size)
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with written(path) as temporary:
        save_file(contiguous, temporary, metadata={"checksum": checksum(arrays)})


def _make_room(place: Path, room: int) -> None:
    """Delete what killed processes left half written, and the entries read longest ago, down to `room` bytes."""
    with contextlib.suppress(OSError):
        for part in place.glob(".*.part"):
            if time.time() - part.stat().st_mtime > 3600:
                part.unlink(missing_ok=True)
    found = []
    for path in place.glob(f"*{ENDING}"):
        with contextlib.suppress(OSError):
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found, key=lambda one: one[0]):
        if total <= room:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size
