"""Pin every package again: requirements.lock for the course, benchmarks/requirements.lock for `make bench` and for the
tests against transformers, timm, lightly, datasets, webdataset, onnxruntime, pyarrow and TensorBoard, and for lesson 18
(Gymnasium, stable-baselines3), docs/requirements.lock for the site and its tests in a browser.

No option here may write the address of a registry into a lock, and `uv.lock` holds some: hence requirements files.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPILE = "pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade pyproject.toml"


def compile_lock(*options: str) -> None:
    subprocess.run([sys.executable, "-m", "uv", *COMPILE.split(), *options], cwd=ROOT, check=True)


compile_lock("--group", "dev", "--extra", "classroom", "-o", "requirements.lock")
EXTRAS = "--extra bench --extra ecosystem --extra onnx --extra practice --extra rl"
compile_lock(*EXTRAS.split(), "-c", "requirements.lock", "-o", "benchmarks/requirements.lock")
# all three go into one environment
both = ("-c", "requirements.lock", "-c", "benchmarks/requirements.lock")
compile_lock("--extra", "site", *both, "-o", "docs/requirements.lock")
