"""Trained once, used everywhere: a local store of backbones, each pretrained here, on demand, with the course's settings.

An entry's name holds a digest of everything that decides its weights: the task with its options, the architecture, the
training configuration, the images, the code of the package that trains, and the version of PyTorch. What differs in any
of these is another entry, so that an old backbone is never taken for a new one. Two processors may still differ in the
last bits. Nothing is downloaded.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sslcourse import backbones, bundled, checkpoint, pretext, train
from sslcourse.backbones import Backbone
from sslcourse.data import load, stream
from sslcourse.data.cache import folder as cache_folder
from sslcourse.data.cache import say
from sslcourse.data.imageset import ImageSet
from sslcourse.data.stream import ImageFiles
from sslcourse.errors import CourseError, Damaged, whole_number
from sslcourse.locking import Claimed, Unwritable, claimed

BATCH_SIZE = 64  # of every task that doesn't ask for another
LIMIT = 1024**3  # bytes that all entries together may take; the entries used longest ago go first
# What decides the weights, beside the task's own file; the images are in the key themselves.
CODE = "augment backbones checkpoint color device distributed heads losses patches schedules teacher text train vit".split()


@dataclass(frozen=True)
class Recipe:
    """How the course pretrains a task: all that `train.pretrain` is given, the images apart."""

    task: str
    arch: str
    options: dict[str, Any]
    config: train.TrainConfig
    seconds: float  # about how long it takes on pocket world, on two cores
    stem: str | None = None  # by default what suits the images' size

    def build(self, side: int) -> pretext.PretextTask:
        """The task on a new backbone for images of `side` pixels, before training."""
        network = backbones.build(self.arch, stem=self.stem, image_size=side, seed=self.config.seed)
        return pretext.build(self.task, network, **self.options)

    def fitted(self, images: int) -> Recipe:
        """The same with a batch that isn't larger than the set."""
        small = dataclasses.replace(self.config, batch_size=min(self.config.batch_size, max(2, images)))
        return dataclasses.replace(self, config=small)


def recipe(
    task: str,
    *,
    seed: int = 0,
    steps: int | None = None,
    batch_size: int | None = None,
    backbone: str | None = None,
    stem: str | None = None,
    **options: Any,
) -> Recipe:
    """The course's recipe for a task, with other steps, batches, backbone, stem or options where they are given."""
    kind = pretext.find(task)
    settings = pretext.PretextTask.settings | kind.settings
    steps = settings["steps"] if steps is None else steps
    batch_size = settings.get("batch_size", BATCH_SIZE) if batch_size is None else batch_size
    config = train.TrainConfig(steps=steps, batch_size=batch_size, seed=seed, **kind.recipe)
    seconds = settings["seconds"] * config.steps / settings["steps"]
    options = settings.get("options", {}) | options
    return Recipe(task, backbone or settings.get("backbone", kind.arch), options, config, seconds, stem)


def budget_of(task: str, steps: int, batch_size: int) -> float:
    """How many pictures a run sees, as a multiple of the course's run of this task."""
    usual = recipe(task).config
    return steps * batch_size / (usual.steps * usual.batch_size)


def folder() -> Path:
    """Where the backbones lie: `backbones` in the cache folder of the data ($SSLCOURSE_CACHE moves both)."""
    return cache_folder() / "backbones"


def pretrained(
    task: str,
    data: str | ImageSet | ImageFiles = "world",
    *,
    seed: int = 0,
    budget: int | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
    **changes: Any,
) -> Backbone:
    """A backbone pretrained on `task`, from the store, or trained now and kept there.

    data     a data set by name, of which `unlabeled` is taken, or the images themselves
    seed     decides weights, order and views
    changes  other steps, batch_size, backbone, stem or options than the course's (`recipe`): the result is an entry of
             its own
    budget   the steps as a multiple of the course's: above 1, one of the backbones that come with the package
             (`bundled`), which were trained on pocket world with the course's options and seed 0. 1 is the course's own

    Says on standard error what it trains and about how long that takes, and shows a bar with the time left. Of two
    processes that want the same one, one trains and the other waits. Training that was stopped goes on where it was. A
    damaged entry is made again; where the store can't be written, the backbone is trained and not kept. Raises
    CourseError for an unknown task or option, for a budget that doesn't come with the package, and for whatever the task
    or the training refuses.
    """
    if budget is not None and whole_number("budget", budget) > 1:
        arch = changes.pop("backbone", None) or recipe(task).arch
        _refuse_beside_a_budget(data=data, seed=seed, **changes)
        return bundled.find(task, arch, int(budget)).load()
    asked = recipe(task, seed=seed, **changes)
    images = data if isinstance(data, ImageSet | ImageFiles) else load(data).unlabeled
    return made(asked, images, device=device, progress=progress)


