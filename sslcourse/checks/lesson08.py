"""Checks of the exercises of lesson 08: cosines, partners, temperature, NT-Xent, false negatives, uniformity."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse.checks.compare import EXACT
from sslcourse.checks.framework import Check, Wrong, value_and_gradients, yourself

THE_COURSE = yourself("sslcourse.losses", "sslcourse.geometry")  # the text above all of them


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """first and second (N, d) -> cosines of all 2N views with each other (2N, 2N), first views before second ones."""
    z = functional.normalize(torch.cat([first, second]), dim=1)
    return z @ z.T


def _two_views(generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    def views(n: int, d: int) -> Tensor:  # of different lengths
        return torch.randn(n, d, generator=generator) * (0.5 + 2 * torch.rand(n, 1, generator=generator))

    return [(views(n, d), views(n, d)) for n, d in [(3, 2), (5, 4), (4, 7)]]


def _cosines_in_loop(first, second):
    z = [*first, *second]
    return torch.stack([torch.stack([(a @ b) / (a.norm() * b.norm()) for b in z]) for a in z])


def _cosines_divided(first, second):
    z = torch.cat([first, second])
    length = z.norm(dim=1)
    return (z @ z.T) / (length[:, None] * length)


def _cosines_by_torch(first, second):
    z = torch.cat([first, second])
    return functional.cosine_similarity(z[:, None], z[None], dim=2)


every_view_against_every_other = Check(
    name="8.1 every view against every other", reference=cosines, cases=_two_views,
    forbidden=(THE_COURSE,),
    rights=(_cosines_in_loop, _cosines_divided, _cosines_by_torch),
    wrongs=(
        Wrong("not normalized",
            change=("functional.normalize(torch.cat([first, second]), dim=1)", "torch.cat([first, second])"),
            hint="""These are scalar products: nothing is normalized, so a long embedding is similar to everything.
            Divide each row by its length first; then each view has a cosine of 1 with itself."""),
        Wrong("normalized along the batch", change=("1", "0"), hint="""You normalize along the batch: each column gets
            length 1, and the embeddings don't. A row is an embedding: dim=1."""),
        Wrong("one side normalized",
            change=(("functional.normalize(torch.cat([first, second]), dim=1)", "torch.cat([first, second])"),
            ("return z", "return functional.normalize(z, dim=1)")),
            also=(("return z @ z.T", "return torch.cat([first, second]) @ z.T"),), hint="""Only one of the two sides is
            normalized, so the result isn't symmetric. Both embeddings of a pair need length 1."""),
        Wrong("divided by the whole length", change=("functional.normalize(torch.cat([first, second]), dim=1)",
            "torch.cat([first, second]); z = z / z.norm()"), hint="""You divide by the length of the whole matrix, one
            number for all. Each embedding has a length of its own: norm(dim=1, keepdim=True)."""),
        Wrong("length by sums", change=(", dim", ", p=1, dim"), hint="""You divide by the sum of the absolute values.
            The length of a vector is the root of its sum of squares (p=2)."""),
        Wrong("divided by the squared length", change=("functional.normalize(torch.cat([first, second]), dim=1)",
            "torch.cat([first, second]); z = z / z.square().sum(dim=1, keepdim=True)"),
            hint="You divide by the squared length: the root is missing. Check: the diagonal has to be 1."),
        Wrong("first against second alone",
            lambda first, second: functional.normalize(first, dim=1) @ functional.normalize(second, dim=1).T,
            """You compare first views with second views alone, (N, N). Two first views of different pictures are
            negatives as well: put all 2N below each other, and compare them all."""),
        Wrong("distances", change=("z @ z.T", "torch.cdist(z, z)"), hint="""These are distances: 0 for a view with
            itself. A cosine is a scalar product of normalized embeddings: 1 with itself."""),
        Wrong("views interleaved", change=("cat([first, second])", "stack([first, second], dim=1).flatten(0, 1)"),
            hint="""You lay the two views of a picture next to each other. Here all first views come before all second
            ones: torch.cat, so that view i has its partner at i + N."""),
        Wrong("second views first", lambda first, second: cosines(second, first), """The cosines are right, in another
            order: the second views stand before the first. torch.cat([first, second])."""),
    ),
    hints=(
        "The cosine of two vectors is their scalar product, divided by both lengths. What if all vectors had length 1?",
        """Put both views below each other, z = torch.cat([first, second]); divide each row by its length; then one
        matrix product of z with its transpose.""",
        "z = torch.nn.functional.normalize(torch.cat([first, second]), dim=1); return z @ z.T",
    ),
)


