"""A check finds a mistake by itself: what the rules and operators change, what is recognized, and what every check refuses."""

from __future__ import annotations

import ast
import json
import random
import re
import warnings
from pathlib import Path

import pytest
import torch
from test_checks import CHECKS, failure, flat
from torch.nn import functional

from sslcourse.checks import Check, cases, mutants, recognize, tree
from sslcourse.checks.answers import Raised
from sslcourse.checks.compare import Closeness, equal
from sslcourse.checks.framework import SECOND
from sslcourse.checks.recognize import Draw

ROOT = Path(__file__).parents[1]
every_check = pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())


def changed(text: str, arguments: tuple[str, ...]) -> dict[str, set[str]]:
    """What every mutant of `text` says, with the texts that it makes of it."""
    place = tree.Place(tree.watched(text, "answer", arguments), arguments)
    found: dict[str, set[str]] = {}
    for mutant in mutants.mutants(place):
        made = ast.unparse(tree.mutated(place, mutant.changes))
        found.setdefault(mutant.kind, set()).add(made)
    return found


@pytest.mark.parametrize(
    "rule", mutants._read(mutants.RULES), ids=lambda rule: f"{rule.kind}: {ast.unparse(rule.instead)}"
)
def test_every_rule_is_applied(rule):
    """A function that is what a rule looks for has the mutant that it speaks of."""
    names = {"a": "first", "b": "second", "c": "third", "d": "fourth"}
    pattern = ast.unparse(rule.pattern).replace("...", "1").replace("1, correction", "1, correction")
    pattern = re.sub(r"\bn\b", "7", re.sub(r"\b([abcd])\b", lambda m: names[m[1]], pattern))
    text = f"def answer(first, second, third, fourth):\n    return {pattern}\n"
    found = {
        m.kind: m.says
        for m in mutants.mutants(tree.Place(tree.watched(text, "answer", tuple(names.values())), tuple(names.values())))
    }
    others = changed(text, tuple(names.values()))
    assert rule.kind in found or any(_same(rule, names, made) for made in set().union(*others.values())), found


def _same(rule, names, made: str) -> bool:
    """Does another operator make the same text?"""
    instead = ast.unparse(rule.instead).replace("...", "1")
    instead = re.sub(r"\bn\b", "7", re.sub(r"\b([abcd])\b", lambda m: names[m[1]], instead))
    return ast.unparse(ast.parse(instead)) in made


def score(logits, labels, temperature):
    scaled = logits / temperature
    chance = scaled.softmax(dim=1)
    picked = chance[torch.arange(len(labels)), labels]
    return -picked.log().mean()


def spread(first, second):
    centred = first - second.mean(0)
    return (centred.square().sum(1) + 1).sqrt().clamp(max=3) / 2.4


def rows(values, count):
    order = values.argsort(dim=1)
    return order[:, :count], values.gather(1, order)[:, 1 : 1 + count]


def at(step, batch, size):
    return (step * batch) % size // 2


def lengths(table):
    return (table.std(0) + table.amin(0)) / 2


def draw_scores(g):
    return [
        (torch.randn(n, c, generator=g), torch.randint(c, (n,), generator=g), t)
        for n, c, t in ((5, 3, 0.4), (4, 6, 2.5), (7, 4, 0.7))
    ]


scoring = Check(name="0.4 a score", reference=score, cases=draw_scores)
spreading = Check(name="0.5 a spread", reference=spread, cases=lambda g: [(torch.randn(n, d, generator=g), torch.randn(m, d, generator=g)) for n, m, d in ((5, 3, 4), (4, 6, 3), (7, 4, 5))])  # fmt: skip
taking = Check(name="0.6 rows", reference=rows, cases=lambda g: [(torch.rand(n, d, generator=g), k) for n, d, k in ((5, 6, 3), (4, 7, 2), (3, 9, 4))])  # fmt: skip
placing = Check(name="0.7 a place", reference=at, cases=lambda g: [(s, b, n) for s, b, n in ((3, 5, 11), (7, 4, 9), (11, 6, 17), (5, 7, 13))])  # fmt: skip
averaging = Check(name="0.8 lengths", reference=lengths, cases=lambda g: [(torch.rand(n, d, generator=g),) for n, d in ((5, 3), (4, 6), (3, 4))])  # fmt: skip


def pooled(maps):
    return maps.var(dim=(0, 2, 3), keepdim=True)


pooling = Check(name="0.9 variances", reference=pooled, cases=lambda g: [(torch.rand(n, 3, h, 4, generator=g),) for n, h in ((5, 3), (4, 6))])  # fmt: skip
pick = lambda x, y: x[torch.arange(len(y)), y]  # noqa: E731


