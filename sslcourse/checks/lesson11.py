"""Checks of the exercises of lesson 11: the teacher's answer, distillation, multi-crop, centre, attention."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse.checks.framework import Answer, Case, Check, Wrong, yourself


def say(logits: Tensor, center: Tensor, temperature: float) -> Tensor:
    """The teacher's logits (N, K), center (1, K) -> distributions (N, K), centred and sharpened; rows sum to 1."""
    return ((logits - center) / temperature).softmax(dim=1)


def _teachers(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, float]]:
    for n, k, temperature in [(3, 4, 0.5), (5, 2, 0.2), (2, 6, 0.8)]:
        yield torch.randn(n, k, generator=generator), torch.randn(1, k, generator=generator) + 0.3, temperature


def _say_by_exp(logits, center, temperature):
    weight = torch.exp((logits - center) / temperature)
    return weight / weight.sum(dim=1, keepdim=True)


def _say_in_loop(logits, center, temperature):
    rows = []
    for row in logits.tolist():
        weight = [math.exp((a - c) / temperature) for a, c in zip(row, center[0].tolist(), strict=True)]
        rows.append([w / sum(weight) for w in weight])
    return torch.tensor(rows)


def _say_by_log(logits, center, temperature):
    scaled = (logits - center) / temperature
    return (scaled - scaled.logsumexp(dim=1, keepdim=True)).exp()


what_the_teacher_says = Check(
    name="11.1 what the teacher says", reference=say, cases=_teachers, rights=(_say_by_exp, _say_in_loop, _say_by_log),
    wrongs=(
        Wrong("softmax over the wrong axis", change=("=1", "=0"),
            also=(("softmax(dim=1)", "flatten().softmax(dim=0).view_as(logits)"),),
            hint="""Your columns sum to 1, and the rows should: each picture gets a distribution over the K answers.
            Take the softmax along dim=1; along dim=0 the pictures of the batch compete with each other."""),
        Wrong("centre forgotten", change=("- center", ""), also=(("- center", "- logits.mean(dim=1, keepdim=True)"),),
            hint="""The centre has no effect on your result: nothing keeps the teacher from giving one answer always.
            Subtract it from the logits, column by column. (The mean of a *row* is something else: a softmax doesn't
            notice it.)"""),
        Wrong("neither centred nor sharpened", change=("(logits - center) / temperature", "logits"),
            hint="""Neither the centre nor the temperature has an effect on your result: it is a plain softmax. Two
            steps come before it: subtract the centre, then divide by the temperature."""),
        Wrong("centre added", change=("logits -", "logits +"), hint="""You add the centre, and it is to be taken off:
            what the teacher says to every picture should count for less, and with the sum it counts double."""),
        Wrong("the batch's own mean", change=("- center", "- logits.mean(dim=0, keepdim=True)"),
            hint="""You take off the mean of this batch. The centre is handed in: an average over many batches, which a
            small batch can't move much."""),
        Wrong("centre after the temperature",
            change=("(logits - center) / temperature", "logits / temperature - center"),
            hint="""You divide first and then subtract the centre. It is an average of logits, so it is on the logits'
            scale: subtract first, divide the difference."""),
        Wrong("centre taken off the probabilities",
            lambda logits, center, temperature: (logits / temperature).softmax(dim=1) - center,
            """You subtract the centre from probabilities, and what comes out is no distribution. It belongs to the
            logits: subtract before the softmax."""),
        Wrong("temperature multiplied", change=("/", "*"),
            hint="You multiply by the temperature, so a low one flattens. Divide: a low temperature must sharpen."),
        Wrong("temperature forgotten", change=("(logits - center) / temperature", "logits - center"),
            hint="Centred, and not sharpened: divide by the temperature before the softmax."),
        Wrong("logarithms", change=("softmax", "log_softmax"), hint="""Those are logarithms of probabilities. The
            teacher's side needs the probabilities: softmax, not log_softmax."""),
    ),
    hints=(
        """Three things happen to the logits, in this order: something is subtracted, something divides, and a function
        makes a distribution of each row.""",
        """The centre (1, K) is subtracted from every row; then the temperature divides; then a softmax along the
        answers, dim=1.""",
        "((logits - center) / temperature).softmax(dim=1)",
    ),
)


