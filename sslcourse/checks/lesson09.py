"""Checks of the exercises of lesson 09: the queue and its pointer, the slow teacher, and MoCo's loss."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse.checks.compare import EXACT, Closeness
from sslcourse.checks.framework import Case, Check, Mistake, Wrong, yourself


def _cosines(first: Tensor, second: Tensor) -> Tensor:
    return functional.normalize(first, dim=1) @ functional.normalize(second, dim=1).T


def teacher_after(start: Tensor, student: Tensor, momentum: float, steps: int) -> Tensor:
    """The teacher, begun at `start` (d,), `steps` steps after the student stopped at `student` (d,): (d,)."""
    return momentum**steps * start + (1 - momentum**steps) * student


def _after_in_loop(start, student, momentum, steps):
    teacher = start
    for _ in range(steps):
        teacher = momentum * teacher + (1 - momentum) * student
    return teacher


where_a_teacher_ends = Check(
    name="9.1 where a teacher ends", reference=teacher_after,
    cases=lambda g: [(*torch.randn(2, d, generator=g), momentum, steps)
            for d, momentum, steps in ((4, 0.9, 3), (6, 0.99, 50), (3, 0.5, 7))],
    rights=(_after_in_loop, lambda start, student, momentum, steps: student + (start - student) * momentum**steps),
    wrongs=(
        Wrong("one step alone", change=("**steps", ""), hint="""That is the teacher after one step. Each step keeps
            `momentum` of what is left of the start, so after n steps momentum ** n of it is left."""),
        Wrong("exponent off by one", change=("**steps", "**(steps - 1)"), also=(("**steps", "**(steps + 1)"),),
            hint="""Your exponent is off by one: after one step the start's share is momentum ** 1, after none momentum
            ** 0 = 1. Count the steps, not the gaps between them."""),
        Wrong("momentum times steps", change=("**", "*"), hint="""You multiply momentum by the number of steps; but
            every step multiplies the share once more: it is a power."""),
        Wrong("the power of the rest", change=("momentum**steps * start + (1 - momentum**steps)",
            "(1 - (1 - momentum) ** steps) * start + (1 - momentum) ** steps"),
            hint="""You raise 1 - momentum to the power. What shrinks by a factor at each step is the start's share, and
            the factor is momentum: momentum ** steps."""),
        Wrong("shares that don't add up", change=("1 - momentum", "(1 - momentum)"),
            hint="""The two shares don't add up to 1. The student gets all that the start has lost: 1 - momentum **
            steps, one power and then one difference."""),
        Wrong("start and student swapped",
            change=("start + (1 - momentum**steps) * student", "student + (1 - momentum**steps) * start"), hint="""Start
            and student are swapped: your teacher begins at the student and wanders off to where it started."""),
        Wrong("start forgotten", change=("momentum**steps * start +", ""), hint="""What is left of the start is missing:
            momentum ** steps * start. Without it the teacher begins at zero."""),
    ),
    hints=(
        """Write down the teacher after one step, and put that into the same rule for the second. What stands before
        `start`?""",
        """Before `start` stands momentum * momentum * ... once for every step. All the rest of the weight is on the
        student.""",
        "left = momentum ** steps; left * start + (1 - left) * student",
    ),
)


def enqueue(queue: Tensor, pointer: int, keys: Tensor) -> tuple[Tensor, int]:
    """queue (K, d), pointer below K, keys (N, d), N <= K -> queue with the keys from there on, and the next pointer."""
    place = (pointer + torch.arange(len(keys))) % len(queue)
    queue = queue.clone()
    queue[place] = keys
    return queue, (pointer + len(keys)) % len(queue)


def _enqueue_in_loop(queue, pointer, keys):
    queue = queue.clone()
    for key in keys:
        queue[pointer] = key
        pointer += 1
        if pointer == len(queue):
            pointer = 0
    return queue, pointer


def _enqueue_by_roll(queue, pointer, keys):
    rolled = queue.roll(-pointer, dims=0)  # the pointer's row first
    return torch.cat([keys, rolled[len(keys) :]]).roll(pointer, dims=0), (pointer + len(keys)) % len(queue)


def _enqueue_two_parts(queue, pointer, keys):
    queue, room = queue.clone(), min(len(queue) - pointer, len(keys))
    queue[pointer : pointer + room] = keys[:room]
    queue[: len(keys) - room] = keys[room:]
    return queue, (pointer + len(keys)) % len(queue)


write_into_the_queue = Check(
    name="9.2 write into the queue", reference=enqueue,
    cases=lambda g: [(torch.randn(k, d, generator=g), pointer, torch.randn(n, d, generator=g))
            for k, d, pointer, n in ((10, 3, 2, 4), (7, 2, 5, 4), (6, 4, 4, 5), (5, 3, 2, 3))],
    close=Closeness(dtype="exact", plain=True), rights=(_enqueue_in_loop, _enqueue_by_roll, _enqueue_two_parts),
    wrongs=(
        Wrong("keys lost at the end", change=(("arange(len(keys))) % len(queue)", "arange(len(keys)))"),
            ("queue[place] = keys", "fits = place < len(queue); queue[place[fits]] = keys[fits]")),
            hint="""The keys that don't fit before the end are lost: a slice stops at the last row. They belong at the
            beginning; take every row number modulo K, (pointer + i) % K."""),
        Wrong("all at the beginning",
            change=("place = ", "pointer = pointer if pointer + len(keys) <= len(queue) else 0; place = "),
            hint="""Where the batch doesn't fit before the end, you write all of it at the beginning: the last rows then
            keep keys that should be gone. Only what doesn't fit goes to the beginning."""),
        Wrong("pushed back from the end", change=(("place = (pointer + torch.arange(len(keys))) % len(queue)",
            "start = min(pointer, len(queue) - len(keys))"), ("[place]", "[start : start + len(keys)]"),
            ("pointer + len", "start + len")), hint="""Where the batch doesn't fit before the end, you begin earlier,
            and overwrite young keys instead of the oldest. The first key goes to row `pointer`, always."""),
        Wrong("pointer not wrapped",
            lambda queue, pointer, keys: (enqueue(queue, pointer, keys)[0], pointer + len(keys)),
            """The keys are where they belong, but the new pointer runs past the end of the queue. It is a row number:
            take it modulo K as well."""),
        Wrong("pointer back to zero", change=("(pointer + len(keys)) % len(queue)",
            "pointer + len(keys) if pointer + len(keys) < len(queue) else 0"),
            hint="""Past the end your pointer goes back to 0, where keys of this very batch may lie; the next batch
            would overwrite them. It goes on behind the last key written: (pointer + N) % K."""),
        Wrong("pointer moved by one",
            lambda queue, pointer, keys: (enqueue(queue, pointer, keys)[0], (pointer + 1) % len(queue)),
            "Your pointer moves by one row, but N keys were written: the next batch would overwrite most of them."),
        Wrong("pointer not moved", lambda queue, pointer, keys: (enqueue(queue, pointer, keys)[0], pointer),
            """You return the old pointer: the next batch would overwrite this one, and the rest of the queue would stay
            forever."""),
        Wrong("one row further", change=("(pointer + torch", "(pointer + 1 + torch"), hint="""You write one row behind
            the pointer. The pointer names the row that is written next: the first key goes there."""),
        Wrong("from row 0",
            lambda queue, pointer, keys: (enqueue(queue, 0, keys)[0], (pointer + len(keys)) % len(queue)),
            "You write from row 0 on, wherever the pointer is. Row `pointer` holds the oldest key: begin there."),
        Wrong("everything shifted", lambda queue, pointer,
            keys: (torch.cat([queue[len(keys) :], keys]), (pointer + len(keys)) % len(queue)),
            also=(("queue[place] = keys", "queue = torch.cat([keys, queue[: -len(keys)]])"),),
            hint="""You push all keys along, as in a list. The oldest go out, but every row moves, and then the pointer
            means nothing. Write N rows in place, from the pointer on, and leave the others where they are."""),
        Wrong("last key first", lambda queue, pointer, keys: enqueue(queue, pointer, keys.flip(0)),
            "The keys of the batch stand in reverse order: key i goes to row (pointer + i) % K."),
    ),
    hints=(
        """Draw a queue of five rows with the pointer at row 3, and write four keys, one after the other. Where does the
        third go?""",
        """Key i goes to row (pointer + i) % K; torch.arange gives all i at once. The pointer stands behind the last
        key.""",
        "place = (pointer + torch.arange(len(keys))) % len(queue); queue = queue.clone(); queue[place] = keys",
    ),
)