@pytest.mark.parametrize(
    ("check", "answer", "words"),
    [
        (scoring, lambda x, y, t: -pick((x / t).sigmoid(), y).log().mean(), "sigmoid stands where a softmax"),
        (scoring, lambda x, y, t: -pick((x / t).log_softmax(1), y).log2().mean() if False else -pick((x / t).softmax(1), y).log2().mean(), "logarithm to base 2|base 2"),
        (scoring, lambda x, y, t: -pick((x / t).softmax(1), y).mean(), "logarithm is missing"),
        (scoring, lambda x, y, t: -pick((x / t).softmax(1), y).mean().log(), "mean is taken"),
        (scoring, lambda x, y, t: -pick((x / t**2).softmax(1), y).log().mean(), "twice|square"),
        (scoring, lambda x, y, t: -pick((x * t).softmax(1), y).log().amax(), "maximum|largest"),
        (scoring, lambda x, y, t: -pick((functional.normalize(x, dim=1) / t).softmax(1), y).log().mean(), "normalized"),
        (spreading, lambda a, b: ((a - b.mean(0)).abs().sum(1) + 1).sqrt().clamp(max=3) / 2.4, "absolute value stands where a square"),
        (spreading, lambda a, b: ((a - b.mean(0)).square().sum(1).sqrt() + 1).clamp(max=3) / 2.4, "square root"),
        (spreading, lambda a, b: ((a - b.mean(0)).sum(1).square() + 1).sqrt().clamp(max=3) / 2.4, "square comes later|sum is taken"),
        (spreading, lambda a, b: ((a - b.mean()).square().sum(1) + 1).sqrt().clamp(max=3) / 2.4, "everything at once|mean of all"),
        (spreading, lambda a, b: ((a - b[:1]).square().sum(1) + 1).sqrt().clamp(max=3) / 2.4, "first alone|first of"),
        (spreading, lambda a, b: ((a - b.mean(0)).square().sum(1) + 1).sqrt() / 2.4, "clamp is missing"),
        (spreading, lambda a, b: 2.4 / ((a - b.mean(0)).square().sum(1) + 1).sqrt().clamp(max=3), "upside down|divided"),
        (spreading, lambda a, b: ((a - b.mean(0)).square().sum(1) + 1).sqrt().clamp(min=3) / 2.4, "clamp"),
        (taking, lambda x, k: (x.argsort(1, descending=True)[:, :k], x.gather(1, x.argsort(1))[:, 1 : 1 + k]), "argsort\\(1, descending=True\\)` in this line"),
        (taking, lambda x, k: (x.argsort(1)[:, :k], x.sort(1).values[:, 2 : 2 + k]), "one place too late"),
        (taking, lambda x, k: (x.sort(1).values[:, 1 : 1 + k], x.argsort(1)[:, :k]), "swapped|another order"),
        (placing, lambda s, b, n: s * b // n // 2, "quotient"),
        (placing, lambda s, b, n: s * b % n % 2, "remainder"),
        (placing, lambda s, b, n: s * b % n / 2, "isn't rounded down"),
        (placing, lambda s, b, n: (s + 1) * b % n // 2, "one too many"),
        (averaging, lambda t: torch.maximum(t.std(0), t.amin(0)), "larger of two"),
        (averaging, lambda t: t.std(0), "stands where a mean of two"),
        (averaging, lambda t: (t.std(0) * t.amin(0)).sqrt(), "root of a product"),
        (pooling, lambda m: m.var(dim=(2, 3), keepdim=True).mean(0, keepdim=True), "each place of dim 0 by itself"),
        (averaging, lambda t: 1 - (t.std(0) + t.amin(0)) / 2, "one minus"),
    ],
)  # fmt: skip
def test_kinds_of_mistakes_are_recognized(check, answer, words):
    error = failure(check, answer)
    assert error.mistake and re.search(words, flat(error)), error
    assert not re.search(r"\b(scaled|chance|picked|centred|order\[)\b", flat(error)), "names of the reference's own"


def test_small_factors_that_differ_from_case_to_case_are_told_apart():
    numbers = [torch.tensor([1.0, 2.0, 3.0])]
    ways = [recognize._ways([n * factor for n in numbers], numbers) for factor in (2e-4, 4e-4)]
    assert all(ways) and ways[0].keys().isdisjoint(ways[1])


def table(values):
    return values.cumsum(1) / values.shape[1]


relations = Check(
    name="0.9 relations",
    reference=(lambda f: lambda values: f(values))(table),
    cases=lambda g: [(torch.rand(n, n, generator=g) + 0.3,) for n in (4, 5, 3)],
)


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (lambda r: r.diagonal(), "its diagonal alone", "its diagonal alone"),
        (lambda r: r.mean(0), "its mean over dimension 0", "mean over dimension 0"),
        (lambda r: r[:, :-1], None, "with fewer places than needed"),
        (lambda r: (r * 100).round() / 100, "rounded", "rounded to 2 digits"),
        (lambda r: r.clamp(0.2, 0.5), "limited", "limited to that"),
        (lambda r: r.triu(), "zeros in places", "zeros in some places"),
        (lambda r: r - r.diagonal().diag(), "zeros in places", "zeros on the diagonal"),
        (lambda r: r.flip(1), "mirrored", "mirrored along dimension 1"),
        (lambda r: r / 0.6931472, None, "logarithm to base 2"),
        (lambda r: r[0], None, "place 0 of dimension 0 alone"),
    ],
)
def test_exact_relations_are_named(change, name, words):
    check = Check(name="-", reference=relations.reference, cases=relations.cases, source=3)
    check._memory["search"] = None
    error = failure(check, lambda values: change(table(values)))
    assert error.mistake and words in flat(error), error
    assert name in (None, error.mistake)