def distil(student: Tensor, teacher: Tensor, center: Tensor, temperature: float, teacher_temperature: float) -> Tensor:
    """Logits student and teacher (N, K), center (1, K) -> their cross-entropy, without a teacher's gradient."""
    p = ((teacher - center) / teacher_temperature).softmax(dim=1).detach()  # (N, K)
    log_q = (student / temperature).log_softmax(dim=1)
    return -(p * log_q).sum(dim=1).mean()


def _couples(generator: torch.Generator) -> list[tuple[Tensor, Tensor, Tensor, float, float]]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    sizes = [(3, 4, 0.5, 0.3), (5, 2, 0.9, 0.4), (2, 6, 0.7, 0.2)]
    return [(draw(n, k), draw(n, k), draw(1, k) + 0.3, high, low) for n, k, high, low in sizes]


def _distil_with_gradients(answer: Answer, case: Case) -> dict[str, Any]:
    """The value and the gradients for student and teacher alone: a centre is a buffer."""
    student, teacher = (x.detach().requires_grad_() for x in case[:2])
    with torch.enable_grad():
        value = answer(student, teacher, *case[2:])
        connected = isinstance(value, Tensor) and value.requires_grad
        grads = torch.autograd.grad(value.sum(), (student, teacher), allow_unused=True) if connected else (None, None)
    return {"value": value, "gradient of the student's logits": grads[0], "gradient of the teacher's logits": grads[1]}


def _distil_in_loop(student, teacher, center, temperature, teacher_temperature):
    total = 0.0
    for s, t in zip(student, teacher.detach(), strict=True):
        p = ((t - center[0]) / teacher_temperature).softmax(dim=0)
        log_q = s / temperature - (s / temperature).logsumexp(dim=0)
        total = total - (p * log_q).sum()
    return total / len(student)


def _distil_no_grad(student, teacher, center, temperature, teacher_temperature):
    with torch.no_grad():
        p = functional.softmax((teacher - center) / teacher_temperature, dim=1)
    return -(p * functional.log_softmax(student / temperature, dim=1)).sum(1).mean(0)


def _distil_by_torch(student, teacher, center, temperature, teacher_temperature):
    return functional.cross_entropy(student / temperature, say(teacher, center, teacher_temperature).detach())


