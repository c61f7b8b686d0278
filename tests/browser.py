"""What the tests in a browser share: JupyterLab as `sslcourse lab` starts it, Chromium, and what is looked at in a page."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

SIZES = ((1024, 768), (1366, 768))
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
SERIOUS = ("serious", "critical")
# In a container: root has no sandbox, there is no GPU, and /dev/shm may be too small for a page
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
PATIENCE = 240_000  # milliseconds that a lesson may take to run on a machine that does other things as well
# What the tests need of JupyterLab, beside the settings of the course: every cell in the page, and its commands by name
LAB = {"LabApp": {"expose_app_in_browser": True}}
TRACKER = {"windowingMode": "none"}


def chromium() -> str | None:
    """The Chromium of this machine; the tests download none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield started
        started.close()


@dataclass
class Watched:
    """A page, and what went wrong in it."""

    page: Page
    here: str  # the beginning of every address that may be asked for
    faults: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


@contextlib.contextmanager
def watched(started: Browser, here: str, size: tuple[int, int] = SIZES[0], dark: bool = False) -> Iterator[Watched]:
    """A new page in which errors of the console, answers above 400 and requests to other machines are noted."""
    scheme = "dark" if dark else "light"
    context = started.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page = context.new_page()
    found = Watched(page, here)
    page.on("console", lambda message: found.faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: found.faults.append(str(error)))
    page.on(
        "response",
        lambda answer: found.faults.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None,
    )

    def only_here(route):
        if route.request.url.startswith((here, "data:", "blob:", "about:")):
            route.continue_()
        else:
            found.elsewhere.append(route.request.url)
            route.abort()

    page.route("**/*", only_here)
    yield found
    context.close()


# --- servers ----------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def files(folder: Path) -> Iterator[str]:
    """The address of a server of files."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@dataclass
class Lab:
    url: str
    token: str
    work: Path

    def exists(self, path: str) -> bool:
        """Whether the server has this file below its root."""
        request = urllib.request.Request(f"{self.url}/api/contents/{path}?content=0&token={self.token}")
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(request, timeout=10).status == 200
        return False


@contextlib.contextmanager
def lab(scratch: Path) -> Iterator[Lab]:
    """JupyterLab as `sslcourse lab` starts it, with everything that it writes in `scratch`."""
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTERLAB_SETTINGS_DIR")
    env = os.environ | {name: str(scratch / name.lower()) for name in names} | {"SSLCOURSE_WORK": str(scratch / "work")}
    env.pop("MPLBACKEND", None)  # figures go into the page
    _write(scratch / "jupyter_config_dir" / "jupyter_lab_config.json", LAB)
    _write(scratch / "jupyterlab_settings_dir/@jupyterlab/notebook-extension/tracker.jupyterlab-settings", TRACKER)
    port = free_port()
    words = [sys.executable, "-m", "sslcourse", "lab", "--no-browser", "--port", str(port)]
    with open(scratch / "log", "wb") as log:
        server = subprocess.Popen(words, env=env, stdout=log, stderr=log, cwd=scratch, start_new_session=True)
    try:
        yield Lab(
            f"http://127.0.0.1:{port}", _token(scratch / "jupyter_runtime_dir", server, scratch), scratch / "work"
        )
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


def _write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _token(runtime: Path, server: subprocess.Popen, scratch: Path) -> str:
    """The token of a server that is starting, once it answers."""
    for _ in range(600):
        if server.poll() is not None:
            break
        for path in runtime.glob("jpserver-*.json"):
            with contextlib.suppress(ValueError, OSError):
                about = json.loads(path.read_text())
                urllib.request.urlopen(f"{about['url']}api/status?token={about['token']}", timeout=5)
                return about["token"]
        time.sleep(0.1)
    raise AssertionError(f"JupyterLab didn't start:\n{(scratch / 'log').read_text()[-3000:]}")


# --- a notebook in JupyterLab -----------------------------------------------------------------------------------------

READY = """() => { const k = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
    return k && k.connectionStatus === 'connected' && k.status === 'idle' }"""
RUN = """async () => { await window.jupyterapp.commands.execute('notebook:run-all-cells') }"""
DONE = """() => { const cells = [...window.jupyterapp.shell.currentWidget.content.model.cells];
    const code = cells.filter(c => c.type === 'code' && c.sharedModel.getSource().trim());
    return code.every(c => c.executionCount) &&
        window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle' }"""
NOTEBOOK = ".jp-NotebookPanel:not(.lm-mod-hidden)"


def open_notebook(seen: Watched, lab: Lab, path: str) -> None:
    """Open a notebook alone, and wait for its kernel."""
    seen.page.goto(f"{lab.url}/lab/tree/{path}?reset&token={lab.token}")
    seen.page.wait_for_function(READY, timeout=90_000)


def run_all(seen: Watched, until: str = DONE) -> None:
    seen.page.evaluate("() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    seen.page.evaluate(RUN)
    seen.page.wait_for_function(until, timeout=PATIENCE)


def choose_theme(page: Page, theme: str) -> None:
    page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", THEMES[theme])
    wanted = "true" if theme == "light" else "false"
    page.wait_for_function("wanted => document.body.dataset.jpThemeLight === wanted", arg=wanted)


# --- what is looked at -------------------------------------------------------------------------------------------------

SCROLLING = """([inside, exempt]) => [...document.querySelectorAll(inside)]
    .filter(e => e.offsetParent && !e.matches(exempt) && e.scrollWidth > e.clientWidth + 1)
    .map(e => `${e.className}: ${e.scrollWidth} in ${e.clientWidth}: ${e.innerText.slice(0, 80)}`)"""
PICTURES = """inside => [...document.querySelectorAll(inside + ' img')].filter(e => e.offsetParent)
    .map(e => [e.getAttribute('alt') || '', e.naturalWidth, e.clientWidth])"""
AXE = """async ([inside, leave]) => { const context = {include: inside.filter(s => document.querySelector(s)).map(s => [s])};
    if (!context.include.length) return [];
    const found = await axe.run(context, {resultTypes: ['violations']});
    // JupyterLab's own frame around a text: a wide formula scrolls in it, by mouse alone
    for (const v of found.violations) if (v.id === 'scrollable-region-focusable')
        v.nodes = v.nodes.filter(n => !n.html.includes('jp-MarkdownOutput'));
    return found.violations.filter(v => v.nodes.length).filter(v => leave.includes(v.impact))
        .map(v => `${v.id} (${v.impact}): ` + v.nodes.slice(0, 3).map(n => n.html.slice(0, 160)).join(' | ')) }"""


def scrolling(page: Page, inside: str, exempt: str = ".none") -> list[str]:
    """Elements that hold more than they are wide."""
    return page.evaluate(SCROLLING, [inside, exempt])


def pictures(page: Page, inside: str) -> list[tuple[str, int, int]]:
    """(alternative text, pixels of the file, pixels on the page) of every picture that is shown."""
    return [tuple(found) for found in page.evaluate(PICTURES, inside)]


def serious(page: Page, *inside: str) -> list[str]:
    """What axe-core finds inside these elements that keeps somebody from using them."""
    if not page.evaluate("() => Boolean(window.axe)"):
        page.evaluate((resources.files("axe_playwright_python") / "axe.min.js").read_text("utf-8"))
    return page.evaluate(AXE, [list(inside), list(SERIOUS)])
