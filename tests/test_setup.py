"""One list of dependencies, one lock that fits it, one layout, and imports that point one way."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
LOCKS = ("requirements.lock", "benchmarks/requirements.lock", "docs/requirements.lock")
ENTRY = re.compile(
    r"^(?P<name>[a-z0-9._-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>[^\\]+?))?(?P<hashes>(?: \\\n +--hash=\S+)+)$"
)
PLATFORMS = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"},
    "mac": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64", "os_name": "posix"},
    "windows": {"sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64", "os_name": "nt"},
}
PYTHONS = {"3.11": "3.11.7", "3.12": "3.12.1", "3.13": "3.13.0"}
TOP_LEVEL = set(
    "notebooks sslcourse exercises solutions tests environment.yml README.md "
    "pyproject.toml requirements.lock Makefile LICENSE CITATION.cff CONTRIBUTING.md .ci benchmarks docs "
    "tools nbgrader_config.py .gitignore .gitattributes".split()
)


def entries(lock):
    """(name, version, marker or None, hashes) of every package that a lock pins; a line of another form is a failure."""
    lines = (ROOT / lock).read_text(encoding="utf-8").splitlines()
    found = []
    for block in re.split(r"\n(?=[^ ])", "\n".join(line for line in lines if not line.lstrip().startswith("#"))):
        match = ENTRY.match(block)
        assert match, f"not of the form name==version with hashes: {block[:100]!r}"
        marker = Marker(match["marker"]) if match["marker"] else None
        found.append((match["name"], match["version"], marker, re.findall(r"--hash=(\S+)", match["hashes"])))
    return found


def pinned(lock, python, platform):
    """Package to version, as installed under a Python on a platform."""
    about = PLATFORMS[platform] | {"python_version": python, "python_full_version": PYTHONS[python], "extra": ""}
    about |= {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
    chosen = [(name, version) for name, version, marker, _ in entries(lock) if not marker or marker.evaluate(about)]
    assert len(chosen) == len(dict(chosen)), "a package is pinned twice"
    return dict(chosen)


def files():
    """Every file that belongs to the repository, committed or about to be."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a clone, so that what belongs to the repository is unknown")
    listed = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    output = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in output.split("\0") if name and (ROOT / name).is_file()]


# One list of dependencies.


def test_conda_takes_its_packages_from_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, from_pip = environment["dependencies"]
    assert pip == "pip"
    assert SpecifierSet(python.removeprefix("python ")) == SpecifierSet(PROJECT["requires-python"])
    assert from_pip == {"pip": ["--editable .[classroom]"]}, "a package named here would be a second list"
    assert "classroom" in PROJECT["optional-dependencies"]


def test_supported_pythons_are_said_alike_everywhere():
    from sslcourse import doctor

    allowed = [f"3.{minor}" for minor in range(20) if f"3.{minor}.5" in SpecifierSet(PROJECT["requires-python"])]
    assert allowed == list(PYTHONS)
    assert [f"{major}.{minor}" for major, minor in doctor.PYTHONS] == [allowed[0], allowed[-1]]
    assert "(3, 11) <= sys.version_info[:2] <= (3, 13)" in (ROOT / "tools" / "environment.sh").read_text()
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py311"


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_satisfies_every_dependency(python, platform):
    versions = pinned("requirements.lock", python, platform)
    groups = [
        PROJECT["dependencies"],
        PROJECT["optional-dependencies"]["classroom"],
        PYPROJECT["dependency-groups"]["dev"],
        PYPROJECT["build-system"]["requires"],  # so that the package itself is installed without a look at the network
    ]
    for requirement in map(Requirement, sum(groups, [])):
        version = versions.get(canonicalize_name(requirement.name))
        assert version, f"{requirement} is not in requirements.lock: run `make lock`"
        assert requirement.specifier.contains(version), f"the lock has {requirement.name} {version}, not {requirement}"


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_other_locks_add_to_the_first_and_change_nothing(python, platform):
    """All three are installed into one environment."""
    course, bench, site = (pinned(lock, python, platform) for lock in LOCKS)
    for first, second in ((course, bench), (course, site), (bench, site)):
        assert {n: v for n, v in second.items() if n in first and first[n] != v} == {}
    assert "lightly" in bench and "lightly" not in course
    assert {"sphinx", "playwright"} <= set(site) and not {"sphinx", "playwright"} & set(course)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_is_pinned_by_hash(lock):
    found = entries(lock)
    assert len(found) > 100
    for name, _, _, hashes in found:
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", h) for h in hashes), name


