"""Self-supervised vision, hands on.

    make a supervised problem out of unlabeled images, train a backbone on it,
    throw the head away, and reuse the backbone where labels are few.

Every module of this package is a noun of that sentence:

    images -> views -> backbone -> head -> loss      (pretraining: a PretextTask owns all five)
                         |
                         +-> features -> probe / fine-tune   (transfer)

`import sslcourse` is light: torch is imported by the modules that need it, when they are first asked for.
"""

from importlib import import_module

__version__ = "0.1.0"

# Where each public name lives. Looked up on first use, so that `sslcourse doctor` runs even where torch is broken.
_HOME = {
    "Backbone": "backbones",
    "ImageSet": "data.imageset",
    "Splits": "data.splits",
    "load": "data.spec",
    "PretextTask": "pretext.base",
    "TrainConfig": "train",
    "History": "train",
    "pretrain": "train",
    "finetune": "train",
    "CourseError": "errors",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'sslcourse' has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
