"""The doctor on machines that we don't have: a system's files, nvidia-smi and torch's answers are written by the tests."""

import json
import os
import sys
from types import SimpleNamespace

import pytest

from sslcourse import doctor
from sslcourse.doctor import asking, gpu, machine, nvidia, speed, system

GIB = 2**30

# The operating system's files.


@pytest.fixture
def files(tmp_path, monkeypatch):
    """files({"proc/meminfo": …}) is all that there is of the system."""
    monkeypatch.setattr(system, "SYSTEM", tmp_path / "system")

    def write(contents):
        for name, content in contents.items():
            path = tmp_path / "system" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    write({"proc/meminfo": "MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n"})
    return write


V2 = {
    "proc/self/cgroup": "0::/job/step\n",
    "sys/fs/cgroup/job/step/memory.max": "max\n",
    "sys/fs/cgroup/job/memory.max": f"{4 * GIB}\n",
    "sys/fs/cgroup/job/memory.current": f"{3 * GIB + GIB // 2}\n",
    "sys/fs/cgroup/job/memory.stat": f"anon 5\nactive_file {GIB}\ninactive_file {2 * GIB}\n",
    "sys/fs/cgroup/job/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/job/step/cpu.max": "max 100000\n",
    "sys/fs/cgroup/job/cpu.stat": "nr_periods 9\nnr_throttled 7\n",
}
V1 = {
    "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/docker/abc\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{4 * GIB}\n",  # in a container, its own group is the top
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{3 * GIB + GIB // 2}\n",
    "sys/fs/cgroup/memory/memory.stat": f"inactive_file 7\ntotal_inactive_file {2 * GIB}\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu/cpu.stat": "nr_throttled 7\n",
}
UNLIMITED = {
    "proc/self/cgroup": "4:memory:/\n3:cpu,cpuacct:/\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "5\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
}


@pytest.mark.parametrize("limits", [V2, V1], ids=["version 2", "version 1"])
def test_limits_of_a_container_count(files, limits):
    files(limits)
    assert system.total_memory() == system.memory_limit() == 4 * GIB
    assert system.available_memory() == 4 * GIB - (3 * GIB + GIB // 2 - 2 * GIB)  # files can be given back
    assert system.core_limit() == 1.5 and system.throttled() == 7
    assert "limit of the container" in machine.check_memory().found


@pytest.mark.parametrize("limits", [UNLIMITED, {}], ids=["version 1", "no control groups"])
def test_no_limit_is_no_limit(files, limits):
    files(limits)
    assert system.memory_limit() is None and system.core_limit() is None and system.throttled() == 0
    assert system.total_memory() == 16 * GIB and system.available_memory() == 8 * GIB
    assert machine.check_memory().found == "8.0 of 16 GiB available"


def test_little_memory_left(files):
    files({**V2, "sys/fs/cgroup/job/memory.stat": "inactive_file 0\n"})
    finding = machine.check_memory()
    assert finding.status == "warning" and "docker run --memory" in finding.advice
    assert finding.figures == {"available": GIB // 2, "total": 4 * GIB, "limit": 4 * GIB}
    files({"proc/self/cgroup": "", "proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable: 99 kB\n"})
    finding = machine.check_memory()
    assert finding.status == "warning" and "docker" not in finding.advice


def test_memory_of_a_system_without_such_files(monkeypatch, tmp_path):
    monkeypatch.setattr(system, "SYSTEM", tmp_path)
    monkeypatch.setattr(machine, "ask", lambda code: asking.Answer([8 * GIB, 5 * GIB]))
    assert machine.check_memory().found == "5.0 of 8.0 GiB available"
    monkeypatch.setattr(machine, "ask", lambda code: asking.Answer(error="no psutil"))
    assert machine.check_memory().status == "ok"


def test_a_small_machine(files):
    files({"proc/meminfo": "MemTotal: 2097152 kB\n"})
    finding = machine.check_machine()
    assert finding.status == "warning" and "2.0 GiB" in finding.found


@pytest.mark.parametrize(
    ("total", "free", "status", "said"),
    [(64, 64, "warning", "--shm-size"), (8192, 8000, "ok", ""), (8192, 5, "warning", "ls -l /dev/shm")],
)
def test_shared_memory(files, monkeypatch, total, free, status, said):
    files({"dev/shm/x": ""})
    monkeypatch.setattr(machine.platform, "system", lambda: "Linux")
    usage = SimpleNamespace(total=total * 2**20, free=free * 2**20)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: usage)
    finding = machine.check_shared_memory()
    assert finding.status == status and said in finding.advice and ("--shm-size" in finding.advice) == (total == 64)
    monkeypatch.setattr(machine.platform, "system", lambda: "Darwin")
    assert machine.check_shared_memory() is None


@pytest.mark.parametrize(
    ("os_name", "soft", "hard", "status"),
    [
        ("Linux", 1024, 4096, "ok"),
        ("Linux", 256, 4096, "warning"),
        ("Linux", -1, -1, "ok"),
        ("Darwin", 256, -1, "ok"),
        ("Linux", 100, 200, "warning"),
    ],
)
def test_open_files(monkeypatch, os_name, soft, hard, status):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(machine.platform, "system", lambda: os_name)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    finding = machine.check_open_files()
    assert finding.status == status and ("ulimit -n" in finding.advice) == (status == "warning")
    assert ("allows you 200 at most" in finding.advice) == (hard == 200)


@pytest.mark.parametrize(
    ("threads", "cores", "quota", "asked"),
    [(8, 8, None, None), (4, 8, None, None), (16, 8, None, "8"), (1, 8, None, "8"), (1, 2, None, None), (8, 8, "200000 100000", "2")],
)  # fmt: skip
def test_threads_against_cores(files, monkeypatch, threads, cores, quota, asked):
    monkeypatch.setattr(system, "cores", lambda: cores)
    files({"proc/self/cgroup": "0::/\n"} | ({"sys/fs/cgroup/cpu.max": quota} if quota else {}))
    finding = machine.check_threads({"threads": threads})
    assert finding.status == ("warning" if asked else "ok")
    assert finding.advice.endswith(f"OMP_NUM_THREADS={asked}" if asked and os.name != "nt" else finding.advice[-1:])
    assert machine.check_threads(None).status == "ok"


# NVIDIA's driver, played by a script.

HEADER = "| NVIDIA-SMI {0}    Driver Version: {0}    CUDA Version: {1} |"
FAILED = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
CARD = "GPU-aaaa, NVIDIA H100, {driver}, 81559, {free}, {mig}, 1980, 3, {capability}"


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """smi(header=…, cards=[…]) puts an `nvidia-smi` on the path that says that; smi() one that isn't there."""
    if os.name == "nt":
        pytest.skip("a script that plays a program needs a first line that names its interpreter")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def make(header="", cards=(), listed="", users="", code=0, old=False):
        program = tmp_path / "nvidia-smi"
        program.write_text(
            f"""#!{sys.executable}
import sys
asked = " ".join(sys.argv[1:])
if {code}: print({header!r}); sys.exit({code})
elif {old} and "compute_cap" in asked: print('Field "compute_cap" is not a valid field to query.'); sys.exit(2)
elif "query-gpu" in asked: print({chr(10).join(cards)!r})
elif "compute-apps" in asked: print({users!r})
elif asked == "-L": print({listed!r})
else: print({header!r})
"""
        )
        program.chmod(0o755)
        return nvidia.ask_driver()

    return make


def a_card(driver="580.65", free=80000, mig="Disabled", capability="9.0"):
    return CARD.format(driver=driver, free=free, mig=mig, capability=capability)


def facts(**other):
    """What torch says on a machine with one GPU that works."""
    plain = {
        "best": "cuda: NVIDIA H100",
        "usable": ["cuda", "cpu"],
        "cuda": "12.8",
        "rocm": None,
        "mps built": False,
        "threads": 8,
        "warned": [],
    }
    return plain | other


NO_GPU = {"best": "cpu: 8 of 8 cores", "usable": ["cpu"]}


def a_gpu(**other):
    """What a GPU that works says."""
    return {
        "name": "NVIDIA H100",
        "capability": [9, 0],
        "total": 80 * GIB,
        "free": 78 * GIB,
        "uuid": "aaaa",
        "bf16": True,
        "error": "",
    } | other


def gpus(*each, kernels=("sm_80", "sm_90", "compute_90"), nccl="2.27.3"):
    return asking.Answer({"gpus": list(each), "kernels": list(kernels), "nccl": nccl})


def test_a_driver_that_works(smi):
    driver = smi(HEADER.format("580.65", "13.0"), [a_card()], users="77, python, 512, GPU-aaaa\n")
    assert driver.cuda == (13, 0) and driver.version == "580.65"
    (card,) = driver.cards
    assert card.total == 81559 * 2**20 and card.clock == 1980 and card.capability == "9.0" and not card.mig
    assert driver.users == (("77", "python", 512 * 2**20, "GPU-aaaa"),)
    finding = gpu.check_driver(driver, facts())
    assert finding.status == "ok" and "580.65" in finding.found and "13.0" in finding.found
    assert "NVIDIA H100 (compute capability 9.0, 78 of 80 GiB free)" in finding.found
    assert gpu.check_devices(asking.Answer(facts()), driver).status == "ok"


def test_a_driver_of_one_generation_serves_all_of_it(smi):
    driver = smi(HEADER.format("525.60", "12.0"), [a_card("525.60")])
    assert gpu.check_driver(driver, facts(cuda="12.9")).status == "ok"
    assert gpu.check_driver(driver, facts(cuda="11.8")).status == "ok"
    assert gpu.check_driver(driver, facts(cuda=None)).status == "ok"
    assert gpu.check_driver(driver, None).status == "ok"


def test_a_driver_that_is_too_old(smi):
    card = a_card("470.57").rpartition(",")[0]  # which knows nothing of compute capability either
    driver = smi(HEADER.format("470.57", "11.4"), [card], old=True)
    assert driver.cards[0].capability is None
    torch = asking.Answer(facts(**NO_GPU))
    finding, devices = gpu.check_driver(driver, torch.value), gpu.check_devices(torch, driver)
    assert finding.status == devices.status == "warning" and "built for CUDA 12.8" in finding.found
    assert "525 or newer" in finding.advice and "--torch-backend auto 'torch>=" in finding.advice
    assert devices.advice == finding.advice  # which is said once
    assert "580 or newer" in gpu.check_driver(driver, facts(cuda="13.0")).advice


@pytest.mark.parametrize(
    ("said", "code", "advice"),
    [
        (FAILED, 9, "modprobe nvidia"),
        ("Failed to initialize NVML: Driver/library version mismatch", 18, "restart the machine"),
        ("Failed to initialize NVML: Unknown Error", 255, "start the container again"),
        ("No devices were found", 6, "--gpus all"),
        ("No devices were found", 0, "--gpus all"),
        ("", 3, "modprobe nvidia"),
    ],
)
def test_a_driver_that_fails(smi, said, code, advice):
    driver = smi(said, code=code)
    assert not driver.works
    finding = gpu.check_driver(driver, facts(**NO_GPU))
    assert finding.status == "warning" and (said or "exit code 3") in finding.found and advice in finding.advice
    assert gpu.check_devices(asking.Answer(facts(**NO_GPU)), driver).status == "ok"  # said above


def test_no_driver(files, smi, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu.platform, "system", lambda: "Linux")
    assert nvidia.ask_driver() is None
    assert gpu.check_driver(None, facts(**NO_GPU)) == doctor.Finding("driver", "ok", "no NVIDIA GPU")
    sound = {"sys/bus/pci/devices/1/vendor": "0x10de\n", "sys/bus/pci/devices/1/class": "0x040300\n"}
    files(sound)  # of a graphics card's HDMI
    assert gpu.check_driver(None, facts(**NO_GPU)).status == "ok"
    files({"sys/bus/pci/devices/2/vendor": "0x10de\n", "sys/bus/pci/devices/2/class": "0x030200\n"})
    finding = gpu.check_driver(None, facts(**NO_GPU))
    assert finding.status == "warning" and "ubuntu-drivers install" in finding.advice


def test_divided_gpus(smi):
    header = HEADER.format("580.65", "13.0")
    empty = smi(header, [a_card(mig="Enabled")], "GPU 0: NVIDIA H100 (UUID: GPU-aaaa)")
    finding = gpu.check_driver(empty, facts(**NO_GPU))
    assert finding.status == "warning" and "nvidia-smi mig -cgi" in finding.advice
    assert gpu.check_devices(asking.Answer(facts(**NO_GPU)), empty).status == "warning"
    listed = "GPU 0: NVIDIA H100 (UUID: GPU-aaaa)\n  MIG 1g.10gb Device 0: (UUID: MIG-1234-5)\n"
    divided = smi(header, [a_card(mig="Enabled")], listed)
    assert divided.instances == ("MIG-1234-5",)
    finding = gpu.check_driver(divided, facts())
    assert finding.status == "ok" and "MIG" in finding.found


def test_what_the_driver_does_not_say(smi):
    driver = smi(
        HEADER.format("580.65", "N/A"), ["GPU-b, NVIDIA GB10, 580.65, [N/A], [N/A], [N/A], [N/A], [N/A], 12.1"]
    )
    assert driver.cuda is None and driver.cards[0].total is None and driver.cards[0].clock is None
    assert gpu.check_driver(driver, facts()).status == "ok"
    newer = smi("| CUDA UMD Version: 13.1 |", [a_card()])
    assert newer.cuda == (13, 1)


# What torch makes of it.


@pytest.mark.parametrize("hidden", ["", "-1", "7"])
def test_a_hidden_gpu(smi, monkeypatch, hidden):
    driver = smi(HEADER.format("580.65", "13.0"), [a_card()])
    torch = asking.Answer(facts(**NO_GPU, warned=["CUDA initialization: something"]))
    finding = gpu.check_devices(torch, driver)
    assert finding.status == "warning" and "CUDA initialization: something" in finding.advice
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    finding = gpu.check_devices(torch, driver)
    assert finding.status == "warning" and f"set to {hidden!r}" in finding.advice
    assert "CUDA_VISIBLE_DEVICES=GPU-aaaa" in finding.advice or os.name == "nt"


def test_a_torch_without_cuda_beside_a_gpu(smi):
    driver = smi(HEADER.format("580.65", "13.0"), [a_card()])
    finding = gpu.check_devices(asking.Answer(facts(**NO_GPU, cuda=None)), driver)
    assert finding.status == "warning" and "pip install torch" in finding.advice


def test_other_makers(files, monkeypatch):
    monkeypatch.setattr(gpu.platform, "system", lambda: "Linux")
    assert gpu.check_devices(asking.Answer(facts(**NO_GPU)), None).status == "ok"
    files({"dev/kfd": ""})
    finding = gpu.check_devices(asking.Answer(facts(**NO_GPU)), None)
    assert finding.status == "warning" and "AMD" in finding.advice
    assert gpu.check_devices(asking.Answer(facts(rocm="6.4", cuda=None)), None).status == "ok"


@pytest.mark.parametrize(
    ("processor", "translated", "built", "said"),
    [
        ("x86_64", "1", False, "arm64"),
        ("x86_64", "", False, ""),
        ("arm64", "", False, "without Apple's GPU"),
        ("arm64", "", True, "Update macOS"),
    ],
)
def test_a_mac_without_its_gpu(files, monkeypatch, processor, translated, built, said):
    monkeypatch.setattr(gpu.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(gpu.platform, "machine", lambda: processor)
    monkeypatch.setattr(gpu.subprocess, "run", lambda *a, **k: SimpleNamespace(stdout=translated))
    finding = gpu.check_devices(asking.Answer(facts(**NO_GPU, cuda=None) | {"mps built": built}), None)
    assert finding.status == ("warning" if said else "ok") and said in finding.advice


@pytest.mark.parametrize(
    ("capability", "kernels", "age"),
    [
        ([9, 0], ["sm_80", "sm_90"], ""),
        ([8, 6], ["sm_80"], ""),  # newer in one generation
        ([8, 0], ["sm_86", "sm_90"], "older"),
        ([6, 1], ["sm_75", "sm_80"], "older"),
        ([12, 0], ["sm_80", "sm_90a"], "newer"),
        ([12, 0], ["sm_90", "compute_90"], ""),  # translated when it is first needed
        ([10, 0], ["sm_75", "sm_100"], ""),
        ([9, 0], [], ""),
    ],
)
def test_machine_code_for_a_gpu(capability, kernels, age):
    assert gpu.lacks_kernels(capability, kernels) == age


def test_a_gpu_that_torch_chooses_and_fails_on():
    error = "CUDA error: no kernel image is available for execution on the device"
    old = gpu.check_gpus(gpus(a_gpu(capability=[6, 1], error=error), kernels=["sm_75", "sm_80"]), facts())
    assert old.status == "problem" and "--torch-backend cu126" in old.advice and "CUDA_VISIBLE_DEVICES" in old.advice
    new = gpu.check_gpus(gpus(a_gpu(capability=[12, 0], error=error), kernels=["sm_80", "sm_90"]), facts())
    assert new.status == "problem" and "newer torch" in new.advice and "12.0" in new.advice
    full = gpu.check_gpus(gpus(a_gpu(error="CUDA error: out of memory", free=None)), facts())
    assert full.status == "problem" and "end those" in full.advice
    held = gpu.check_gpus(gpus(a_gpu(error="all CUDA-capable devices are busy or unavailable")), facts())
    assert held.status == "problem" and held.advice
    gone = gpu.check_gpus(asking.Answer(error="the process was ended by signal 11"), facts())
    assert gone.status == "problem" and "signal 11" in gone.found


def test_gpus_that_compute():
    finding = gpu.check_gpus(gpus(a_gpu(), a_gpu()), facts())
    assert finding.status == "ok" and "2 GPUs" in finding.found and "bfloat16" in finding.found
    assert "NCCL 2.27.3" in finding.found
    plain = gpu.check_gpus(gpus(a_gpu(capability=[7, 5], bf16=False), nccl=None), facts())
    assert "no bfloat16" in plain.found and "no NCCL" in plain.found
    apple = a_gpu(name="Apple GPU", capability=None, total=None, free=None, uuid="", bf16=False)
    assert "NCCL" not in gpu.check_gpus(gpus(apple, nccl=None), facts(usable=["mps", "cpu"])).found
    assert gpu.check_gpus(None, facts(**NO_GPU)) is None


def told(code):
    """What code for a process of its own tells, run in this one: importing torch again would take seconds."""
    said, space = [], {}
    space["tell"] = lambda value: said.append(json.loads(json.dumps(value)))
    exec(code, space)
    return said[0], space


def test_what_a_gpu_is_asked(monkeypatch):
    """On the CPU, and on a GPU that torch believes in and that isn't there."""
    import torch

    about = SimpleNamespace(name="NVIDIA H100", major=9, minor=0, total_memory=5, uuid="aaaa")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: about)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_90"])
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 27))
    code = gpu.COMPUTE.replace('attempt(f"cuda:{i}")', 'attempt("nowhere")')
    assert code != gpu.COMPUTE
    answer, space = told(code)
    (one,) = answer["gpus"]
    assert space["attempt"]("cpu") == "" and "nowhere" in one["error"] and one["free"] is one["bf16"] is None
    assert one["capability"] == [9, 0] and one["uuid"] == "aaaa" and answer["kernels"] == ["sm_90"]
    assert gpu.check_gpus(asking.Answer(answer), facts()).status == "problem"


