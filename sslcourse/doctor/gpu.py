"""GPUs: the driver, what torch makes of it, whether it computes there, and how much memory others leave.

Without a GPU the course runs on the CPU, so nearly everything here is a warning at most. A problem is only a GPU that
torch chooses by itself, and then fails on.
"""

from __future__ import annotations

import os
import platform
import subprocess
from typing import Any

from sslcourse.doctor import system
from sslcourse.doctor.asking import Answer, ask
from sslcourse.doctor.finding import Finding, gib
from sslcourse.doctor.installs import install_torch, setting, torch_for_this_driver
from sslcourse.doctor.nvidia import OLDEST, Driver

HIDE = "CUDA_VISIBLE_DEVICES"
LITTLE = 2 * 2**30  # bytes of a GPU's memory that a lesson is comfortable with

# What torch says without touching a device, but for the line that reports on the best one.
TORCH = """
import warnings
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    import torch
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
from sslcourse import device
try:
    best = device.report()
except Exception as error:  # a GPU without memory for anything, say
    best = f"{'cuda' if cuda else 'mps'}: {str(error).splitlines()[0]}"
tell({
    "best": best,
    "usable": [*["cuda"] * cuda, *["mps"] * mps, "cpu"],
    "cuda": torch.version.cuda,
    "rocm": torch.version.hip,
    "mps built": torch.backends.mps.is_built(),
    "threads": torch.get_num_threads(),
    "warned": [str(w.message).splitlines()[0] for w in warned if "cuda" in str(w.message).lower()],
})
"""
# A matrix product, a convolution and their gradient on every device, right and not only without an error.
COMPUTE = """
import torch
def attempt(name):
    try:
        a = torch.ones(1, 1, 64, 64, device=name, requires_grad=True)
        b = torch.nn.functional.conv2d(a @ a, torch.ones(1, 1, 3, 3, device=name))
        b.sum().backward()
        return "" if float(b.detach().sum()) == 64 * 9 * 62**2 else "a matrix product and a convolution gave a wrong result"
    except Exception as error:
        return str(error).splitlines()[0]
if torch.cuda.is_available():
    gpus = []
    for i in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(i)
        gpu = {"name": p.name, "capability": [p.major, p.minor], "total": p.total_memory, "uuid": str(getattr(p, "uuid", ""))}
        gpu["error"] = attempt(f"cuda:{i}")
        gpu["free"] = torch.cuda.mem_get_info(i)[0] + torch.cuda.memory_reserved(i) if not gpu["error"] else None
        gpu["bf16"] = torch.cuda.is_bf16_supported(including_emulation=False) if not gpu["error"] else None
        gpus.append(gpu)
    nccl = torch.distributed.is_available() and torch.distributed.is_nccl_available()
    tell({"gpus": gpus, "kernels": torch.cuda.get_arch_list(), "nccl": ".".join(map(str, torch.cuda.nccl.version())) if nccl else None})
else:
    gpu = {"name": "Apple GPU", "capability": None, "total": None, "free": None, "uuid": "", "bf16": False}
    tell({"gpus": [gpu | {"error": attempt("mps")}], "kernels": [], "nccl": None})
"""


def ask_torch() -> Answer:
    return ask(TORCH)


def ask_gpus(facts: dict[str, Any] | None) -> Answer | None:
    """What the GPUs that torch found say; None where it found none."""
    return ask(COMPUTE) if facts and facts["usable"] != ["cpu"] else None