distil_one_pair = Check(
    name="11.2 distil one view into another", reference=distil, cases=_couples, run=_distil_with_gradients,
    forbidden=(yourself("sslcourse.losses"),), rights=(_distil_in_loop, _distil_no_grad, _distil_by_torch),
    wrongs=(
        Wrong("teacher's gradient not stopped", change=(".detach()", ""),
            hint="""The value is right, and a gradient flows into the teacher: it would learn to say what the student
            says, and both meet where it is easiest. The teacher's answer is data: .detach() it."""),
        Wrong("gradient stopped on the wrong side", change=((".detach()", ""), ("(student /", "(student.detach() /")),
            hint="You stop the student's gradient and let the teacher learn. It is the other way round."),
        Wrong("gradient stopped on both sides", change=("(student /", "(student.detach() /"),
            hint="""The value is right, and no gradient reaches the student, so that it would learn nothing:
            torch.no_grad() or .detach() holds its side, too. Only the teacher's answer is data."""),
        Wrong("neither centred nor sharpened", change=(("(teacher - center) / teacher_temperature", "teacher"),
            ("(student / temperature)", "student")), also=((("(teacher - center) / teacher_temperature", "teacher"),
            (".detach()", ""), ("(student / temperature)", "student")),), hint="""Neither the centre nor a temperature
            has an effect on your result. Take the centre off the teacher's logits, and divide each side by its own
            temperature before its softmax."""),
        Wrong("centre taken off the student", change=(("(teacher - center)", "teacher"),
            ("(student /", "((student - center) /")), also=(("(student /", "((student - center) /"),),
            hint="""You subtract the centre from the student's logits, and the teacher keeps its favourite answer.
            Centring is for the teacher: its favourite must not become the student's aim."""),
        Wrong("centre forgotten", change=("(teacher - center)", "teacher"), hint="""The centre has no effect on your
            result. Subtract it from the teacher's logits, before its temperature divides."""),
        Wrong("temperatures exchanged",
            lambda student, teacher, center, high, low: distil(student, teacher, center, low, high),
            """The two temperatures are exchanged: the teacher's is the lower one, teacher_temperature. Now your student
            is sharper than its teacher, and is pulled towards saying less."""),
        Wrong("one temperature for both", change=("/ teacher_temperature", "/ temperature"),
            also=(("/ temperature", "/ teacher_temperature"),), hint="""You use one temperature for both sides. The
            teacher has its own, teacher_temperature, which is lower: that is the sharpening."""),
        Wrong("roles exchanged", change=(("p * log_q", "p.log() * log_q.exp()"),), hint="""You weight the teacher's
            logarithms by the student's probabilities. In cross-entropy the *teacher's* probabilities weight the
            logarithms of the *student's*: the one who is to learn stands in the logarithm."""),
        Wrong("logarithm forgotten", change=("log_softmax", "softmax"), hint="""You multiply probabilities by
            probabilities. The student's side is its log-probabilities: log_softmax."""),
        Wrong("divergence instead of cross-entropy", change=("p * log_q", "p * (log_q - p.log())"),
            hint="""Your gradient is right and your value is too low by the teacher's own entropy: that is the
            Kullback-Leibler divergence. Cross-entropy leaves it in: -(p * log q), with no p log p."""),
        Wrong("softmax over the wrong axis", change=("dim=1", "dim=0"), also=(("softmax(dim=1)", "softmax(dim=0)"),),
            hint="""Your softmax runs along the batch (dim=0), so that pictures compete. Each picture has a distribution
            over K answers: dim=1."""),
        Wrong("sum over pictures", change=(".mean()", ".sum()"),
            hint="Your loss grows with the batch: sum over the K answers, then take the mean over pictures."),
        Wrong("mean over everything", change=(".sum(dim=1).mean()", ".mean()"), hint="""You take the mean over answers,
            too, which divides the loss by K. Sum over the K answers (dim=1), then the mean over pictures."""),
        Wrong("sign", change=("-(p", "(p"),
            hint="Your value is negative. Logarithms of probabilities are below 0: put a minus in front."),
    ),
    hints=(
        """Two distributions for each picture: one says what should come out, the other what did. Which is which, and
        which of them may be changed by the gradient?""",
        """p = softmax of (teacher - center) / teacher_temperature, detached; log q = log_softmax of student /
        temperature. The loss is minus the sum of p log q over the answers, mean over pictures.""",
        """p = ((teacher - center) / teacher_temperature).softmax(1).detach(); -(p * (student /
        temperature).log_softmax(1)).sum(1).mean()""",
    ),
)


def multi_crop(student: list[Tensor], teacher: list[Tensor], temperature: float) -> Tensor:
    """Logits (N, K) of each view, the teacher's first; its distributions (N, K) -> mean over pairs of two views."""
    pairs = [(s, t) for t in range(len(teacher)) for s in range(len(student)) if s != t]
    losses = [-(teacher[t] * (student[s] / temperature).log_softmax(dim=1)).sum(dim=1).mean() for s, t in pairs]
    return sum(losses) / len(pairs)


def _crops(generator: torch.Generator) -> Iterator[tuple[list[Tensor], list[Tensor], float]]:
    for n, k, large, small, temperature in [(3, 4, 2, 3, 0.5), (2, 5, 2, 1, 0.3), (4, 3, 3, 2, 0.7)]:
        student = [torch.randn(n, k, generator=generator) for _ in range(large + small)]
        teacher = [(2 * torch.randn(n, k, generator=generator)).softmax(dim=1) for _ in range(large)]
        yield student, teacher, temperature


def _crop_by_enumerate(student, teacher, temperature):
    total, pairs = 0.0, 0
    for t, p in enumerate(teacher):
        for s, logits in enumerate(student):
            if s == t:
                continue
            total = total - (p * (logits / temperature).log_softmax(dim=1)).sum(dim=1).mean()
            pairs += 1
    return total / pairs


def _crop_vectorized(student, teacher, temperature):
    log_q = (torch.stack(student) / temperature).log_softmax(dim=2)
    each = -torch.einsum("tnk,snk->ts", torch.stack(teacher), log_q) / len(student[0])
    keep = torch.arange(len(teacher))[:, None] != torch.arange(len(student))
    return each[keep].mean()


