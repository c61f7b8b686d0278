"""The command line: `sslcourse` or `python -m sslcourse`.

A file for each kind of command: `course` (a person's copy of it), `looking` (this machine and the data),
`pretraining`, `measuring`, `practice`, `exporting`. They read what was typed (`options`) and call the package; `texts` has
what is printed, `running` the frame around a command: one sentence for what can't be done, for a stop, and for output that
nobody reads.

Modules that need torch are imported inside the commands, so that `--help` and `doctor` answer at once and everywhere.
"""

from sslcourse.cli import (
    course,
    exporting,
    looking,
    measuring,
    options,
    practice,
    pretraining,
)  # their commands are part of `app` from here on
from sslcourse.cli.running import app, main

__all__ = ["app", "course", "exporting", "looking", "main", "measuring", "options", "practice", "pretraining"]