def check_driver(driver: Driver | None, facts: dict[str, Any] | None) -> Finding:
    """NVIDIA's driver, the CUDA that it knows against the CUDA that torch is built for, and its GPUs."""
    if driver is None:
        if system.nvidia_on_the_bus():
            found = "there is an NVIDIA GPU, and no `nvidia-smi`: its driver is not installed, or a container hides it"
            return Finding("driver", "warning", found, on_the_cpu(install_driver()))
        return Finding("driver", "ok", "no NVIDIA GPU")
    if not driver.works:
        return Finding(
            "driver", "warning", f"NVIDIA's driver doesn't work: {driver.error}", on_the_cpu(mend_driver(driver.error))
        )
    knows = f", knows CUDA up to {driver.cuda[0]}.{driver.cuda[1]}" if driver.cuda else ""
    found = f"NVIDIA {driver.version}{knows}; {cards(driver)}"
    figures = {"version": driver.version, "cuda": driver.cuda, "gpus": [c.name for c in driver.cards]}
    if too_old(driver, facts):
        found += f"; too old for this torch, which is built for CUDA {facts['cuda']}"
        return Finding("driver", "warning", found, newer_driver(facts), figures)
    if all(c.mig for c in driver.cards) and not driver.instances:
        advice = (
            "It is set to be divided (MIG), and has no instance to compute on. Whoever administers it makes one of the whole:\n"
            "    sudo nvidia-smi mig -cgi 0 -C\nor ends the division:\n    sudo nvidia-smi -mig 0"
        )
        return Finding("driver", "warning", found, on_the_cpu(advice), figures)
    return Finding("driver", "ok", found, figures=figures)


def check_devices(answer: Answer, driver: Driver | None) -> Finding:
    """Which devices torch can use, and why not the GPU that is there."""
    facts = answer.value
    if not facts:
        return Finding("devices", "problem", f"could not be asked: {answer.error}", "Mend torch first.")
    found = f"{facts['best']} (usable: {', '.join(facts['usable'])})"
    advice = why_no_gpu(facts, driver) if facts["usable"] == ["cpu"] else ""
    return Finding("devices", "warning" if advice else "ok", found, advice)


def check_gpus(answer: Answer | None, facts: dict[str, Any] | None) -> Finding | None:
    """Whether the GPUs that torch chooses compute, and in which precision; None where it chooses the CPU."""
    if answer is None:
        return None
    if not answer.value:
        return Finding("GPU", "problem", f"computing on it failed: {answer.error}", off())
    gpus, kernels = answer.value["gpus"], answer.value["kernels"]
    for gpu in gpus:
        if gpu["error"]:
            return Finding(
                "GPU", "problem", f"{gpu['name']} does not compute: {gpu['error']}", mend_gpu(gpu, kernels, facts)
            )
    kinds = sorted({describe(gpu) for gpu in gpus})
    found = f"{f'{len(gpus)} GPUs compute' if len(gpus) > 1 else 'computes'}: {'; '.join(kinds)}"
    if "cuda" in facts["usable"]:
        through = f"NCCL {answer.value['nccl']}" if answer.value["nccl"] else "gloo (this torch has no NCCL)"
        found += f"; several work together through {through}"
    return Finding("GPU", "ok", found, figures={"gpus": gpus})


def check_gpu_memory(answer: Answer | None, driver: Driver | None) -> Finding | None:
    """What other processes left of the memory of the GPU that the course takes; None where that isn't known."""
    gpus = answer.value["gpus"] if answer and answer.value else []
    if not gpus:
        return None
    gpu = gpus[0]
    card = next((c for c in driver.cards if same_gpu(c.uuid, gpu["uuid"])), None) if driver else None
    total, free = gpu["total"], gpu["free"] if gpu["free"] is not None else card and card.free
    if total is None or free is None:
        return None
    found, figures = f"{gib(free)} of {gib(total)} GiB of {gpu['name']} free", {"free": free, "total": total}
    if free >= max(total / 4, min(LITTLE, total / 2)):
        return Finding("GPU memory", "ok", found, figures=figures)
    users = [u for u in driver.users if same_gpu(u[3], gpu["uuid"])] if driver else []
    taken = ", ".join(
        f"{name} (process {pid}{f', {gib(size)} GiB' if size else ''})" for pid, name, size, _ in users[:4]
    )
    advice = (
        f"Taken by {taken}."
        if taken
        else "Who took it can't be seen from here (processes outside a container are hidden)."
    )
    advice += " Notebooks keep a GPU's memory until\ntheir kernel is shut down."
    other = emptiest(driver, gpu["uuid"], free)
    if other:
        advice += f" Or take the GPU with {gib(other.free)} GiB free, {other.name}:\n{setting(HIDE, other.uuid)}"
    else:
        advice += f" Until there is room, compute on the CPU:\n{setting(HIDE, '-1')}"
    return Finding("GPU memory", "warning", found, advice, figures)


