"""Every check in sslcourse.checks names the mistake, and the framework they are built on does what it says."""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import linecache
import pkgutil
import random
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import sslcourse.checks
from sslcourse.checks import (
    Check,
    CheckFailed,
    Mistake,
    NotSolvedYet,
    ValueCheck,
    Wrong,
    cases,
    mutants,
    recognize,
    tree,
    value_and_gradients,
)
from sslcourse.checks.answers import Raised
from sslcourse.checks.compare import Closeness, equal
from sslcourse.checks.framework import SECOND, WIDTH, Forbidden, changed, is_change
from sslcourse.checks.recognize import Search
from sslcourse.checks.source import ChangeError, source_once

ROOT = Path(__file__).parents[1]

# -- a check to try the framework on: every image of a batch minus its own mean -----------------------------------------


def centre(images: Tensor, scale: float = 1.0) -> Tensor:
    return (images - images.mean((1, 2, 3), keepdim=True)) * scale


def centre_in_loop(images, scale):
    return torch.stack([(image - image.mean()) * scale for image in images])


def centre_flat(images, scale):
    rows = images.flatten(1)
    return scale * (rows - rows.sum(1, keepdim=True) / rows.shape[1]).view_as(images)


def batch_mean(images, scale):
    return (images - images.mean()) * scale


def channel_mean(images, scale):
    return (images - images.mean((2, 3), keepdim=True)) * scale


def no_scale(images, scale):
    return centre(images)


def scale_first(images, scale):
    return images * scale - images.mean((1, 2, 3), keepdim=True)


def detached(images, scale):
    return centre(images, scale).detach()


def draw_batches(generator):
    sizes = [(2, 1, 2, 3), (3, 2, 5, 4), (5, 3, 4, 7)]
    return [(torch.rand(s, generator=generator), 2.0 + index) for index, s in enumerate(sizes)]


WRONGS = (
    Wrong("mean of the batch", batch_mean, "You take one mean of the whole batch; every image has its own."),
    Wrong("mean of a channel", channel_mean, "You take one mean per channel; it is one per image."),
    Wrong("no scale", no_scale, "You forget `scale`.", also=(lambda images, scale: centre(images, 1.0),)),
    Wrong("scale too early", scale_first, "You scale before you subtract the mean; subtract first."),
)
CUT = Mistake(
    "gradient cut off",
    lambda answer, cases: not answer(cases[0][0].requires_grad_(), cases[0][1]).requires_grad,
    "The gradient can't flow through your result: leave out .detach() and .item().",
    detached,
)
example = Check(
    name="0.0 centre a batch",
    reference=centre,
    cases=draw_batches,
    rights=(centre_in_loop, centre_flat),
    wrongs=WRONGS,
    mistakes=(CUT,),
    hints=("A nudge.", "The way.", "Nearly the answer."),
)
# a partial has no source to be changed: what no Wrong explains is left to the diagnosis
diagnosed = Check(name="-", reference=functools.partial(centre), cases=draw_batches, wrongs=WRONGS)
example_value = ValueCheck(
    name="0.1 log 4",
    reference=1.3863,
    rights=(lambda: torch.tensor(4.0).log(), np.log(4)),
    wrongs=(
        Wrong("base 2", 2.0, "That is the logarithm to base 2; the natural one is meant."),
        Wrong("base 10", 0.6021, "That is the logarithm to base 10; the natural one is meant."),
        Wrong("not the logarithm", 4, "That is the number of classes; take its logarithm."),
        Wrong("a quarter", 0.25, "That is the probability of a class; take minus its logarithm."),
    ),
    hints=("A nudge.", "The way.", "Nearly the answer."),
    close=Closeness(rtol=0, atol=0.005),
)


