"""Images to learn from: pocket world, downloaded sets and folders of your own, all as ImageSets in four splits.

Names are looked up on first use: the processes that draw pocket world import this package without torch.
"""

from importlib import import_module

_HOME = {
    "ImageFiles": "stream",
    "ImageSet": "imageset",
    "Leak": "splits",
    "Splits": "splits",
    "find_leaks": "splits",
    "load": "spec",
}

__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'sslcourse.data' has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
