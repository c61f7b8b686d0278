"""Checks of a learner's exercises that name the mistake: one module per lesson, and the framework they are built on.

A notebook says `from sslcourse.checks import lesson02 as check`, and then `check.rotate_batch(my_rotate)`.
"""

from sslcourse.checks.framework import Check, CheckFailed, Mistake, NotSolvedYet, ValueCheck, Wrong, value_and_gradients

__all__ = ["Check", "CheckFailed", "Mistake", "NotSolvedYet", "ValueCheck", "Wrong", "value_and_gradients"]