class Scale(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        return self.factor * x


class ScaleTwice(Scale):
    def forward(self, x):
        return super().forward(super().forward(x))


class NotLearned(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


class NoInit(nn.Module):
    def __init__(self, factor):
        self.factor = nn.Parameter(torch.tensor(factor))


def use_scale(answer, case):
    factor, x = case
    module = answer(factor)
    return {"output": module(x), "parameters": sorted(name for name, _ in module.named_parameters())}


example_class = Check(
    name="0.2 a module",
    kind="class",
    reference=Scale,
    cases=lambda generator: [(float(n), torch.rand(n, generator=generator)) for n in (2, 3)],
    run=use_scale,
    wrongs=(
        Wrong("twice", ScaleTwice, "You scale twice."),
        Wrong("not learned", NotLearned, "Your factor is no nn.Parameter, so no optimizer sees it."),
        Wrong("no super", NoInit, "Call super().__init__() before you assign a parameter."),
    ),
)


def failure(check: Check, answer) -> CheckFailed:
    with pytest.raises(CheckFailed) as caught:
        check(answer)
    return caught.value


def flat(error: Exception) -> str:
    """A message without its line breaks."""
    return " ".join(str(error).split())


def message(answer, check: Check = diagnosed) -> str:
    """What an answer that no Wrong explains is told."""
    error = failure(check, answer)
    assert error.mistake not in {w.name for w in check.wrongs}, error
    assert_kind(error)
    return flat(error)


def assert_kind(error: Exception) -> None:
    """Nothing of a traceback, no line of this package, and no chain of exceptions behind it."""
    text = str(error)
    assert not re.search(r"Traceback|framework\.py|diagnose\.py|compare\.py|File \"", text), text
    assert error.__cause__ is None and error.__suppress_context__
    assert error._render_traceback_() == text.splitlines()
    assert len(text) < 1500
    assert all(len(line) <= WIDTH or " " not in line for line in text.splitlines()), text


# -- every check of every lesson ------------------------------------------------------------------------------------------


def given(check: Check, answer):
    """An answer as a learner would give it: the known answers to a ValueCheck may be functions that make the value."""
    return answer() if check.kind == "value" and inspect.isfunction(answer) else answer


def lesson_checks() -> dict[str, Check]:
    found = {}
    for module in pkgutil.iter_modules(sslcourse.checks.__path__):
        if module.name.startswith("lesson"):
            members = vars(importlib.import_module(f"sslcourse.checks.{module.name}")).items()
            found |= {f"{module.name}.{name}": check for name, check in members if isinstance(check, Check)}
    return found


CHECKS = lesson_checks() | {"example": example, "example_value": example_value}
every_check = pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())


def essence(answer) -> object:
    """What is the same for two answers that are written the same way."""
    if isinstance(answer, functools.partial):
        return essence(answer.func), repr(answer.args), repr(answer.keywords)
    if inspect.isclass(answer):
        return inspect.getsource(answer).split("\n", 1)[1]
    if inspect.isfunction(answer):
        code = answer.__code__
        return code.co_code, code.co_names, repr([c for c in code.co_consts if isinstance(c, int | float | str)])
    return f"{type(answer)} {answer!r}"


@every_check
def test_right_answers_pass(check, capsys):
    assert check(given(check, check.reference)) is None
    assert capsys.readouterr().out.startswith(f"{check.name}: passed")
    assert len(check.rights) >= 2
    for seed in (0, 1):
        for right in check.rights:
            check(given(check, right), seed=seed)
    written = [essence(answer) for answer in (check.reference, *check.rights)]
    if check.kind != "value":
        assert len({repr(w) for w in written}) == len(written), "two of the right answers are written the same way"


@every_check
def test_wrong_answers_get_their_own_hint(check):
    known = [(w.name, w.hint, answer) for w in check.wrongs for answer in w.answers(check.reference)]
    known += [
        (m.name, m.hint, changed(check.reference, m.example) if is_change(m.example) else m.example)
        for m in check.mistakes
    ]
    names, hints = {name for name, _, _ in known}, {hint for _, hint, _ in known}
    assert len(check.wrongs) + len(check.mistakes) == len(names) == len(hints), "names and hints must differ"
    assert len(names) >= 4
    for answer in [changed(check.reference, c) for w in check.wrongs for c in (w.change, *w.also) if is_change(c)]:
        results = check._results(answer, 0)[0] if check.kind != "value" else ()
        assert not [r for r in results if isinstance(r, Raised) and r.type in ("NameError", "UnboundLocalError")], (
            results
        )
    wanted = check._results(check.reference, 0)[0] if check.kind == "function" else ()
    if wanted and all(isinstance(number, int | float) for number in wanted):  # a tensor fits no learner's number
        written = [(w.name, answer) for w in check.wrongs for answer in w.answers(check.reference)]
        assert [] == [n for n, a in written if any(isinstance(r, torch.Tensor) for r in check._results(a, 0)[0])]
    for seed in (0, 1):
        for name, hint, answer in known:
            with pytest.raises(CheckFailed) as caught:
                check(given(check, answer), seed=seed)
            assert caught.value.mistake == name, f"{name!r} is taken for {caught.value.mistake!r}: {caught.value}"
            told = flat(caught.value)
            assert hint in told
            assert not [other for other in hints - {hint} if other in told]
            assert_kind(caught.value)


def explode(*args, **kwargs):
    raise ZeroDivisionError("a mishap")


def garbage_for(check: Check) -> dict[str, object]:
    """Answers that are wrong in ways that have nothing to do with the exercise."""
    if check.kind == "value":
        return {"None": None, "shape": torch.zeros(3, 1, 7), "dtype": torch.zeros((), dtype=torch.bool), "type": {1, 2}}
    if check.kind == "class":
        return {"None": None, "5": 5, "exception": type("Mine", (), {"__init__": explode}), "object": object}
    return {
        "None": None,
        "5": 5,
        "returns None": lambda *args, **kwargs: None,
        "wrong shape": lambda *args, **kwargs: torch.zeros(3, 1, 7),
        "wrong dtype": lambda *args, **kwargs: torch.zeros((), dtype=torch.bool),
        "wrong type": lambda *args, **kwargs: object(),
        "exception": explode,
        "no arguments": lambda: 0,
        "a class": dict,
    }


@every_check
def test_garbage_fails_kindly(check):
    for name, answer in garbage_for(check).items():
        with pytest.raises(CheckFailed) as caught:
            check(answer)
        assert_kind(caught.value)
        if name == "exception":
            assert "ZeroDivisionError: a mishap" in str(caught.value)
            assert "line " in str(caught.value) and "test_checks.py" in str(caught.value)
        if name in ("None", "returns None"):
            assert "None" in str(caught.value)


@every_check
def test_stubs_are_not_mistakes(check):
    def stub(*args, **kwargs):
        raise NotImplementedError("Not solved yet")

    answer = {"function": stub, "value": ..., "class": type("Mine", (), {"__init__": stub})}[check.kind]
    with pytest.raises(NotSolvedYet) as caught:
        check(answer)
    assert "rite your answer in place of" in flat(caught.value)
    assert_kind(caught.value)


@every_check
def test_three_hints(check, capsys):
    printed = []
    for step in (1, 2, 3):
        check.hint(step)
        printed.append(capsys.readouterr().out)
        assert printed[-1].startswith(f"Hint {step} of 3: ")
    assert len(set(printed)) == 3


@every_check
def test_a_check_leaves_global_randomness_alone(check):
    torch.manual_seed(3)
    random.seed(3)
    expected = torch.rand(1), random.random()
    torch.manual_seed(3)
    random.seed(3)
    check(given(check, check.reference))
    assert (torch.rand(1), random.random()) == expected


def test_a_flawed_check_is_caught():
    """The proofs above can fail: for wrong answers that aren't, that are too like, and for one right answer twice."""

    def flawed(**changes):
        fields = {f: getattr(example, f) for f in ("name", "reference", "cases", "rights", "wrongs", "hints")}
        return Check(**fields | changes)

    not_wrong = Wrong("none", centre_in_loop, "You aren't wrong.")
    shadowed = Wrong("again", lambda images, scale: batch_mean(images, scale), "The same as the first.")
    for check in (flawed(wrongs=(*WRONGS, not_wrong)), flawed(wrongs=(*WRONGS, shadowed)), flawed(wrongs=WRONGS[:3])):
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            test_wrong_answers_get_their_own_hint(check)
    for rights in ((batch_mean, centre_flat), (centre_flat,), (centre_flat, centre_flat)):
        with pytest.raises(AssertionError):
            test_right_answers_pass(flawed(rights=rights), None_capsys())


class None_capsys:
    def readouterr(self):
        return type("Out", (), {"out": f"{example.name}: passed"})


# -- what the framework says when no Wrong fits -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda right, x: None, "returned nothing.*did you forget `return`"),
        (lambda right, x: right.numpy(), "is a NumPy array of shape"),
        (lambda right, x: right.tolist(), "is a list of 2, but a float32 tensor"),
        (lambda right, x: list(right), "torch.stack joins"),
        (lambda right, x: (right, x), "is a tuple of 2, but a float32 tensor"),
        (lambda right, x: right.mean().item(), "is the number"),
        (lambda right, x: centre, "is the function centre.*forget to call it"),
        (
            lambda right, x: right.permute(0, 2, 3, 1),
            r"has the shape \(2, 2, 3, 1\).*in another order: permute\(0, 3, 1, 2\)",
        ),
        (lambda right, x: right[:, None], "a dimension of 1 too many"),
        (
            lambda right, x: right.permute(0, 2, 3, 1).reshape(right.shape),
            "where dimensions are to be moved, by permute",
        ),
        (lambda right, x: right[0], "shape"),
        (lambda right, x: right.flatten(1), "values are right, in another shape"),
        (lambda right, x: right.mean(), "reduce over too many dimensions"),
        (lambda right, x: right.long(), "dtype int64, but float32 is needed"),
        (lambda right, x: right.to("meta"), "is on the device meta"),
        (lambda right, x: right / 0 * 0, "contains NaN"),
        (lambda right, x: right / 0, "contains infinity"),
        (lambda right, x: -right, "negative of what is needed"),
        (lambda right, x: right * len(x), "exactly 2 times too large: is a sum taken where a mean is meant"),
        (lambda right, x: right / len(x), "exactly 2 times too small: is a mean taken where a sum is meant"),
        (lambda right, x: right * 3.5, "is 3.5 times what is needed, in every case"),
        (lambda right, x: right * len(x) / 3.5, "in this case, and off by another factor in others"),
        (lambda right, x: right / 7.5, "divided by 7.5, in every case"),
        (lambda right, x: right + 0.25, "0.25 too large everywhere"),
        (lambda right, x: right - 1, "is 1 too small everywhere"),
        (lambda right, x: right.exp(), "is the exponential of what"),
        (lambda right, x: right.square(), "is the square of what"),
        (lambda right, x: right.abs(), "is the absolute value of what"),
        (lambda right, x: 1 - right, r"is the complement \(1 - x\) of what"),
        (lambda right, x: right[torch.arange(len(x)).roll(2)], "in another order|shifted|passed"),
        (lambda right, x: right.flip(2), "is mirrored along dimension 2"),
        (lambda right, x: right.roll(1, 3), "is shifted by one along dimension 3"),
        (lambda right, x: right + 1e-2 * (right == right.max()), "1 of 12 elements of it differ from.*by up to 0.01"),
        (lambda right, x: right + x**2, "every element of it differs .*by up to .*yours is .*needed is"),
        (lambda right, x: right + torch.rand_like(right), "draws from global randomness"),
        (lambda right, x: right @ right, "stopped with RuntimeError: .* It arose in line .* of test_checks.py: "),
        (lambda right, x: F.relu(x), r"'F' is not defined \(torch.nn.functional is called functional here\)"),  # noqa: F821
    ],
)
def test_generic_diagnoses(change, words):
    assert re.search(words, message(lambda images, scale: change(centre(images, scale), images)), re.S)


