"""The one abstraction of this package: a supervised problem made out of unlabeled images."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from sslcourse.backbones import Backbone
from sslcourse.errors import CourseError, real_number, truth, whole_number
from sslcourse.vit import VisionTransformer

if TYPE_CHECKING:
    from sslcourse.data.imageset import ImageSet
    from sslcourse.data.stream import ImageFiles

MOST = 2**20  # of any whole number among the options: more would be a slip


class PretextTask(nn.Module):
    """A backbone, the heads that pretraining throws away, and everything the task must remember.

    A new task is one new file in `sslcourse/pretext/` with one subclass of this class: it sets `name`, takes the
    backbone as its first argument and any further options with defaults as keywords, and writes `views` and `forward`.
    The loop in `train.pretrain` runs every task the same way:

        loss, metrics = task(*task.views(images, generator)); loss.backward(); optimizer.step(); task.after_step(progress)

    (A task that needs more of a picture than its pixels, such as captions, names it in `beside`, and `views` gets it.)

    State lives with its owner: whatever a task must remember from step to step is a persistent buffer of the task,
    so that a checkpoint holds it.
    """

    name: ClassVar[str]
    arch: ClassVar[str] = "resnet-tiny"  # the backbone that it is built on where none is asked for
    recipe: ClassVar[dict[str, float]] = {}  # fields of TrainConfig that this task prefers to their defaults
    # How the course pretrains it on pocket world: "steps", and where they aren't the usual ones "batch_size" (64),
    # "backbone" (arch) and "options"; "seconds" is about how long that takes on two cores.
    settings: ClassVar[dict[str, Any]] = {"steps": 600, "seconds": 40}

    may_be_zero: ClassVar[tuple[str, ...]] = ()  # of the options that are whole numbers; the others are at least 1
    least_batch: ClassVar[int] = 1  # images that a step needs
    captioned: ClassVar[bool] = False  # it learns from captions beside the images
    scheduled: ClassVar[bool] = False  # whether `after_step` goes by the share of training that is done

    def __new__(cls, *_: Any, **options: Any) -> PretextTask:
        """Note the options before the constructor gets them, so that no task has to write down its own."""
        task = super().__new__(cls)
        defaults = option_defaults(cls)
        task.given = {name: cls.checked(name, options.get(name, default)) for name, default in defaults.items()}
        return task

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone

    def options(self) -> dict[str, Any]:
        """The keyword options this task was built with (numbers, strings, booleans): a checkpoint records them."""
        return dict(self.given)

    @classmethod
    def checked(cls, name: str, value: Any) -> Any:
        """The value of an option, which must be of its default's kind: CourseError otherwise."""
        default = option_defaults(cls)[name]
        if isinstance(default, bool):
            return truth(name, value)
        if isinstance(default, int):
            return whole_number(name, value, 0 if name in cls.may_be_zero else min(1, default), MOST)
        if isinstance(default, float):
            return real_number(name, value, min(0.0, default))
        return value

    def prepare(self, images: Tensor) -> None:
        """Called once before training with all images, uint8 (N, 3, H, W).

        Here a task refuses data that can't teach it (CourseError), or takes statistics of them into a buffer.
        """

    def beside(self, images: ImageSet | ImageFiles | Tensor) -> tuple[Tensor, ...]:
        """What rides along with the images: tensors with a row for each, of which `views` gets those of its batch.

        Nothing, for a task that learns from pixels alone. One that needs captions takes them here, once, before training,
        and refuses images that have none (CourseError). Labels stay behind.
        """
        return ()

    def refuse_fixed_size(self) -> None:
        """CourseError for a backbone that takes images of one size alone: this task shows it pieces of images."""
        if isinstance(self.backbone.trunk, VisionTransformer):
            raise CourseError(
                f"{self.name} shows the backbone pieces of images, and {self.backbone.arch} takes whole ones of "
                f"{self.backbone.trunk.image_size} pixels alone; take a residual network, such as --backbone resnet-tiny."
            )

    def refuse_without_patches(self, why: str) -> None:
        """CourseError for a backbone that isn't a vision transformer: `why` says what this task does with patches."""
        if not isinstance(self.backbone.trunk, VisionTransformer):
            raise CourseError(
                f"{why}, which a vision transformer can do and {self.backbone.arch} can't: use --backbone vit-tiny, or "
                "backbones.build('vit-tiny')."
            )

    def views(self, images: Tensor, generator: torch.Generator, *beside: Tensor) -> tuple[Tensor, ...]:
        """uint8 images (N, 3, H, W), and their rows of what is `beside` them, to the tensors that `forward` takes.

        On the same device, without gradient. All randomness comes from `generator`. Labels never get here: a pretext task
        sees pixels, and where it says so captions, and nothing else.
        """
        raise NotImplementedError(f"{type(self).__name__} must define views(images, generator)")

    def forward(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The views to the loss (a scalar) and metrics (detached scalars)."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(*views)")

    def after_step(self, progress: float) -> None:
        """Called after each optimizer step with the share of training that is done, in (0, 1]: teachers move here."""


def option_defaults(task: type[PretextTask]) -> dict[str, Any]:
    """The keyword options of a task class with their defaults, read from its constructor.

    A constructor that takes any others (`**view_options`) hands them on to the class above: its options come after.
    """
    parameters = inspect.signature(task.__init__).parameters.values()
    own = {p.name: p.default for p in parameters if p.default is not p.empty}
    handed_on = any(p.kind is p.VAR_KEYWORD for p in parameters)
    above = option_defaults(task.__base__) if handed_on else {}
    return own | {name: default for name, default in above.items() if name not in own}