# In words.


def cards(driver: Driver) -> str:
    """Every GPU of the driver: name, compute capability, memory."""
    each = []
    for c in driver.cards:
        about = [f"compute capability {c.capability}"] * bool(c.capability)
        if c.total is not None and c.free is not None:
            about.append(f"{gib(c.free)} of {gib(c.total)} GiB free")
        if c.mig:
            about.append(
                "divided into MIG instances, of which a process uses one"
                if driver.instances
                else "divided (MIG), without an instance"
            )
        each.append(f"{c.name} ({', '.join(about)})" if about else c.name)
    return "; ".join(each)


def describe(gpu: dict[str, Any]) -> str:
    about = [f"compute capability {gpu['capability'][0]}.{gpu['capability'][1]}"] if gpu["capability"] else []
    about.append("bfloat16" if gpu["bf16"] else "no bfloat16, so float32")
    return f"{gpu['name']} ({', '.join(about)})"


# What is the matter.


def too_old(driver: Driver | None, facts: dict[str, Any] | None) -> bool:
    """A driver serves every CUDA of its generation and of those before it, not of the next."""
    built = facts["cuda"] if facts else None
    return bool(driver and driver.cuda and built and driver.cuda[0] < int(built.split(".")[0]))


def lacks_kernels(capability: list[int], kernels: list[str]) -> str:
    """ "older" or "newer" when a GPU is so than everything that torch has machine code for; "" when it has some.

    Code for sm_80 runs on 8.0 and on what is newer in its generation (8.6), PTX code (compute_80) on all that is newer.
    """
    have = [
        (k.partition("_")[0], k.partition("_")[2].rstrip("af")) for k in kernels if k.partition("_")[2][:1].isdigit()
    ]
    known = [(kind, (int(n[:-1]), int(n[-1]))) for kind, n in have]
    version = (capability[0], capability[1])
    if any(k <= version and (kind == "compute" or k[0] == version[0]) for kind, k in known) or not known:
        return ""
    return "newer" if all(k < version for _, k in known) else "older"


def why_no_gpu(facts: dict[str, Any], driver: Driver | None) -> str:
    """What to do about a GPU that is there and that torch doesn't use; "" where there is none."""
    if driver and driver.works:
        hidden = os.environ.get(HIDE)
        if too_old(driver, facts):
            return newer_driver(facts)
        if not facts["cuda"]:
            why = "This machine has an NVIDIA GPU, and this torch can't use it."
            return on_the_cpu(f"{why} For the GPU:\n{install_torch(cpu=False)}")
        if hidden is not None:
            known = "\n".join(setting(HIDE, c.uuid) + f"      {c.name}" for c in driver.cards)
            show = f"    Remove-Item Env:{HIDE}" if os.name == "nt" else f"    unset {HIDE}"
            return on_the_cpu(
                f"{HIDE} is set to {hidden!r}, which hides the GPU. To see all:\n{show}\nOr one:\n{known}"
            )
        if all(c.mig for c in driver.cards) and not driver.instances:
            return on_the_cpu("The GPU is divided (MIG) without an instance, as said above.")
        warned = f" It says: {facts['warned'][0]}" if facts["warned"] else ""
        return on_the_cpu(
            f"The driver sees a GPU, and torch doesn't.{warned}\nOften the machine needs a restart after a new driver, or a "
            "container must be started with\n    docker run --gpus all …"
        )
    if system.exists("dev/kfd") and not facts["rocm"]:
        why = "This machine seems to have an AMD GPU. torch's build for ROCm may use it (the course was not tested there):"
        return on_the_cpu(f"{why}\n{torch_for_this_driver()}")
    if platform.system() == "Darwin":
        return why_no_apple_gpu(facts)
    return ""