pairs_of_crops = Check(
    name="11.3 pairs of crops", reference=multi_crop, cases=_crops, forbidden=(yourself("sslcourse.losses"),),
    rights=(_crop_by_enumerate, _crop_vectorized),
    wrongs=(
        Wrong("same view not skipped", change=(" if s != t", ""),
            hint="""You also pair a crop with itself: there student and teacher see the same pixels, and to agree they
            need to know nothing of the picture. Skip the pairs in which both have the same number."""),
        Wrong("skipped pairs counted", change=("/ len(pairs)", "/ (len(student) * len(teacher))"),
            hint="""The sum is right, and it is divided by all pairs, those that were skipped included. Divide by the
            number of pairs that you added."""),
        Wrong("divided by something else", change=("/ len(pairs)", "/ len(student)"),
            also=(("/ len(pairs)", "/ len(teacher)"),), hint="""The sum is right, and it is divided by a number of
            views. Divide by the number of *pairs* that you added."""),
        Wrong("sum of the pairs", change=(" / len(pairs)", ""),
            hint="You add up the pairs. Their mean is asked for: divide by how many there are."),
        Wrong("same view only", change=("s != t", "s == t"),
            hint="You pair every crop with itself alone. It is the other way round: all pairs but those."),
        Wrong("two large crops taken for granted", change=("range(len(teacher))", "range(2)"),
            hint="""Your answer takes it that there are two large crops, as in the lesson. The teacher's list has one
            distribution for each: count them, len(teacher)."""),
        Wrong("small crops only", change=("s != t", "s >= len(teacher)"), also=(("s != t", "s >= 2"),),
            hint="""Your student answers for the small crops alone. It also sees the large ones, and answers each for
            the *other* large crop."""),
        Wrong("large crops only", change=("s != t", "s != t and s < len(teacher)"),
            also=(("s != t", "s != t and max(s, t) < 2"), ("s != t", "s != t and s < 2")),
            hint="""Your student answers for the large crops alone. The small ones come after them in the list, and are
            paired with every large crop of the teacher."""),
        Wrong("each pair once", change=("s != t", "s > t"),
            hint="""You take each pair of large crops in one direction. Both directions count: the first crop learns
            from the second, and the second from the first. Skip s == t, not s <= t."""),
        Wrong("the first large crop only", change=("s != t", "s != t and t == 0"), hint="""Only the teacher's first crop
            is used. Each of its crops is an aim for all crops of the student but the same one."""),
        Wrong("softmax taken again", change=("teacher[t] *", "teacher[t].softmax(dim=1) *"),
            hint="""You take a softmax of the teacher's distributions: they are distributions already, and a second
            softmax makes them nearly uniform."""),
        Wrong("softmax over the batch", change=("log_softmax(dim=1)", "log_softmax(dim=0)"),
            hint="""Your log_softmax runs over the pictures of the batch, dim=0. Each picture has a distribution over
            the K answers: dim=1."""),
        Wrong("temperature multiplied", change=("/ temperature", "* temperature"),
            hint="You multiply the student's logits by the temperature. Divide by it."),
        Wrong("temperature forgotten", change=("(student[s] / temperature)", "student[s]"),
            hint="The student's temperature has no effect on your result: divide its logits by it before log_softmax."),
    ),
    hints=(
        """Draw the table: a row for each crop of the teacher, a column for each crop of the student. Which cells are
        left out?""",
        """Two loops, t over the teacher's crops and s over the student's, and `if s != t`. Add up the cross-entropies
        and count them.""",
        """pairs = [(s, t) for t in range(len(teacher)) for s in range(len(student)) if s != t]; the mean over them of
        -(teacher[t] * (student[s] / temperature).log_softmax(1)).sum(1).mean()""",
    ),
)


def new_center(center: Tensor, student: Tensor, teacher: Tensor, momentum: float) -> Tensor:
    """center (1, K); the logits of student (M, K) and teacher (N, K) in this step -> the centre of the next, (1, K)."""
    return momentum * center + (1 - momentum) * teacher.mean(dim=0, keepdim=True)


