"""The frame around every command: exit codes, and one sentence on standard error where a command can't do its work."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import typer

from sslcourse.busy import make_room
from sslcourse.console import let_print, shown
from sslcourse.errors import CourseError

REFUSED = 2  # the exit code of what can't be done as asked
UNREAD = 128 + 13  # as the shell counts a process that SIGPIPE ended
ENDING_SIGNALS = ("SIGTERM", "SIGHUP")  # of a scheduler or `kill`, and of a terminal that is closed
ClickException = typer.BadParameter.__mro__[2]  # of whichever click this Typer brings

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Self-supervised vision, hands on: pretrain without labels, fine-tune with few.",
)


class Ended(KeyboardInterrupt):
    """A signal that ends the process: to everything inside it is what Ctrl-C is, the exit code apart."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


class Stopped(Exception):
    """A command was interrupted. The message says what is left of its work, and how to go on."""

    def __init__(self, sentence: str, number: int):
        super().__init__(sentence)
        self.code = 128 + number


def command(
    stopped: Callable[..., str], name: str | None = None, computes: bool = True
) -> Callable[[Callable], Callable]:
    """Make a function a command of `app`.

    stopped   what is true after an interruption, one sentence: a function of the command's parameters
    computes  whether its threads have to make room where other programs want the cores
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(**given: Any) -> None:
            try:
                if computes:
                    make_room()
                function(**given)
            except KeyboardInterrupt as interrupt:
                raise Stopped(stopped(**given), getattr(interrupt, "number", signal.SIGINT)) from None

        return app.command(name)(run)

    return register


def main() -> None:
    """Run the command that was typed, and exit.

    0 when it is done; 2 where it can't be done as asked, with one sentence on standard error; 130 after Ctrl-C, 143 when
    it was told to end. Output that nobody reads any more (`| head`) ends it quietly. An error that nobody foresaw stays a
    traceback, since it is a mistake of the course.
    """
    let_print(sys.stdout, sys.stderr)
    with _signals_as_interrupts():
        try:
            code = _run(sys.argv[1:] or ["--help"])
            sys.stdout.flush()
        except BrokenPipeError:
            if not _is_unread(sys.stdout):
                raise  # another pipe than the one to the reader
            _discard(sys.stdout)
            code = UNREAD
    sys.exit(code)


def _run(words: list[str]) -> int:
    """The exit code of a command."""
    try:
        whole = typer.main.get_command(app)
        with whole.make_context("sslcourse", words) as context:
            whole.invoke(context)
        return 0
    except typer.Exit as ended:
        return ended.exit_code
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except CourseError as error:
        return _refuse(str(error), REFUSED)
    except ClickException as error:
        asked = getattr(getattr(error, "ctx", None), "command_path", "sslcourse")
        found = " ".join(error.format_message().split()).rstrip(".")
        return _refuse(f"{found}; `{asked} --help` says what there is.", error.exit_code)
    except Stopped as stopped:
        return _refuse(str(stopped), stopped.code)
    except (KeyboardInterrupt, typer.Abort):  # before the command had begun
        return _refuse("stopped.", 128 + signal.SIGINT)


def _refuse(sentence: str, code: int) -> int:
    print(f"sslcourse: {shown(sentence)}", file=sys.stderr)  # on one line, whatever is in the names it repeats
    return code


@contextlib.contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Within it, a signal to end the process is raised as `Ended`, so that training saves what it has.

    Of several processes that torchrun started, each ends at once, as torchrun expects: the others wait for it.
    """
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    main_thread = threading.current_thread() is threading.main_thread()
    numbers = [getattr(signal, name) for name in ENDING_SIGNALS if hasattr(signal, name) and alone and main_thread]
    numbers = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]  # nohup ignores SIGHUP

    def end(number: int, frame: Any) -> None:
        raise Ended(number)

    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _is_unread(stream: TextIO) -> bool:
    """Whether nobody reads this stream any more: nothing can be written to it."""
    try:
        print(file=stream, flush=True)
    except BrokenPipeError:
        return True
    return False


def _discard(stream: TextIO) -> None:
    """Send what is left for this stream nowhere, so that the interpreter doesn't try once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