def test_torch_and_torchvision_of_the_lock_belong_together():
    versions = pinned("requirements.lock", "3.11", "linux")
    if importlib.metadata.version("torchvision").split("+")[0] != versions["torchvision"]:
        pytest.skip("another torchvision is installed than the lock pins, so that its needs are unknown")
    needs = [Requirement(r) for r in importlib.metadata.requires("torchvision")]
    (torch,) = [r for r in needs if r.name == "torch"]
    assert torch.specifier.contains(versions["torch"])
    import torchvision

    assert torchvision.ops.nms  # what fails where the builds are of two kinds


def test_installed_packages_fit_the_declared_ranges():
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True), (
            requirement
        )


def test_no_address_of_a_registry():
    """Neither in a lock nor anywhere else: each reader's own client knows where packages come from."""
    dot = re.escape(".")
    hosts = ["pypi", "pythonhosted", "pytorch", "anaconda", "npmjs", "crates"]
    address = re.compile(
        rf"(files|download|test|registry|repo|conda)?{dot}?({'|'.join(hosts)}){dot}(org|com|io)/(simple|whl|packages|conda)"
    )
    flags = "|".join(("--(extra-)?index" + "-url", "--find" + "-links"))  # in pieces, so that this file has none either
    option = re.compile(rf"({flags})[ =]+\S*://|" + "resolved" + r'": "http')
    for name in files():
        if name.suffix in (".png", ".jpg", ".gif"):
            continue
        content = (ROOT / name).read_text(encoding="utf-8", errors="replace")
        assert not address.search(content), f"{name}: {address.search(content)[0]}"
        assert not option.search(content), f"{name}: {option.search(content)[0]}"
    for lock in LOCKS:
        assert "://" not in (ROOT / lock).read_text()


# Layout and documents.


def test_the_top_level_is_exactly_what_was_agreed():
    assert {name.parts[0] for name in files()} == TOP_LEVEL


def test_every_link_in_the_documents_leads_somewhere():
    """The table of lessons, too: a lesson that README offers is there."""
    more = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md"))]
    for document in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", *more):
        text = (ROOT / document).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" not in target and not target.startswith("mailto:"):
                assert ((ROOT / document).parent / target).exists(), f"{document} links to {target}"


def test_readme_names_every_lesson():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lessons = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    assert lessons
    for lesson in lessons:
        assert f"(notebooks/{lesson.name})" in text, f"README.md doesn't link to {lesson.name}"


def test_readme_says_about_how_long_a_lesson_takes():
    from sslcourse import overview

    table = dict(
        re.findall(r"^\| (\d\d) \| .*\| (\d+)(?: \+ \d+)? \| [^|]+ \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    )
    read = {one.number: one.minutes for one in overview.of(ROOT, ROOT)}
    assert len(table) > 15
    assert {number: read[number] for number in table if abs(int(table[number]) - read[number]) > 15} == {}


def test_every_target_of_make_that_a_document_names_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in ("README.md", "CONTRIBUTING.md", "Makefile"):
        named = set(re.findall(r"[`']make ([a-z]+)", (ROOT / document).read_text(encoding="utf-8")))
        assert named <= targets, f"{document} names make {named - targets}"


def test_ci_calls_the_targets_of_tests_and_installs_a_browser():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    code = [line for line in lines if line and not line.startswith("#")]
    targets = ["make test", "make test-mutants", "make test-weights", "make test-browser", "exec make test-devices"]
    targets.insert(3, "sh tools/chromium.sh")
    assert code == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', *targets]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.skipif(sys.platform == "win32", reason="a script for sh")
@pytest.mark.parametrize(
    ("programs", "said"),
    [
        ({"chromium": "exit 9", "apt-get": "exit 9"}, ""),  # nothing is asked of either
        ({"apt-get": 'test "$2" = update || cp "$0" "${0%/*}/chromium"', "id": "echo 0"}, ""),
        ({}, "there is no apt-get"),
        ({"apt-get": "exit 9", "id": "echo 1000"}, "only root can"),
        ({"apt-get": "exit 9", "id": "echo 0"}, "apt-get says why"),
        ({"apt-get": "exit 0", "id": "echo 0"}, "brought no program"),
    ],
    ids=lambda given: " and ".join(given) if isinstance(given, dict) else None,
)
def test_a_browser_is_there_or_installed_or_one_sentence_says_why_not(tmp_path, programs, said):
    for name in ("cp", "id"):
        (tmp_path / name).symlink_to(shutil.which(name))
    for name, does in programs.items():
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    words = ["/bin/sh", "tools/chromium.sh"]
    done = subprocess.run(words, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert said in done.stderr and done.stderr.count("\n") == bool(said)
    assert done.returncode == bool(said) and (said != "" or (tmp_path / "chromium").exists())


def test_version_and_licence_are_said_alike_everywhere():
    import sslcourse

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert sslcourse.__version__ == PROJECT["version"] == citation["version"]
    assert citation["license"] == ["MIT", "CC-BY-4.0"] and PROJECT["license"] == "MIT AND CC-BY-4.0"


# Imports.

# Arrows point one way: a module imports its own level and those below it.
LEVELS = (
    {"errors", "files", "locking", "console", "paths", "progress", "claims", "busy", "notebook", "work", "overview"},
    {"device", "data", "distributed", "launch"},
    {"backbones", "vit", "heads", "losses", "augment", "color", "patches", "schedules", "teacher", "text", "record"},
    {"pretext", "supervised", "features", "summary"},
    {
        "train",
        "checkpoint",
        "attention",
        "bundled",
        "store",
        "evaluate",
        "collapse",
        "validation",
        "geometry",
        "transfer",
        "weights",
    },
    {"plots", "comparison", "events", "long_runs"},
    {"classify", "explore", "control"},
    {"widgets", "predictions", "checks", "demo", "bench", "doctor", "compare", "tables"},
    {"gaps"},
    {"cli"},
    {"__main__"},
)


def level(module):
    """Height of a part of the package, from the dotted name of a module: sslcourse.data.world is of `data`."""
    part = module.split(".")[1]
    heights = [height for height, parts in enumerate(LEVELS) if part in parts]
    assert heights, f"sslcourse.{part} has no level in tests/test_setup.py: give it one"
    return heights[0]


def imports(code, module):
    """Every module that code imports, inside functions as well, by its full dotted name."""
    package = module.split(".")
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*package[: len(package) - node.level], *filter(None, [node.module])])
                if node.level
                else node.module
            )
            yield from (f"{base}.{alias.name}" for alias in node.names) if base == "sslcourse" else [base]