def test_an_argument_that_a_helper_gets_is_changed_once():
    """Twice 90 times a number of classes would ask for a table of gigabytes."""
    text = "def answer(first):\n    return helper(first)\n\ndef helper(first):\n    return first + 1\n"
    made = set().union(*changed(text, ("first",)).values())
    assert any("first * 90" in each for each in made) and not any(each.count("* 90") > 1 for each in made)


def multiplied(first, second):
    return (first * second.sin()).mean()


def test_an_argument_that_is_left_out_is_seen_though_its_gradient_is_missing():
    cases = lambda g: [(torch.rand(n, generator=g), torch.rand(n, generator=g)) for n in (3, 5)]  # noqa: E731
    check = Check(name="-", reference=multiplied, cases=cases)
    assert "`first` stands where `second` is needed" in flat(failure(check, lambda x, y: (x * x.sin()).mean()))


def test_parts_in_another_order_and_an_argument_as_it_came():
    both = Check(
        name="-",
        reference=lambda x: (x.mean(), x.sum()),
        cases=lambda g: [(torch.rand(n, generator=g),) for n in (3, 4)],
    )
    both._memory["search"] = None
    assert failure(both, lambda x: (x.sum(), x.mean())).mistake == "another order"
    same = Check(
        name="-", reference=lambda x: x.sin() + x, cases=lambda g: [(torch.rand(n, generator=g),) for n in (3, 4)]
    )
    same._memory["search"] = None
    assert "`x` as it came" in flat(failure(same, lambda x: x))


def test_a_loss_that_is_cut_off_is_refused():
    """Where the reference and every other right answer carry a gradient, a loss without one is wrong, and half a one, too."""
    cases = lambda g: [(torch.rand(n, 3, generator=g), torch.rand(n, 3, generator=g)) for n in (3, 5)]  # noqa: E731
    loss = Check(name="-", reference=lambda x, y: (x - y).square().mean(), cases=cases, rights=(functional.mse_loss,))
    loss(lambda x, y: ((x - y) ** 2).sum() / x.numel())
    assert failure(loss, lambda x, y: (x - y).square().mean().detach()).mistake
    assert "`x`" in flat(failure(loss, lambda x, y: (x.detach() - y).square().mean()))
    by_numbers = lambda x, y: torch.tensor((x - y).square().mean().item())  # noqa: E731
    measure = Check(name="-", reference=lambda x, y: (x - y).square().mean(), cases=cases, rights=(by_numbers,))
    measure(lambda x, y: (x - y).square().mean().detach())  # no promise: one of the right answers has none, either
    tables = Check(name="-", reference=lambda x, y: (x - y).square(), cases=cases)
    tables(lambda x, y: (x - y).square().detach())
    Check(name="-", reference=lambda x, y: (x - y).square(), cases=cases, gradients=True)(lambda x, y: (x - y) ** 2)
    learned = Check(name="-", reference=lambda x, y: (x - y).square(), cases=cases, gradients=True)
    failure(learned, lambda x, y: (x - y).square().detach())
    lists = Check(
        name="-", reference=lambda x: (x[0] * x[1]).sum(), cases=lambda g: [(list(torch.rand(2, 3, generator=g)),)]
    )
    failure(lists, lambda x: (x[0].detach() * x[1]).sum())


