"""The one loop: pretraining, fine-tuning, and going on after a kill as if nothing had happened.

Everything random in step s is a function of (seed, s), and every schedule is a function of s / steps. So the state of
training is the weights, the optimizer and the number s, and nothing else has to be saved to resume exactly.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from sslcourse import augment, backbones, checkpoint, distributed, schedules, supervised
from sslcourse import device as devices
from sslcourse.backbones import Backbone
from sslcourse.console import say
from sslcourse.data import stream
from sslcourse.data.imageset import ImageSet
from sslcourse.data.stream import ImageFiles
from sslcourse.errors import CourseError, Diverged, is_whole, one_of, real_number, suggest, truth, whole_number
from sslcourse.features import refuse_not_finite_weights
from sslcourse.pretext.base import PretextTask
from sslcourse.supervised import TUNE, Classifier, Supervised, depth_of, standard_augment  # noqa: F401 (lessons take them here)

if TYPE_CHECKING:
    from sslcourse.validation import Validation

Batch = tuple[Tensor, ...]

OPTIMIZERS: dict[str, Callable] = {
    "adamw": lambda groups, rate: torch.optim.AdamW(groups, lr=rate),
    "sgd": lambda groups, rate: torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True),
}
SCHEDULES = ("cosine", "constant")  # of the learning rate, once it has risen

HIGHEST_RATE = 1000.0  # far beyond any rate that learns, and far from where float32 ends


@dataclass(frozen=True)
class TrainConfig:
    """All that determines a run, beside the task and the images.

    steps            optimizer steps
    batch_size       images drawn from the data set for one step (a task may show each of them several times)
    learning_rate    its peak, to which it rises along a line; what comes then, `schedule` says
    weight_decay     for weights with more than one dimension; biases and norms have none
    warmup           over how much of the run the rate rises: a share of the steps, in [0, 1), or, as an int, a number of
                     them
    optimizer        "adamw" or "sgd" (momentum 0.9, Nesterov)
    seed             decides weights, order and views
    log_every        steps between two records of the history
    checkpoint_every steps between two checkpoints (only with a folder to write to)
    mixed_precision  bfloat16 autocast where the device has it
    compile          torch.compile the forward pass: a slow first step, faster ones after it
    schedule         "cosine": the rate falls to zero at the last step. "constant": it stays at its peak, so that with a
                     number of warm-up steps, a run that is made longer is the same as one that was as long from the start
    """

    steps: int = 600
    batch_size: int = 128
    learning_rate: float = 5e-3
    weight_decay: float = 0.3
    warmup: float = 0.1
    optimizer: str = "adamw"
    seed: int = 0
    log_every: int = 20
    checkpoint_every: int = 100
    mixed_precision: bool = True
    compile: bool = False
    schedule: str = "cosine"

    def __post_init__(self):
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        for name in ("steps", "batch_size", "log_every", "checkpoint_every"):
            put(name, whole_number(name, getattr(self, name)))
        put("seed", whole_number("seed", self.seed, *devices.SEEDS))
        for name in ("learning_rate", "weight_decay"):
            put(name, real_number(name, getattr(self, name), most=HIGHEST_RATE))
        if is_whole(self.warmup):
            put("warmup", whole_number("warmup, as a number of the steps,", self.warmup, most=self.steps))
        else:
            put("warmup", real_number("warmup, a share of the steps,", self.warmup))
        if isinstance(self.warmup, float) and self.warmup >= 1:
            raise CourseError(
                f"warmup is a share of the steps, in [0, 1), or a whole number of them, and is {self.warmup!r}."
            )
        one_of("optimizer", self.optimizer, OPTIMIZERS)
        one_of("schedule", self.schedule, SCHEDULES)
        for name in ("mixed_precision", "compile"):
            put(name, truth(name, getattr(self, name)))


# The rate was chosen on pocket world's validation split, 10 labels per class, for pretrained and random weights together:
# pretrained ones prefer it, random ones prefer 1e-2. `evaluate.finetune_accuracy` can choose one for each (`rates`).
FINETUNE = TrainConfig(steps=200, batch_size=32, learning_rate=3e-3, weight_decay=0.05, log_every=20)


@dataclass
class History:
    """What was logged: one record (a dict with `step`, `loss`, `learning_rate` and the task's metrics) per logged step."""

    records: list[dict[str, float]] = field(default_factory=list)

    def column(self, name: str) -> list[float]:
        """All values of one quantity, in order: history.column("loss"). Records without it are passed over."""
        known = list(dict.fromkeys(key for record in self.records for key in record))
        if self.records and name not in known:
            raise CourseError(
                f"nothing called {name!r} was logged{suggest(name, known)}; there is: {', '.join(known)}."
            )
        return [record[name] for record in self.records if name in record]

    @property
    def last(self) -> dict[str, float]:
        return self.records[-1]

    def __len__(self) -> int:
        return len(self.records)


# --- the loop ----------------------------------------------------------------------------------------------------


def fit(
    model: nn.Module,
    batch: Callable[[int], Batch],
    config: TrainConfig,
    *,
    device: torch.device,
    store: checkpoint.Store | None = None,
    after_step: Callable[[float], None] = lambda progress: None,
    progress: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
    label: str = "",
    scale: Callable[[str], float] = lambda name: 1.0,
    validation: Validation | None = None,
) -> History:
    """The loop. `model(*batch(step))` gives (loss, metrics); the model is trained in place, on `device`.

    store       a run's folder: training goes on from its checkpoint, and a stop (Ctrl-C, SIGTERM) waits for the end of
                the step and is saved there
    scale       a parameter's name to the factor of its learning rate
    validation  what is measured of the model's `backbone` meanwhile, and may end the run before its last step
    Raises Diverged at the first loss that isn't finite, and names the step.
    """
    with devices.on(device, model):
        optimizer = make_optimizer(model.train(), config, scale)
        journal = Journal(model, optimizer, config, device, store, on_log, validation)
        forward = distributed.wrap(model, device)
        forward = devices.compiled(forward, device) if config.compile else forward

        with devices.reproducible(device), lone_values_refused(model), journal.open(label, progress):
            for step in range(journal.done, config.steps):
                if journal.enough:
                    break
                set_rate(optimizer, config, step)
                with torch.no_grad():
                    views = batch(step)
                with devices.autocast(device, config.mixed_precision):
                    loss, metrics = forward(*views)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                after_step((step + 1) / config.steps)
                journal.end_step(step, loss, metrics)
    return journal.history


@contextlib.contextmanager
def lone_values_refused(model: nn.Module) -> Iterator[None]:
    """Within it, batch norm says in one sentence that a single value of a channel has no spread to divide by."""

    def refuse(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].numel() // inputs[0].shape[1] * distributed.size()
        if layer.training and values == 1:
            raise CourseError(
                "batch norm needs at least two values of a channel, and a batch of one image has a single one where the "
                "network's map is 1x1; choose a batch size of at least 2, or larger images (--size)."
            )

    norms = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    hooks = [norm.register_forward_pre_hook(refuse) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def set_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int) -> None:
    """The learning rate of a step, times the factor of each group."""
    rate = learning_rate(config, step)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def learning_rate(config: TrainConfig, step: int) -> float:
    """A pure function of the step: up along a line, then down along a cosine, or level."""
    done, warmup = step + 1, config.warmup
    if isinstance(warmup, int):  # the same steps, however long the run is
        if done < warmup:
            return config.learning_rate * (done / warmup)
        warmup = warmup / config.steps
    if config.schedule == "constant" and done / config.steps >= warmup:
        return config.learning_rate
    return config.learning_rate * schedules.warmup_cosine(done / config.steps, warmup)


def same_when_longer(model: nn.Module, config: TrainConfig, before: int, done: int) -> bool:
    """Whether the first `done` steps of a run of `before` steps are those of a run of `config.steps`, bit for bit."""
    shorter = dataclasses.replace(config, steps=before)
    rates = all(learning_rate(shorter, step) == learning_rate(config, step) for step in range(done))
    return rates and not getattr(model, "scheduled", False)


def lengthened(model: nn.Module, config: TrainConfig, before: int, done: int) -> str:
    """What becomes of a run that was to have `before` steps, and after `done` of them goes on to those of `config`: a sentence."""
    begins = f"going on from step {done} of {before} to step {config.steps}"
    if same_when_longer(model, config, before, done):
        return f"{begins}: the weights will be those of a run that was as long from the start, bit for bit."
    shorter = dataclasses.replace(config, steps=before)
    old, new = (learning_rate(c, step) for c, step in ((shorter, max(0, done - 1)), (config, done)))
    what = f"the learning rate was {old:.2g} and is {new:.2g} from here on"
    what += ", falling to 0 at the last step" if config.schedule == "cosine" else ""
    what += "; the pace of the teacher starts anew likewise" if getattr(model, "scheduled", False) else ""
    return f"{begins}: {what}. The weights will not be those of a run that was as long from the start."


def make_optimizer(
    model: nn.Module, config: TrainConfig, scale: Callable[[str], float] = lambda name: 1.0
) -> torch.optim.Optimizer:
    """The optimizer over what requires a gradient, weight decay on matrices and filters alone (teachers are frozen).

    `scale` gives the factor of each parameter's learning rate by its name; a group keeps it under "scale".
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {(True, 1.0): [], (False, 1.0): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((parameter.dim() > 1, scale(name)), []).append(parameter)
    return OPTIMIZERS[config.optimizer](
        [
            {"params": members, "weight_decay": config.weight_decay if decays else 0.0, "scale": factor}
            for (decays, factor), members in groups.items()
        ],
        config.learning_rate,
    )


def progress_bar(steps: int, start: int, show: bool, label: str) -> tqdm:
    """A bar on standard error, gone when done, shown once training has taken a second.

    It moves once a second: each move is a message to a notebook's client, and of thousands in one cell some get lost.
    """
    pace = {"delay": 1.0, "mininterval": 1.0}
    return tqdm(total=steps, initial=start, desc=label, disable=not show, leave=False, file=sys.stderr, **pace)


class Journal:
    """What is kept of a run beside its weights: the history, checkpoints, and whether the loss is still a number.

    It is told at the end of each step, when the state of the run is whole. In `store`, if there is one, it finds how far
    the run has come (`done` steps).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainConfig,
        device: torch.device,
        store: checkpoint.Store | None,
        on_log: Callable[[dict[str, float]], None] | None,
        validation: Validation | None,
    ):
        self.model, self.optimizer, self.config, self.device = model, optimizer, config, device
        self.store, self.on_log, self.validation, self.history = store, on_log, validation, History()
        self.done = 0
        if store is not None:
            self.history.records, self.done = store.restore(model, optimizer, validation)
        self.enough = validation is not None and validation.enough(self.history.records)
        if store is not None and store.shorter is not None and not self.enough:
            self.lengthen(store)
        self.stop = checkpoint.Stop()
        self.first_bad = torch.full((), -1, device=device)  # first step with a loss that isn't finite; -1: none so far

    def lengthen(self, store: checkpoint.Store) -> None:
        """Say it, where the run that is gone on from was to be shorter, and keep it, where that decides the weights."""
        if distributed.rank() == 0:
            say(lengthened(self.model, self.config, store.shorter, self.done))
        if not same_when_longer(self.model, self.config, store.shorter, self.done):
            store.lengthened.append(self.done)

    @contextlib.contextmanager
    def open(self, label: str, progress: bool) -> Iterator[None]:
        """While training: the bar, and with a store, stops that wait for the end of a step."""
        show = progress and distributed.rank() == 0
        with progress_bar(self.config.steps, self.done, show, label) as self.bar:
            with self.stop.waits() if self.store is not None else contextlib.nullcontext():
                yield

    def end_step(self, step: int, loss: Tensor, metrics: dict[str, Tensor]) -> None:
        """Log, save and stop, where it is time to. Raises Diverged where the loss of this step or one before is no number."""
        self.done = step + 1
        with torch.no_grad():  # stays on the device: asking for its value would make a GPU wait at every step
            self.first_bad = torch.where((self.first_bad < 0) & ~torch.isfinite(loss), step, self.first_bad)
        last, stopped = (
            self.done == self.config.steps,
            self.stop.asked is not None,
        )  # asked once: a signal may come any time
        measured = self.measure()
        logged = last or bool(measured) or self.done % self.config.log_every == 0
        saved = self.store is not None and (last or stopped or self.done % self.config.checkpoint_every == 0)
        if self.device.type == "cpu" or logged or saved:
            refuse_bad_loss(int(self.first_bad), self.store)
        if logged:
            self.log(
                {"step": self.done, "loss": loss.item(), "learning_rate": learning_rate(self.config, step)}
                | {name: float(value) for name, value in metrics.items()}
                | measured
            )
        if saved or self.enough:
            self.save()
        self.bar.update()
        if stopped:
            self.stop.now()

    def measure(self) -> dict[str, float]:
        """What validation says at this step; {} where none is due."""
        if self.validation is None:
            return {}
        return self.validation.measure(self.model.backbone, self.done, self.history.records)

    def save(self) -> None:
        if self.store is not None and self.store.last_saved < self.done:
            self.store.save(self.model, self.optimizer, self.done, self.history.records, self.validation)

    def log(self, record: dict[str, float]) -> None:
        self.history.records.append(record)
        self.enough = self.validation is not None and self.validation.enough(self.history.records)
        self.bar.set_postfix(loss=f"{record['loss']:.3f}", refresh=False)
        try:
            if self.on_log is not None:
                self.on_log(record)
        except KeyboardInterrupt:  # as a button of a live plot may raise it
            self.save()
            raise