def partners(n: int) -> Tensor:
    """Of 2n views, first ones before second ones: where is the other view of the same picture? int64 (2n,)."""
    return torch.arange(2 * n).roll(n)


where_is_the_partner = Check(
    name="8.2 where is the partner?", reference=partners, cases=lambda g: [(3,), (4,), (7,)], close=EXACT,
    forbidden=(THE_COURSE,),
    rights=(
        lambda n: (torch.arange(2 * n) + n) % (2 * n), lambda n: torch.cat([torch.arange(n) + n, torch.arange(n)]),
        lambda n: torch.tensor([i + n if i < n else i - n for i in range(2 * n)]),
    ),
    wrongs=(
        Wrong("itself", change=(".roll(n)", ""), hint="""Every view is its own partner. That question answers itself: a
            view always has a cosine of 1 with itself. The partner of view i is view i + n."""),
        Wrong("neighbours", change=(".roll(n)", "^ 1"), hint="""You pair 0 with 1, 2 with 3: right for views that lie
            interleaved. Here all first views come before all second ones, so 0 belongs to n, 1 to n + 1."""),
        Wrong("first views alone", lambda n: torch.arange(n) + n,
            "You answer for the first n views alone. The second views ask as well: there are 2n questions."),
        Wrong("always the second view", lambda n: (torch.arange(n) + n).repeat(2),
            "For the second views you give themselves: view n + i has its partner at i, among the first ones."),
        Wrong("always the first view", lambda n: torch.arange(n).repeat(2),
            "For the first views you give themselves: view i has its partner at n + i, among the second ones."),
        Wrong("reversed", change=("roll(n)", "flip(0)"), hint="""You turn the whole list around, so that view 0 gets the
            very last one. Swap the two halves, and keep the order in each."""),
        Wrong("beyond the end", change=(".roll(n)", "+ n"), hint="""Places run from 0 to 2n - 1, and your second half
            goes beyond that. Past the end it begins again: modulo 2n."""),
        Wrong("always zero", lambda n: torch.zeros(2 * n, dtype=torch.int64),
            """Always 0: that fits where the positive was put in front of the negatives, as MoCo does. Here the
            candidates of a view are all views in their own order."""),
        Wrong("diagonal taken out", change=("return torch.arange(2 * n).roll(n)",
            "place = torch.arange(2 * n).roll(n); return place - (place > torch.arange(2 * n)).long()"),
            hint="""Your places count without the view itself, as if the diagonal had been cut out. Here it stays in the
            matrix (and is set to minus infinity), so places are those of all 2n views."""),
    ),
    hints=(
        "Write down the views for n = 3: a0 b0 c0 a1 b1 c1, numbered from 0. Which number does each one look for?",
        """The first half looks for its own place plus n, the second half for its own place minus n. Together: plus n,
        modulo 2n.""",
        "return (torch.arange(2 * n) + n) % (2 * n)",
    ),
)


def push(similarity: Tensor, temperature: float) -> Tensor:
    """Cosines with the negatives (M, K) -> which share of the push each negative gets, (M, K), rows summing to 1."""
    return (similarity / temperature).softmax(dim=1)


def _negatives(generator: torch.Generator) -> list[tuple[Tensor, float]]:
    sizes = [(3, 5, 0.5), (4, 3, 0.1), (2, 6, 2.0)]
    return [(2 * torch.rand(m, k, generator=generator) - 1, t) for m, k, t in sizes]


def _push_by_exp(similarity, temperature):
    weight = torch.exp(similarity / temperature)
    return weight / weight.sum(dim=1, keepdim=True)


