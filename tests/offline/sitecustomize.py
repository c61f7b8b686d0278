"""Tests run with the network off: a connection to anywhere but this machine fails as it does on a machine offline.

Python imports a module of this name at start-up, so a folder on PYTHONPATH reaches every process that a test
starts, kernels of notebooks included. It watches Python's own sockets; it is a guard against accidents, no sandbox.
"""

import errno
import importlib.util
import os
import socket
import sys
from importlib.machinery import PathFinder

HERE = os.path.dirname(os.path.abspath(__file__))
THIS_MACHINE = {"", "localhost", "::1", "0.0.0.0", "::", socket.gethostname().lower()}


def is_this_machine(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode("utf-8", "replace")
    return host is None or str(host).lower() in THIS_MACHINE or str(host).startswith("127.")


def guard(event: str, arguments: tuple) -> None:
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if isinstance(address, tuple) and not is_this_machine(address[0]):
            raise OSError(errno.ENETUNREACH, f"tests run with the network off, and {address[0]} was called")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        if not is_this_machine(arguments[0]):
            raise socket.gaierror(
                socket.EAI_NONAME, f"tests run with the network off, and {arguments[0]} was looked up"
            )


if not hasattr(sys, "_sslcourse_tests_are_offline"):
    sys._sslcourse_tests_are_offline = True
    sys.addaudithook(guard)
    # This module hides another one of the same name, as some distributions of Python bring: run that, too.
    hidden = PathFinder.find_spec("sitecustomize", [p for p in sys.path if os.path.abspath(p) != HERE])
    if hidden and hidden.loader and __name__ == "sitecustomize":
        hidden.loader.exec_module(importlib.util.module_from_spec(hidden))