def test_a_missing_gradient_is_not_nothing_returned():
    """A part of the result may be None where the function did return something, whatever the part is called."""

    def both(answer, case):
        x = case[0].requires_grad_()
        value = answer(x)
        slope = torch.autograd.grad(value, x)[0] if value.requires_grad else None
        return {"value": value, "gradient of the picture": slope}

    graded = Check(
        name="-",
        reference=lambda x: x.square().sum(),
        cases=lambda g: [(torch.rand(n, generator=g),) for n in (2, 3)],
        run=both,
    )
    said = flat(failure(graded, lambda x: x.detach().square().sum()))
    assert "gradient of the picture" in said and "torch.no_grad()" in said
    assert "returned nothing" not in said and "forget `return`" not in said


def test_diagnoses_of_rows_and_transposes():
    square = Check(
        name="-",
        reference=functools.partial(lambda x: x @ x.T),
        cases=lambda g: [(torch.rand(n, n + 1, generator=g),) for n in (3, 4)],
    )
    plain = Check(
        name="-",
        reference=functools.partial(lambda x: x + 0),
        cases=lambda g: [(torch.rand(n, n, generator=g),) for n in (3, 5)],
    )
    assert "transpose" in message(lambda x: x.T.clone(), plain)
    assert "in another order" in message(lambda x: x[torch.tensor([1, 0, *range(2, len(x))])], plain)
    assert "has the shape" in message(lambda x: x.T @ x, square)
    rows = Check(
        name="-",
        reference=functools.partial(lambda x: x.mean()),
        cases=lambda g: [(torch.rand(n, 3, generator=g),) for n in (2, 5)],
    )
    assert "What is missing is the mean of its elements" in message(lambda x: x.mean(1), rows)
    assert "6 is the number of all elements of `x`" in message(lambda x: x.sum(), rows)
    assert "Leave out .item()" in message(lambda x: x.mean().item(), rows)
    assert re.search(r"is \d\.\d+, but \d\.\d+ is needed", message(lambda x: x.mean() + x[0, 0] ** 2, rows))