def _push_in_loop(similarity, temperature):
    rows = []
    for row in similarity.tolist():
        weight = [math.exp(s / temperature) for s in row]
        rows.append([w / sum(weight) for w in weight])
    return torch.tensor(rows)


who_is_pushed_away = Check(
    name="8.3 who is pushed away", reference=push, cases=_negatives, rights=(_push_by_exp, _push_in_loop),
    forbidden=(THE_COURSE,),
    wrongs=(
        Wrong("temperature multiplied", change=("/", "*"),
            hint="""You multiply by the temperature, and so turn it around: your low temperature makes all negatives
            alike. Divide: the lower the temperature, the more the nearest one counts."""),
        Wrong("temperature forgotten", change=("/ temperature", ""),
            hint="The temperature doesn't take part. Divide the cosines by it before the exponential."),
        Wrong("divided too late", lambda similarity, temperature: similarity.softmax(dim=1) / temperature,
            """You divide the shares by the temperature: they no longer add up to 1. It divides the cosines, inside the
            exponential."""),
        Wrong("shares multiplied by 1 / T", lambda similarity, temperature: push(similarity, temperature) / temperature,
            """These are the shares times 1 / T: the gradient has that factor, the shares don't. Each row has to add up
            to 1."""),
        Wrong("along the views", change=("=1", "=0"), hint="""Your columns add up to 1. A row holds the negatives of one
            view, and they share its push: softmax along dim=1."""),
        Wrong("over all views at once", change=("softmax(dim=1)", "flatten().softmax(dim=0).view_as(similarity)"),
            hint="""All your shares together add up to 1. Each view has a push of its own to distribute: every row adds
            up to 1."""),
        Wrong("not normalized", lambda similarity, temperature: torch.exp(similarity / temperature),
            "These are the exponentials: divide them by the sum of their row to get shares."),
        Wrong("logarithms", change=("softmax", "log_softmax"), hint="""These are logarithms of the shares (log_softmax);
            the shares themselves are positive and add up to 1."""),
        Wrong("the farthest most", change=("similarity /", "-similarity /"), hint="""Your sign is reversed: the negative
            that is farthest away gets the most. The loss pushes where it hurts, at the nearest."""),
        Wrong("shares of the cosines", lambda similarity, temperature: similarity / similarity.sum(dim=1, keepdim=True),
            """You divide the cosines by their sum. Cosines can be negative, and shares can't: take the exponential
            first."""),
        Wrong("the nearest takes all", change=("(similarity / temperature).softmax(dim=1)",
            "functional.one_hot(similarity.argmax(dim=1), similarity.shape[1]).float()"), hint="""You give everything to
            the nearest negative: that is the limit of temperature 0. Others count too: softmax."""),
    ),
    hints=(
        "The loss of a view holds log(sum of exp(s / T)). What is the derivative of a log-sum-exp?",
        "A softmax, of s / T: exponentials of the cosines divided by the temperature, divided by the sum of their row.",
        "return (similarity / temperature).softmax(dim=1)",
    ),
)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """first and second, embeddings (N, d) of two views of the same pictures -> SimCLR's loss, a scalar."""
    scores = cosines(first, second) / temperature  # (2N, 2N)
    scores = scores.masked_fill(torch.eye(len(scores), dtype=torch.bool), -math.inf)
    return functional.cross_entropy(scores, partners(len(first)))


def _batches(generator: torch.Generator) -> list[tuple[Tensor, Tensor, float]]:
    cases = []
    for n, d, t in [(3, 4, 0.5), (5, 3, 0.2), (4, 6, 1.3)]:
        first = torch.randn(n, d, generator=generator)
        second = first + 0.7 * torch.randn(n, d, generator=generator)
        cases.append((first * 2.0, second * (0.5 + torch.rand(n, 1, generator=generator)), t))
    return cases


def _logits(first, second, temperature):
    return cosines(first, second) / temperature


def _no_self(logits, value=-math.inf):
    return logits.masked_fill(torch.eye(len(logits), dtype=torch.bool), value)