def _centres(generator: torch.Generator) -> list[tuple[Tensor, Tensor, Tensor, float]]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    sizes = [(4, 8, 3, 0.9), (3, 10, 5, 0.6), (6, 7, 2, 0.75)]  # (N, M, K, momentum): M is no multiple of N
    return [(draw(1, k), draw(m, k), draw(n, k) + 1, momentum) for n, m, k, momentum in sizes]


def _centre_in_loop(center, student, teacher, momentum):
    return torch.stack(
        [momentum * center[0, k] + (1 - momentum) * teacher[:, k].sum() / len(teacher) for k in range(teacher.shape[1])]
    )[None]


update_the_centre = Check(
    name="11.4 move the centre", reference=new_center, cases=_centres, rights=(
        lambda center, student, teacher, momentum: torch.lerp(center, teacher.mean(dim=0, keepdim=True), 1 - momentum),
        _centre_in_loop),
    wrongs=(
        Wrong("momentum and its rest exchanged",
            lambda center, student, teacher, momentum: new_center(center, student, teacher, 1 - momentum),
            """The two weights are exchanged: a momentum near 1 should keep the old centre, and yours throws most of it
            away. momentum * center + (1 - momentum) * mean."""),
        Wrong("taken from the student",
            lambda center, student, teacher, momentum: new_center(center, teacher, student, momentum),
            """Your centre is an average of the student's logits. It is taken off the teacher's, so it must be what the
            *teacher* says on average."""),
        Wrong("taken from both", change=("teacher.mean", "torch.cat([student, teacher]).mean"),
            hint="Your centre averages both networks' logits. It is taken off the teacher's: average these alone."),
        Wrong("sum over pictures", change=("mean", "sum"), hint="""You add the logits up over the batch, so the centre
            grows with it. Take the mean over pictures, dim=0."""),
        Wrong("average of probabilities",
            lambda center, student, teacher, momentum: new_center(center, student, teacher.softmax(dim=1), momentum),
            """You average probabilities. The centre is subtracted from logits, and so it is an average of logits: leave
            the softmax out."""),
        Wrong("average of centred logits",
            lambda center, student, teacher, momentum: new_center(center, student, teacher - center, momentum),
            """You subtract the old centre before averaging. Then the centre stops half way, since it is asked to
            explain only what is left. Average the teacher's logits as they are."""),
        Wrong("the batch alone", change=("momentum * center + (1 - momentum) *", ""), hint="""You return the mean of
            this batch; the old centre is forgotten. Mix the two: the momentum is the old one's share."""),
        Wrong("one number for all answers", change=("dim=0, keepdim=True", ""),
            hint="""You take one mean over pictures and answers. A softmax doesn't notice a number that is the same for
            all answers: average over pictures alone, dim=0."""),
        Wrong("nothing forgotten", change=("momentum *", ""), hint="""You add to the old centre without shrinking it,
            and it grows without end. The old one's share is the momentum."""),
    ),
    hints=(
        """A moving average: the old value keeps a large share, the new measurement gets the rest. Of whose logits, and
        along which axis, is the measurement?""",
        "The measurement is teacher.mean(dim=0, keepdim=True), (1, K). The old centre's share is the momentum.",
        "momentum * center + (1 - momentum) * teacher.mean(dim=0, keepdim=True)",
    ),
)


def next_teacher(teacher: Tensor, student: Tensor, progress: float, start: float) -> Tensor:
    """Weights of any shape; the momentum rises from `start` at progress 0 to 1 at progress 1, along half a cosine."""
    momentum = 1 - (1 - start) * (1 + math.cos(math.pi * progress)) / 2
    return momentum * teacher + (1 - momentum) * student


def _weights(generator: torch.Generator) -> list[tuple[Tensor, Tensor, float, float]]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return [
        (draw(3, 2), draw(3, 2), 0.0, 0.6), (draw(4), draw(4), 0.3, 0.8), (draw(2, 5), draw(2, 5), 0.8, 0.5),
        (draw(3), draw(3), 1.0, 0.9),
    ]


def _next_by_lerp(teacher, student, progress, start):
    return teacher.lerp(student, (1 - start) * (1 + math.cos(math.pi * progress)) / 2)


def _next_by_torch(teacher, student, progress, start):
    m = 1 - (1 - start) * torch.cos(torch.tensor(math.pi * progress / 2)) ** 2
    return teacher * m + student * (1 - m)


