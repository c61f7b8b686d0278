"""Text on its way to a person: names of files and classes hold anything, and a console can't show everything."""

from __future__ import annotations

import contextlib
import os
import sys
import unicodedata
from typing import TextIO

BREAKING = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: control characters, halves of characters, ends of lines


def shown(name: object) -> str:
    """A name as text that stays on one line and can be encoded: what can't be shown is escaped, as in a Python string.

    Bytes in a file's name that aren't UTF-8, which Python holds as halves of characters, become `\\udc..`.
    """
    text = os.fsdecode(name) if isinstance(name, bytes | os.PathLike) else str(name)
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in BREAKING else letter
        for letter in text
    )


def say(line: str) -> None:
    """The usual notice: one line on standard error."""
    print(f"sslcourse: {printable(line, sys.stderr)}", file=sys.stderr)


def printable(text: str, stream: TextIO | None) -> str:
    """`text` with what the encoding of `stream` doesn't have as escapes, so that printing it can't raise."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def let_print(*streams: TextIO | None) -> None:
    """From now on `print` to these streams writes escapes for what their encoding doesn't have, and doesn't raise.

    For the beginning of a program that owns its streams, such as the command line: a console under Windows often has 256
    characters (cp1252), and a file name anything.
    """
    for stream in streams:
        with contextlib.suppress(AttributeError, ValueError, OSError):  # not a text file, or one that is closed
            stream.reconfigure(errors="backslashreplace")