def test_diagnoses_of_structures():
    both = Check(
        name="-",
        reference=functools.partial(lambda x: (x.sum(), {"mean": x.mean(), "count": len(x), "name": "mean"})),
        cases=lambda g: [(torch.rand(n, generator=g),) for n in (2, 3)],
    )
    right = both.reference
    both(lambda x: list(right(x)))  # a list will do for a tuple
    assert "has 1 parts, but 2 are needed" in message(lambda x: (x.sum(),), both)
    assert "The first part of your result has the right size and the wrong sign" in message(
        lambda x: (-x.sum(), right(x)[1]), both
    )
    assert "What stands under 'mean' of the second part of your result is " in message(
        lambda x: (x.sum(), right(x)[1] | {"mean": x.max() ** 3}), both
    )
    assert "lacks 'name'" in message(lambda x: (x.sum(), {"mean": x.mean(), "count": len(x)}), both)
    assert "has too much: 'extra'" in message(lambda x: (x.sum(), right(x)[1] | {"extra": 1}), both)
    assert "What stands under 'name' of the second part of your result is the text 'max'" in message(
        lambda x: (x.sum(), right(x)[1] | {"name": "max"}), both
    )
    assert "under 'count' of the second part of your result is 1 too large everywhere" in message(
        lambda x: (x.sum(), right(x)[1] | {"count": len(x) + 1}), both
    )


def test_messages_show_a_small_case_and_how_many_are_wrong():
    text = message(lambda images, scale: centre(images, scale) if images.shape[1] < 3 else images)
    assert "(1 of 3 cases are wrong): images: a float32 tensor of shape (5, 3, 4, 7), scale: the number 4" in text
    text = message(lambda images, scale: images)
    assert "(every case is wrong): images: a float32 tensor of shape (2, 1, 2, 3) = [[[[0." in text


def test_calls_that_cannot_be():
    assert "called as centre(images, scale), but it is defined with the arguments (images)" in message(
        lambda images: images, example
    )
    assert "without parentheses" in message(centre(torch.rand(2, 3, 4, 5), 1.0))
    assert "was given the number 5" in message(5)
    assert "call it, and pass what it returns" in message(lambda: 1.38, example_value)
    assert "needs your class itself" in message(Scale(1.0), example_class)


def test_changed_arguments_are_named():
    def in_place(images, scale):
        images -= images.mean((1, 2, 3), keepdim=True)
        return images * scale

    assert "changes its argument `images` in place" in message(in_place)
    example_may = Check(name="-", reference=centre, cases=draw_batches, may_change_arguments=True)
    example_may(in_place)


def test_mistakes_are_seen_in_right_results():
    assert failure(example, detached).mistake == "gradient cut off"
    assert failure(example, lambda images, scale: no_scale(images, scale).detach()).mistake == "no scale"  # that first


def test_a_wrong_answer_with_another_dtype_is_still_named():
    assert "dtype int64" in message(lambda images, scale: batch_mean(images, scale).long())  # other numbers, too
    strict = Check(name="-", reference=centre, cases=draw_batches, wrongs=WRONGS, close=Closeness(dtype="exact"))
    assert failure(strict, lambda images, scale: batch_mean(images, scale).double()).mistake == "mean of the batch"
    assert "The numbers are right" in message(lambda images, scale: centre(images, scale).double(), strict)


def test_an_answer_right_in_some_cases_is_no_known_mistake():
    """A wrong answer is recognized only by all of its results: half a resemblance would name the wrong mistake."""
    message(lambda images, scale: batch_mean(images, scale) if len(images) < 5 else channel_mean(images, scale))
    text = message(lambda images, scale: centre(images, scale) if len(images) < 5 else explode())
    assert "It happened in 1 of 3 cases" in text


def test_wrong_answers_that_raise_are_recognized():
    assert failure(example_class, NoInit).mistake == "no super"
    assert failure(example_class, NotLearned).mistake == "not learned"
    example_class(type("Other", (Scale,), {}))


def test_gradients_are_compared():
    check = Check(
        name="-",
        reference=lambda x: (x**2).sum(),
        run=value_and_gradients,
        cases=lambda g: [(torch.rand(n, generator=g),) for n in (2, 3)],
    )
    check(lambda x: (x * x).sum())
    assert "cut the graph" in message(lambda x: (x**2).sum().detach(), check)
    assert "The gradient with respect to the first argument, `x`, is what is needed divided by 2" in message(
        lambda x: (x * x.detach()).sum(), check
    )
    assert "did you forget `return`" in message(lambda x: None, check) or "is None" in message(lambda x: None, check)


def test_errors_of_pytorch_are_no_stubs():
    assert "NotImplementedError: " in message(lambda images, scale: images.to("meta").cpu())