def _nt_in_loop(first, second, temperature):
    z = [v / v.norm() for v in (*first, *second)]
    total, n = 0.0, len(first)
    for i in range(2 * n):
        scores = [z[i] @ z[j] / temperature for j in range(2 * n) if j != i]
        own = z[i] @ z[(i + n) % (2 * n)] / temperature
        total = total - own + torch.stack(scores).logsumexp(dim=0)
    return total / (2 * n)


def _nt_by_parts(first, second, temperature):
    logits = _logits(first, second, temperature)
    n = len(first)
    weight = logits.exp() * (1 - torch.eye(2 * n))
    own = logits[torch.arange(2 * n), partners(n)]
    return (weight.sum(dim=1).log() - own).mean()


contrastive_loss = Check(
    name="8.4 NT-Xent", reference=nt_xent, cases=_batches, run=value_and_gradients,
    forbidden=(THE_COURSE,),
    rights=(_nt_in_loop, _nt_by_parts),
    wrongs=(
        Wrong("self-similarity left in",
            change=(".masked_fill(torch.eye(len(scores), dtype=torch.bool), -math.inf)", ""),
            hint="""Each view is among its own candidates: its cosine with itself is 1, and no partner can beat that.
            Set the diagonal to minus infinity before the cross-entropy."""),
        Wrong("self-similarity set to zero", change=("-math.inf", "0.0"), hint="""You set the diagonal to 0, and exp(0)
            = 1 still stands in the sum: a cosine of 0, not an absent candidate. Minus infinity takes it out."""),
        Wrong("not normalized",
            change=("functional.normalize(torch.cat([first, second]), dim=1)", "torch.cat([first, second])"),
            hint="""The embeddings aren't normalized: the loss falls when they grow longer, and nothing has been
            learned. Give each row length 1 first."""),
        Wrong("neighbours as partners", change=("torch.arange(2 * n).roll(n)", "torch.arange(2 * n) ^ 1"),
            hint="""Your positive stands at the wrong place: you pair views 0 and 1, 2 and 3. With all first views
            before all second ones, view i has its partner at i + N, modulo 2N."""),
        Wrong("temperature multiplied", change=("/ temperature", "* temperature"),
            hint="You multiply by the temperature; it divides. (Exactly at T = 1 you wouldn't see the difference.)"),
        Wrong("temperature forgotten", change=("/ temperature", ""),
            hint="The temperature doesn't take part: divide the cosines by it."),
        Wrong("one direction",
            change=("(scores, partners(len(first)))", "(scores[: len(first)], partners(len(first))[: len(first)])"),
            hint="""You let the first views ask and the second ones not. All 2N views ask for their partner: the mean is
            over 2N rows."""),
        Wrong("negatives of the other view alone", change=("functional.cross_entropy(scores, partners(len(first)))",
            "functional.cross_entropy(scores[: len(first), len(first) :], torch.arange(len(first)))"),
            also=(("return functional.cross_entropy(scores, partners(len(first)))",
            "own = torch.arange(len(first)); scores = scores[: len(first), len(first) :]; "
            "return (functional.cross_entropy(scores, own) + functional.cross_entropy(scores.T, own)) / 2"),),
            hint="""Your candidates are the second views alone, N of them. In NT-Xent the other first views are
            negatives as well: 2N - 1 candidates for each view."""),
        Wrong("positive missing below", change=("functional.cross_entropy(scores, partners(len(first)))",
            "(scores.masked_fill(torch.eye(len(scores)).bool()[partners(len(first))], -math.inf).logsumexp(1)"
            " - scores[torch.arange(len(scores)), partners(len(first))]).mean()"), hint="""The positive stands above the
            fraction's line and not below it. The sum runs over all 2N - 1 candidates, the partner included: without it,
            this isn't a probability (Yeh et al., 2021, 2110.06848, leave it out on purpose)."""),
        Wrong("log of the mean", change=("functional.cross_entropy(scores, partners(len(first)))",
            "-scores.softmax(dim=1)[torch.arange(len(scores)), partners(len(first))].mean().log()"),
            hint="""You take the mean of the probabilities, then the logarithm. The loss is the mean of the logarithms:
            a single view that is wrong and sure of it has to hurt."""),
        Wrong("no logarithm", change=("functional.cross_entropy(scores, partners(len(first)))",
            "1 - scores.softmax(dim=1)[torch.arange(len(scores)), partners(len(first))].mean()"), hint="""This is one
            minus the mean probability of the partner. The loss is the mean of -log of that probability."""),
        Wrong("softmax twice", change=("cross_entropy(scores,", "cross_entropy(scores.softmax(dim=1),"),
            hint="""You give probabilities to the cross-entropy, which takes the softmax itself: give it the cosines
            divided by T."""),
        Wrong("exponential before the cross-entropy", change=("cross_entropy(scores,", "cross_entropy(scores.exp(),"),
            also=(lambda a, b, t: functional.cross_entropy(_no_self(_logits(a, b, t).exp()), partners(len(a))),),
            hint="""You take the exponential first, and the cross-entropy takes it again: give it the cosines divided by
            T."""),
        Wrong("itself as the answer", change=("partners(len(first))", "torch.arange(len(scores))"),
            hint="""You name each view as its own answer, which the diagonal's minus infinity has taken out, and so the
            loss is infinite. The answer is the partner: (i + N) modulo 2N."""),
        Wrong("one-hot answers", change=("partners(len(first)))", "functional.one_hot(partners(len(first))).float())"),
            hint="""A table of zeros and ones for answers multiplies the diagonal's minus infinity by 0, which is NaN.
            Give the cross-entropy the partners' places, int64 (2N,)."""),
        Wrong("every row at every partner",
            change=("functional.cross_entropy(scores, partners(len(first)))",
            "-scores.softmax(dim=1)[:, partners(len(first))].log().mean()"),
            also=(("functional.cross_entropy(scores, partners(len(first)))",
            "-scores.log_softmax(dim=1)[:, partners(len(first))].mean()"),
            lambda a, b, t: -_no_self(_logits(a, b, t)).softmax(dim=1)[:, partners(len(a))].log().mean()),
            hint="""An index [:, partner] reaches every row at every view's partner, the diagonal as well: pair row i
            with partner[i], by [torch.arange(2 * N), partner]."""),
        Wrong("distances", lambda a, b, t: functional.cross_entropy(
            _no_self(torch.cdist(z := functional.normalize(torch.cat([a, b]), dim=1), z) / t), partners(len(a))),
            """Your scores are distances, largest for the views that are least alike: the score is the cosine."""),
        Wrong("sum", change=("partners(len(first))", "partners(len(first)), reduction='sum'"),
            hint="You add up over the 2N views; the loss is their mean, so that it doesn't grow with the batch."),
        Wrong("twice", change=("return functional", "return 2 * functional"), hint="""Your loss is twice the right one:
            the sum over 2N views is divided by N, or the two directions are added. Divide by 2N."""),
        Wrong("sign", change=("return functional", "return -functional"), hint="""The sign is reversed: minimized, it
            would drive partners apart. The loss is minus the log-probability."""),
        Wrong("chance taken off",
            change=("partners(len(first)))", "partners(len(first))) - math.log(2 * len(first) - 1)"),
            hint="Your loss is log(2N - 1) too low: the sum below the line was a mean. Sum over the candidates."),
        Wrong("gradient cut off", change=("cosines(first, second)", "cosines(first, second.detach())"),
            also=(("cosines(first, second)", "cosines(first.detach(), second)"),),
            hint="""The value is right, and no gradient reaches one of the two views. In SimCLR both are trained: no
            detach. (MoCo, in the next lesson, does detach its keys.)"""),
    ),
    hints=(
        """It is a classification with 2N questions and 2N - 1 answers each. You need a table of scores, and for each
        row the place of the right answer.""",
        """Scores: cosines of all views with each other, divided by the temperature, the diagonal set to minus infinity.
        Right answers: (i + N) modulo 2N. Then torch.nn.functional.cross_entropy.""",
        """z = normalize(torch.cat([first, second]), dim=1); s = z @ z.T / temperature; s = s.masked_fill(torch.eye(2 *
        n, dtype=torch.bool), -float('inf')); return cross_entropy(s, torch.arange(2 * n).roll(n))""",
    ),
)


