"""Images that stay on disk, and the one way in which the training loop gets the images of a step.

What fits into memory is read once and kept there, as `ImageSet` (on the device, where it fits there as well). What does
not is an `ImageFiles`: worker processes decode the batches of the next steps while the present one is trained on.
Either way step s gets the same images, so that a run can stop and go on anywhere.
"""

from __future__ import annotations

import functools
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from sslcourse import device as devices
from sslcourse.console import say, shown
from sslcourse.data import decode
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError, whole_number

AHEAD = 2  # batches that each worker prepares before they are asked for
SAMPLE = 1024  # images that a task may look at before training
NAMED = 8  # unreadable files named on standard error; the others are counted
TRIES = 64  # files in a row that may be unreadable


class ImageFiles:
    """N image files, each a uint8 (3, size, size) image when it is asked for. Made once, never changed.

    paths    the files, in an order that every process and every run agrees on
    size     height and width in pixels of the decoded images (decode.py says how)
    name     what the set is called in messages
    workers  processes that decode ahead, while a GPU trains; 0 decodes within the training process, on all its threads.
             Default: one for two cores, at most 8, beside a GPU; 0 without one, where both would want the same cores
    shelf    where `paths` lead; by default to files on disk

    A file that can't be read is named on standard error, and the next one in order stands in for it. Raises CourseError
    without files, and where TRIES files in a row can't be read.
    """

    def __init__(
        self,
        paths: Sequence[Path | str],
        size: int,
        *,
        name: str = "files",
        workers: int | None = None,
        shelf: decode.Disk = decode.DISK,
    ):
        if not len(paths):
            raise CourseError("there are no image files to stream; give at least one.")
        size = whole_number("the size of streamed images in pixels", size, 1)
        workers = None if workers is None else whole_number("the number of workers, which decode ahead,", workers, 0)
        # Bytes in one block, not a list of strings: a forked worker that counts references would copy all of them.
        self.paths = np.array([os.fsencode(path) for path in paths])
        self.side, self.name, self.shelf = size, name, shelf
        beside = max(1, min(8, (os.cpu_count() or 1) // 2)) if devices.pick_device("auto").type != "cpu" else 0
        self.workers = beside if workers is None else workers
        self.unreadable: dict[int, str] = {}  # file -> reason, of those met so far

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return f"ImageFiles({self.name!r}, {len(self):,} files of {self.side}x{self.side}, streamed)"

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.side, self.side

    @property
    def images(self) -> Tensor:
        raise CourseError(
            f"the images of {self.name} are streamed from disk and never in memory together; "
            "`take` and `sample` read some of them."
        )

    def path(self, index: int) -> str:
        return os.fsdecode(self.paths[index])

    def fingerprint(self) -> str:
        """What changes when a file's name, size in bytes or time does, or the size in pixels."""
        return f"{len(self)} files {self.side} {self.shelf.stamp([self.path(i) for i in range(len(self))])}"

    def take(self, indices: Tensor | Sequence[int]) -> ImageSet:
        """The images at `indices`, decoded now."""
        read = _Decoder(self.paths, self.side, self.shelf)(torch.as_tensor(indices, dtype=torch.int64))
        return ImageSet(self._received(*read), name=self.name)

    def sample(self, count: int = SAMPLE) -> ImageSet:
        """`count` images at equal distances through the whole set, or all, where there are fewer."""
        count = whole_number("the number of images to sample", count, 1)
        return self.take(torch.arange(0, len(self), max(1, -(-len(self) // count))))

    def batches(self, order: Callable[[int], Tensor], start: int, stop: int) -> Iterator[Tensor]:
        """uint8 (N, 3, size, size) of the files order(start), order(start + 1), … up to stop - 1, decoded ahead."""
        loader = DataLoader(
            _Decoder(self.paths, self.side, self.shelf),
            sampler=_Steps(order, start, stop),
            batch_size=None,  # an item is a whole batch
            num_workers=self.workers,
            prefetch_factor=AHEAD if self.workers else None,
            collate_fn=_as_it_is,
            worker_init_fn=_ends_with_its_parent,
            generator=devices.generator(0),  # a loader without one draws from the process's own random numbers
        )
        for read in loader:
            yield self._received(*read)

    def _received(self, images: np.ndarray | None, unreadable: dict[int, str]) -> Tensor:
        for index, reason in unreadable.items():
            if index in self.unreadable:
                continue
            self.unreadable[index] = reason
            if len(self.unreadable) <= NAMED:
                say(f"{self.name}: {shown(self.path(index))} can't be read ({reason}); the next file stands in for it.")
            elif len(self.unreadable) == NAMED + 1:
                say(f"{self.name}: there are more files that can't be read; they are replaced as well, and not named.")
        if images is None:
            raise CourseError(
                f"{TRIES} files of {self.name} in a row can't be read, {shown(self.path(min(unreadable)))} among them; "
                "mend or remove them, and go on with --resume."
            )
        return torch.from_numpy(images)


class _Decoder(Dataset):
    """File numbers (N,) -> uint8 (N, 3, size, size), and the reason for every file that can't be read.

    Arrays rather than tensors: workers pass tensors through shared memory, of which containers often have little.
    """

    def __init__(self, paths: np.ndarray, side: int, shelf: decode.Disk):
        self.paths, self.side, self.shelf = paths, side, shelf

    def __getitem__(self, indices: Tensor) -> tuple[np.ndarray | None, dict[int, str]]:
        images, unreadable = np.empty((len(indices), 3, self.side, self.side), np.uint8), {}
        read = functools.partial(self._read, unreadable=unreadable)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what is converted, or named as unreadable, anyway
            if get_worker_info() or len(indices) == 1:
                found = all(map(read, indices.tolist(), images))
            else:  # within the training process, whose threads wait meanwhile
                with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                    found = all(pool.map(read, indices.tolist(), images))
        return images if found else None, unreadable

    __call__ = __getitem__

    def _read(self, index: int, image: np.ndarray, unreadable: dict[int, str]) -> bool:
        """Decode file `index`, or the first after it that can be read, into `image`."""
        for candidate in range(index, index + TRIES):
            candidate %= len(self.paths)
            if candidate not in unreadable:
                try:
                    file = self.shelf.file(os.fsdecode(self.paths[candidate]))
                    image[:], _ = decode.read_image(file, self.side)
                    return True
                except decode.Unreadable as reason:
                    unreadable[candidate] = str(reason)
        return False


class _Steps:
    """order(start), order(start + 1), … as a sampler: one batch of file numbers after the other."""

    def __init__(self, order: Callable[[int], Tensor], start: int, stop: int):
        self.order, self.start, self.stop = order, start, stop

    def __iter__(self) -> Iterator[Tensor]:
        return (self.order(step) for step in range(self.start, self.stop))

    def __len__(self) -> int:
        return self.stop - self.start


def _as_it_is(read: tuple) -> tuple:
    return read


def _ends_with_its_parent(worker: int) -> None:
    """Called in a worker: it ends once the process that started it is gone, as a kernel that was killed is.

    PyTorch's workers look for that as well, but then wait for a reader of what they have prepared, for ever.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# --- what the training loop asks ---------------------------------------------------------------------------------


def source(images: ImageSet | ImageFiles | Tensor) -> Tensor | ImageFiles:
    """The images alone: whatever labels a set has stay behind."""
    return images.images if isinstance(images, ImageSet) else images


def placed(images: Tensor | ImageFiles, device: torch.device) -> Tensor | ImageFiles:
    """Images in memory, moved to the device where they fit beside training; files stay where they are."""
    return images.to(device) if isinstance(images, Tensor) and devices.fits(images.nbytes, device) else images


def looked_at(images: Tensor | ImageFiles) -> Tensor:
    """What a task may see of the images before training, uint8 (N, 3, H, W): all in memory, a sample of files."""
    return images if isinstance(images, Tensor) else images.sample().images


def report(images: Tensor | ImageFiles, device: torch.device) -> str:
    """One line: where the images of a run are."""
    if isinstance(images, ImageFiles):
        ahead = (
            f"{images.workers} worker process{'es' if images.workers != 1 else ''}"
            if images.workers
            else "the loop itself"
        )
        return f"images: {len(images):,}, streamed from disk by {ahead}, {images.side}x{images.side} pixels"
    where = f"on {device}" if device.type != "cpu" and devices.fits(images.nbytes, device) else "in memory"
    return f"images: {len(images):,} {where}, {images.nbytes / 1e6:,.0f} MB"
