"""The doctor names what is broken and what to do, and survives it. Broken packages are stubs on a temporary path."""

import json
import os
import subprocess
import sys

import pytest

from sslcourse import doctor
from sslcourse.doctor import asking, installs, machine, notebooks, packages

NMS = "raise RuntimeError('operator torchvision::nms does not exist')"


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """stub("torchvision", "0.29.2", code, "torch>=2.14") hides the installed package behind a module and its metadata."""

    def make(name, version, code="", *requires):
        (tmp_path / f"{name}.py").write_text(code)
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        lines = [
            "Metadata-Version: 2.1",
            f"Name: {name}",
            f"Version: {version}",
            *(f"Requires-Dist: {r}" for r in requires),
        ]
        (info / "METADATA").write_text("\n".join(lines) + "\n")

    monkeypatch.syspath_prepend(tmp_path)  # this process, and those that the doctor starts:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return make


def test_a_cpu_torch_beside_the_default_torchvision_is_recognized(stub):
    stub("torch", "2.13.0+cpu", "__version__ = '2.13.0+cpu'\nclass version: cuda = None")
    stub("torchvision", "0.29.2", NMS, "torch>=2.14.0")
    finding = packages.check_torchvision()
    assert finding.status == "problem"
    assert "0.29.2" in finding.found and "2.13.0+cpu" in finding.found and packages.NMS in finding.found
    assert "needs torch>=2.14.0" in finding.advice
    assert "--torch-backend cpu torch==" in finding.advice and "pip uninstall -y torch torchvision" in finding.advice
    assert packages.check_torch().status == "ok"  # each is asked in a process of its own


def test_builds_of_two_kinds_in_fitting_versions_are_recognized(stub):
    stub("torch", "2.15.0+cpu", "__version__ = '2.15.0+cpu'")
    stub("torchvision", "0.29.2", NMS, "torch>=2.14.0")
    finding = packages.check_torchvision()
    assert finding.status == "problem" and "build of another kind" in finding.advice


def test_a_pair_that_imports_but_does_not_belong_together(stub):
    stub("torch", "2.9.0")
    stub("torchvision", "0.99.0", "__version__ = '0.99.0'", "torch==2.14.0")
    finding = packages.check_torchvision()
    assert finding.status == "problem" and "needs torch==2.14.0, and torch 2.9.0" in finding.found


def test_a_pair_that_belongs_together(stub):
    stub("torch", "2.14.0+cu130")
    stub("torchvision", "0.99.0", "__version__ = '0.99.0+cu130'", "torch==2.14.0")
    assert packages.check_torchvision().status == "ok"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
        ("raise ImportError('libcudart.so.13: cannot open shared object file')", "libcudart.so.13"),
        ("import sys; sys.exit(3)", "exit code 3"),
        ("print('noise'); __version__ = None", "can't be imported"),
    ],
)
def test_a_torch_that_takes_the_interpreter_down_is_one_finding(stub, code, said):
    stub("torch", "2.15.0", code)
    finding = packages.check_torch()
    assert finding.status == "problem" and said in finding.found and "pip install torch" in finding.advice


def test_an_answer_that_never_comes():
    assert asking.ask("import time; time.sleep(60)", seconds=0.5).error == "no answer within 0 seconds"


def test_a_missing_package(monkeypatch):
    real = installs.installed
    monkeypatch.setattr(
        packages, "installed", lambda name: None if name in ("torch", "torchvision", "tqdm") else real(name)
    )
    monkeypatch.setattr(packages, "ask", lambda code: asking.Answer(error="ModuleNotFoundError"))
    assert packages.check_torch().found == packages.check_torchvision().found == "not installed"
    finding = packages.check_packages()
    assert finding.status == "problem" and "tqdm" in finding.found and finding.advice


def test_a_package_that_is_too_old(monkeypatch):
    real = installs.installed
    monkeypatch.setattr(packages, "installed", lambda name: "1.0" if name == "numpy" else real(name))
    finding = packages.check_packages()
    assert finding.status == "problem" and "numpy>=1.26 (found 1.0)" in finding.found