def ages(pointer: int, size: int, batch: int) -> Tensor:
    """For each row of a full queue, how many steps ago its key was written, 0 for the last step's: int64 (size,)."""
    return (pointer - 1 - torch.arange(size)) % size // batch


def _ages_in_loop(pointer, size, batch):
    found = torch.zeros(size, dtype=torch.int64)
    for written_before in range(size):
        found[(pointer - 1 - written_before) % size] = written_before // batch
    return found


how_old_is_a_key = Check(
    name="9.3 how old is a key?", reference=ages, cases=lambda g: [(6, 10, 3), (2, 12, 4), (3, 7, 2), (0, 9, 2)],
    close=EXACT,
    rights=(_ages_in_loop, lambda pointer, size, batch: (torch.arange(size).flip(0) // batch).roll(pointer)),
    wrongs=(
        Wrong("counted in keys", change=("// batch", ""), hint="""You count how many keys were written since. A step
            writes `batch` of them together, and the exercise asks for steps: divide, and leave the remainder out."""),
        Wrong("counted from one", lambda pointer, size, batch: ages(pointer, size, batch) + 1,
            "Your ages are one too high: the keys of the last step have age 0."),
        Wrong("pointer taken for the newest", change=("- 1", ""),
            hint="""You take the row at the pointer for the newest. It is the one that is written next, so it holds the
            oldest key; the newest lies one row before it."""),
        Wrong("young and old exchanged", change=("pointer - 1 - torch.arange(size)", "torch.arange(size) - pointer"),
            hint="""Young and old are exchanged: from the pointer onwards lie the oldest keys, and ages fall from there.
            Count backwards from the pointer: pointer - 1 - row."""),
        Wrong("not wrapped", change=("% size", ""), hint="""Behind the pointer your ages are negative. Those keys were
            written on the last round: take the difference modulo the size of the queue, before you divide."""),
        Wrong("distance from the pointer", change=("% size", ".abs()"),
            hint="""You take the distance from the pointer, whichever side. Behind the pointer lie keys of the last
            round, the oldest of all: the difference modulo the size, instead of its absolute value."""),
        Wrong("by row number", lambda pointer, size, batch: torch.arange(size) // batch, """Your ages don't depend on
            the pointer. Row 0 is nothing special in a ring: count backwards from the pointer."""),
        Wrong("fractions of a step", change=("//", "/"),
            hint="You give fractions of steps: keys of one batch must have one age. Divide with //."),
    ),
    hints=(
        "Which row was written last, if the pointer is at row 6? Which before it, and what lies before row 0?",
        "Row r was written (pointer - 1 - r) % size keys before the newest one. And how many steps is that?",
        "(pointer - 1 - torch.arange(size)) % size // batch",
    ),
)


def follow(teacher: list[Tensor], student: list[Tensor], momentum: float) -> list[Tensor]:
    """Parameters of teacher and student, in the same order -> the teacher's new ones, without any gradient."""
    with torch.no_grad():
        return [momentum * slow + (1 - momentum) * fast for slow, fast in zip(teacher, student, strict=True)]


def _networks(generator: torch.Generator) -> Iterator[Case]:
    for sizes, momentum in ((((2, 3), (3,)), 0.9), (((4,), (2, 2), (3,)), 0.99), (((3, 2), (2,)), 0.75)):
        slow, fast = ([torch.randn(size, generator=generator) for size in sizes] for _ in range(2))
        yield slow, [p.requires_grad_() for p in fast], momentum


def _follow_by_lerp(teacher, student, momentum):
    return [torch.lerp(slow, fast.detach(), 1 - momentum) for slow, fast in zip(teacher, student, strict=True)]


def _follow_by_difference(teacher, student, momentum):
    moved = []
    for slow, fast in zip(teacher, student, strict=True):
        moved.append(slow + (1 - momentum) * (fast.detach() - slow))
    return moved


def _follow_with_gradient(teacher, student, momentum):
    return [momentum * slow + (1 - momentum) * fast for slow, fast in zip(teacher, student, strict=True)]


def _teacher_has_gradient(answer, cases) -> bool:
    return any(p.requires_grad for case in cases for p in answer(*case))


the_teacher_follows = Check(
    name="9.4 the teacher follows", reference=follow, cases=_networks, rights=(_follow_by_lerp, _follow_by_difference),
    wrongs=(
        Wrong("momentum the wrong way round", lambda teacher, student, momentum: follow(teacher, student, 1 - momentum),
            """Momentum is the wrong way round: with 0.99 your teacher takes 99 percent of the student at each step.
            Momentum is what the teacher keeps of *itself*; the student gets the rest, 1 - momentum."""),
        Wrong("a copy", lambda teacher, student, momentum: [fast.detach().clone() for fast in student], """Your teacher
            is a copy of the student, as with momentum 0: it isn't slow. Keep `momentum` of what it was."""),
        Wrong("it doesn't move", lambda teacher, student, momentum: [slow.clone() for slow in teacher], """Your teacher
            never moves, as with momentum 1. If you wrote the average into a new variable, return that one."""),
        Wrong("one tensor alone",
            lambda teacher, student, momentum: [follow(teacher, student, momentum)[0], *teacher[1:]], """Only the first
            tensor moves. Every parameter of the teacher follows its own partner: a loop over both lists."""),
        Wrong("weights that add up to more than 1", change=("(1 - momentum) * fast", "fast"),
            also=(("momentum * slow", "slow"),),
            hint="""The student comes in whole, on top of the teacher: the weights add up to more than 1, and the
            teacher grows at each step. An average needs 1 - momentum before the student."""),
        Wrong("away from the student",
            change=("momentum * slow + (1 - momentum) * fast", "slow - (1 - momentum) * (fast - slow)"), hint="""Your
            teacher moves away from the student: a sign is wrong. It goes (1 - momentum) of the way *towards* it."""),
        Wrong("the middle", lambda teacher, student, momentum: follow(teacher, student, 0.5), """You take the middle of
            both, whatever the momentum. It is a weighted average: momentum, and 1 - momentum."""),
    ),
    mistakes=(
        Mistake("gradient into the teacher", _teacher_has_gradient, example=_follow_with_gradient, hint="""The numbers
            are right, but the new teacher hangs on the student's graph: it asks for a gradient, and a loss would flow
            through it into the student. Work under torch.no_grad(), or detach the student's parameters."""),
    ),
    hints=(
        "The teacher keeps `momentum` of what it was. What is the rest, and where does it come from?",
        """For each pair: momentum * slow + (1 - momentum) * fast. And whatever is worked out under torch.no_grad() has
        no gradient.""",
        """with torch.no_grad(): return [momentum * slow + (1 - momentum) * fast for slow, fast in zip(teacher,
        student)]""",
    ),
)


def moco_loss(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """queries and keys (N, d), queue (K, d), of any length -> the mean loss of finding one's key, a scalar."""
    q = functional.normalize(queries, dim=1)
    k, others = functional.normalize(keys.detach(), dim=1), functional.normalize(queue.detach(), dim=1)
    logits = torch.cat([(q * k).sum(dim=1, keepdim=True), q @ others.T], dim=1) / temperature
    return functional.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))


def _contrasts(generator: torch.Generator) -> Iterator[Case]:
    for n, k, d, temperature in ((3, 7, 4, 0.2), (5, 11, 6, 0.5), (4, 9, 5, 0.1)):
        queries, keys, queue = (1.5 * torch.randn(m, d, generator=generator) for m in (n, n, k))
        yield queries.requires_grad_(), (keys + 0.5 * queries.detach()).requires_grad_(), queue, temperature


def _loss_in_loop(queries, keys, queue, temperature):
    total = torch.zeros(())
    keys = keys.detach()
    for q, k in zip(queries, keys, strict=True):
        positive = functional.cosine_similarity(q, k, dim=0) / temperature
        negative = functional.cosine_similarity(q[None], queue, dim=1) / temperature
        total = total - positive + torch.cat([positive[None], negative]).logsumexp(dim=0)
    return total / len(queries)


def _loss_last_column(queries, keys, queue, temperature):
    positive = functional.cosine_similarity(queries, keys.detach(), dim=1)[:, None]
    logits = torch.cat([_cosines(queries, queue), positive], dim=1) / temperature
    return functional.cross_entropy(logits, torch.full((len(queries),), len(queue)))


def _logits(queries, keys, queue, temperature):
    positive = functional.cosine_similarity(queries, keys.detach(), dim=1)[:, None]
    return torch.cat([positive, _cosines(queries, queue)], dim=1) / temperature


def _gradients(answer, case):
    queries, keys, _, _ = case
    return torch.autograd.grad(answer(*case), (queries, keys), allow_unused=True)


def _keys_get_gradient(answer, cases) -> bool:
    return any(_gradients(answer, case)[1] is not None for case in cases)


mocos_loss = Check(
    name="9.5 MoCo's loss", reference=moco_loss, cases=_contrasts, forbidden=(yourself("sslcourse.losses"),),
    rights=(_loss_in_loop, _loss_last_column),
    wrongs=(
        Wrong("positive not where the labels say",
            change=("cross_entropy(logits,", "cross_entropy(logits.roll(-1, dims=1),"),
            hint="""Your positive stands in the last column, and your labels say 0: the network is asked to find the
            first negative. Put the positive first, or make K the label."""),
        Wrong("labels of SimCLR", change=("torch.zeros(len(q), dtype=torch.long)", "torch.arange(len(q))"),
            hint="""Your labels count 0, 1, 2, ..., as for a matrix of all queries and all keys. Here each query has its
            own row with its own positive in column 0: the labels are all 0."""),
        Wrong("keys not normalized", change=("functional.normalize(keys.detach(), dim=1)", "keys.detach()"),
            hint="""The keys aren't normalized: a longer key is then a better one, whatever its direction. Bring every
            key of the batch to length 1."""),
        Wrong("queries not normalized", change=("functional.normalize(queries, dim=1)", "queries"), hint="""The queries
            aren't normalized: long ones act as if the temperature were lower. Bring them to length 1."""),
        Wrong("queue not normalized", change=("functional.normalize(queue.detach(), dim=1)", "queue.detach()"),
            hint="""The keys in the queue aren't normalized; those of the batch are. Both are compared with the query in
            one softmax, so both must have length 1."""),
        Wrong("nothing normalized", change=(("functional.normalize(queries, dim=1)", "queries"),
            ("functional.normalize(keys.detach(), dim=1)", "keys.detach()"),
            ("functional.normalize(queue.detach(), dim=1)", "queue.detach()")),
            also=((("functional.normalize(keys.detach(), dim=1)", "keys.detach()"),
            ("functional.normalize(queue.detach(), dim=1)", "queue.detach()")),
            (("functional.normalize(queries, dim=1)", "queries"),
            ("functional.normalize(keys.detach(), dim=1)", "keys.detach()"))), hint="""Nothing is normalized: you
            compare dot products, and the loss wants cosines. Bring queries, keys and queue to length 1."""),
        Wrong("temperature forgotten", change=(" / temperature", ""), hint="""The temperature is missing: divide the
            cosines by it. Without it they lie between -1 and 1, and the softmax can't be sure of anything."""),
        Wrong("times temperature", change=(" / temperature", " * temperature"),
            hint="You multiply by the temperature; the cosines are divided by it: the lower, the sharper."),
        Wrong("positive not in the denominator",
            change=("functional.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))",
            "(logits[:, 1:].logsumexp(dim=1) - logits[:, 0]).mean()"), hint="""The positive is missing below the
            fraction: the softmax runs over 1 + K columns. Yours can fall below 0, a loss of this kind never does."""),
        Wrong("positive among the negatives", change=("queue.detach()", "torch.cat([queue, keys]).detach()"),
            hint="""The keys of this batch are among the negatives: each query's own key is told to be near and far at
            once, and the loss can't fall below log 2. The queue is used as it is before the batch is written."""),
        Wrong("the batch's keys as negatives", change=(("(q * k).sum(dim=1, keepdim=True)", "q @ k.T"),
            ("torch.zeros(len(q), dtype=torch.long)", "torch.arange(len(q))")),
            also=((("(q * k).sum(dim=1, keepdim=True), q @ others.T", "q @ k.T"),
            ("torch.zeros(len(q), dtype=torch.long)", "torch.arange(len(q))")),),
            hint="""You take the other keys of the batch as negatives as well. That is a loss that works, but not
            MoCo's: its negatives are the queue alone, 1 + K columns."""),
        Wrong("sum over the batch", change=("torch.long))", 'torch.long), reduction="sum")'),
            hint="You sum over the queries; the mean is asked for, so that the loss doesn't grow with the batch."),
        Wrong("keys and queries exchanged",
            lambda queries, keys, queue, temperature: moco_loss(keys, queries, queue, temperature) + 0 * queries.sum(),
            """Keys and queries are exchanged: your keys look for their query. The query is what is compared with the
            queue."""),
    ),
    mistakes=(
        Mistake("no gradient to the queries",
            lambda answer, cases: not any(answer(*case).requires_grad for case in cases),
            example=("(queries,", "(queries.detach(),"), hint="""The numbers are right, but no gradient reaches the
            queries, and the student would learn nothing. Detach keys and queue, and nothing else."""),
        Mistake("gradient into the keys", _keys_get_gradient, example=("keys.detach()", "keys"),
            hint="""The numbers are right, but a gradient flows into the keys, and with it into the teacher. It follows
            the student and learns nothing itself: keys.detach()."""),
    ),
    hints=(
        "Each query answers a question with 1 + K choices. What stands in the first column, and what in the other K?",
        """Normalize all three. First column: (q * k).sum(dim=1, keepdim=True); the others: q @ queue.T. Divide by the
        temperature.""",
        """functional.cross_entropy(torch.cat([positive, negatives], dim=1) / temperature, torch.zeros(N,
        dtype=torch.long)), with keys.detach()""",
    ),
)


def moco_step(
    queries: Tensor, keys: Tensor, queue: Tensor, pointer: int, temperature: float
) -> tuple[Tensor, Tensor, int]:
    """queries and keys (N, d) of any length, queue (K, d) of length 1 -> loss, the new queue, the new pointer."""
    keys = functional.normalize(keys, dim=1)
    loss = moco_loss(queries, keys, queue, temperature)
    return loss, *enqueue(queue, pointer, keys)


def _steps(generator: torch.Generator) -> Iterator[Case]:
    for n, k, d, pointer, temperature in ((3, 8, 4, 6, 0.2), (5, 12, 6, 2, 0.5), (4, 9, 5, 7, 0.1)):
        queries, keys, queue = (1.5 * torch.randn(m, d, generator=generator) for m in (n, n, k))
        yield queries, keys + 0.5 * queries, functional.normalize(queue, dim=1), pointer, temperature


def _step_in_loop(queries, keys, queue, pointer, temperature):
    total = 0.0
    for query, key in zip(queries, keys, strict=True):
        positive = functional.cosine_similarity(query, key, dim=0)[None]
        logits = torch.cat([positive, queue @ functional.normalize(query, dim=0)]) / temperature
        total = total + logits.logsumexp(dim=0) - logits[0]
    queue = queue.clone()
    for key in keys:
        queue[pointer] = key / key.norm()
        pointer = (pointer + 1) % len(queue)
    return total / len(queries), queue, pointer


def _step_with_copy(queries, keys, queue, pointer, temperature):
    before, keys = queue.clone(), functional.normalize(keys, dim=1)
    queue, pointer = enqueue(queue, pointer, keys)
    return moco_loss(queries, keys, before, temperature), queue, pointer


def _step_raw_loss(queries, keys, queue, pointer, temperature):
    _, written, after = moco_step(queries, keys, queue, pointer, temperature)
    logits = torch.cat([(queries * keys).sum(dim=1, keepdim=True), queries @ queue.T], dim=1) / temperature
    return functional.cross_entropy(logits, torch.zeros(len(keys), dtype=torch.long)), written, after


a_step_in_order = Check(
    name="9.6 a step, in order", reference=moco_step, cases=_steps, rights=(_step_in_loop, _step_with_copy),
    wrongs=(
        Wrong("queue overwritten before use",
            change=(("loss = moco_loss", "queue, pointer = enqueue(queue, pointer, keys); loss = moco_loss"),
            ("*enqueue(queue, pointer, keys)", "queue, pointer")),
            hint="""You write the queue before the loss has used it: each query then finds its own key among the
            negatives, and the loss can't fall below log 2. First the loss, with the queue as it was; then write."""),
        Wrong("raw keys stored", change=("keys = functional.normalize(keys, dim=1)", "pass"),
            hint="""The loss is right, but the keys go into the queue as long as they come. Normalize them before you
            store them: every row of the queue has length 1."""),
        Wrong("queries stored", change=("pointer, keys)", "pointer, functional.normalize(queries, dim=1))"),
            also=(("pointer, keys)", "pointer, queries)"),), hint="""You store the queries. The queue holds *keys*, made
            by the slow teacher: queries come from the student, which is another network after each step."""),
        Wrong("nothing written",
            change=("*enqueue(queue, pointer, keys)", "queue.clone(), enqueue(queue, pointer, keys)[1]"),
            also=(("*enqueue(queue, pointer, keys)", "queue.clone(), pointer"),), hint="""The queue comes back as it
            was: its noise, or its first keys, would stay forever. Write the normalized keys over the oldest rows."""),
        Wrong("pointer not moved",
            change=("*enqueue(queue, pointer, keys)", "enqueue(queue, pointer, keys)[0], pointer"),
            hint="The pointer comes back where it was: the next step would overwrite the keys of this one."),
        Wrong("pointer not wrapped",
            change=("*enqueue(queue, pointer, keys)", "enqueue(queue, pointer, keys)[0], pointer + len(keys)"),
            hint="The new pointer runs past the end of the queue: take it modulo K."),
        Wrong("loss without normalization", _step_raw_loss, """The queue is right, but the loss compares dot products of
            raw queries and keys: normalize both before you compare."""),
        Wrong("keys lost at the end", change=(("arange(len(keys))) % len(queue)", "arange(len(keys)))"),
            ("queue[place] = keys", "fits = place < len(queue); queue[place[fits]] = keys[fits]")), hint="""The keys
            that don't fit before the end of the queue are lost. They go to its beginning: rows (pointer + i) % K."""),
    ),
    hints=(
        """Three things happen in a step: a loss, a write, a move of the pointer. Which of them needs the queue as it
        was before?""",
        """Normalize the keys; take the loss with the queue as it is (losses.info_nce); then write the keys into a copy,
        modulo K.""",
        """keys = normalize(keys, dim=1); loss = info_nce(queries, keys, queue, temperature); queue = queue.clone();
        queue[(pointer + torch.arange(N)) % K] = keys; return loss, queue, (pointer + N) % K""",
    ),
)
