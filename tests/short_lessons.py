"""A notebook's code cells on the pretend device, in seconds: every call is made, and little is computed.

Trainings take two steps, features are taken of eight images, and solvers stop early; shapes, numbers of records and
what lies on which device stay as they are. So what a lesson measures means nothing here, and its assertions are
evaluated but not required. Everything that is raised beside them is a fault.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import io
import multiprocessing
import os
import traceback
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pretend_device
import torch
from IPython.core.interactiveshell import InteractiveShell
from sklearn.linear_model import LogisticRegression

from sslcourse import evaluate, store, train
from sslcourse.transfer import clustering, fewshot

STEPS, IMAGES, ROUNDS = 2, 8, 3
LONGER = {"09": 33}  # steps of a lesson that looks back on as many
# Cells that show what a network has learned, and what is raised where it has learned nothing: {lesson/cell: error}
UNLEARNED = {
    "04/claims-measured": ZeroDivisionError,  # a share of a gain that isn't there
    "06/puzzles-figure": IndexError,  # the 702nd solved puzzle
}


# --- what is cut short -------------------------------------------------------------------------------------------


class Shorten(ast.NodeTransformer):
    """Loops of the lesson's own that train take ROUNDS rounds; assertions are evaluated and not required."""

    def visit_For(self, node: ast.For) -> ast.AST:
        self.generic_visit(node)
        if any(isinstance(x, ast.Attribute) and x.attr == "backward" for x in ast.walk(node)):
            few = ast.parse(f"__import__('itertools').islice(None, {ROUNDS})", mode="eval").body
            few.args[0] = node.iter
            node.iter = few
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return ast.copy_location(ast.Expr(node.test), node)


_fit, _extract, _predict = train.fit, evaluate.extract, train.Classifier.predict


def fit(model, batch, config, *, on_log=None, **options) -> train.History:
    """`train.fit` for a few steps; the history has as many records as a whole training's, and all are handed to on_log."""
    short = dataclasses.replace(config, steps=min(STEPS, config.steps), log_every=1, checkpoint_every=1)
    history, logged = train.History(), {*range(config.log_every, config.steps + 1, config.log_every), config.steps}

    def whole(record: dict[str, float]) -> None:
        if record["step"] == short.steps:
            for step in sorted(logged):
                history.records.append(record | {"step": step})
                if on_log is not None:
                    on_log(history.last)

    found = _fit(model, batch, short, on_log=whole, **options)
    return history if history.records else found


def pixels_of(images) -> torch.Tensor:
    return images if isinstance(images, torch.Tensor) else images.images


def repeated(values: torch.Tensor, count: int) -> torch.Tensor:
    """`count` rows: the given ones again and again, a little different each time so that no two are the same."""
    rows = values[torch.arange(count) % len(values)]
    if rows.is_floating_point():
        rows[IMAGES:] += 0.01 * torch.randn(rows[IMAGES:].shape, generator=torch.Generator().manual_seed(0))
    return rows


def extract(backbone, images, **options) -> torch.Tensor:
    pixels = pixels_of(images)
    return repeated(_extract(backbone, pixels[:IMAGES], **options), len(pixels))


def predict(classifier, images, *args, **options) -> torch.Tensor:
    pixels = pixels_of(images)
    return repeated(_predict(classifier, pixels[:IMAGES], *args, **options), len(pixels))


def short_regression(**options) -> LogisticRegression:
    return LogisticRegression(**(options | {"max_iter": 2}))


def cut_short(scratch: Path) -> None:
    """Replace what computes for long, in this process for good; trained backbones go to `scratch`."""
    train.fit, train.Classifier.predict = fit, predict
    evaluate.extract = clustering.extract = extract
    evaluate.LogisticRegression = fewshot.LogisticRegression = short_regression
    evaluate.PENALTIES = (1.0,)
    store.folder = lambda: scratch / "backbones"


# --- one notebook ------------------------------------------------------------------------------------------------


def cells(path: Path) -> list[tuple[str, str]]:
    """(name, source) of every code cell."""
    return [(c.id, c.source) for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def faults(path: Path, scratch: Path, change=lambda name, source: source) -> list[str]:
    """Run a notebook's cells in a process of its own; what went wrong, as "cell: traceback". A fault stops no other cell.

    change   a cell's name and source to the source that is run: to plant a fault
    """
    receive, send = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_run, args=(path, scratch, change, send))
    process.start()
    send.close()
    try:
        return receive.recv()
    except EOFError:
        return ["the process ended without an answer"]
    finally:
        process.join()


def _run(path: Path, scratch: Path, change, answer) -> None:
    global STEPS
    lesson = path.parent.name == "notebooks"  # an exercise is short, and its check knows what it must compute
    if lesson:
        STEPS = LONGER.get(path.stem[:2], STEPS)
        cut_short(scratch)
    found = []
    os.chdir(path.parent)  # as in Jupyter
    with pretend_device.chosen():
        shell = InteractiveShell.instance()
        if lesson:
            shell.ast_transformers.append(Shorten())
        shell.showtraceback = shell.showsyntaxerror = lambda *args, **options: None
        for name, source in cells(path):
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                result = shell.run_cell(change(name, source))
            plt.close("all")
            error = result.error_before_exec or result.error_in_exec
            if error and not isinstance(error, UNLEARNED.get(f"{path.stem[:2]}/{name}", ())):
                found.append(f"{name}: {''.join(traceback.format_exception(error)[-6:])}")
    answer.send(found)
    answer.close()
    for child in multiprocessing.active_children():  # a loader's worker, which os._exit would leave behind
        child.kill()
    os._exit(0)