follow_the_student = Check(
    name="11.5 a teacher that slows down", reference=next_teacher, cases=_weights,
    forbidden=(yourself("sslcourse.schedules", "sslcourse.teacher"),), rights=(_next_by_lerp, _next_by_torch),
    wrongs=(
        Wrong("momentum the wrong way",
            lambda teacher, student, progress, start: next_teacher(student, teacher, progress, start),
            """Teacher and student are exchanged: with a momentum near 1 your teacher is nearly a copy of the student.
            The momentum is the share of itself that the *teacher* keeps."""),
        Wrong("momentum constant", change=("1 - (1 - start) * (1 + math.cos(math.pi * progress)) / 2", "start"),
            hint="Your momentum stays at `start`. It rises to 1, so that the teacher comes to rest at the end."),
        Wrong("along a line",
            change=("1 - (1 - start) * (1 + math.cos(math.pi * progress)) / 2", "start + (1 - start) * progress"),
            hint="""Your momentum rises along a straight line. Half a cosine is asked for: slow at both ends, 1 - (1 -
            start) * (1 + cos(pi * progress)) / 2."""),
        Wrong("cosine not brought between 0 and 1", change=("1 - (1 - start) * (1 + math.cos(math.pi * progress)) / 2",
            "start + (1 - start) * math.cos(math.pi * progress)"), hint="""Your cosine goes from 1 to -1, and so your
            momentum begins at 1 and ends below `start`. First make of it what falls from 1 to 0: (1 + cos(pi *
            progress)) / 2. The momentum is 1 minus that much of 1 - start."""),
        Wrong("a quarter of a sine", change=("1 - (1 - start) * (1 + math.cos(math.pi * progress)) / 2",
            "start + (1 - start) * math.sin(math.pi / 2 * progress)"), hint="""Both ends are right, and your momentum
            rises fastest at the start: a quarter of a sine. Half a cosine is slow at both ends."""),
        Wrong("schedule backwards", change=("1 + math.cos", "1 - math.cos"),
            hint="""Your momentum falls from 1 to `start`: the teacher would stand still at the start, when it has most
            to learn. It is `start` at progress 0 and 1 at progress 1."""),
        Wrong("down to zero", change=("1 - (1 - start) *", "start *"), hint="""Your momentum falls to 0, where the
            teacher copies the student: that is the learning rate's schedule. The momentum rises to 1."""),
        Wrong("angle", change=("math.pi * progress", "180 * progress"), also=(("math.pi", "2 * math.pi"),
            ("math.pi * progress", "progress")),
            hint="The angle is wrong: the cosine takes radians, and goes through half a turn, from 0 to pi."),
        Wrong("student copied", lambda teacher, student, progress, start: student.clone(),
            "You return the student. A teacher that is a copy can't be ahead: mix the two by the momentum."),
    ),
    hints=(
        """Two steps: what is the momentum at this progress, and how does it mix the two? Check progress 0 and progress
        1 first.""",
        """(1 + cos(pi * progress)) / 2 falls from 1 to 0. The momentum is 1 minus that much of 1 - start. The teacher
        keeps this share of itself.""",
        "m = 1 - (1 - start) * (1 + math.cos(math.pi * progress)) / 2; m * teacher + (1 - m) * student",
    ),
)


def inside(maps: Tensor, masks: Tensor) -> Tensor:
    """maps (N, s, s), at least 0; masks int (N, H, H), 0 on the ground and k on thing k -> share on things, (N,)."""
    covered = functional.adaptive_avg_pool2d((masks != 0).float(), maps.shape[1])  # (N, s, s)
    return (maps * covered).sum(dim=(1, 2)) / maps.sum(dim=(1, 2))