def false_negatives(labels: Tensor) -> float:
    """Classes of N pictures, int64 (N,) -> the share of same-class negatives, of all pairs (view, negative)."""
    same = labels[:, None] == labels
    n = len(labels)
    return (same.sum().item() - n) / (n * (n - 1))


def _false_by_views(labels):
    both = labels.repeat(2)
    n = len(labels)
    found = total = 0
    for i in range(2 * n):
        for j in range(2 * n):
            if j % n != i % n:  # neither itself nor its partner
                total += 1
                found += int(both[i] == both[j])
    return found / total


def _false_by_counts(labels):
    count = torch.bincount(labels).double()
    n = len(labels)
    return ((count * (count - 1)).sum() / (n * (n - 1))).item()


false_negatives_counted = Check(
    name="8.5 false negatives", reference=false_negatives,
    forbidden=(THE_COURSE,),
    cases=lambda g: [(torch.randint(c, (n,), generator=g),) for n, c in [(6, 2), (9, 3), (20, 4)]],
    rights=(_false_by_views, _false_by_counts, lambda labels: torch.tensor(false_negatives(labels))),
    wrongs=(
        Wrong("partner and itself counted", lambda labels: (labels[:, None] == labels).float().mean().item(),
            """You count a view and its partner among its negatives. Of 2N views, those two are none: 2(N - 1) negatives
            are left."""),
        Wrong("partner counted", change=("same = labels", "labels = labels.repeat(2); same = labels"),
            hint="""You count the partner as a false negative: it has the same class, and it is the positive. Of 2N
            views, leave out the view itself and its partner."""),
        Wrong("partner above alone", change=(("same = labels[:, None] == labels", "both = labels.repeat(2)"),
            ("(same.sum().item() - n) / (n * (n - 1))",
            "((both[:, None] == both).sum().item() - 2 * n) / (2 * n * 2 * (n - 1))")),
            hint="""Below the line the partner is left out, above it is still counted. Take it off both numbers: in
            either view of the same picture there is no negative."""),
        Wrong("one over the classes", lambda labels: 1 / len(labels.unique()),
            """1 / C is what you'd expect of many pictures with equally frequent classes. Count in this batch: its
            classes are uneven, and no picture is its own negative."""),
        Wrong("false against true", change=("(n * (n - 1))", "(~same).sum().item()"), hint="""You divide the false
            negatives by the true ones. The share is of all negatives: false plus true below the line."""),
        Wrong("how many for each view", lambda labels: 2 * (len(labels) - 1) * false_negatives(labels),
            "This is how many false negatives a view has on average. Divide by the number of its negatives, 2(N - 1)."),
        Wrong("how many in all", change=(" / (n * (n - 1))", " * 4.0"), also=(("(n * (n - 1))", "1"),),
            hint="This is the number of false negatives in the batch. Divide by the number of all negatives."),
        Wrong("half", lambda labels: false_negatives(labels) / 2, """Half of the right value: you count each pair once
            above the line and twice below it. Count both the same way."""),
        Wrong("the true ones", lambda labels: 1 - false_negatives(labels), """This is the share of negatives of
            *another* class. A false negative has the same class, and is pushed away all the same."""),
        Wrong("each class the same weight", change=("(same.sum().item() - n) / (n * (n - 1))",
            "(1 - 1 / same.sum(dim=1)).sum().item() / (n - 1) / len(labels.unique())"),
            hint="""You average over classes, so that a rare class counts as much as a frequent one. Average over views:
            a frequent class asks more often."""),
    ),
    hints=(
        "Take one view. Which of the 2N views are its negatives, and which of those show a thing of its class?",
        """Both views of a picture have its class, so counting pictures gives the same share: of the N - 1 other
        pictures, how many have the same class? Average over pictures.""",
        "same = labels[:, None] == labels; return (same.sum().item() - n) / (n * (n - 1))",
    ),
)