def test_results_are_kept_apart_when_an_answer_uses_its_memory_again():
    memory = torch.empty(3)
    check = Check(name="-", reference=lambda x: x + 1, cases=lambda g: [(torch.rand(3, generator=g),) for _ in "abc"])
    check(lambda x: torch.add(x, 1, out=memory))


def test_generators_and_modules_among_the_arguments_start_alike():
    check = Check(
        name="-",
        reference=lambda linear, generator: linear.weight + torch.rand(3, 2, generator=generator),
        cases=lambda g: [(nn.Linear(2, 3), torch.Generator().manual_seed(s)) for s in (1, 2)],
    )
    check(lambda linear, generator: torch.rand(3, 2, generator=generator) + linear.weight)
    assert "global randomness" in message(lambda linear, generator: torch.rand(3, 2) + linear.weight, check)


def test_prints_of_the_learner_are_shown_once(capsys):
    def printing(images, scale):
        print("here")
        return centre(images, scale)

    example(printing)
    assert capsys.readouterr().out.count("here") == 1


def test_equality():
    exact, kind, loose = (Closeness(dtype=d) for d in ("exact", "kind", "any"))
    one = torch.ones(2)
    assert equal(one, one.clone(), exact) and equal(one.double(), one, kind) and equal(one.long(), one, loose)
    assert not equal(one.double(), one, exact) and not equal(one.long(), one, kind)
    assert equal(1, torch.tensor(1), kind) is False and equal(torch.tensor(1.0), 1.0, kind)  # number given for tensor
    assert not equal(torch.tensor([10001]), torch.tensor([10000]), kind)  # integers exactly
    assert equal(torch.tensor([101]), torch.tensor([100]), Closeness(atol=1))
    assert equal([], (), kind) and not equal((), {}, kind) and not equal([1], [], kind)
    assert not equal(True, 1, kind) and not equal(1, True, kind) and equal(np.bool_(True), True, kind)
    assert equal(float("nan"), float("nan"), kind) and not equal(float("nan"), 1.0, kind)
    assert equal("a", "a", kind) and not equal("a", "b", kind) and not equal(None, 0, kind)


def test_a_check_must_be_well_made():
    with pytest.raises(ValueError, match="three are needed"):
        Check(name="-", reference=centre, hints=("one",))
    with pytest.raises(ValueError, match="needs run"):
        Check(name="-", reference=Scale, kind="class")
    assert "exercise 0.0" in repr(example)


# -- what a check finds out by itself: small changes of its reference -------------------------------------------------------


def spread(images: Tensor, epsilon: float) -> Tensor:
    centred = images - images.mean(dim=0)
    deviation = (centred.square().sum(dim=0) / (len(images) - 1) + epsilon).sqrt()
    return (1 - deviation).clamp(min=0).mean()


def spread_by_torch(x, epsilon):
    return torch.relu(1 - (x.var(0) + epsilon).sqrt()).mean()


mutable = Check(
    name="0.3 the hinge",
    reference=spread,
    cases=lambda g: [(torch.randn(n, d, generator=g), e) for n, d, e in ((5, 3, 0.1), (4, 6, 0.02), (7, 4, 0.3))],
    rights=(spread_by_torch,),
)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (lambda x, e: (1 - (x.var(1) + e).sqrt()).clamp(min=0).mean(), "transposed", "`images` is transposed"),
        (lambda x, e: (1 - (x.var(0) + e).sqrt()).clamp(min=0).sum(), "sum for mean", "a sum stands where a mean"),
        (lambda x, e: (1 - (x.var(0, correction=0) + e).sqrt()).clamp(min=0).mean(), "off by one", "1 isn't subtracted"),
        (lambda x, e: (1 - (x.var(0) + e)).clamp(min=0).mean(), "square root missing", "the square root is missing"),
        (lambda x, e: (1 - x.std(0) - e).clamp(min=0).mean(), "order of steps", "the square root is taken"),
        (lambda x, e: ((x.var(0) + e).sqrt() - 1).clamp(min=0).mean(), "sign", "wrong"),
        (lambda x, e: (1 - (x.var(0) - e).sqrt()).clamp(min=0).mean(), "sign", "`epsilon` is subtracted"),
        (lambda x, e: (2 - (x.var(0) + e).sqrt()).clamp(min=0).mean(), "off by one", "2 stands where 1 is needed"),
        (lambda x, e: -(1 - (x.var(0) + e).sqrt()).clamp(min=0).sum() / 2, "sum for mean", "multiplied by -0.5"),
        (lambda x, e: (1 - (x.var(1) + e).sqrt()).clamp(min=0).sum(), "sum for mean", "needed, and in which"),
    ],
)  # fmt: skip
def test_small_changes_are_recognized(answer, kind, words):
    error = failure(mutable, answer)
    assert kind in error.mistake and words in flat(error), error
    assert_kind(error)
    assert "centred" not in str(error) and "deviation" not in str(error), "names of the reference's own"


def test_a_slow_machine_says_the_same_and_one_that_is_too_slow_says_so(monkeypatch):
    """What is tried is counted in calls, and not in seconds: a minute passes on this clock, or an hour at every look."""
    monkeypatch.setattr(recognize, "SINGLE", 0.1)
    monkeypatch.setattr(recognize, "WHOLE", 0.15)
    told = {}
    for step in (0.0, 0.002, 3600.0):
        clock = itertools.count()
        monkeypatch.setattr(recognize.time, "perf_counter", lambda clock=clock, step=step: step * next(clock))
        for name, answer in (("a slip", lambda x, e: (1 - x.var(0) - e).clamp(min=0).mean()), ("none", odd)):
            told[step, name] = flat(failure(mutable, answer)), round(mutable._search()._work, 6)
    for name in ("a slip", "none"):
        assert told[0.0, name] == told[0.002, name] != told[3600.0, name]
        assert "This machine is slow just now" in told[3600.0, name][0]
    assert "is slow" not in flat(failure(mutable, lambda x, e: None)), "of another answer"