def test_what_torch_is_asked(monkeypatch):
    from sslcourse import device

    answer, _ = told(gpu.TORCH)
    assert set(answer) == set(facts()) and answer["usable"][-1] == "cpu" and answer["threads"] >= 1

    def full():
        raise RuntimeError("CUDA error: out of memory\nand more")

    monkeypatch.setattr(device, "report", full)
    assert told(gpu.TORCH)[0]["best"].endswith(": CUDA error: out of memory")


def test_memory_of_a_gpu_that_others_took(smi):
    header, other = (
        HEADER.format("580.65", "13.0"),
        "GPU-bbbb, NVIDIA A100, 580.65, 40000, 39000, Disabled, 1410, 0, 8.0",
    )
    users = "77, /opt/venv/bin/python, 79000, GPU-aaaa\n78, elsewhere, 5, GPU-bbbb"
    alone = smi(header, [a_card(free=1000)], users=users)
    full = gpus(a_gpu(free=1000 * 2**20))
    finding = gpu.check_gpu_memory(full, alone)
    assert finding.status == "warning" and "/opt/venv/bin/python (process 77, 77 GiB)" in finding.advice
    assert "elsewhere" not in finding.advice and "CUDA_VISIBLE_DEVICES=-1" in finding.advice.replace('"', "").replace(
        " = ", "="
    )
    beside = smi(header, [a_card(free=1000), other], users=users)
    assert "GPU-bbbb" in gpu.check_gpu_memory(full, beside).advice
    outside = smi(header, [a_card(free=1000)])
    assert "hidden" in gpu.check_gpu_memory(full, outside).advice
    assert gpu.check_gpu_memory(gpus(a_gpu(free=None, error="out of memory")), alone).status == "warning"
    assert gpu.check_gpu_memory(gpus(a_gpu()), alone).status == "ok"
    assert gpu.check_gpu_memory(gpus(a_gpu(free=3 * GIB, total=4 * GIB)), None).status == "ok"  # a small one
    assert gpu.check_gpu_memory(gpus(a_gpu(total=None, free=None)), None) is None
    assert gpu.check_gpu_memory(None, None) is None