@pytest.mark.parametrize(
    ("version", "status"), [((3, 10), "problem"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "problem")]
)
def test_python_versions(monkeypatch, version, status):
    monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
    finding = packages.check_python()
    assert finding.status == status
    assert ("3.11 to 3.13" in finding.advice) == (status == "problem")


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "file" / "cache"))
    finding = machine.check_cache()
    assert finding.status == "warning" and "can't be written" in finding.found and "SSLCOURSE_CACHE" in finding.advice


def test_a_cache_that_is_not_there_yet_is_fine_and_not_made(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "new" / "cache"))
    assert machine.check_cache().status in ("ok", "warning")  # a full disk is a warning
    assert list(tmp_path.iterdir()) == []


def test_drift_from_the_lock(tmp_path, monkeypatch):
    (tmp_path / "requirements.lock").write_text(
        f"numpy=={installs.installed('numpy')} ; python_full_version < '3.12' \\\n    --hash=sha256:00\n"
        "numpy==0.1 ; python_full_version >= '3.12'\ntorch==2.0.0\nnot-installed==1.0\n"
    )
    monkeypatch.setattr(installs, "ROOT", tmp_path)
    finding = packages.check_lock()
    assert finding.status == "warning" and "1 package of another version: torch" in finding.found
    assert "(lock: 2.0.0)" in finding.found
    (tmp_path / "requirements.lock").unlink()
    assert packages.check_lock().status == "ok"


def test_a_local_version_is_no_drift(tmp_path, monkeypatch):
    (tmp_path / "requirements.lock").write_text("torch==2.15.0\n")
    monkeypatch.setattr(installs, "ROOT", tmp_path)
    monkeypatch.setattr(packages, "installed", lambda name: "2.15.0+cpu")
    assert packages.check_lock().status == "ok"


def test_notebooks_under_another_python(monkeypatch):
    monkeypatch.setattr(notebooks, "ask", lambda code: asking.Answer("/somewhere/else/python"))
    finding = notebooks.check_notebooks()
    assert finding.status == "warning" and "ipykernel install" in finding.advice


@pytest.mark.parametrize(
    ("line", "name", "specifier"),
    [
        ("torch (>=2.14.0)", "torch", ">=2.14.0"),
        ("torch==2.15.0", "torch", "==2.15.0"),
        ("Jupyter_Lab[x]>=4,<5 ; extra == 'y'", "jupyter-lab", ">=4,<5"),
        ("numpy", "numpy", ""),
    ],
)
def test_requirements_are_read(line, name, specifier):
    assert installs.read_requirement(line) == installs.Requirement(name, specifier)


def report(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "sslcourse.doctor", "--quick", *arguments],
        capture_output=True,
        text=True,
        cwd=doctor.ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | environment,
    )


def test_the_report_survives_a_broken_torch_and_says_so_in_its_exit_code(stub, tmp_path):
    stub("torch", "2.15.0", "raise ImportError('broken on purpose')")
    done = report()
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "PROBLEM  torch " in done.stdout and "broken on purpose" in done.stdout
    for name in ("Python", "machine", "packages", "torchvision", "devices", "figures", "notebooks", "cache", "lock"):
        assert f" {name} " in done.stdout, name


@pytest.mark.commands
def test_the_report_of_this_environment_as_json():
    done = report("--json")
    document = json.loads(done.stdout)  # one document, and nothing else
    assert document["ok"] == (done.returncode == 0)
    assert {f["status"] for f in document["findings"]} <= {"ok", "warning", "problem"}
    assert all(f["advice"] for f in document["findings"] if f["status"] != "ok")
    assert document["ok"], [f for f in document["findings"] if f["status"] == "problem"]


def test_run_returns_the_exit_code(monkeypatch, capsys):
    bad = doctor.Finding("torch", "problem", "broken", "mend it")
    monkeypatch.setattr(doctor, "findings", lambda quick: iter([bad, bad]))
    assert doctor.run() == 1
    said = capsys.readouterr().out
    assert said.count("mend it") == 1 and "2 problems, 0 warnings." in said  # what to do is not said twice
    assert doctor.run(json=True) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False
    monkeypatch.setattr(doctor, "findings", lambda quick: iter([doctor.Finding("disk", "warning", "small", "tidy up")]))
    assert doctor.run() == 0


def test_the_doctor_itself_needs_no_package():
    code = "import sys; import sslcourse.doctor; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    paths = str(doctor.ROOT)
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stderr
    assert not {"torch", "numpy", "packaging", "platformdirs", "typer"} & set(done.stdout.split())