def odd(x: Tensor, epsilon: float) -> Tensor:
    return (x.sin().prod(0) * 3 + epsilon).cos().sum()


def test_an_answer_that_is_only_like_a_change_is_not_taken_for_it():
    def half(x, epsilon):  # the variance for the deviation, in batches of more than four
        return spread(x, epsilon) if len(x) < 5 else (1 - (x.var(0) + epsilon)).clamp(min=0).mean()

    assert "square root" not in (failure(mutable, half).mistake or "")
    assert failure(mutable, lambda x, epsilon: x.sum() * torch.nan).mistake == "NaN"


def first_above(values: Tensor, limit: float) -> int:
    place = 0
    while values[place] <= limit:
        place += 1
    return place


def test_changes_that_never_end_are_left():
    cases = lambda g: [(torch.arange(n) / 10, n / 20 + 0.03) for n in (6, 9, 7)]  # noqa: E731
    check = Check(name="-", reference=first_above, cases=cases)
    assert "1 too large" in flat(failure(check, lambda values, limit: first_above(values, limit) + 1))
    assert failure(check, lambda values, limit: int(values.sum() * 100 + 1000 * limit)).mistake is None


def renamed(name: str) -> str:
    for number in range(1, 4):
        name = name.replace(str(number), f"stage{number - 1}")
    return name


def test_changes_that_fill_the_memory_are_left():
    """Three rounds that each make a text 255 times as long come to 850 million letters."""
    check = Check(name="-", reference=renamed, cases=lambda g: [("1.2",), ("3.1",), ("2.2",)])
    assert failure(check, lambda name: name.replace("1", "one")).mistake is None
    (written,) = check._search()._written
    assert max(len(result) for result in written.results.values() if isinstance(result, str)) < 2 * 10**8


# -- what is one small change away from right, in a way of writing that no right answer takes ----------------------------


def warmed(step: int, warm: int) -> float:
    return min(1.0, step / warm)


def warmed_in_two(step, warm):
    if step > warm:
        return 1.0
    share = (step - 1) / warm
    return share


def warmed_by_a_loop(step, warm):
    done = 0.0
    while done * warm < step - 0.5 and done <= 1.0:
        done += 1 / warm
    return done


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (warmed_in_two, "off by one", "share = (step - 1) / warm Is something one too many there"),
        (warmed_by_a_loop, "at equality", "while done * warm < step - 0.5 and done <= 1.0: What is to happen at equality?"),
    ],
)  # fmt: skip
def test_the_line_of_a_slip_is_shown_but_not_what_should_stand_there(answer, kind, words, monkeypatch):
    """Where no change of the right answers comes to the same: none is tried here."""
    monkeypatch.setattr(recognize, "SINGLE", 0.0)
    check = Check(name="-", reference=warmed, cases=lambda g: [(s, w) for w in (4, 8, 2) for s in (1, 2, 4, 7, 9)])
    error = failure(check, answer)
    assert error.mistake == kind and f"look at this line: {words}" in flat(error), error


@pytest.mark.parametrize(
    ("kind", "undone"),
    [
        ("a division missing", "a division too much"), ("softmax too much", "softmax missing"),
        ("sum for mean", "mean for sum"), ("off by one", "off by one"), ("rounded up", "a slip in one line"),
    ],
)  # fmt: skip
def test_a_slip_has_the_name_of_what_was_done_and_not_of_what_undoes_it(kind, undone):
    assert recognize._undone(kind) == undone


def warmed_and_written(step, warm):
    with open("/dev/null") as file:
        return (step - 1) / warm if step <= warm else 1.0 + len(file.read())


def test_no_change_is_tried_of_an_answer_that_reaches_out(monkeypatch):
    """Nobody knows what a change of the path of a file would do."""
    monkeypatch.setattr(recognize, "SINGLE", 0.0)
    check = Check(name="-", reference=warmed, cases=lambda g: [(s, w) for w in (4, 8, 2) for s in (1, 2, 4, 7, 9)])
    assert "right but for" not in flat(failure(check, warmed_and_written))


def test_an_answer_that_no_small_change_makes_right_has_no_slip():
    check = Check(name="-", reference=warmed, cases=lambda g: [(s, w) for w in (4, 8, 2) for s in (1, 2, 4, 7, 9)])
    assert "right but for" not in flat(failure(check, lambda step, warm: abs(step - warm) ** 3 / 7))


def refill(queue: Tensor, keys: Tensor) -> None:
    queue[: len(keys)] = keys


def squares_in_loop(values: Tensor, limit: float) -> Tensor:
    return torch.stack([a * b for a in values for b in values[:3]])


def test_a_comprehension_that_takes_long_is_left():
    source = source_once(squares_in_loop)
    place = tree.Place(tree.watched(source.text, source.name, ("values", "limit")), ("values", "limit"))
    rounds = []
    source.built(place.tree, __tick__=lambda: rounds.append(1))(torch.ones(4), 0.5)
    assert len(rounds) == 4 + 4 * 3, "the clock is looked at in every round"
    assert not [m for m in mutants.mutants(place) if m.kind in ("a condition missing", "condition turned round")]


def scaled(values: Tensor, limit: float) -> float:
    return (values.min().item() - limit) ** 0.5  # a change of a sign makes it complex