def test_a_plain_number_is_no_tensor():
    cases = lambda g: [(torch.rand(n, generator=g),) for n in (3, 5)]  # noqa: E731
    promised = Check(name="-", reference=lambda x: x.mean().item(), cases=cases, close=Closeness(plain=True))
    promised(lambda x: float(x.sum() / len(x)))
    promised(lambda x: x.numpy().mean())
    assert failure(promised, lambda x: x.mean()).mistake == "a tensor for a number"
    Check(name="-", reference=lambda x: x.mean().item(), cases=cases)(lambda x: x.mean())


# -- what the texts say -----------------------------------------------------------------------------------------------------


def texts() -> tuple[dict[str, str], dict[str, str]]:
    """The text and the stub of every exercise, by its number, and what stands above all exercises of its lesson."""
    found, above_all = {}, {}
    for path in sorted(ROOT.glob("exercises/*/*.ipynb")):
        cells = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]
        for above, cell in zip(cells, cells[1:], strict=False):
            if "NotImplementedError" in cell and (number := re.search(r"^## (\d+\.\d+) ", above, re.M)):
                found[number[1]], above_all[number[1]] = f"{above}\n{cell}", cells[0]
    return found, above_all


TEXTS, ABOVE_ALL = texts()
PLAIN = re.compile(r"\b(two floats|a float\b(?! \()|an int\b|plain numbers?|Python number)")
MOVED = ("not `augment`", "no picture is moved")
SAID = {  # where the text says it in other words
    "one_symmetry": MOVED, "square_symmetry": MOVED, "rotate90": MOVED, "rot90": MOVED, "batched_nms": ("`ops.nms` isn't",),
    "torchvision.ops.boxes": ("torchvision's `box_iou`",), "torchvision.ops.focal_loss": ("Don't use torchvision's",),
    "batch_norm": ("Don't use a module of PyTorch",),
}  # fmt: skip


@pytest.mark.parametrize("check", [c for c in CHECKS.values() if c.name.split()[0] in TEXTS], ids=lambda c: c.name)
def test_a_check_asks_for_what_the_text_says(check):
    """What is forbidden and what type is needed stands in the text; what the text promises, the check looks at."""
    text = TEXTS[check.name.split()[0]].split("<details>")[0]
    for call in (call for forbidden in check.forbidden for call in forbidden.calls):
        name = call if isinstance(call, str) else call.__name__
        modules = [name.rsplit(".", depth)[0] for depth in range(name.count("."))]  # a.b.c is meant by "don't use a.b"
        said = [f"`{module}`" for module in modules] or [f"{name}`"]
        whole = f"{ABOVE_ALL[check.name.split()[0]]}\n{text}"
        assert any(word in whole for word in (*said, *SAID.get(name, ()))), (
            f"{name} is forbidden, and the text is silent"
        )
    for asked in re.findall(
        r"[^.]*\b(?:Don't use|and not)\b(?:[^.`]|`[^`]*`)*\.", f"{ABOVE_ALL[check.name.split()[0]]}\n{text}"
    ):
        for module in re.findall(r"`(sslcourse\.[\w.]+)`", asked):
            assert any(module in forbidden.calls for forbidden in check.forbidden), f"{module} is taken for an answer"
    docstring = re.search(r'"""(.*?)"""', TEXTS[check.name.split()[0]], re.S)
    given = docstring[1].split("->")[-1] if docstring else ""
    if check.kind == "function" and PLAIN.search(f"{text} {given}"):
        wanted = check._kept("reference", check.reference, 0)[0]
        assert check.close.plain or not isinstance(wanted, float), "the text promises a number, a tensor is taken"
    if re.search(r"\b(float32|int64|uint8)\b", given):
        assert check.close.dtype == "exact", f"the text promises {given.strip()!r}"


# -- every mutant of every reference ----------------------------------------------------------------------------------------

SAMPLE = 6  # of every reference in the unit tests, drawn by its name, so that a failure comes again
OTHERS = (11, 12, 13, 14)  # seeds of other draws
# What comes to the same, and differs by rounding or where two pictures that differ happen to become one.
ALIKE = {
    "4.4": (
        "the last two columns of `pictures` are taken for",
    ),  # it asks which pictures are the same, and no two become so
    "15.1": (
        "`new` is taken one too few and `train` is taken one too few",
    ),  # what both lose is no longer in the difference
}


def draw_of(check: Check, seed: int, times: int = 1) -> Draw | None:
    """The cases of a seed, so many times as large where that makes a case that the reference can answer."""

    def fresh():
        with cases.larger(times):
            return check._fresh(seed)

    if times == 1:
        return Draw(fresh, (), check._kept("reference", check.reference, seed), seed)
    try:
        want = [check._result(check.reference, case) for case in fresh()]
    except Exception:  # a size that was drawn by other means doesn't fit
        return None
    fits = not any(isinstance(result, Raised) for result in want) and total_size(fresh()) > total_size(
        check._fresh(seed)
    )
    return Draw(fresh, (), want, (seed, times)) if fits else None