def why_no_apple_gpu(facts: dict[str, Any]) -> str:
    if platform.machine() != "arm64":
        translated = subprocess.run(["sysctl", "-n", "sysctl.proc_translated"], capture_output=True, text=True).stdout
        if translated.strip() != "1":
            return ""  # a Mac with a processor of Intel's
        why = "This Python is for Intel processors, and runs translated on an Apple one: several times slower, without the GPU."
        return f"{why}\nInstall a Python for arm64 (Apple silicon), and make the environment again with it."
    if not facts["mps built"]:
        return on_the_cpu(f"This torch was built without Apple's GPU (MPS). For the GPU:\n{install_torch(cpu=False)}")
    return on_the_cpu(
        "Apple's GPU (MPS) is there, and torch can't use it: macOS is too old for this torch. Update macOS."
    )


def same_gpu(one: str, other: str) -> bool:
    """nvidia-smi writes GPU- in front of what torch says."""
    return bool(one and other) and one.removeprefix("GPU-") == other.removeprefix("GPU-")


def emptiest(driver: Driver | None, uuid: str, free: int):
    """The whole GPU with the most free memory, where it has much more than `free`."""
    others = [c for c in driver.cards if c.free and not c.mig and not same_gpu(c.uuid, uuid)] if driver else []
    best = max(others, key=lambda c: c.free, default=None)
    return best if best and best.free >= max(LITTLE, 2 * free) else None


# What to do.


def on_the_cpu(advice: str) -> str:
    return f"The course runs on the CPU. {advice}"


def off() -> str:
    return f"Until that is mended, compute on the CPU:\n{setting(HIDE, '-1')}"


def install_driver() -> str:
    if platform.system() == "Windows":
        return "For the GPU, install NVIDIA's driver for it from nvidia.com/drivers, and restart."
    return (
        "For the GPU, install NVIDIA's driver, and restart; on Ubuntu:\n    sudo ubuntu-drivers install\n"
        "In a container, install the driver and the NVIDIA Container Toolkit outside it, and start it with\n    docker run --gpus all …"
    )


def mend_driver(error: str) -> str:
    if "version mismatch" in error:
        return "The driver was updated while an older one is still loaded: restart the machine."
    if "No devices" in error:
        return "The driver is there and has no GPU: the machine or container was given none. For a container:\n    docker run --gpus all …"
    if "Unknown Error" in error:
        return "In a container, that comes after a change outside it: start the container again."
    return (
        "The driver isn't loaded, as after an update of Linux. Restart the machine; if that doesn't help,\n"
        "    sudo modprobe nvidia\nsays why, or install the driver again (on Ubuntu: sudo ubuntu-drivers install)."
    )


def newer_driver(facts: dict[str, Any]) -> str:
    generation = int(facts["cuda"].split(".")[0])
    oldest = f"{OLDEST[generation]} or newer" if generation in OLDEST else f"that knows CUDA {generation}"
    ubuntu = "" if platform.system() == "Windows" else "; on Ubuntu:\n    sudo ubuntu-drivers install\n"
    return on_the_cpu(
        f"For the GPU, install a driver {oldest}{ubuntu or '. '}Or take a torch that was built for what your driver knows:\n"
        f"{torch_for_this_driver()}"
    )


def mend_gpu(gpu: dict[str, Any], kernels: list[str], facts: dict[str, Any]) -> str:
    """A GPU that torch chooses and fails on."""
    if "out of memory" in gpu["error"]:
        return (
            f"Other processes took its memory: see which with `nvidia-smi`, and end those that you don't need.\n{off()}"
        )
    age = lacks_kernels(gpu["capability"], kernels) if gpu["capability"] and not facts["rocm"] else ""
    if age or "no kernel image" in gpu["error"]:
        capability = ".".join(map(str, gpu["capability"] or "?"))
        why = (
            f"This torch has no code for a GPU of compute capability {capability}; it has it for {', '.join(kernels)}."
        )
        if age == "older":
            why += "\nBuilds for an older CUDA have code for older GPUs:"
            build = torch_for_this_driver().replace("--torch-backend auto", "--torch-backend cu126")
            return f"{why}\n{build}\n{off()}"
        return f"{why}\nA newer torch may have it:\n{torch_for_this_driver()}\n{off()}"
    return f"It may be held by another process alone, or need a restart; `nvidia-smi` shows its state.\n{off()}"
