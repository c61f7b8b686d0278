"""What every test runs under: no network, one thread, no screen, nothing written into the tree."""

import os
import runpy
import tempfile
from pathlib import Path

# Before torch is imported: a worker is one of two on two cores, and one thread adds up in one order.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"

OFFLINE = Path(__file__).parent / "offline"
runpy.run_path(str(OFFLINE / "sitecustomize.py"))  # this process
paths = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
if str(OFFLINE) not in paths:  # and every process that a test starts
    os.environ["PYTHONPATH"] = os.pathsep.join([str(OFFLINE), *paths])

import hypothesis  # noqa: E402
from hypothesis.configuration import set_hypothesis_home_dir  # noqa: E402

set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "sslcourse-hypothesis")
# The same examples on every run; `pytest --hypothesis-profile explore` draws new ones.
hypothesis.settings.register_profile("course", database=None, deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("explore", database=None, deadline=None, max_examples=500, print_blob=True)
hypothesis.settings.load_profile("course")
