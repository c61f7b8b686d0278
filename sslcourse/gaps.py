"""Gaps in a lesson: a function that the learner completes in place, and the course's own where it isn't right yet.

    def belief_less_truth(logits, turns):
        raise NotImplementedError("Not solved yet")     # the learner's line

    belief_less_truth = gaps.filled(check.logits_gradient, belief_less_truth)

The check is that of an exercise, and names the mistake. Whatever it says, the lesson goes on: Restart and Run All works
with every gap open. What passed is counted in the notebook as it was saved (`notebook.gaps`); nothing is written here.
"""

from __future__ import annotations

from collections.abc import Callable

from sslcourse.checks.framework import Check, CheckFailed, NotSolvedYet


def filled(check: Check, mine: Callable) -> Callable:
    """`mine` where the check passes; otherwise the check's own reference, and a sentence that says so."""
    try:
        check(mine)
    except NotSolvedYet:
        where = f"\nWhere to begin: {check.called()}.hint(1)" if check.hints else ""
        print(f"Still open: the lesson goes on with the course's own line.{where}")
    except CheckFailed as failure:
        print(f"{failure}\nUntil then the lesson goes on with the course's own line.")
    else:
        return mine
    return check.reference