@pytest.mark.parametrize("value", [1j, 10**400, -(10**30), 2**70], ids=["complex", "10^400", "-10^30", "2^70"])
def test_numbers_that_no_tensor_holds_are_only_wrong(value):
    cases = lambda g: [(torch.rand(n, generator=g) + 0.5, 0.3 - n % 2) for n in (6, 9, 8)]  # noqa: E731
    check = Check(name="-", reference=scaled, cases=cases)
    assert isinstance(failure(check, lambda values, limit: value * len(values)), CheckFailed)
    assert isinstance(failure(check, lambda values, limit: 0.3 * len(values) ** 2), CheckFailed)


def best_places(scores: Tensor, boxes: Tensor) -> Tensor:
    return scores.argsort(descending=True)[::2]


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (lambda scores, boxes: boxes[best_places(scores, boxes)], "not the numbers", "is what stands in `boxes` there"),
        (lambda scores, boxes: torch.arange(0, len(scores), 2), "places among the sorted", "is places in `scores`, sorted"),
    ],
)  # fmt: skip
def test_things_in_place_of_their_numbers_are_named(answer, kind, words, monkeypatch):
    monkeypatch.setattr(recognize, "SINGLE", 0.0)  # halves of `scores`, rounded down, would come to the same
    cases = lambda g: [(torch.rand(n, generator=g), torch.rand(n, 4, generator=g)) for n in (7, 8, 9)]  # noqa: E731
    error = failure(Check(name="-", reference=best_places, cases=cases), answer)
    assert error.mistake == kind and words in flat(error), error


def test_who_counts_may_not_have_sorted(monkeypatch):
    monkeypatch.setattr(recognize, "SINGLE", 0.0)
    cases = lambda g: [(torch.rand(n, generator=g), torch.rand(n, 4, generator=g)) for n in (7, 8, 9)]  # noqa: E731
    check = Check(name="-", reference=lambda scores, boxes: scores.argsort(descending=True), cases=cases)
    assert failure(check, lambda scores, boxes: torch.arange(len(scores))).mistake != "places among the sorted"


def channel_means(images: Tensor) -> Tensor:
    return images.mean(dim=(2, 3))


def test_a_mean_that_stands_for_all_is_named():
    check = Check(
        name="-", reference=channel_means, cases=lambda g: [(torch.rand(n, 3, 4, 5, generator=g),) for n in (2, 4)]
    )
    error = failure(check, lambda images: images.mean(dim=(1, 2, 3))[:, None].expand(-1, 3) + 0)
    assert error.mistake == "a mean for all" and "along dimension 1" in flat(error), error


def keyed(state: dict, prefix: str) -> dict:
    return {name.removeprefix(prefix): -tensor for name, tensor in state.items() if name.startswith(prefix)}


def test_a_multiple_of_the_right_answer_is_no_other_mistake():
    error = failure(mutable, lambda x, e: 100 * spread(x, e))
    assert error.mistake == "a factor of 100" and "sign" not in flat(error), error
    cases = lambda g: [({f"a.{i}": torch.rand(3, generator=g) for i in range(n)}, "a.") for n in (2, 3)]  # noqa: E731
    check = Check(name="-", reference=keyed, cases=cases)
    error = failure(check, lambda state, prefix: {f"{k}.x": 3 * v for k, v in keyed(state, prefix).items()})
    assert error.mistake == "other keys", error


def test_what_is_far_fetched_is_said_only_where_nothing_nearer_fits():
    error = failure(mutable, lambda x, e: (1 - x.var(0).sqrt()).clamp(min=0).mean())
    assert error.mistake and not any(far in error.mistake for far in ("order of steps", "rounded down")), error


def test_work_on_a_copy_is_named():
    check = Check(
        name="-",
        reference=refill,
        run=lambda answer, case: (answer(*case), case[0])[1],
        cases=lambda g: [(torch.rand(n, 2, generator=g), torch.rand(k, 2, generator=g)) for n, k in ((4, 2), (6, 3))],
    )
    assert "copies" in flat(failure(check, lambda queue, keys: refill(queue.clone(), keys)))


def test_an_argument_that_plays_no_part_is_named(monkeypatch):
    """Where no change of a right answer leaves it out: it is tried with other values."""
    monkeypatch.setattr("sslcourse.checks.recognize.SINGLE", 0.0)
    check = CHECKS["lesson22.how_sure_of_a_share"]
    error = failure(check, lambda right, count, z: check.reference(right, count, 1.96))
    assert error.mistake == "an argument unused" and "don't depend on `z`" in flat(error)


def test_a_wrong_loss_is_known_whatever_its_gradients():
    """The author's normalizes what has length 1 already: the same loss, and other gradients."""

    def clip_alone(images, texts, swapped, scale):
        logits, own = scale * images @ texts.T, torch.arange(len(images))
        return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2

    assert failure(CHECKS["lesson16.hard_negatives"], clip_alone).mistake == "no hard negatives"


def test_two_mistakes_of_the_authors_at_once_are_named(monkeypatch):
    """Where no change of a right answer comes to the same: none is tried here."""
    monkeypatch.setattr("sslcourse.checks.recognize.SINGLE", 0.0)
    hinge = CHECKS["lesson10.the_variance_hinge"]
    error = failure(hinge, lambda z, epsilon: (1 - (z.var(dim=1) + epsilon).sqrt()).abs().mean())
    assert error.mistake == "averaged over the wrong axis and distance from 1"
    assert [w.hint in flat(error) for w in hinge.wrongs if w.name in error.mistake].count(True) == 1, "one thing to do"