# Speed.


def measured(**other):
    """What the check measures on the reference itself."""
    return {
        "steps": {"cpu": 16.0},
        "gflops": {"cpu": 180.0},
        "share": 0.98,
        "photos": 1200.0,
        "threads": 2,
        "vectors": "AVX512",
        "batch": 64,
        "whole": 900,
        "multiprocessors": None,
        "seconds": 9.0,
    } | other


def check_speed(monkeypatch, answer, *more, torch=None):
    monkeypatch.setattr(speed, "ask", lambda code, seconds: answer)
    return {f.name: f for f in speed.check_speed(torch or facts(**NO_GPU), *(more or (None, None)))}


def test_the_reference_is_as_fast_as_expected(files, monkeypatch):
    found = check_speed(monkeypatch, asking.Answer(measured()))
    assert {name: f.status for name, f in found.items()} == {"speed": "ok", "arithmetic": "ok", "reading": "ok"}
    assert "about 56 s on cpu" in found["speed"].found and "16.0 steps/s" in found["speed"].found
    json.dumps([f.figures for f in found.values()])


@pytest.mark.parametrize(
    ("slow", "name"),
    [({"steps": {"cpu": 5.0}}, "speed"), ({"gflops": {"cpu": 50.0}}, "arithmetic"), ({"photos": 300.0}, "reading")],
)
def test_less_than_a_third_is_a_warning_and_never_a_problem(files, monkeypatch, slow, name):
    found = check_speed(monkeypatch, asking.Answer(measured(**slow)))
    assert [n for n, f in found.items() if f.status != "ok"] == [name]
    assert found[name].status == "warning" and "power saving" in found[name].advice