def total_size(drawn) -> int:
    return sum(part.numel() for case in drawn for part in case if isinstance(part, torch.Tensor))


def survivors(check: Check, count: int | None = None) -> list[str]:
    """The mutants that make a difference on other and on larger cases, and none on those that an answer is tried on."""
    search = check._search()
    if search is None or check.kind == "value":
        return []
    tried = [draw_of(check, seed) for seed in (0, SECOND)]
    others = [*(draw_of(check, seed) for seed in OTHERS), draw_of(check, 15, 2), draw_of(check, 16, 3)]
    written = next(search.written())
    search._settle(written, tried[0], 0)
    chosen = random.Random(check.name).sample(written.mutants, len(written.mutants))[:count]

    def differs(mutant, draw):
        both = ((search._result(written, (mutant,), draw, index), want) for index, want in enumerate(draw.want))
        return any(not equal(got, want, check.close) for got, want in both)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alike = [mutant for mutant in chosen if not any(differs(mutant, draw) for draw in tried)]
        found = [m.says for m in alike if any(differs(m, draw) for draw in others if draw is not None)]
    return [says for says in found if not says.startswith(ALIKE.get(check.name.split()[0], "-"))]


@every_check
def test_mutants_are_refused_where_they_differ(check):
    assert survivors(check, SAMPLE) == []


EQUALITY_NEVER_COMES = {
    "5.1": "no byte is as dark as the threshold",
    "14.6": "levels are reached within 1e-9",
    "15.5": "no eigenvector is exactly 0 anywhere",
    "16.4": "one that counts itself and asks for one place more",
}


@every_check
def test_thresholds_are_tried_at_equality(check):
    """Random draws never meet a threshold: a case must, or > passes for >=."""
    search = check._search()
    if search is None or check.kind == "value" or check.name.split()[0] in EQUALITY_NEVER_COMES:
        return
    written, draws = next(search.written()), [draw_of(check, seed) for seed in (0, SECOND)]
    search._settle(written, draws[0], 0)
    for mutant in (m for m in written.mutants if m.kind == "at equality"):
        results = [(search._result(written, (mutant,), d, i), want) for d in draws for i, want in enumerate(d.want)]
        assert not all(equal(got, want, check.close) for got, want in results), mutant.says


@pytest.mark.mutants
@every_check
def test_all_mutants_are_refused_where_they_differ(check):
    """Lists what survives, for better cases."""
    assert survivors(check) == []


def first_channel(value):
    return value[:, :1].expand_as(value) if isinstance(value, torch.Tensor) and value.dim() > 2 else value


@every_check
def test_every_channel_counts(check):
    """Who looks at the first channel alone is refused, also where pictures are only compared with each other."""
    part = (
        [any(first_channel(v) is not v for v in case) for case in check._fresh(0)] if check.kind == "function" else []
    )
    if any(part):
        draws = [
            (check._results(lambda *case: check.reference(*map(first_channel, case)), s)[0], s) for s in (0, SECOND)
        ]
        wanted = ((got, check._kept("reference", check.reference, seed)) for got, seed in draws)
        assert not all(check._alike(got, want, check.close) for got, want in wanted)


ALWAYS_SORTED = {"21.4": "points of an integral, from the lowest to the highest"}


@every_check
def test_rows_come_in_any_order(check):
    """Who relies on labels that come class by class is refused: in some case they don't."""
    cases = [case for case in check._fresh(0) if case]
    for column in zip(*cases, strict=False) if check.name.split()[0] not in ALWAYS_SORTED else ():
        if all(isinstance(v, torch.Tensor) and v.dim() == 1 and v.numel() and v.dtype != torch.bool for v in column):
            assert any(bool((v.diff() < 0).any()) for v in column), column


def test_a_recall_that_lies_on_a_level_reaches_it():
    """Of four true boxes, one or two found are a recall of 0.25 or 0.5, exactly."""

    def beyond(hits, scores, count):
        ranked = hits[scores.argsort(descending=True)].double()
        precision, recall = ranked.cumsum(0) / torch.arange(1, len(ranked) + 1), ranked.cumsum(0) / count
        return sum(precision[recall > i / 100].max().item() for i in range(101) if (recall > i / 100).any()) / 101

    error = failure(CHECKS["lesson14.average_precision_of_a_class"], beyond)
    assert "every case" not in flat(error), "the others are reached by rounding alone"
