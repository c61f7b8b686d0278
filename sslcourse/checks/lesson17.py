"""Checks of the exercises of lesson 17: supervised contrast, self-training, distillation, RankMe, rank correlation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse.checks import cases
from sslcourse.checks.compare import Closeness
from sslcourse.checks.framework import Case, Check, Wrong, value_and_gradients, yourself


def self_training_loss(guess: Tensor, asked: Tensor, threshold: float) -> Tensor:
    """guess and asked logits (U, C) of a weak and a strong view; threshold in [0, 1] -> FixMatch's loss, a scalar."""
    probability, answer = guess.detach().softmax(dim=1).max(dim=1)  # (U,) each
    cost = functional.cross_entropy(asked, answer, reduction="none")  # (U,)
    return (cost * (probability >= threshold)).mean()


def _answers(generator: torch.Generator) -> Iterator[Case]:
    """Answers that are barely sure enough, barely not, and far from it, in every case; scores of both signs."""
    for n, classes, threshold in ((8, 4, 0.8), (6, 3, 0.7), (10, 5, 0.6)):
        top = torch.tensor([threshold + 0.02, threshold - 0.02, threshold**2 + 0.01, threshold**0.5 - 0.01, 0.52, 0.97])
        top = top[torch.arange(n) % 6, None]  # (n, 1)
        rest = 1 + torch.rand(n, classes, generator=generator) / 2
        likeliest = torch.eye(classes)[torch.arange(n) // 2 % classes].bool()
        rest = rest.masked_fill(likeliest, 0)
        share = torch.where(likeliest, top, rest / rest.sum(dim=1, keepdim=True) * (1 - top))
        guess = share.log() + 3 * torch.randn(n, 1, generator=generator)  # unsure ones with large logits, too
        yield guess, guess.roll(1, dims=1) / 2 + torch.randn(n, classes, generator=generator), threshold
    certain = torch.tensor([200.0, 1, 200, 1, 200])[:, None] * torch.eye(3)[[2, 0, 1, 0, 2]]
    yield certain, torch.randn(5, 3, generator=generator), 1.0  # a softmax of exactly the threshold


def _self_training_in_loop(guess, asked, threshold):
    total = 0.0
    for weak, strong in zip(guess.detach().softmax(dim=1), asked, strict=True):
        if weak.max() >= threshold:
            total = total + strong.logsumexp(dim=0) - strong[weak.argmax()]
    return total / len(guess)


def _self_training_by_selecting(guess, asked, threshold):
    share = guess.detach().softmax(dim=1)
    sure = share.max(dim=1).values >= threshold
    return functional.cross_entropy(asked[sure], share[sure].argmax(dim=1), reduction="sum") / len(guess)


sure_answers_alone = Check(
    name="17.1 sure answers alone", reference=self_training_loss, cases=_answers, run=value_and_gradients,
    forbidden=(yourself("sslcourse.transfer"),), rights=(_self_training_in_loop, _self_training_by_selecting),
    wrongs=(
        Wrong("every answer taken", change=("cost * (probability >= threshold)", "cost"),
            hint="""You take every answer for a label. Only those count whose likeliest class has a probability of at
            least the threshold; the others would teach the network its own errors."""),
        Wrong("unsure answers taken", change=("probability >= threshold", "probability < threshold"),
            hint="You keep the answers that are *not* sure. At least the threshold is asked for: >=."),
        Wrong("mean over the sure ones", change=("(cost * (probability >= threshold)).mean()",
            "(cost * (probability >= threshold)).sum() / (probability >= threshold).sum()"),
            hint="""You divide by the number of sure pictures. FixMatch divides by all of them, so that unlabelled
            pictures weigh little as long as few are sure."""),
        Wrong("summed", change=(".mean()", ".sum()"),
            hint="You add up over the pictures; the sum is divided by their number U, sure or not."),
        Wrong("views exchanged", lambda guess, asked, threshold: self_training_loss(asked, guess, threshold),
            """The views are exchanged: you take the strong view's answer for a label. The weak view answers, since it
            is right more often; the strong one is asked."""),
        Wrong("asked on the weak view",
            change=("functional.cross_entropy(asked, answer", "functional.cross_entropy(guess, answer"),
            hint="""You ask the weak view for its own answer, which teaches it little more than to be surer. The strong
            view is asked."""),
        Wrong("the answer gets a gradient", lambda guess, asked, threshold: (
            -(guess.softmax(1).max(1).values * asked.log_softmax(1).gather(1, guess.argmax(1)[:, None])[:, 0])
            * (guess.detach().softmax(1).max(1).values >= threshold)).mean(),
            """The cost is weighted with the probability of the answer, and a gradient runs into it. A label is a label:
            detach the weak view, and take its likeliest class."""),
        Wrong("soft labels", change=("functional.cross_entropy(asked, answer,",
            "functional.cross_entropy(asked, guess.detach().softmax(dim=1),"), hint="""You ask for the whole
            distribution of the weak view. FixMatch takes its likeliest class alone, as a hard label."""),
        Wrong("threshold on logits", change=("guess.detach().softmax(dim=1).max(dim=1)", "guess.detach().max(dim=1)"),
            hint="You compare logits with the threshold, and it is a probability: softmax first."),
    ),
    hints=(
        "Which view answers, and which is asked? When is an answer trusted?",
        """softmax of the weak view, without gradient: its largest probability and its class. Cross-entropy of the
        strong view with that class, without reduction.""",
        """probability, answer = guess.detach().softmax(dim=1).max(dim=1); then the mean of cross_entropy(asked, answer,
        reduction="none") * (probability >= threshold)""",
    ),
)


def contrast_loss(embeddings: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """embeddings (M, d), labels int64 (M,), each at least twice -> supervised contrastive loss, a scalar."""
    z = functional.normalize(embeddings, dim=1)
    itself = torch.eye(len(z), dtype=torch.bool)
    similarity = (z @ z.T / temperature).masked_fill(itself, -torch.inf)  # (M, M)
    log_share = similarity.log_softmax(dim=1).masked_fill(itself, 0)  # (M, M)
    positive = (labels[:, None] == labels) & ~itself  # (M, M)
    return -((log_share * positive).sum(dim=1) / positive.sum(dim=1)).mean()


def _classes(generator: torch.Generator) -> Iterator[Case]:
    """Classes of different sizes, and vectors of different lengths."""
    for labels, temperature in (([0, 1, 0, 0, 1, 2, 2, 0], 0.5), ([2, 0, 2, 0, 2], 0.3), ([1, 1, 0, 0, 0, 0, 0], 0.8)):
        scale = cases.uniform(generator, len(labels), 1, low=0.5, high=3.0)
        yield scale * cases.normal(generator, len(labels), 4), torch.tensor(labels), temperature


def _contrast_in_loop(embeddings, labels, temperature):
    z = [row / row.norm() for row in embeddings]
    total = 0.0
    for i in range(len(z)):
        among = torch.stack([z[i] @ z[a] / temperature for a in range(len(z)) if a != i]).logsumexp(dim=0)
        partners = [p for p in range(len(z)) if p != i and labels[p] == labels[i]]
        total = total + sum(among - z[i] @ z[p] / temperature for p in partners) / len(partners)
    return total / len(z)


def _contrast_by_exponentials(embeddings, labels, temperature):
    z = embeddings / embeddings.norm(dim=1, keepdim=True)
    logits, others = z @ z.T / temperature, 1 - torch.eye(len(z))
    positive = (labels[:, None] == labels).float() * others
    log_share = logits - (logits.exp() * others).sum(dim=1, keepdim=True).log()
    return -((log_share * positive).sum(dim=1) / positive.sum(dim=1)).mean()


whose_class_is_mine = Check(
    name="17.2 whose class is mine?", reference=contrast_loss, cases=_classes, run=value_and_gradients,
    forbidden=(yourself("sslcourse.transfer"),), rights=(_contrast_in_loop, _contrast_by_exponentials),
    wrongs=(
        Wrong("its own partner", change=("(labels[:, None] == labels) & ~itself", "labels[:, None] == labels"),
            hint="You count every view among its own partners. A view's partners are the *others* of its class."),
        Wrong("its own rival",
            change=("(z @ z.T / temperature).masked_fill(itself, -torch.inf)", "(z @ z.T / temperature)"),
            hint="""Each view competes with itself in the softmax, at cosine 1. It must not be among the candidates:
            fill the diagonal with -inf before the softmax."""),
        Wrong("itself among all", change=((".masked_fill(itself, -torch.inf)", ""), (".masked_fill(itself, 0)", ""),
            (" & ~itself", "")), hint="""Each view is among its own candidates and its own partners: leave the diagonal
            out of the softmax, and out of the mean."""),
        Wrong("large classes weigh more", change=("((log_share * positive).sum(dim=1) / positive.sum(dim=1)).mean()",
            "(log_share * positive).sum() / positive.sum()"), hint="""You take the mean over all pairs, so that a large
            class counts for more. First each view's mean over its own partners, then the mean over views."""),
        Wrong("not divided by the partners", change=(" / positive.sum(dim=1)", ""),
            hint="You add up over a view's partners; their mean is asked for: divide by their number."),
        Wrong("logarithm outside",
            change=(("log_softmax", "softmax"), ("sum(dim=1)).mean()", "sum(dim=1)).log().mean()")),
            hint="""You take the logarithm of the partners' mean share. In the paper's loss (L_out) the mean of the
            logarithms is taken: the logarithm first, for each partner."""),
        Wrong("not normalized", change=("functional.normalize(embeddings, dim=1)", "embeddings * 1"),
            hint="The embeddings aren't normalized: give every row length 1 first, so that products are cosines."),
        Wrong("normalized over the batch", change=("dim=1)\n    itself", "dim=0)\n    itself"),
            hint="You normalize the columns, over the batch. Each row is a vector of its own: dim=1."),
        Wrong("multiplied by the temperature", change=("z.T / temperature", "z.T * temperature"),
            hint="You multiply by the temperature; the cosines are divided by it."),
        Wrong("temperature forgotten", change=("z @ z.T / temperature", "z @ z.T"),
            hint="The temperature doesn't take part: divide the cosines by it."),
        Wrong("other classes attract", change=("labels[:, None] == labels", "labels[:, None] != labels"),
            hint="Your partners are the views of *other* classes. Those of the same class attract each other."),
        Wrong("sign", change=("-((log_share", "((log_share"), hint="""The sign is wrong: your loss falls where views
            leave their class. The loss is minus the mean logarithm."""),
    ),
    hints=(
        "For one view: who are its candidates, and which of them are partners?",
        """log_softmax of the cosines over the temperature, the diagonal filled with -inf first; then for each row the
        mean over its partners.""",
        """positive = (labels[:, None] == labels) & ~eye; -((log_share * positive).sum(1) / positive.sum(1)).mean(),
        where log_share is 0 on the diagonal""",
    ),
)


def taught_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """student and teacher logits (U, C), temperature above 0 -> the cost of answering as the teacher does, a scalar."""
    told = (teacher.detach() / temperature).softmax(dim=1)  # (U, C)
    return -(told * (student / temperature).log_softmax(dim=1)).sum(dim=1).mean()


def _lessons(generator: torch.Generator) -> list[Case]:
    shapes = ((6, 4, 2.0), (5, 3, 0.5), (3, 6, 4.0))
    return [(2 * cases.normal(generator, n, c), 3 * cases.normal(generator, n, c), t) for n, c, t in shapes]


def _taught_in_loop(student, teacher, temperature):
    total = 0.0
    for mine, theirs in zip(student / temperature, teacher.detach() / temperature, strict=True):
        total = total + mine.logsumexp(dim=0) - (theirs.softmax(dim=0) * mine).sum()
    return total / len(student)


answer_as_the_teacher = Check(
    name="17.3 answer as the teacher does", reference=taught_loss, cases=_lessons, run=value_and_gradients,
    forbidden=(yourself("sslcourse.transfer", "sslcourse.losses"),),
    rights=(
        _taught_in_loop, lambda student, teacher, temperature: functional.cross_entropy(
        student / temperature, (teacher.detach() / temperature).softmax(dim=1)),
    ),
    wrongs=(
        Wrong("hard labels", lambda student, teacher, temperature: functional.cross_entropy(
            student / temperature, teacher.argmax(dim=1)), """You take the teacher's likeliest class alone. The whole
            distribution is taught: which other classes it thinks possible says much."""),
        Wrong("the teacher gets a gradient", change=("teacher.detach()", "teacher"),
            also=(lambda student, teacher, temperature: functional.cross_entropy(
                student / temperature, (teacher / temperature).softmax(dim=1)),),
            hint="A gradient runs into the teacher, which is fixed: detach its logits."),
        Wrong("temperature for the teacher alone",
            change=("(student / temperature).log_softmax", "student.log_softmax"), hint="""The temperature softens your
            teacher alone; then the student would have to be as soft without it. Both are divided by it."""),
        Wrong("temperature for the student alone", change=("(teacher.detach() / temperature)", "teacher.detach()"),
            hint="The temperature softens your student alone. Both are divided by it."),
        Wrong("temperature forgotten", lambda student, teacher, temperature: taught_loss(student, teacher, 1.0),
            "The temperature doesn't take part: both sides' logits are divided by it before the softmax."),
        Wrong("exchanged", lambda student, teacher, temperature: -(
            (student / temperature).softmax(1) * (teacher.detach() / temperature).log_softmax(1)).sum(1).mean(),
            "The roles are exchanged: the teacher's distribution weighs the *student's* logarithms."),
        Wrong("mean over the classes", change=(".sum(dim=1).mean()", ".mean()"), hint="""You take the mean over classes
            as well. A cross-entropy is a sum over classes; the mean is over pictures."""),
        Wrong("squared temperature", change=("return -", "return -(temperature**2) * "),
            hint="""You multiply by the squared temperature, as Hinton and others do to balance it with another loss.
            Here nothing else is to be balanced, and the plain cross-entropy is asked for."""),
        Wrong("sign", change=("return -", "return "),
            hint="The sign is wrong: a cross-entropy is minus the expected logarithm, and never below 0."),
    ),
    hints=(
        """What does the teacher say of one picture, softened by the temperature? What does it cost to say something
        else?""",
        "Both logits over the temperature; softmax of the teacher's, log_softmax of the student's; sum over classes.",
        """told = (teacher.detach() / temperature).softmax(dim=1); -(told * (student /
        temperature).log_softmax(dim=1)).sum(dim=1).mean()""",
    ),
)


def dimensions_used(features: Tensor) -> float:
    """features (N, d) -> exp of the entropy of the singular values' shares, a float."""
    values = torch.linalg.svdvals(features)  # (min(N, d),)
    share = values / values.sum()
    return torch.exp(-(share * share.log()).sum()).item()


def _clouds(generator: torch.Generator) -> Iterator[Case]:
    """Clouds that don't lie around zero, and that stretch differently in each direction."""
    for n, d in ((12, 4), (6, 9), (20, 5)):
        stretch = torch.linspace(0.3, 2.0, d, dtype=torch.float64)
        yield (cases.normal(generator, n, d).double() * stretch + 0.5,)


def _as_a_product(features):
    values = torch.linalg.svdvals(features)
    share = values / values.sum()
    return (share**-share).prod().item()


how_many_dimensions = Check(
    name="17.4 how many dimensions?", reference=dimensions_used, cases=_clouds, close=Closeness(plain=True),
    forbidden=(yourself("sslcourse.validation"),),
    rights=(
        lambda features: torch.distributions.Categorical(
        torch.linalg.svd(features, full_matrices=False)[1]).entropy().exp().item(),
        _as_a_product,
    ),
    wrongs=(
        Wrong("centred",
            change=("torch.linalg.svdvals(features)", "torch.linalg.svdvals(features - features.mean(dim=0))"),
            also=(lambda features: dimensions_used(features - features.mean(dim=0, keepdim=True)),), hint="""You take
            the mean away first. RankMe doesn't: it is the rank of the features as a classifier gets them."""),
        Wrong("squared values", change=("share = values / values.sum()", "share = values**2 / (values**2).sum()"),
            hint="You use squared singular values, that is, variances. RankMe takes the singular values themselves."),
        Wrong("the entropy itself", change=("torch.exp(-(share * share.log()).sum())", "-(share * share.log()).sum()"),
            hint="You return the entropy. Its exponential is a number of dimensions."),
        Wrong("divided by the largest", change=("values / values.sum()", "values / values.max()"),
            hint="You divide by the largest singular value. Shares sum to 1: divide by the sum."),
        Wrong("sign", change=("-(share * share.log())", "(share * share.log())"), hint="""The sign of the entropy is
            wrong: it is minus the sum, and its exponential lies between 1 and the number of dimensions."""),
        Wrong("logarithm to base 2", change=("share.log()", "share.log2()"),
            hint="Your logarithm has base 2, and exp undoes the natural one."),
        Wrong("rank", lambda features: float(torch.linalg.matrix_rank(features)),
            """You count the dimensions that aren't exactly empty. Nearly empty ones should count for nearly nothing:
            take the entropy of the shares."""),
    ),
    hints=(
        "How long is the cloud in each of its own directions? Those are singular values.",
        "Shares of the singular values, their entropy (natural logarithm), its exponential.",
        "share = values / values.sum(); torch.exp(-(share * share.log()).sum()).item()",
    ),
)


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """first and second (N,), no value twice -> Spearman's correlation, a float in [-1, 1]."""
    a, b = (values.argsort().argsort().double() for values in (first, second))  # (N,) ranks
    a, b = a - a.mean(), b - b.mean()
    return (a @ b / (a.norm() * b.norm())).item()


def _rankings(generator: torch.Generator) -> Iterator[Case]:
    """Pairs that go together loosely, one of them bent, so that values and ranks say different things."""
    for n, together in ((8, 0.7), (12, -0.6), (15, 0.3)):
        first = cases.normal(generator, n).double()
        second = together * first + 0.6 * cases.normal(generator, n).double()
        yield first.exp(), (2 * second).exp()


def _spearman_by_differences(first, second):
    n = len(first)
    place = [[sum(other < one for other in x.tolist()) for one in x.tolist()] for x in (first, second)]
    return 1 - 6 * sum((a - b) ** 2 for a, b in zip(*place, strict=True)) / (n * (n**2 - 1))


do_they_rank_alike = Check(
    name="17.5 do they rank alike?", reference=rank_correlation, cases=_rankings, close=Closeness(plain=True),
    forbidden=(yourself("scipy"),),
    rights=(
        _spearman_by_differences, lambda first, second: torch.corrcoef(torch.stack(
        [first.argsort().argsort(), second.argsort().argsort()]).double())[0, 1].item(),
    ),
    wrongs=(
        Wrong("values instead of ranks",
            lambda first, second: torch.corrcoef(torch.stack([first, second]))[0, 1].item(),
            """You correlate the values: that is Pearson's, which a single far-off value can decide. Replace each value
            by its rank first."""),
        Wrong("sorted once", change=("values.argsort().argsort()", "values.argsort()"), hint="""argsort says which
            element comes at each place, not at which place each element comes. Applied twice, it gives ranks."""),
        Wrong("not centred", change=("a, b = a - a.mean(), b - b.mean()", "a, b = a + 1, b + 1"),
            hint="You didn't take the mean rank away: a cosine of uncentred ranks is high for any two rankings."),
        Wrong("covariance", change=("a @ b / (a.norm() * b.norm())", "a @ b / len(a)"), hint="""That is a covariance.
            Divide by both lengths, so that 1 says the same order and -1 the opposite one."""),
        Wrong("the other way round", lambda first, second: -rank_correlation(first, second),
            "One of the two is ranked from the top and the other from the bottom: the sign is wrong."),
        Wrong("places that agree", lambda first, second: (
            first.argsort().argsort() == second.argsort().argsort()).double().mean().item(),
            "You count places that agree exactly. Ranks that are near each other count as well: correlate them."),
    ),
    hints=(
        "What is left of a value when only its place in the order counts?",
        "ranks = values.argsort().argsort(); then the usual correlation of the two lists of ranks.",
        "a, b = centred ranks; a @ b / (a.norm() * b.norm())",
    ),
)
