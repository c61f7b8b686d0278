"""Many pictures at once: in this process, or in a few Python processes that do nothing but draw.

The helpers are plain `python -c` processes that write arrays to their standard output. So nothing is forked (safe beside
threads and CUDA), no script needs an `if __name__ == "__main__"` guard, and notebooks work alike on every system. Where
none can be started, this process draws by itself. This module doesn't import torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from sslcourse.data.world_draw import draw_range

Arrays = dict[str, np.ndarray]
NAMES = ("images", "instances", "boxes", "box_labels", "facts", "captions")
CHUNK = 250  # pictures that are drawn in one go; does not change what they look like
WORTH_HELP = 1500  # 32x32 pictures, about a second of drawing: for fewer no helper is started


def draw_many(
    mode: str, domain: str, split: str, seed: int, size: int, count: int, *, workers: int | None, progress: bool
) -> Arrays:
    """Pictures 0..count-1 of a split, as `draw_range` gives them. `workers` is how many processes draw (None: choose)."""
    chunks = [(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    if workers is None:
        workers = min(cores(), 8, count // WORTH_HELP + 1 if size == 32 else count // 300 + 1)
    workers = min(workers, len(chunks))
    done: dict[int, Arrays] = {}
    with tqdm(total=count, desc=f"drawing {split}", unit="images", disable=not progress, leave=False, delay=1.0) as bar:
        if workers > 1:
            for number, arrays in _helped(mode, domain, split, seed, size, chunks, workers):
                done[number] = arrays
                bar.update(len(arrays["images"]))
        for number, (start, stop) in enumerate(chunks):
            if number not in done:  # no helpers, or one that failed
                done[number] = draw_range(mode, domain, split, seed, size, start, stop)
                bar.update(stop - start)
    if not chunks:
        return draw_range(mode, domain, split, seed, size, 0, 0)
    return {name: np.concatenate([done[number][name] for number in range(len(chunks))]) for name in NAMES}


def cores() -> int:
    """How many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _helped(
    mode: str, domain: str, split: str, seed: int, size: int, chunks: list[tuple[int, int]], workers: int
) -> Iterator[tuple[int, Arrays]]:
    """(number, arrays) of chunks in the order in which the helpers finish them; chunks of a helper that fails are missing."""
    if "python" not in Path(sys.executable or "").name.lower():  # Python inside another program: nothing to start
        return
    results: queue.SimpleQueue = queue.SimpleQueue()
    helpers: list[subprocess.Popen] = []
    try:
        for first in range(workers):
            job = [mode, domain, split, seed, size, chunks[first::workers]]
            helper = _start(json.dumps(job))
            helpers.append(helper)
            numbers = range(first, len(chunks), workers)
            threading.Thread(target=_listen, args=(helper, numbers, results), daemon=True).start()
        working = workers
        while working:
            result = results.get()
            if result is None:
                working -= 1
            else:
                yield result
    except OSError:  # no process can be started here
        return
    finally:
        for helper in helpers:
            with contextlib.suppress(OSError):
                helper.kill()
            helper.wait()


def _start(job: str) -> subprocess.Popen:
    path = os.pathsep.join(entry for entry in (str(Path(__file__).parents[2]), *sys.path) if entry)
    return subprocess.Popen(
        [sys.executable, "-c", "from sslcourse.data.world_batch import help_out; help_out()", job],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _listen(helper: subprocess.Popen, numbers: range, results: queue.SimpleQueue) -> None:
    """Pass on what a helper writes, chunk by chunk, and None at its end, whatever that end is."""
    try:
        for number in numbers:
            results.put((number, {name: _receive(helper.stdout) for name in NAMES}))
    except Exception:  # cut off or garbled: the caller draws what is missing
        pass
    finally:
        results.put(None)


def help_out() -> None:
    """The whole life of a helper: draw the chunks that its command line names, and write them to standard output."""
    mode, domain, split, seed, size, chunks = json.loads(sys.argv[1])
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        for start, stop in chunks:
            arrays = draw_range(mode, domain, split, seed, size, start, stop)
            for name in NAMES:
                np.lib.format.write_array(sys.stdout.buffer, np.ascontiguousarray(arrays[name]), allow_pickle=False)
            sys.stdout.buffer.flush()


def _receive(pipe) -> np.ndarray:
    version = np.lib.format.read_magic(pipe)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, _, dtype = read_header(pipe)
    wanted = int(np.prod(shape)) * dtype.itemsize
    content = pipe.read(wanted)
    if len(content) != wanted:
        raise EOFError("the helper ended early")
    return np.frombuffer(content, dtype).reshape(shape)