def refuse_bad_loss(step: int, store: checkpoint.Store | None) -> None:
    """Stop, with the step, when a loss wasn't finite (step >= 0)."""
    if step < 0:
        return
    kept = ""
    if store is not None and store.last_saved:
        kept = f" The last good checkpoint, of step {store.last_saved}, is in {store.folder}."
    raise Diverged(
        f"the loss was not a finite number at step {step + 1}, and training has stopped; "
        f"a lower learning rate is the usual way out.{kept}"
    )


# --- pretraining: images in, batches, views, the loop ------------------------------------------------------------


class Batches:
    """The images of each step: `batches[step]` is uint8 (n, 3, H, W) on the device, the same however often it is asked.

    pixels   uint8 (N, 3, H, W), moved to the device where they fit there beside training; or files, decoded ahead
    config   batch_size, seed and steps decide which images a step gets; of processes that torchrun started, each gets
             its part of them, n = batch_size / processes
    rows     what else the task takes of each image (`PretextTask.beside`), (N, ...) each: `batches.beside(step)`
    """

    def __init__(
        self, pixels: Tensor | ImageFiles, config: TrainConfig, device: torch.device, rows: tuple[Tensor, ...] = ()
    ):
        self.pixels, self.config, self.device = stream.placed(pixels, device), config, device
        self.place = self.pixels.device if isinstance(self.pixels, Tensor) else torch.device("cpu")
        self.rows = tuple(part.to(self.place) for part in rows)
        self.decoded: Iterator[Tensor] = iter(())
        self.next_decoded = -1  # the step whose images `decoded` gives next
        self.numbers(0)  # a batch that can't be divided is refused here

    def __len__(self) -> int:
        return self.config.steps

    def __getitem__(self, step: int) -> Tensor:
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of {len(self)}")
        if isinstance(self.pixels, Tensor):
            return devices.sent(self.pixels[self.numbers(step)], self.device)
        if step != self.next_decoded:
            self.decoded = self.pixels.batches(self.numbers, step, len(self))
        self.next_decoded = step + 1
        return devices.sent(next(self.decoded), self.device)

    def beside(self, step: int) -> tuple[Tensor, ...]:
        """The rows of the step's images, (n, ...) each, on the device."""
        return tuple(devices.sent(part[self.numbers(step)], self.device) for part in self.rows)

    def numbers(self, step: int) -> Tensor:
        """Which images step `step` takes: int64 (n,), where the images are."""
        return distributed.shard(batch_indices(step, len(self.pixels), self.config, self.place))


