"""What lessons are shown in: figures, JupyterLab and its kernel, nbgrader."""

from __future__ import annotations

from sslcourse.doctor.asking import ask
from sslcourse.doctor.finding import Finding
from sslcourse.doctor.installs import again, command, installed, same_python

FIGURES = """
import matplotlib, os
from matplotlib import font_manager, pyplot
from pathlib import Path
font = Path(font_manager.findfont("DejaVu Sans")).name
pyplot.figure().canvas.draw()
tell([matplotlib.__version__, matplotlib.get_backend(), font if "DejaVu" in font else None])
"""
KERNEL = """
from jupyter_client.kernelspec import KernelSpecManager
python = KernelSpecManager().get_kernel_spec("python3").argv[0]
tell(sys.executable if python in ("python", "python3") else python)
"""


def check_figures() -> Finding:
    answer = ask(FIGURES)
    if not answer.value:
        return Finding("figures", "problem", f"matplotlib can't draw: {answer.error}", again())
    version, backend, font = answer.value
    if not font:
        advice = "Figures will miss letters: install matplotlib again, which brings the font DejaVu Sans."
        return Finding("figures", "warning", f"matplotlib {version} without its font", advice)
    return Finding("figures", "ok", f"matplotlib {version}, backend {backend}, font {font}")


def check_notebooks() -> Finding:
    """JupyterLab, widgets, and whether notebooks will run under this Python."""
    versions = {name: installed(name) for name in ("jupyterlab", "ipywidgets", "jupyterlab_widgets", "ipykernel")}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return Finding("notebooks", "problem", f"missing: {', '.join(missing)}", again())
    answer = ask(KERNEL)
    if not answer.value:
        return Finding("notebooks", "problem", f"the kernel python3 was not found: {answer.error}", again())
    found = f"JupyterLab {versions['jupyterlab']}, ipywidgets {versions['ipywidgets']}"
    if not same_python(answer.value):
        advice = f"Notebooks would run under another Python. Register this one:\n{command('ipykernel install --sys-prefix --name python3')}"
        return Finding("notebooks", "warning", f"{found}, but the kernel python3 is {answer.value}", advice)
    return Finding("notebooks", "ok", f"{found}, kernel runs under this Python")


def check_classroom() -> Finding:
    version = installed("nbgrader")
    return Finding(
        "classroom", "ok", f"nbgrader {version}" if version else "nbgrader is not installed (only lecturers need it)"
    )


def check_control() -> Finding:
    """What lesson 18 needs beside the course."""
    versions = {name: installed(name) for name in ("gymnasium", "stable-baselines3")}
    if all(versions.values()):
        return Finding("control", "ok", ", ".join(f"{name} {version}" for name, version in versions.items()))
    missing = " and ".join(name for name, version in versions.items() if version is None)
    return Finding(
        "control", "ok", f'no {missing} (only lesson 18 needs it; `python -m pip install --editable ".[rl]"` brings it)'
    )
