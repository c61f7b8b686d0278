"""Execute notebooks in place, each in a fresh kernel with the network switched off, and normalise them.

    python tools/execute.py notebooks/02_*.ipynb      these
    python tools/execute.py                           all of notebooks/ and solutions/
    python tools/execute.py --threads 1 FILES         with that many threads for PyTorch

A notebook that fails stays as it was; its cell and the error are named, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbnormalise import machine_traces, normalise, notebooks

ROOT = Path(__file__).resolve().parents[1]
OFFLINE = ROOT / "tests" / "offline"  # its sitecustomize.py switches the network off


def execute(path: Path, timeout: int = 600) -> str:
    """The text of the notebook at `path` after a run from top to bottom; raises CellExecutionError where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as settings:  # nobody's own IPython profile takes part
        search = os.pathsep.join(filter(None, (str(OFFLINE), os.environ.get("PYTHONPATH"))))
        env = {**os.environ, "IPYTHONDIR": settings, "PYTHONHASHSEED": "0", "PYTHONPATH": search}
        env.pop("MPLBACKEND", None)  # figures go into the notebook, whatever backend this shell prefers
        client = NotebookClient(
            notebook,
            timeout=timeout,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(path.parent)}},
        )
        client.execute(env=env)
    return nbformat.writes(normalise(notebook)).rstrip("\n") + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS of the kernel (default: as in the environment)")
    parser.add_argument("--timeout", type=int, default=600, help="seconds for one cell")
    options = parser.parse_args()
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
    failed = 0
    for path in options.files or notebooks():
        start = time.perf_counter()
        try:
            text = execute(path, options.timeout)
        except CellExecutionError as error:
            failed += 1
            print(f"{path}: FAILED\n{error}", flush=True)
            continue
        path.write_bytes(text.encode())
        print(f"{path}: {time.perf_counter() - start:.0f} s", flush=True)
        for sentence in machine_traces(nbformat.reads(text, as_version=4)):
            print(f"{path}: {sentence}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