def batch_indices(step: int, count: int, config: TrainConfig, place: torch.device | str = "cpu") -> Tensor:
    """Which of `count` images step `step` takes: int64 (batch_size,) on `place`.

    Each epoch is a new shuffle; a last, partial batch is left out.
    """
    epoch, part = divmod(step, count // config.batch_size)
    order = _shuffled(count, devices.derive_seed(config.seed, "order", epoch), torch.device(place))
    return order[part * config.batch_size : (part + 1) * config.batch_size]


_last_shuffle: dict[tuple[int, int, torch.device], Tensor] = {}


def _shuffled(count: int, seed: int, place: torch.device) -> Tensor:
    """A permutation of range(count), int64 (count,). The last one is kept, since an epoch asks for it at every step.

    It goes to a GPU once per epoch, whole: a step that sent its own numbers would make the GPU wait.
    """
    if (count, seed, place) not in _last_shuffle:
        _last_shuffle.clear()
        order = torch.randperm(count, generator=devices.generator(seed))  # drawn on the CPU: the same on all devices
        _last_shuffle[count, seed, place] = devices.sent(order, place)
    return _last_shuffle[count, seed, place]


def pretrain(
    task: PretextTask,
    images: ImageSet | ImageFiles | Tensor,
    config: TrainConfig | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    device: str | torch.device = "auto",
    progress: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
    notes: Mapping[str, str | int | float] | None = None,
    validation: Validation | None = None,
) -> History:
    """Train `task` on images, and where it asks for them their captions: labels are taken off before it sees anything.

    images    an ImageSet, uint8 images (N, 3, H, W), or ImageFiles, which are streamed from disk. Images in memory are
              moved to the device where they fit there beside training; those that are on it already stay
    out       a folder to write `checkpoint.pt`, `history.jsonl` and at the end `backbone.safetensors` to
    resume    go on from the checkpoint in `out`; final weights are bit-identical to those of an uninterrupted run on
              the same machine. Where there is no checkpoint yet, training starts from the beginning. With more
              `config.steps` than the run was to have, it is made longer, and a line on standard error says what that
              does to the learning rate (`lengthened`)
    on_log    called with each record, for live plots
    notes     what else `backbone.safetensors` is to say of this run (`record.notes`)
    validation  what is measured of held-out images meanwhile, without a label: the backbone ends with the weights that
              it liked best, and training may end early (`validation.Validation`)

    Started by torchrun, every process trains on its part of each batch (`batch_size` is the whole), and the result is
    that of one process but for the views, which each process draws for its own images; rank 0 writes.

    The task is trained in place, and is afterwards where it was before. Raises CourseError when the batch is larger than
    the data, when `out` already holds another run or another process is writing one there, and Diverged when the loss
    stops being a number (the last good checkpoint stays). What stops it (Ctrl-C, SIGTERM) waits for the end of the step,
    and is saved.
    """
    config = config or TrainConfig()
    pixels = stream.source(images)
    refuse_bad_images(pixels, config, task)
    rows = task.beside(images)
    if validation is not None:
        validation.refuse_unfit(config.steps)
    device = distributed.start(devices.pick_device(device))
    with checkpoint.claim(out):
        distributed.synchronize_batch_norm(task)
        batches = Batches(pixels, config, device, rows)
        with devices.on(device, task):
            task.prepare(stream.looked_at(batches.pixels))
        identity = checkpoint.run_identity(task, config, batches.pixels, batches.rows)
        identity |= validation.identity() if validation is not None else {}
        store = checkpoint.Store(out, identity, resume=resume) if out is not None else None
        history = fit(
            task,
            views_of(task, batches),
            config,
            device=device,
            store=store,
            after_step=task.after_step,
            progress=progress,
            on_log=on_log,
            label=task.name,
            validation=validation,
        )
        if validation is not None:
            validation.give_best(task.backbone)
        if store is not None and distributed.rank() == 0:
            name = "images" if isinstance(images, Tensor) else images.name
            side = pixels.shape[-1] if isinstance(pixels, Tensor) else pixels.side
            about = {"task": task.name, "data": name, "image_size": side, "steps": config.steps, "seed": config.seed}
            about |= {"lengthened_at": ",".join(map(str, store.lengthened))} if store.lengthened else {}
            about |= {"best_step": best} if (best := validation and validation.best_step(history.records)) else {}
            backbones.save(task.backbone, store.folder / backbones.FILE, **(notes or {}) | about)
        distributed.wait()
    return history


def steps_of(epochs: float, images: int, batch_size: int) -> int:
    """How many steps `epochs` passes over that many images are, at least one; a last, partial batch is left out of each."""
    epochs = real_number("epochs", epochs, most=1e6)
    return max(1, round(epochs * (images // whole_number("batch_size", batch_size))))


def views_of(task: PretextTask, batches: Batches) -> Callable[[int], Batch]:
    """A function from a step to what the task makes of the step's images, random by the seed and the step alone."""
    generator = devices.generator(0, batches.device)
    own = [distributed.rank()] if distributed.rank() else []  # each process draws views of its own

    def views(step: int) -> Batch:
        generator.manual_seed(devices.derive_seed(batches.config.seed, "views", step, *own))
        return task.views(batches[step], generator, *batches.beside(step))

    return views


def refuse_bad_images(pixels: Tensor | ImageFiles, config: TrainConfig, task: PretextTask) -> None:
    """CourseError for what isn't images, or isn't enough of them."""
    if isinstance(pixels, Tensor) and (pixels.dtype != torch.uint8 or pixels.dim() != 4 or pixels.shape[1] != 3):
        raise CourseError(
            f"pretrain takes uint8 images (N, 3, H, W), and got {pixels.dtype} {tuple(pixels.shape)}; "
            "ImageSet.from_floats converts float images."
        )
    if config.batch_size < task.least_batch:
        raise CourseError(
            f"{task.name} compares the images of a batch, and the batch size is {config.batch_size}; choose one of at least "
            f"{task.least_batch}."
        )
    if config.batch_size > len(pixels):
        raise CourseError(
            f"the batch size is {config.batch_size}, but there are only {len(pixels)} images; "
            f"choose a batch size of at most {len(pixels)}."
        )


# --- training with labels -------------------------------------------------------------------------------------------------


def fit_supervised(
    model: nn.Module,
    loss: supervised.Loss,
    images: ImageSet | Tensor,
    annotations: tuple[Tensor, ...],
    config: TrainConfig,
    *,
    views: Callable[..., Batch],
    order: Callable[[int], Tensor] | None = None,
    device: str | torch.device = "auto",
    **options: Any,
) -> History:
    """Train `model` on annotated images through the loop: all of transfer that trains does it here.

    loss         loss(model, *views) gives (loss, metrics)
    images       uint8 (N, 3, H, W), or a set of them
    annotations  tensors with a row for each image, such as labels (N,), masks (N, H, W) or boxes (N, K, 4)
    config       a batch larger than the set is cut to the set
    views        views(float images (B, 3, H, W), *their annotations, generator) gives what the loss sees: images and
                 annotations, augmented alike
    order        a step to the images that it takes, int64 (B,); by default each once in an epoch
    options      progress, on_log, label and scale, as `fit` takes them

    The model is trained in place, and is afterwards where and in the mode in which it was. Raises CourseError where there is no image.
    """
    pixels = stream.source(images)
    if len(pixels) == 0:
        raise CourseError("there are no annotated images to learn from; give at least one.")
    config = dataclasses.replace(config, batch_size=min(config.batch_size, len(pixels)))
    device = devices.pick_device(device)
    pixels, *annotations = (rows.to(device) for rows in (pixels, *annotations))
    generator = devices.generator(0, device)

    def batch(step: int) -> Batch:
        if order is None:
            chosen = batch_indices(step, len(pixels), config, device)  # (B,)
        else:
            chosen = devices.sent(order(step), device)
        generator.manual_seed(devices.derive_seed(config.seed, "views", step))
        return views(augment.to_float(pixels[chosen]), *(rows[chosen] for rows in annotations), generator)

    return fit(Supervised(model, loss), batch, config, device=device, **options)


def finetune(
    backbone: Backbone,
    train: ImageSet,
    config: TrainConfig = FINETUNE,
    *,
    tune: str = "all",
    layer_decay: float = 1.0,
    augmentation: Callable[[Tensor, torch.Generator], Tensor] | None = standard_augment,
    device: str | torch.device = "auto",
    progress: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> tuple[Classifier, History]:
    """Train backbone and a fresh linear head together on labelled images; the given backbone is copied, not changed.

    tune          "all" of the network, the "last stage" of the backbone (a transformer's last block) and the head, or
                  the "head" alone; what is left out keeps its weights and batch-norm statistics to the bit
    layer_decay   the learning rate of a stage, as a multiple of that of the next one nearer to the head, in (0, 1]:
                  early layers move least (Clark et al., 2020, 2003.10555; Bao et al., 2021, 2106.08254)
    augmentation  takes float images and a generator

    The classifier is where the backbone is, in evaluation mode. A batch larger than the set is cut to the set. From-scratch training is the same call with a backbone of random
    weights. Raises CourseError for images without labels, and for a `tune` or `layer_decay` that isn't one.
    """
    labels = train.require_labels()
    if not 0 < layer_decay <= 1:
        raise CourseError(f"layer_decay is a factor in (0, 1], where 1 is no decay, and is {layer_decay!r}.")
    refuse_not_finite_weights(backbone)
    classifier = Classifier(copy.deepcopy(backbone), len(train.classes))
    last = supervised.deepest(backbone)

    def views(images: Tensor, labels: Tensor, generator: torch.Generator) -> Batch:
        return (images if augmentation is None else augmentation(images, generator)), labels

    def scale(name: str) -> float:
        return layer_decay ** (last + 1 - depth_of(name, last)) if ".backbone." in name else 1.0

    with supervised.tuned(classifier.backbone, tune):
        history = fit_supervised(
            classifier,
            supervised.classification,
            train,
            (labels,),
            config,
            views=views,
            device=device,
            progress=progress,
            on_log=on_log,
            label="fine-tuning",
            scale=scale,
        )
    return classifier.eval(), history


def throughput(step: Callable[[], Any], images: int, device: torch.device, seconds: float = 2.0) -> float:
    """Images per second of calling `step` (which handles `images` images) for about `seconds`, after two warm-up calls."""
    step(), step()
    devices.synchronize(device)
    begin, calls = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        step()
        devices.synchronize(device)
        calls += 1
    return images * calls / (time.perf_counter() - begin)