def test_one_thread_is_held_against_one_thread(files, monkeypatch):
    found = check_speed(monkeypatch, asking.Answer(measured(threads=1, steps={"cpu": 3.5}, gflops={"cpu": 35.0})))
    assert found["speed"].status == found["arithmetic"].status == "ok"


def test_reasons_that_were_seen(files, monkeypatch):
    monkeypatch.setattr(system, "cores", lambda: 2)
    files({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 100000"})
    said = speed.reasons(measured(threads=9, share=0.4), 12)
    assert "got 40%" in said and "wait 12 times" in said and "more threads than" in said and "laptop" not in said
    monkeypatch.setattr(speed.platform, "machine", lambda: "x86_64")
    assert "AVX2" in speed.reasons(measured(vectors="DEFAULT"), 0)


def test_a_gpu_against_its_peak_and_the_cpu(files, smi, monkeypatch):
    driver = smi(HEADER.format("580.65", "13.0"), [a_card()])
    fast = measured(steps={"cpu": 16.0, "cuda": 90.0}, gflops={"cpu": 180.0, "cuda": 50000.0}, multiprocessors=132)
    here = gpus(a_gpu()).value
    assert round(speed.peak(fast, here, driver) / 1000) == 67  # TFLOP/s, as NVIDIA's data sheet of the H100 SXM says
    found = check_speed(monkeypatch, asking.Answer(fast), here, driver, torch=facts())
    assert {f.status for f in found.values()} == {"ok"} and "on cuda" in found["speed"].found
    slow = fast | {"steps": {"cpu": 16.0, "cuda": 15.0}, "gflops": {"cpu": 180.0, "cuda": 20000.0}}
    found = check_speed(monkeypatch, asking.Answer(slow), here, driver, torch=facts())
    assert "--device cpu" in found["speed"].advice and "PERFORMANCE" in found["arithmetic"].advice
    assert speed.peak(fast, here, None) is None  # nothing to compare with is no fault


def test_a_gpu_that_fails_is_not_timed(files, monkeypatch):
    asked = []
    monkeypatch.setattr(speed, "ask", lambda code, seconds: asked.append(code) or asking.Answer(error="not here"))
    speed.check_speed(facts(), gpus(a_gpu(error="broken")).value, None)
    speed.check_speed(facts(), gpus(a_gpu()).value, None)
    speed.check_speed(facts(), None, None)  # asking it took the process down
    assert "['cpu']" in asked[0] and "['cpu', 'cuda']" in asked[1] and "['cpu']" in asked[2]


def test_a_speed_that_could_not_be_measured(files, monkeypatch):
    finding = check_speed(monkeypatch, asking.Answer(error="no answer within 180 seconds"))["speed"]
    assert finding.status == "warning" and "no answer" in finding.found and finding.advice
    assert speed.check_speed(None, None, None)[0].status == "warning"


def test_speed_is_measured(monkeypatch):
    monkeypatch.setattr(speed, "ask", lambda code, seconds: asking.Answer(told(code)[0]))
    found = {f.name: f for f in speed.check_speed(facts(**NO_GPU), None, None, seconds=0.3)}
    about = found["speed"].figures["measured"]
    assert set(about) == set(measured()) and about["whole"] == 900 and about["batch"] == 64  # STEPS were measured so
    assert about["steps"]["cpu"] > 0 and about["gflops"]["cpu"] > 0 and about["photos"] > 0 and about["share"] > 0


def test_a_rate_counts_the_work_and_one_round_at_least():
    from sslcourse.doctor import clock

    done = []
    assert clock.rate(done.append, clock.torch.device("cpu"), seconds=0.0) > 0
    assert done == [1, 1, 1]  # to warm up, to know how long it takes, and the one round


# The whole.


def test_a_check_that_fails_itself_does_not_stop_the_others():
    def broken(word):
        raise KeyError(word)

    (finding,) = doctor.look("memory", broken, "MemTotal")
    assert finding.name == "memory" and finding.status == "warning" and "KeyError" in finding.found and finding.advice
    assert doctor.look("GPU", lambda: None) == []


def test_quick_leaves_speed_out(monkeypatch):
    asked = []
    for module, names in (
        (doctor.packages, ("check_packages", "check_torch", "check_torchvision", "check_lock")),
        (doctor.notebooks, ("check_figures", "check_notebooks", "check_classroom", "check_control")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, lambda: None)
    monkeypatch.setattr(gpu, "ask_torch", lambda: asking.Answer(facts(**NO_GPU)))
    monkeypatch.setattr(speed, "check_speed", lambda *a: asked.append(a) or [doctor.Finding("speed", "ok", "fast")])
    assert "speed" not in [f.name for f in doctor.findings()] and not asked  # lesson 00 asks so
    assert [f.name for f in doctor.findings(quick=False)][-1] == "speed" and len(asked) == 1