def _looks(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    for n, s, patch in [(3, 2, 3), (4, 4, 2), (2, 3, 4)]:
        masks = torch.randint(-2, 3, (n, s * patch, s * patch), generator=generator).clamp(min=0)
        yield 3 * torch.rand(n, s, s, generator=generator) ** 2 + 0.05, masks.to(torch.int64)


def _patches(masks, side):
    """(N, H, H) -> (N, side, side, pixels of a patch)."""
    n, h, _ = masks.shape
    p = h // side
    return masks.reshape(n, side, p, side, p).permute(0, 1, 3, 2, 4).flatten(3)


def _inside_by_patches(maps, masks):
    covered = (_patches(masks, maps.shape[1]) != 0).float().mean(dim=3)
    return (maps * covered).flatten(1).sum(dim=1) / maps.flatten(1).sum(dim=1)


def _inside_by_pixels(maps, masks):
    p = masks.shape[1] // maps.shape[1]
    large = maps.repeat_interleave(p, dim=1).repeat_interleave(p, dim=2)
    return (large * (masks != 0)).sum(dim=(1, 2)) / large.sum(dim=(1, 2))


def _inside_in_loop(maps, masks):
    p, shares = masks.shape[1] // maps.shape[1], []
    for one, mask in zip(maps, masks, strict=True):
        on = sum(float(one[y // p, x // p]) for y in range(len(mask)) for x in range(len(mask)) if int(mask[y, x]) != 0)
        shares.append(on / (p * p * float(one.sum())))
    return torch.tensor(shares)


share_on_the_things = Check(
    name="11.6 how much attention lies on the things", reference=inside, cases=_looks,
    forbidden=(yourself("sslcourse.attention"),), rights=(_inside_by_patches, _inside_by_pixels, _inside_in_loop),
    wrongs=(
        Wrong("map not normalized", change=(" / maps.sum(dim=(1, 2))", ""), also=((("covered).sum(", "covered).mean("),
            (" / maps.sum(dim=(1, 2))", "")),),
            hint="""You add up the map on the things, and don't divide by all of it. Part of the attention goes to the
            class token itself, so a map doesn't sum to 1 by itself: divide by its own sum."""),
        Wrong("normalized over the batch", change=("maps.sum(dim=(1, 2))", "maps.sum()"), hint="""You divide by the sum
            of all maps of the batch. Each map has a sum of its own: keep the first dimension, sum(dim=(1, 2))."""),
        Wrong("divided by the things' area", change=("/ maps.sum(", "/ covered.sum("),
            hint="""You divide by the area of the things, which gives the mean attention there. The share is asked for:
            divide by the whole map's sum."""),
        Wrong("numbers of things as weights", change=("masks != 0", "masks"), hint="""You use the numbers in the mask as
            weights, so that thing 2 counts double. Ask only whether there is one: masks != 0."""),
        Wrong("the first thing only", change=("!= 0", "== 1"),
            hint="You count thing 1 alone. Everything that isn't 0 is a thing: masks != 0."),
        Wrong("ground instead of things", change=("!= 0", "== 0"),
            hint="You measure the share on the ground: 0 is where nothing lies. Take masks != 0."),
        Wrong("patches all or nothing", change=("maps * covered", "maps * (covered > 0)"),
            also=(("maps * covered", "maps * (covered > 0.5)"),
            lambda maps, masks: inside(maps, masks[:, :: (p := masks.shape[1] // maps.shape[1]), ::p])),
            hint="""Your patches count wholly or not at all. A patch at an outline lies on the thing in part, and counts
            by that part: the mean of masks != 0 over its pixels."""),
        Wrong("mask made smaller by interpolation",
            change=("functional.adaptive_avg_pool2d((masks != 0).float(), maps.shape[1])",
            "functional.interpolate((masks != 0).float()[:, None], maps.shape[1:], mode='bilinear')[:, 0]"),
            hint="""You make the mask smaller by interpolation, which looks at a few pixels in the middle of each patch
            and leaves out the others. Every pixel counts: adaptive_avg_pool2d takes the mean of all of them."""),
        Wrong("mean over pictures", lambda maps, masks: inside(maps, masks).mean(),
            "You return one number. One for each picture is asked for: sum over dim=(1, 2) alone."),
        Wrong("map ignored", lambda maps, masks: (masks != 0).float().mean(dim=(1, 2)),
            "Your result is the area of the things and doesn't depend on the map. That is what a *uniform* map gets."),
    ),
    hints=(
        "The map is coarse and the mask is fine. What share of each patch lies on a thing?",
        """covered = functional.adaptive_avg_pool2d((masks != 0).float(), s), (N, s, s): the part of each patch that is
        on a thing. Weight the map by it, sum, and divide by the map's own sum.""",
        "(maps * covered).sum(dim=(1, 2)) / maps.sum(dim=(1, 2))",
    ),
)