def wrong_arrows(code, module):
    return [
        name
        for name in imports(code, module)
        if name.split(".")[0] in ("notebooks", "solutions", "exercises", "tests", "tools")
        or (name.startswith("sslcourse.") and level(name) > level(module))
    ]


MODULES = sorted(p for p in (ROOT / "sslcourse").rglob("*.py") if p != ROOT / "sslcourse" / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_point_one_way(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    assert wrong_arrows(path.read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize(
    ("code", "module", "wrong"),
    [
        ("from sslcourse import train", "sslcourse.pretext.rotation", ["sslcourse.train"]),
        ("def f():\n    import sslcourse.cli", "sslcourse.evaluate", ["sslcourse.cli"]),
        ("from ..train import pretrain", "sslcourse.pretext.rotation", ["sslcourse.train"]),
        ("from .. import train", "sslcourse.data.world", ["sslcourse.train"]),
        ("from notebooks import x", "sslcourse.cli", ["notebooks"]),
        ("from sslcourse.data.imageset import ImageSet\nimport torch", "sslcourse.pretext.rotation", []),
        ("from .base import PretextTask", "sslcourse.pretext.rotation", []),
        ("from sslcourse import evaluate", "sslcourse.train", []),
    ],
)
def test_a_wrong_arrow_is_found(code, module, wrong):
    assert wrong_arrows(code, module) == wrong


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_import_is_light():
    heavy = {"torch", "torchvision", "numpy", "matplotlib", "sklearn", "typer", "IPython"}
    assert not heavy & set(run_python("import sys, sslcourse; print(*sys.modules)"))
    assert not (heavy - {"typer"}) & set(run_python("import sys, sslcourse.cli; print(*sys.modules)"))


def test_public_names_are_found_on_first_use():
    import sslcourse

    assert all(getattr(sslcourse, name) is not None for name in sslcourse.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sslcourse.nothing  # noqa: B018


# The network is off.

CALL = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"  # an address that documents use
LOOK_UP = "import urllib.request; urllib.request.urlopen('http://example.org', timeout=1)"


@pytest.mark.parametrize("code", [CALL, LOOK_UP])
def test_tests_run_with_the_network_off(code):
    with pytest.raises(OSError, match="network off"):
        exec(code, {})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)  # a process of its own as well
    assert done.returncode == 1 and "network off" in done.stderr


def test_this_machine_can_be_reached():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5).close()


# tools/test.py


def test_traces_in_the_tree_are_found(tmp_path, monkeypatch):
    import importlib.util

    spec = importlib.util.spec_from_file_location("run_tests", ROOT / "tools" / "test.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / "kept").write_text("a")
    (tmp_path / "gone").write_text("a")
    before = tool.tree()
    assert tool.differences(before, tool.tree()) == []
    (tmp_path / ".venv" / "anything").write_text("")
    (tmp_path / "kept").write_text("longer")
    (tmp_path / "gone").unlink()
    (tmp_path / "__pycache__").mkdir()
    assert tool.differences(before, tool.tree()) == ["changed: kept", "left behind: __pycache__/", "removed: gone"]