def made(
    asked: Recipe, images: ImageSet | ImageFiles, *, device: str | torch.device = "auto", progress: bool = True
) -> Backbone:
    """The backbone of a recipe on these images, as `pretrained` gives it."""
    asked = asked.fitted(len(images))
    path = entry(asked, images)
    found = _read(path)
    if found is not None:
        return found
    try:
        with _claimed(path):
            found = _read(path)  # another process may have finished it meanwhile
            if found is None:
                begun = path.with_suffix(".run")
                found = _train(asked, images, begun, device, progress)
                (begun / backbones.FILE).replace(path)
                shutil.rmtree(begun, ignore_errors=True)
                _make_room(path.parent)
            return found
    except Unwritable as error:
        say(f"{error} Until then, this will take as long next time.")
    return _train(asked, images, None, device, progress)


def _refuse_beside_a_budget(**given: Any) -> None:
    """CourseError, with their names, for what a backbone that comes with the package was trained without."""
    usual = {"data": "world", "seed": 0, "steps": None}
    others = [name for name, value in given.items() if name not in usual or not _same(value, usual[name])]
    if others:
        raise CourseError(
            f"a backbone with a budget above 1 comes with the package, trained on 'world' with the course's options and "
            f"seed 0, and {', '.join(others)} was given, too; leave that out, or give steps in place of a budget."
        )


def _same(value: Any, usual: Any) -> bool:
    return type(value) is type(usual) and value == usual


@contextlib.contextmanager
def _claimed(path: Path) -> Iterator[None]:
    """An entry that no other process makes meanwhile; where one is at it, says so and waits for it."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(claimed(path, file=True))
        except Claimed:
            say(f"another process is making {path.stem} at this moment; waiting for it.")
            held.enter_context(claimed(path, file=True, wait=True))
        yield


def _train(asked: Recipe, images: ImageSet | ImageFiles, out: Path | None, device: Any, progress: bool) -> Backbone:
    """Say how long it will take, and train; what an earlier run left in `out` is gone on from, unless it is damaged."""
    say(f"pretraining {asked.task}, {asked.config.steps} steps, once: about {asked.seconds:.0f} s on two cores.")

    def trained() -> Backbone:
        model = asked.build(images.size[0])
        train.pretrain(model, images, asked.config, out=out, resume=out is not None, device=device, progress=progress)
        return model.backbone.cpu().eval()

    try:
        return trained()
    except Damaged:
        shutil.rmtree(out)
    return trained()


def entry(asked: Recipe, images: ImageSet | ImageFiles) -> Path:
    """The file of a recipe on these images."""
    task = asked.build(images.size[0])
    key = {
        "run": checkpoint.run_identity(task, asked.config, stream.source(images), task.beside(images)),
        "code": code_digest(asked.task),
        "torch": torch.__version__,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
    return folder() / f"{asked.task}-seed{asked.config.seed}-{digest}.safetensors"


@functools.cache
def code_digest(task: str) -> str:
    """Digest of the code that decides the weights, read without comments and docstrings: words may change."""
    package = Path(__file__).parent
    own = pretext.find(task).__module__.rpartition(".")[2]
    digest = hashlib.sha256()
    for path in [package / f"{name}.py" for name in CODE] + _task_files(own):
        digest.update(_without_words(ast.parse(path.read_text(encoding="utf-8"))).encode())
    return digest.hexdigest()[:20]


def _task_files(name: str) -> list[Path]:
    """The file of a task, and those of the tasks and classes in `pretext` that it builds upon, by name."""
    found, todo = set(), {name}
    while todo:
        found |= todo
        files = [Path(pretext.__path__[0]) / f"{one}.py" for one in todo]
        nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
        modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        todo = {m.rpartition(".")[2] for m in modules if m.startswith(f"{pretext.__name__}.")} - found
    return [Path(pretext.__path__[0]) / f"{one}.py" for one in sorted(found)]


def _without_words(tree: ast.Module) -> str:
    """The code without comments, docstrings and `settings` (what of those decides weights is in the configuration)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [line for line in node.body if not _is_words(line)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_words(line: ast.stmt) -> bool:
    if isinstance(line, ast.Assign | ast.AnnAssign):
        target = line.targets[0] if isinstance(line, ast.Assign) else line.target
        return isinstance(target, ast.Name) and target.id == "settings"
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


def _read(path: Path) -> Backbone | None:
    """The backbone at `path`, ready for use; None where there is none, or a damaged one (with a notice)."""
    if not path.is_file():
        return None
    try:
        backbone = backbones.load(path)
    except CourseError as error:
        say(f"{error} It is made again.")
        return None
    with contextlib.suppress(OSError):  # of someone else, and only to be read
        path.touch()  # used now: the last to be dropped
    return backbone.eval()


def _make_room(place: Path) -> None:
    """Delete the entries used longest ago, down to LIMIT bytes."""
    found = sorted(place.glob("*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in found:
        total += path.stat().st_size
        if total > LIMIT:
            with contextlib.suppress(OSError):
                path.unlink()
