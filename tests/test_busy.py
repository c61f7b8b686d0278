"""Training makes room where other programs want the cores, says so, and never decides over a person. The system is a fake."""

import os
import subprocess
import sys

import pytest

from sslcourse import busy
from sslcourse.doctor import machine


class System:
    """A machine whose cores others keep busy: `shares` of each core's time, in [0, 1]."""

    def __init__(self, monkeypatch, folder, shares, mine=None, steal=0.0):
        self.file, self.shares, self.steal, self.ticks = folder / "stat", shares, steal, 1000.0
        self.write()
        monkeypatch.setattr(busy, "STAT", self.file)
        monkeypatch.setattr(busy, "_own_cores", lambda: set(range(len(shares)) if mine is None else mine))
        monkeypatch.setattr(busy.time, "sleep", self.sleep)
        for name in (*busy.CHOSEN, "OMP_NUM_THREADS"):
            monkeypatch.setenv(name, "")  # so that what is set in a test is taken back after it
            monkeypatch.delenv(name)
        modules = {name: module for name, module in sys.modules.items() if name != "torch"}
        monkeypatch.setattr(busy.sys, "modules", modules)

    def sleep(self, seconds):
        self.ticks += 100 * seconds
        self.write()

    def write(self):
        rows = [
            [share * self.ticks, 0, 0, (1 - share - self.steal) * self.ticks, 0, 0, 0, self.steal * self.ticks, 0, 0]
            for share in self.shares
        ]
        lines = [f"cpu{core} " + " ".join(str(round(n)) for n in row) for core, row in enumerate(rows)]
        self.file.write_text("\n".join(["cpu  1 2 3 4", *lines, "intr 12 0", "ctxt 5"]) + "\n")


@pytest.fixture
def system(monkeypatch, tmp_path):
    return lambda *given, **named: System(monkeypatch, tmp_path, *given, **named)


@pytest.mark.parametrize(
    ("shares", "kind", "taken"),
    [
        ([0.0, 0.0], {}, 0.0),
        ([1.0, 1.0], {}, 2.0),
        ([1.0, 0.0], {}, 1.0),
        ([1.0, 1.0, 0.0, 0.0], {"mine": (2, 3)}, 0.0),  # others have cores that this process may not use
        ([0.0, 0.0], {"steal": 0.75}, 1.5),
    ],
)
def test_what_others_take_is_counted_on_the_cores_that_are_ours(system, shares, kind, taken):
    system(shares, **kind)
    assert busy.taken_by_others() == pytest.approx(taken, abs=0.1)


def test_what_was_before_the_moment_does_not_count(system):
    machine = system([1.0, 1.0])
    machine.shares = [0.0, 0.0]  # busy for an hour, and idle now
    before = busy._ticks()
    machine.ticks = 0
    machine.write()
    assert before and busy.taken_by_others() < 0.1


@pytest.mark.parametrize("shares", [[1.0, 1.0], [1.0, 0.0], [0.4, 0.4]])
def test_room_is_made_beside_others_and_said_in_one_line(system, capsys, shares):
    system(shares)
    busy.make_room()
    assert os.environ[busy.POLICY] == "passive"
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "passive" in said.err


@pytest.mark.parametrize("shares", [[0.0, 0.0], [0.2, 0.1], [0.0, 0.0, 0.0, 0.0]])
def test_an_idle_machine_stays_as_it_is(system, capsys, shares):
    system(shares)
    busy.make_room()
    assert busy.POLICY not in os.environ and capsys.readouterr().err == ""


def test_cores_that_the_threads_leave_free_may_be_taken(system, monkeypatch):
    system([1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    busy.make_room()
    assert busy.POLICY not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    busy.make_room()
    assert os.environ.pop(busy.POLICY) == "passive"


@pytest.mark.parametrize("name", busy.CHOSEN)
def test_a_person_has_decided(system, monkeypatch, capsys, name):
    system([1.0, 1.0])
    monkeypatch.setenv(name, "active")
    busy.make_room()
    assert os.environ[name] == "active" and capsys.readouterr().err == ""
    assert name == busy.POLICY or busy.POLICY not in os.environ


@pytest.mark.parametrize("threads", ["1", "1,2"])
def test_a_single_thread_waits_for_nobody(system, monkeypatch, threads):
    system([1.0, 1.0])
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    busy.make_room()
    assert busy.POLICY not in os.environ


def test_once_torch_is_there_it_is_too_late(system, monkeypatch):
    system([1.0, 1.0])
    monkeypatch.setitem(busy.sys.modules, "torch", object())
    busy.make_room()
    assert busy.POLICY not in os.environ


def test_where_there_is_no_proc_the_systems_average_is_taken(system, monkeypatch, tmp_path):
    system([0.0, 0.0])
    monkeypatch.setattr(busy, "STAT", tmp_path / "nothing")
    monkeypatch.setattr(busy.os, "getloadavg", lambda: (5.5, 1.0, 1.0), raising=False)
    assert busy.taken_by_others() == 2.0  # of two cores
    monkeypatch.delattr(busy.os, "getloadavg")  # Windows
    assert busy.taken_by_others() is None
    busy.make_room()
    assert busy.POLICY not in os.environ


def test_this_machine_is_read_too():
    taken = busy.taken_by_others(0.02)
    assert taken is None or 0 <= taken <= busy.cores()


def test_commands_that_compute_and_the_kernels_of_the_lab_inherit_it():
    """The variable is there before torch is, and processes that are started later have it, too."""
    code = (
        "import os, subprocess, sys\n"
        "from sslcourse import busy\n"
        "busy.taken_by_others = lambda: float(busy.cores())\n"
        "from sslcourse import cli\n"
        "from sslcourse.cli import course\n"
        "def call(words, **how):\n"
        "    assert 'torch' not in sys.modules\n"
        "    print('kernel', subprocess.check_output([sys.executable, '-c', 'import os; print(os.environ.get(\"OMP_WAIT_POLICY\"))'], text=True).strip())\n"
        "    return 0\n"
        "course.subprocess.call = call\n"
        "sys.argv = ['sslcourse', *sys.argv[1:]]\n"
        "cli.main()\n"
    )
    environment = {k: v for k, v in os.environ.items() if k not in busy.CHOSEN} | {"OMP_NUM_THREADS": "2"}
    lab = subprocess.run([sys.executable, "-c", code, "lab"], capture_output=True, text=True, env=environment)
    assert lab.stdout.split() == ["kernel", "passive"], lab.stderr
    assert "other programs take" in lab.stderr
    chosen = environment | {busy.POLICY: "active"}
    lab = subprocess.run([sys.executable, "-c", code, "lab"], capture_output=True, text=True, env=chosen)
    assert lab.stdout.split() == ["kernel", "active"] and "other programs" not in lab.stderr
    looked = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, env=environment)
    assert "other programs" not in looked.stderr


def test_the_doctor_says_when_cores_are_busy_and_what_to_do(system, monkeypatch):
    system([1.0, 1.0])
    finding = machine.check_busy()
    assert finding.status == "warning" and "2.0 of 2 cores" in finding.found
    assert "close them" in finding.advice and busy.POLICY in finding.advice and "passive" in finding.advice
    monkeypatch.setenv(busy.POLICY, "passive")
    assert "has been decided here: OMP_WAIT_POLICY=passive" in machine.check_busy().advice
    system([0.1, 0.0])
    assert machine.check_busy().status == "ok"
    monkeypatch.setattr(busy, "taken_by_others", lambda: None)
    assert machine.check_busy().status == "ok"