def test_what_is_right_but_for_its_shape_is_told_at_once(monkeypatch):
    """A mean over a dimension of 1 comes to the same as leaving it out: nobody took one."""
    monkeypatch.setattr(Search, "find", lambda *_: pytest.fail("no change is to be looked for"))
    check = CHECKS["lesson11.update_the_centre"]
    error = failure(check, lambda center, student, teacher, m: m * center[0] + (1 - m) * teacher.mean(dim=0))
    assert error.mistake == "a dimension of 1"
    check = CHECKS["lesson05.annealed_mean_of_maps"]
    error = failure(check, lambda z, centres, t: (z / t).softmax(dim=1).permute(0, 2, 3, 1) @ centres)
    assert error.mistake == "another order of dimensions" and "permute(0, 3, 1, 2)" in flat(error)


def test_what_the_text_forbids_is_seen():
    def by_hand(logits, labels):
        return -logits.log_softmax(1)[torch.arange(len(labels)), labels].mean()

    borrowed = functional.cross_entropy
    check = Check(
        name="-",
        reference=by_hand,
        cases=lambda g: [(torch.randn(n, 3, generator=g), torch.arange(n) % 3) for n in (3, 5)],
        forbidden=(
            Forbidden("cross_entropy", (functional.cross_entropy, functional.nll_loss), "Write it by hand."),
            Forbidden("gather", ("gather", torch.gather), "Index instead."),
        ),
    )
    check(by_hand)
    for answer in (borrowed, nn.CrossEntropyLoss(), lambda x, y: borrowed(x, y), lambda x, y: 2 * borrowed(x, y)):
        assert failure(check, lambda x, y, answer=answer: answer(x, y)).mistake == "cross_entropy"
    picked = lambda x, y: -x.log_softmax(1).gather(1, y[:, None]).mean()  # noqa: E731
    assert failure(check, picked).mistake == "gather"
    assert sys.getprofile() is None


def test_a_change_that_does_not_apply_is_an_error():
    wrong = Wrong(
        "no epsilon", change=(" + epsilon", ""), hint="Add\n    epsilon.", also=(("epsilon).sqrt", "0).sqrt"),)
    )
    assert wrong.hint == "Add epsilon."
    for answer in wrong.answers(spread):
        assert equal(answer(torch.ones(2, 2), 0.1), torch.tensor(1.0), Closeness())
    with pytest.raises(ChangeError, match="doesn't stand in the source of spread"):
        Wrong("-", change=("delta", "")).answers(spread)
    with pytest.raises(ChangeError, match="no Python"):
        Wrong("-", change=("clamp(", "clamp((")).answers(spread)
    with pytest.raises(ChangeError, match="no source"):
        Wrong("-", change=("a", "b")).answers(3)


def test_no_seed_of_an_answer_meets_the_checks():
    """Who draws from a generator of their own, seeded with 0, must not draw what the case was drawn from."""

    def drawn(x, generator):
        return x + torch.rand(len(x), generator=generator)

    check = Check(
        name="-",
        reference=drawn,
        cases=lambda g: [(torch.rand(n, generator=g), cases.another(g)) for n in (3, 4)],
    )
    check(lambda x, generator: torch.rand(len(x), generator=generator) + x)
    for seed in (*range(100), 1234, SECOND):
        theirs = torch.Generator().manual_seed(seed)
        drawn_alike = [torch.equal(case[0], torch.rand(len(case[0]), generator=theirs)) for case in check._fresh(0)[:1]]
        assert not any(drawn_alike), seed
    failure(check, lambda x, generator: x + torch.rand(len(x), generator=torch.Generator().manual_seed(0)))


def test_what_passes_one_draw_is_tried_on_another():
    seen = {tuple(case[0].flatten().tolist()) for case in example._fresh(0)}
    with pytest.raises(CheckFailed):
        example(lambda images, scale: centre(images, scale + (tuple(images.flatten().tolist()) not in seen)))


def test_the_check_that_is_shown_to_contributors():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    block = text.split("```python\n")[1].split("```")[0]
    assert block.count("\n") <= 25 and max(map(len, block.splitlines())) <= 120
    # a change needs a source that can be found
    linecache.cache["<contributing>"] = (len(block), None, block.splitlines(keepends=True), "<contributing>")
    module = types.ModuleType("contributing")
    vars(module).update(torch=torch, functional=functional, Tensor=Tensor, cases=cases, Check=Check, Wrong=Wrong)
    vars(module).update(value_and_gradients=value_and_gradients)
    sys.modules["contributing"] = module
    try:
        exec(compile(block, "<contributing>", "exec"), vars(module))
        test_wrong_answers_get_their_own_hint(module.the_variance_hinge)
        for right in (module.variance_hinge, *module.the_variance_hinge.rights):
            module.the_variance_hinge(right)
    finally:
        del sys.modules["contributing"]


# -- how it looks ---------------------------------------------------------------------------------------------------------

SCRIPT = """
from sslcourse.checks import Check
import torch
check = Check(name="1.1 double", reference=lambda x: 2 * x, cases=lambda g: [(torch.rand(2, generator=g),)])
def double(x):
    y = x.no_such_method()
    return y
check(double)
"""


def test_in_plain_python_the_traceback_is_short():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 1 and "AttributeError" in done.stderr
    assert done.stderr.count("Traceback") == 1 and done.stderr.count('  File "') <= 2, done.stderr


@pytest.mark.notebooks
def test_in_a_kernel_only_the_message_is_shown(tmp_path):
    from course_notebooks import code, error_of, notebook_of, run

    done = run(
        notebook_of(code("a", SCRIPT), code("b", "check(lambda x: None)"), code("c", "check(lambda x: x + x)")),
        tmp_path,
    )
    error = error_of(done.cells[0])
    assert error.ename == "CheckFailed" and "\n".join(error.traceback) == error.evalue
    assert "line 5 of your cell:  y = x.no_such_method()" in error.evalue
    assert "did you forget `return`" in error_of(done.cells[1]).evalue
    assert done.cells[2].outputs[0].text == "1.1 double: passed.\n"