def uniformity(features: Tensor) -> Tensor:
    """features (N, d) -> log of the mean, over pairs of different rows, of exp(-2 * squared distance on the sphere)."""
    z = functional.normalize(features, dim=1)
    distance = torch.pdist(z)  # of each pair once
    return (-2 * distance.square()).exp().mean().log()


def _directions(features):
    return functional.normalize(features, dim=1)


def _off(table):
    return table[~torch.eye(len(table), dtype=torch.bool)]


def _uniform_in_loop(features):
    z = _directions(features)
    terms = [torch.exp(-2 * (z[i] - z[j]).square().sum()) for i in range(len(z)) for j in range(i)]
    return torch.stack(terms).mean().log()


def _uniform_by_cosines(features):
    z = _directions(features)
    return _off((-2 * (2 - 2 * z @ z.T)).exp()).mean().log()


def _uniform_by_logsumexp(features):
    distance = torch.pdist(_directions(features))
    return (-2 * distance.square()).logsumexp(dim=0) - math.log(len(distance))


how_evenly_spread = Check(
    name="8.6 uniformity", reference=uniformity,
    forbidden=(THE_COURSE,),
    cases=lambda g: [(torch.randn(n, d, generator=g) * 3 + shift,)
            for n, d, shift in [(4, 3, 0), (7, 5, 2), (6, 2, 1)]],
    rights=(
        _uniform_in_loop, _uniform_by_cosines, _uniform_by_logsumexp,
        lambda features: torch.tensor(uniformity(features).item()),
    ),
    wrongs=(
        Wrong("mean of the log", change=(".exp().mean().log()", ".mean()"),
            hint="""You take the mean of the logarithms: exponential and logarithm cancel, and the mean squared distance
            is left. The logarithm comes last, of the mean: then pairs that are near count most."""),
        Wrong("pairs with itself", change=("torch.pdist(z)", "torch.cdist(z, z)"), hint="""The diagonal takes part: each
            row with itself, at distance 0, adds exp(0) = 1. Only pairs of different rows count."""),
        Wrong("not normalized", change=("functional.normalize(features, dim=1)", "features"), hint="""The rows aren't
            normalized: their lengths count, and the measure is of directions. Put them on the unit sphere first."""),
        Wrong("normalized along the batch", change=("dim=1", "dim=0"),
            hint="You normalize the columns. A row is a feature vector: dim=1."),
        Wrong("distance not squared", change=(".square()", ""),
            hint="The distance isn't squared. In the exponent stands -2 times the squared distance, as in a Gaussian."),
        Wrong("factor 2 missing", change=("-2 *", "-"),
            hint="Your exponent is half of -2 times the squared distance. (That of two directions is 2 - 2 cos.)"),
        Wrong("no logarithm", change=(".log()", ""),
            hint="The logarithm at the end is missing: the measure is at most 0, and yours is positive."),
        Wrong("sign in the exponent", change=("-2", "2"), hint="""The sign in the exponent is missing: there, pairs far
            apart count most. exp(-2 d^2) is largest for pairs that are near."""),
        Wrong("negated", change=("return ", "return -"), hint="""The sign of the result is reversed: 0 when all are the
            same, and lower the more evenly they are spread."""),
        Wrong("sum", change=(".mean()", ".sum()"), also=((("torch.pdist(z)", "_off(torch.cdist(z, z))"),
            (".mean()", ".sum()")),),
            hint="You sum over pairs where the mean belongs: the result would grow with the number of rows."),
        Wrong("zeros in the mean", change=(("torch.pdist(z)", "torch.cdist(z, z)"),
            (".exp()", ".exp().triu(diagonal=1)")), also=((("torch.pdist(z)", "torch.cdist(z, z)"),
            (".exp()", ".exp().fill_diagonal_(0)")),), hint="""What you set to 0, the diagonal or half of the table,
            still counts in the mean. Take it over the pairs alone: torch.pdist gives each of them once."""),
    ),
    hints=(
        "Three steps from the inside: directions, squared distances of all pairs, then one number from them.",
        """torch.pdist(z) gives the distance of each pair of different rows once. Square, times -2, exp, then the mean,
        and the logarithm last.""",
        "z = torch.nn.functional.normalize(features, dim=1); return (-2 * torch.pdist(z).square()).exp().mean().log()",
    ),
)
