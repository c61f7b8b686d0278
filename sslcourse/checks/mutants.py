"""The small changes of a right answer that learners make by mistake: each a mutant, with what it did in the learner's words.

The syntax tree of the answer is walked once. At every node the rules and operators below offer what could stand there
instead: another `dim`, a sum for a mean, a step left out or done twice, swapped arguments, `>` for `>=`, one too many. What
a mutant says is a clause that completes "Your results are exactly those of an answer in which ...", and shows no line.
"""

from __future__ import annotations

import ast
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sslcourse.checks.tree import (
    Change,
    Place,
    article,
    binary,
    call,
    constant,
    dump,
    function,
    is_method,
    is_tick,
    literal,
    located,
    method,
    number_of,
    on,
    rebuilt,
    renamed,
    replaced,
    rest,
    subject,
    with_names,
    word,
)

# (kind, clause, what stands there instead, or the node above it that is replaced and what stands there instead; the rule)
Options = Iterator[tuple]


@dataclass(frozen=True)
class Mutant:
    """A small mistake. kind: what sort of mistake. says: the clause about it. changes: of the tree, at least one."""

    kind: str
    says: str
    changes: tuple[Change, ...] = field(compare=False)
    far: bool = field(default=False, compare=False)  # said where nothing nearer comes to the same


def mutants(place: Place) -> list[Mutant]:
    """Every mutant of the tree, the likeliest kinds first.

    The same mistake made in several places is also one made in all of them, and so is that with several arguments.
    """
    found: dict[Any, Mutant] = {}
    known: dict[int, str] = {}
    for operator in OPERATORS:
        alike: dict[Any, dict[int, tuple[Change, str]]] = {}
        for node in place.nodes:
            for kind, says, instead, *rule in operator(node, place):
                where, instead = instead if isinstance(instead, tuple) else (node, instead)
                text = dump(instead, known, place.parent)
                if text != dump(where, known, place.parent) and (text, id(where)) not in found:
                    change = Change(where, located(instead))
                    found[text, id(where)] = Mutant(kind, says, (change,), operator is arguments)
                    for group in dict.fromkeys([(kind, says), (kind, *rule), (kind,)]):
                        alike.setdefault(group, {}).setdefault(id(where), (change, says))
        for group, changes in alike.items():
            told = list(dict.fromkeys(says for _, says in changes.values()))
            if len(changes) > 1:
                key = frozenset(changes), group[0], told[0]
                every = tuple(change for change, _ in changes.values())
                found[key] = Mutant(group[0], " and ".join(told[:2]), every, operator is arguments)
    return list(found.values())


# -- rules: what stands there, what stands there instead, and what to say about it -------------------------------------------
# a, b, c are any values, and n is a literal number; f(...) are all arguments, whatever they are

RULES = """
sign                    :: -a -> a                      :: a minus sign is missing
not missing             :: not a -> a                   :: a 'not' is missing: a condition is turned round
not missing             :: ~a -> a                      :: a 'not' is missing: a condition is turned round
complement missing      :: n - a -> a                   :: {a} stands where {n} minus that is needed
sign                    :: a - b -> b - a               :: a difference is taken the wrong way round
sign                    :: a - b -> a + b               :: {b} is added where it is to be subtracted
sign                    :: a + b -> a - b               :: {b} is subtracted where it is to be added
sign                    :: a + b -> b - a               :: {a} is subtracted where it is to be added
sign                    :: -(a + b) -> -a + b           :: brackets are missing: the minus sign belongs before all terms
off by one              :: a - 1 -> a                   :: 1 isn't subtracted
off by one              :: a + 1 -> a                   :: 1 isn't added
a factor of 2           :: a - 1 -> 2 * (a - 1)         :: {a} less 1 is taken twice
a term missing          :: a + b -> a                   :: {b} isn't added
a term missing          :: a + b -> b                   :: {a} isn't added
a term missing          :: a - b -> a                   :: {b} isn't subtracted
a term missing          :: a - b -> b                   :: {a} is missing, and the rest is not negated
a term missing          :: a - b -> -b                  :: {a} is missing, and what is to be subtracted from it stands alone
a factor missing        :: a * b -> a                   :: the multiplication by {b} is missing
a factor missing        :: a * b -> b                   :: the multiplication by {a} is missing
a division missing      :: a / b -> a                   :: the division by {b} is missing
a numerator missing     :: a / b -> b                   :: {a} isn't divided, and what it is to be divided by stands alone
a division missing      :: a // b -> a                  :: the division by {b} is missing
a power missing         :: a ** b -> a                  :: the power {b} is missing
the remainder missing   :: a % b -> a                   :: the remainder (%) is missing
a product missing       :: a @ b -> a                   :: the matrix product with {b} is missing
a product missing       :: a @ b -> b                   :: the matrix product with {a} is missing
an operand missing      :: a & b -> a                   :: one of two conditions is missing
an operand missing      :: a & b -> b                   :: one of two conditions is missing
an operand missing      :: a | b -> a                   :: one of two conditions is missing
an operand missing      :: a | b -> b                   :: one of two conditions is missing
brackets missing        :: (a + b) / c -> a + b / c     :: brackets are missing: {b} alone is divided, where the whole sum is to be
brackets missing        :: (a - b) / c -> a - b / c     :: brackets are missing: {b} alone is divided, where the whole difference is to be
brackets missing        :: (a + b) * c -> a + b * c     :: brackets are missing: {b} alone is multiplied, where the whole sum is to be
brackets missing        :: (a - b) * c -> a - b * c     :: brackets are missing: {b} alone is multiplied, where the whole difference is to be
brackets missing        :: (a + b) % c -> a + b % c     :: brackets are missing: the remainder is to be taken of the whole sum
brackets missing        :: (a + b) // c -> a + b // c   :: brackets are missing: the whole sum is to be divided
brackets missing        :: (a - b) // c -> a - b // c   :: brackets are missing: the whole difference is to be divided
brackets missing        :: ((a + b) / c) ** d -> a + b / c ** d :: brackets are missing: the whole sum is to be divided, and the power taken of the quotient
brackets missing        :: (a + b) ** c -> a + b ** c   :: brackets are missing: the power is to be taken of the whole sum
brackets missing        :: (a - b) ** c -> a - b ** c   :: brackets are missing: the power is to be taken of the whole difference
brackets missing        :: (a / b) ** c -> a / b ** c   :: brackets are missing: the power is to be taken of the whole quotient
brackets missing        :: (a * b) ** c -> a * b ** c   :: brackets are missing: the power is to be taken of the whole product
brackets missing        :: a - (b + c) -> a - b + c     :: brackets are missing: {c} is to be subtracted, too
brackets missing        :: a + b - c -> a + (b + c)     :: {c} is added where it is to be subtracted
brackets missing        :: a - (b - c) -> a - b - c     :: brackets are missing: {c} is to be added
brackets missing        :: a / (b + c) -> a / b + c     :: brackets are missing: {c} belongs to what it is divided by
brackets missing        :: a / (b - c) -> a / b - c     :: brackets are missing: {c} belongs to what it is divided by
brackets missing        :: a / (b * c) -> a / b * c     :: brackets are missing: {c} multiplies where it is to divide
brackets missing        :: a * (b + c) -> a * b + c     :: brackets are missing: {c} is to be multiplied, too
brackets missing        :: a * (b - c) -> a * b - c     :: brackets are missing: {c} is to be multiplied, too
brackets misplaced      :: a * b + c -> a * (b + c)     :: {c} is multiplied by {a}, too
brackets misplaced      :: a * b + c -> (a + c) * b     :: {c} is added before the multiplication by {b}, where it is to come after it
brackets misplaced      :: a * b - c -> (a - c) * b     :: {c} is subtracted before the multiplication by {b}, where it is to come after it
brackets misplaced      :: a / b + c -> (a + c) / b     :: {c} is added before the division by {b}, where it is to come after it
brackets misplaced      :: a / b + c -> a / (b + c)     :: {c} is added to what it is divided by
brackets misplaced      :: a / b - c -> (a - c) / b     :: {c} is divided by {b}, too
brackets misplaced      :: a + b * c -> (a + b) * c     :: {a} is multiplied by {c}, too
brackets misplaced      :: a + b / c -> (a + b) / c     :: {a} is divided by {c}, too
brackets misplaced      :: a - b / c -> (a - b) / c     :: {a} is divided by {c}, too
brackets misplaced      :: a - b * c -> (a - b) * c     :: {a} is multiplied by {c}, too
brackets misplaced      :: a / b ** c -> (a / b) ** c   :: the power is taken of the whole quotient
divided for multiplied  :: a * b -> a / b               :: {b} divides where it is to multiply
divided for multiplied  :: a * b -> b / a               :: {a} divides where it is to multiply
multiplied for divided  :: a / b -> a * b               :: {b} multiplies where it is to divide
added for multiplied    :: a * b -> a + b               :: {b} is added where it is to multiply
multiplied for added    :: a + b -> a * b               :: {b} multiplies where it is to be added
multiplied for added    :: a - b -> a * b               :: {b} multiplies where it is to be subtracted
divided for subtracted  :: a - b -> a / b               :: {b} divides where it is to be subtracted
subtracted for divided  :: a / b -> a - b               :: {b} is subtracted where it is to divide
sides swapped           :: a / b -> b / a               :: a quotient is turned upside down
sides swapped           :: a // b -> b // a             :: the two sides of a division are swapped
sides swapped           :: a % b -> b % a               :: the two sides of a remainder (%) are swapped
sides swapped           :: a ** b -> b ** a             :: the base and the exponent are swapped
sides swapped           :: a @ b -> b @ a               :: the two sides of a matrix product are swapped
whole division          :: a / b -> a // b              :: a division is rounded down
division not rounded    :: a // b -> a / b              :: a division isn't rounded down
rounded up              :: a // b -> -(-a // b)         :: a division is rounded up where it is to be rounded down
remainder for quotient  :: a // b -> a % b              :: a remainder (%) stands where a quotient (//) is needed
quotient for remainder  :: a % b -> a // b              :: a quotient (//) stands where a remainder (%) is needed
multiplied for power    :: a ** b -> a * b              :: a product stands where a power is needed
negative exponent       :: a ** b -> a ** (-b)          :: the exponent {b} has the wrong sign
reciprocal exponent     :: a ** b -> a ** (1 / b)       :: the exponent is 1 divided by what is needed
linear for a power      :: 1 - a ** b -> b * (1 - a)    :: steps are added up where they are to be multiplied: a power is needed
linear for a power      :: a ** b -> 1 - b * (1 - a)    :: steps are added up where they are to be multiplied: a power is needed
elementwise product     :: a @ b -> a * b               :: an elementwise product (*) stands where a matrix product (@) is needed
matrix product          :: a * b -> a @ b               :: a matrix product (@) stands where an elementwise product (*) is needed
or for and              :: a & b -> a | b               :: an 'or' stands where an 'and' is needed
and for or              :: a | b -> a & b               :: an 'and' stands where an 'or' is needed
transposes              :: a @ b -> b.mT @ a.mT         :: the matrix is transposed
rows against rows       :: a @ b -> a.mT @ b.mT         :: the matrix product pairs the other dimension, columns for rows
transposes              :: a @ b -> a @ b.mT            :: one side of the matrix product is transposed, or isn't where it should be
transposes              :: a @ b -> a.mT @ b            :: one side of the matrix product is transposed, or isn't where it should be
an operand twice        :: a / b -> a / b / b           :: the division by {b} is made twice
an operand twice        :: a * b -> a * b * b           :: the multiplication by {b} is made twice
an operand twice        :: a * b -> a * a * b           :: the multiplication by {a} is made twice
an operand twice        :: a - b -> a - b - b           :: {b} is subtracted twice
an operand twice        :: a + b -> a + b + b           :: {b} is added twice
an operand twice        :: a + b -> a + a + b           :: {a} is added twice
a root too much         :: a / b -> a / b ** 0.5        :: the square root of {b} stands where the thing itself is needed
a root too much         :: a * b -> a * b ** 0.5        :: the square root of {b} stands where the thing itself is needed
the inverse             :: a * b + c -> (a - c) / b     :: the way back is taken: subtracted and divided, where it is to be multiplied and added
the inverse             :: (a - b) / c -> a * c + b     :: the way back is taken: multiplied and added, where it is to be subtracted and divided
one of two              :: (a + b) / 2 -> a             :: {a} stands where a mean of two is needed
one of two              :: (a + b) / 2 -> b             :: {b} stands where a mean of two is needed
sum for mean            :: (a + b) / 2 -> a + b         :: the sum of two stands where their mean is needed
maximum for mean        :: (a + b) / 2 -> torch_.maximum(a, b) :: the larger of two stands where their mean is needed
minimum for mean        :: (a + b) / 2 -> torch_.minimum(a, b) :: the smaller of two stands where their mean is needed
geometric for mean      :: (a + b) / 2 -> (a * b) ** 0.5 :: the root of a product of two stands where their mean is needed
divided by the largest  :: a / n -> a / a.max()         :: the largest value is divided by, where {n} is needed
percent                 :: a / b -> 100 * a / b         :: a quotient is given in percent
another comparison      :: a != b -> a > b              :: > stands where != is needed
another comparison      :: a != b -> a - b              :: a difference stands where a comparison (!=) is needed
another comparison      :: a == b -> a >= b             :: >= stands where == is needed
another comparison      :: a == b -> a <= b             :: <= stands where == is needed
the difference squared  :: a != b -> (a - b) ** 2       :: squares of differences stand where a comparison (!=) is needed
always                  :: a > b -> a == a              :: what is meant for some is done for all
always                  :: a >= b -> a == a             :: what is meant for some is done for all
off by one              :: a < b + c -> a < b + c - 1   :: an end comes one place too early
exactly there alone     :: a < b -> a == b - 1          :: one place alone counts, where all before an end do
always                  :: a < b -> a == a              :: what is meant for some is done for all
never                   :: a > b -> a != a              :: what is meant for some is done for none
never                   :: a >= b -> a != a             :: what is meant for some is done for none
never                   :: a < b -> a != a              :: what is meant for some is done for none
one choice always       :: torch.where(a, b, c) -> b    :: {b} is taken everywhere, where a choice is to be made
one choice always       :: torch.where(a, b, c) -> c    :: {c} is taken everywhere, where a choice is to be made
not centred             :: a.var(...) -> a.square().mean(...) :: the mean isn't subtracted before the square
not centred             :: a.std(...) -> a.square().mean(...).sqrt() :: the mean isn't subtracted before the square
absolute for squared    :: a.std(...) -> a.abs().mean(...) :: a mean of absolute values stands where a standard deviation is needed
the first alone         :: a.mean(...) -> a[:1]         :: the first alone stands where a mean is needed
the first alone         :: a.mean(...) -> a[0]          :: the first alone stands where a mean is needed
the last alone          :: a.mean(...) -> a[-1]         :: the last alone stands where a mean is needed
median for mean         :: a.mean(...) -> a.median(...).values :: a median stands where a mean is needed
softmax too much        :: a.cross_entropy(b) -> torch_.nn.functional.cross_entropy(a.softmax(1), b) :: a softmax is taken before the cross-entropy, which takes one itself
nothing compared with   :: a.cross_entropy(b) -> -a[torch_.arange(len(b)), b].mean() :: the scores of the right ones are averaged as they are, where a cross-entropy compares them with all others
squared for entropy     :: a.cross_entropy(b) -> (a.softmax(1) - torch_.nn.functional.one_hot(b, a.shape[1])).square().mean() :: squares of differences stand where a cross-entropy is needed
each class by itself    :: a.cross_entropy(b) -> torch_.nn.functional.binary_cross_entropy_with_logits(a, torch_.nn.functional.one_hot(b, a.shape[1]).float()) :: every score answers yes or no by itself, where a cross-entropy has one softmax over all
divergence for entropy  :: a * b.log_softmax(...) -> a * b.log_softmax(...) - torch_.special.xlogy(a, a) :: the entropy of {a} is subtracted (a Kullback-Leibler divergence), where a cross-entropy is needed
distributions exchanged :: a * b.log_softmax(...) -> b.softmax(...) * a.log() :: the logarithm is taken of {a}, where the other distribution's is needed
mean for a choice       :: a[torch.arange(b), c] -> a.mean(1) :: a mean over dim 1 stands where one of each row is to be chosen
maximum for a choice    :: a[torch.arange(b), c] -> a.amax(1) :: the largest of each row is taken, where another is to be chosen
every row, every place  :: a[torch.arange(b), c] -> a[:, c] :: every row is read at the places of all rows, where each has a place of its own
argmax for softmax      :: a.softmax(...) -> (a == a.amax(..., keepdim=True)).float() :: the largest gets everything, where a softmax is needed
sigmoid for softmax     :: a.softmax(...) -> a.sigmoid() :: a sigmoid stands where a softmax is needed
exponential for softmax :: a.softmax(...) -> a.exp()    :: the exponentials aren't divided by their sum, as a softmax would
softmin for softmax     :: a.softmax(...) -> (-a).softmax(...) :: a value in the softmax has the wrong sign
logarithm too much      :: a.softmax(...) -> a.softmax(...).log() :: a logarithm is taken of the softmax
softmax for log-softmax :: a.log_softmax(...) -> a.softmax(...) :: a softmax stands where a log-softmax is needed
log-softmax missing     :: a.log_softmax(...) -> a.log() :: a logarithm stands where a log-softmax is needed
clamp by abs            :: a.clamp(...) -> a.abs()      :: an absolute value stands where a clamp is needed
clamp by square         :: a.clamp(...) -> a.square()   :: a square stands where a clamp is needed
clamp by abs            :: a.relu() -> a.abs()          :: an absolute value stands where a clamp at 0 is needed
clamp on the other side :: a.clamp(min=n) -> a.clamp(max=n) :: the clamp limits from above where it is to limit from below
clamp on the other side :: a.clamp(max=n) -> a.clamp(min=n) :: the clamp limits from below where it is to limit from above
clamp on both sides     :: a.clamp(min=0) -> a.clamp(0, 1) :: the clamp limits to [0, 1], where it is to limit from below alone
ranks                   :: a.argsort(...) -> a.argsort(...).argsort(...) :: ranks stand where the order of an argsort is needed
values for indices      :: a.indices -> a.values        :: the values stand where their indices are needed
indices for values      :: a.values -> a.indices        :: the indices stand where the values are needed
values for indices      :: a.argsort(...) -> a.sort(...).values :: sorted values stand where the indices of an argsort are needed
values for indices      :: a.argmax(...) -> a.amax(...) :: the largest value stands where its index is needed
values for indices      :: a.argmin(...) -> a.amin(...) :: the smallest value stands where its index is needed
the norm squared        :: a.norm(...) -> a.square().sum(...) :: the root of a norm is missing
the norm squared        :: a.norm(...) -> a.norm(...) ** 2 :: the root of a norm is missing
norm of another order   :: a.norm(...) -> a.abs().sum(...) :: absolute values are added up where a Euclidean norm is needed
norm of another order   :: a.normalize(...) -> a.normalize(..., p=1) :: the normalization makes the absolute values sum to 1, where the squares are to
softmax for normalizing :: a.normalize(dim=b) -> a.softmax(b) :: a softmax stands where a normalization to length 1 is needed
sum for normalizing     :: a.normalize(dim=b) -> a / a.sum(b, keepdim=True) :: values are divided by their sum, where a normalization to length 1 is needed
length squared          :: a.normalize(dim=b) -> a / a.square().sum(b, keepdim=True) :: the square of the length is divided by, where the length is needed
not normalized          :: a.cosine_similarity(b, dim=c) -> (a * b).sum(c) :: nothing is divided by the lengths: a product stands where a cosine is needed
one side not normalized :: a.cosine_similarity(b, dim=c) -> a.cosine_similarity(b, dim=c) * b.norm(dim=c) :: {b} isn't divided by its length
one side not normalized :: a.cosine_similarity(b, dim=c) -> a.cosine_similarity(b, dim=c) * a.norm(dim=c) :: {a} isn't divided by its length
one length for all      :: a.normalize(...) -> a / a.norm() :: one length is divided by for all together, where each has its own
the diagonal left out   :: a.sum() -> (a - a.diag().diag()).sum() :: the diagonal is left out, where everything is summed
over one dim            :: a.sum() -> a.sum(1, keepdim=True) :: the sum goes over dim 1, where everything is to be summed
over one dim            :: a.sum() -> a.sum(0)          :: the sum goes over dim 0, where everything is to be summed
over one dim            :: a.mean() -> a.mean(1)        :: the mean goes over dim 1, where everything is to be averaged
over one dim            :: a.mean() -> a.mean(0)        :: the mean goes over dim 0, where everything is to be averaged
over one dim            :: a.sum() -> a.sum(1).mean()   :: the sum goes over dim 1, and a mean over the rest
over one dim            :: a.mean() -> a.sum(1).mean()  :: a sum over dim 1 stands where a mean is needed
over one dim            :: a.mean() -> a.sum(0).mean()  :: a sum over dim 0 stands where a mean is needed
over one dim            :: a.mean() -> a.mean(1).sum()  :: a mean over dim 1 is summed, where everything is to be averaged
divided by the rows     :: a.mean() -> a.sum() / len(a) :: the sum is divided by the length, where the number of all elements is needed
divided by the rows     :: a.sum() -> a.sum() / len(a)  :: the sum is divided by the length
the opposite            :: a.all() -> a.any()           :: any() stands where all() is needed
a pair in another order :: (a, b) -> (a - b, a + b)     :: the two ends stand where a middle and a half width are needed
a middle and a width    :: (a - b, a + b) -> (a, b)     :: a middle and a half width stand where two ends are needed
off by one              :: range(a) -> range(a - 1)     :: a loop stops one round too early
off by one              :: range(a) -> range(a + 1)     :: a loop goes one round too far
counted from 1          :: range(a) -> range(1, a)      :: the count begins at 1 and leaves out 0
counted from 1          :: range(a) -> range(1, a + 1)  :: the count goes from 1 to the end, where it is to begin at 0
counted from 1          :: torch.arange(a) -> torch_.arange(1, a + 1) :: the count goes from 1 to the end, where it is to begin at 0
the first for all       :: torch.arange(a) -> torch_.arange(a) * 0 :: 0 stands for all, where a count from 0 is needed
off by one              :: range(a, b) -> range(a + 1, b) :: a loop begins one round too late
off by one              :: range(a, b) -> range(a, b - 1) :: a loop stops one round too early
off by one              :: range(a, b) -> range(a, b + 1) :: a loop goes one round too far
off by one              :: range(a, b) -> range(a - 1, b) :: a loop begins one round too early
off by one              :: range(a, b) -> range(b)      :: a loop begins at 0
divided by N            :: a.std(...) -> a.std(..., correction=0) :: the standard deviation divides by the count, where the count less 1 is needed
divided by N            :: a.var(...) -> a.var(..., correction=0) :: the variance divides by the count, where the count less 1 is needed
divided by N            :: a.var() -> a.var(correction=0) :: the variance divides by the count, where the count less 1 is needed
divided by N - 1        :: a.std(..., correction=0) -> a.std(...) :: the standard deviation divides by the count less 1, where the count itself is needed
divided by N - 1        :: a.var(..., correction=0) -> a.var(...) :: the variance divides by the count less 1, where the count itself is needed
overwritten rows        :: a.unsqueeze(b) -> a          :: a dimension isn't added before values are paired
"""

# of a value that is given back, or of another that has a name: {x} is the value, y an argument of the function
RESULTS = """
softmax too much        :: x.softmax(-1)            :: a softmax is taken of {x}
softmax too much        :: x.softmax(0)             :: a softmax is taken of {x}
exponential too much    :: x.exp()                  :: the exponential is taken of {x}
logarithm too much      :: x.log()                  :: the logarithm is taken of {x}
square root too much    :: x.sqrt()                 :: the square root is taken of {x}
square too much         :: x.square()               :: the square is taken of {x}
absolute value too much :: x.abs()                  :: the absolute value is taken of {x}
sigmoid too much        :: x.sigmoid()              :: a sigmoid is taken of {x}
sign                    :: -x                       :: {x} has the wrong sign
mean too much           :: x.mean()                 :: a mean is taken of {x}
sum too much            :: x.sum()                  :: a sum is taken of {x}
maximum too much        :: x.amax()                 :: a maximum is taken of {x}
mean too much           :: x.mean(0)                :: a mean over dim 0 is taken of {x}
mean too much           :: x.mean(1)                :: a mean over dim 1 is taken of {x}
mean too much           :: x.mean(-1)               :: a mean over the last dim is taken of {x}
sum too much            :: x.sum(0)                 :: a sum over dim 0 is taken of {x}
sum too much            :: x.sum(1)                 :: a sum over dim 1 is taken of {x}
sum too much            :: x.sum(-1)                :: a sum over the last dim is taken of {x}
cumulative              :: x.cumsum(0)              :: {x} is added up along dim 0
one alone               :: x[0]                     :: the first element alone is given of {x}
one alone               :: x[-1]                    :: the last element alone is given of {x}
off by one              :: x + 1                    :: {x} is 1 too large
off by one              :: x - 1                    :: {x} is 1 too small
complement              :: 1 - x                    :: one minus {x} is given
reciprocal              :: 1 / x                    :: one divided by {x} is given
a factor of 2           :: x * 2                    :: {x} is 2 times too large
a factor of 2           :: x / 2                    :: {x} is 2 times too small
half, rounded down      :: x // 2                   :: {x} is divided by 2 and rounded down
multiplied too much     :: x * y                    :: {x} is multiplied by {y}
divided too much        :: x / y                    :: {x} is divided by {y}
multiplied too much     :: x * len(y)               :: {x} is multiplied by the length of {y}
divided too much        :: x / len(y)               :: {x} is divided by the length of {y}
multiplied too much     :: x * y.shape[1]           :: {x} is multiplied by the size of dim 1 of {y}
divided too much        :: x / y.shape[1]           :: {x} is divided by the size of dim 1 of {y}
divided too much        :: x / y.sum()              :: {x} is divided by the sum of {y}
clamp too much          :: x.clamp(0, 1)            :: {x} is limited to [0, 1]
clamp too much          :: x.clamp(min=0)           :: {x} is kept from going below 0
rounding too much       :: x.round()                :: {x} is rounded
detached                :: x.detach()               :: {x} is cut off from the gradient
transposed              :: x.mT                     :: {x} is transposed
normalization too much  :: torch_.nn.functional.normalize(x, dim=-1) :: {x} is normalized to length 1
normalization too much  :: torch_.nn.functional.normalize(x, dim=0)  :: {x} is normalized to length 1 over dim 0
divided by its sum      :: x / x.sum()              :: {x} is divided by its sum
divided by its largest  :: x / x.max()              :: {x} is divided by its largest value
centred too much        :: x - x.mean(0)            :: the mean over dim 0 is taken off {x}
sorted                  :: x.sort(-1).values        :: {x} is sorted
sorted                  :: x.sort(0).values         :: {x} is sorted along dim 0
mirrored                :: x.flip(0)                :: {x} is turned round along dim 0
mirrored                :: x.flip(-1)               :: {x} is turned round along its last dim
the upper half alone    :: x.triu()                 :: the part below the diagonal is empty in {x}
the lower half alone    :: x.tril()                 :: the part above the diagonal is empty in {x}
the diagonal alone      :: x.diagonal()             :: the diagonal alone is given of {x}
the diagonal emptied    :: x - x.diagonal().diag()  :: the diagonal is set to 0 in {x}
rounded down            :: x // 1                   :: {x} is rounded down
a factor of 255         :: x * 255                  :: {x} is 255 times too large
a factor of 255         :: x / 255                  :: {x} is 255 times too small
"""

# of an argument before it is used: x is the argument
ARGUMENTS = """
normalization too much  :: torch_.nn.functional.normalize(x, dim=1)  :: {x} is normalized over dim 1 before it is used
normalization too much  :: torch_.nn.functional.normalize(x, dim=0)  :: {x} is normalized over dim 0 before it is used
normalization too much  :: torch_.nn.functional.normalize(x, dim=-1) :: {x} is normalized over its last dim before it is used
softmax too much        :: x.softmax(1)             :: a softmax over dim 1 is taken of {x}
softmax too much        :: x.softmax(0)             :: a softmax over dim 0 is taken of {x}
softmax too much        :: x.softmax(-1)            :: a softmax over the last dim is taken of {x}
hard for soft           :: (x == x.amax(-1, keepdim=True)).float() :: the largest of {x} gets everything, and the rest nothing
remainder too much      :: x % 2                    :: {x} is reduced to its remainder by 2 (% 2)
squared                 :: x ** 2                   :: the square of {x} stands where {x} is needed
a root too much         :: x ** 0.5                 :: the square root of {x} stands where {x} is needed
sign                    :: -x                       :: {x} has the wrong sign
1 less an argument      :: 1 - x                    :: 1 - {x} stands where {x} is needed
reciprocal              :: 1 / x                    :: 1 divided by {x} stands where {x} is needed
exponential too much    :: torch_.e ** x            :: the exponential of {x} is taken
logarithm too much      :: x.log()                  :: the logarithm of {x} is taken
absolute value too much :: x.abs()                  :: the absolute value of {x} is taken
sigmoid too much        :: x.sigmoid()              :: a sigmoid of {x} is taken
detached                :: x.detach()               :: the gradient is cut off at {x}
transposed              :: x.mT                     :: {x} is transposed
mirrored                :: x.flip(0)                :: {x} is turned round along dim 0
mirrored                :: x.flip(-1)               :: {x} is turned round along its last dim
one for all             :: x.mean()                 :: the mean of all of {x} stands where {x} itself is needed
one for all             :: x[0]                     :: the first of {x} stands for all of them
one for all             :: x[:1]                    :: the first of {x} stands for all of them
centring too much       :: x - x.mean(0, keepdim=True) :: the mean over dim 0 is taken off {x}
centring too much       :: x - x.mean(1, keepdim=True) :: the mean over dim 1 is taken off {x}
columns swapped         :: x[..., [1, 0, 3, 2]]     :: the columns of {x} are taken in another order
corners for sizes       :: torch_.cat([x[..., :2], x[..., :2] + x[..., 2:]], -1) :: the last two columns of {x} are taken for sizes, where they are corners
sizes for corners       :: torch_.cat([x[..., :2], x[..., 2:] - x[..., :2]], -1) :: the last two columns of {x} are taken for corners, where they are sizes
sorted                  :: x.sort(0).values         :: {x} is sorted before it is used
rounding too much       :: x.round()                :: {x} is rounded
half, rounded down      :: x // 2                   :: {x} is divided by 2 and rounded down
a constant for it       :: 0                        :: 0 stands where {x} is needed
a constant for it       :: 0.5                      :: 0.5 stands where {x} is needed
a constant for it       :: 1                        :: 1 stands where {x} is needed
a constant for it       :: 2                        :: 2 stands where {x} is needed
zeros for it            :: x * 0                    :: zeros stand where {x} is needed
another rounding        :: x.long()                 :: {x} is rounded to whole numbers
a factor of 255         :: x * 255                  :: {x} is multiplied by 255
a factor of 255         :: x / 255                  :: {x} is divided by 255
a factor of 90          :: x * 90                   :: {x} is multiplied by 90 (degrees)
a factor of 90          :: x / 90                   :: {x} is divided by 90 (degrees)
a factor of 2           :: x * 2                    :: {x} is multiplied by 2
a factor of 2           :: x / 2                    :: {x} is divided by 2
rounded down            :: x // 90                  :: {x} is divided by 90 and rounded down
"""


@dataclass(frozen=True)
class Rule:
    kind: str
    pattern: ast.expr | None
    instead: ast.expr
    says: str


def _read(text: str) -> list[Rule]:
    rules = []
    for line in text.strip().splitlines():
        kind, change, says = (part.strip() for part in line.split("::"))
        sides = [ast.parse(side.strip(), mode="eval").body for side in change.split("->")]
        rules.append(Rule(kind, sides[0] if len(sides) == 2 else None, sides[-1], says))
    return rules


@functools.cache
def _rules(text: str) -> dict[type, list[Rule]]:
    """The rules by the sort of node that they are about."""
    by_sort: dict[type, list[Rule]] = {}
    for rule in _read(text):
        by_sort.setdefault(type(rule.pattern), []).append(rule)
    return by_sort


def rules(node: ast.AST, place: Place) -> Options:
    for rule in _rules(RULES).get(type(node), ()) if place.is_value(node) else ():
        found: dict[str, Any] = {}
        if _fits(rule.pattern, node, found):
            told = {name: place.words(part) for name, part in found.items() if isinstance(part, ast.expr)}
            yield rule.kind, rule.says.format(**told), _filled(rule.instead, found), rule.says


def _variable(node: Any) -> str | None:
    return node.id if isinstance(node, ast.Name) and len(node.id) == 1 else None


def _open(arguments: Sequence[ast.expr]) -> bool:
    return bool(arguments) and isinstance(arguments[0], ast.Constant) and arguments[0].value is ...


def _fits(pattern: Any, node: Any, found: dict[str, Any]) -> bool:
    """Is the node as the pattern says? Notes in `found` what its variables stand for."""
    if name := _variable(pattern):
        good = isinstance(node, ast.expr) and (name != "n" or number_of(node) is not None)
        return good and dump(found.setdefault(name, node), {}) == dump(node, {})
    if isinstance(pattern, ast.Call):
        return _call_fits(pattern, node, found)
    if isinstance(pattern, list):
        return len(pattern) == len(node) and all(_fits(p, n, found) for p, n in zip(pattern, node, strict=True))
    if not isinstance(pattern, ast.AST):
        return pattern == node
    return type(pattern) is type(node) and all(
        _fits(value, getattr(node, name), found)
        for name, value in ast.iter_fields(pattern)
        if name not in ("ctx", "kind")
    )


def _call_fits(pattern: ast.Call, node: Any, found: dict[str, Any]) -> bool:
    if method(pattern) != method(node) or subject(node) is None or not _fits(subject(pattern), subject(node), found):
        return False
    given = {k.arg: k.value for k in node.keywords}
    named = all(k.arg in given and _fits(k.value, given[k.arg], found) for k in pattern.keywords)
    if _open(rest(pattern)):
        found["..."] = (rest(node), [k for k in node.keywords if k.arg not in {p.arg for p in pattern.keywords}])
        return named
    more = set(given) - {k.arg for k in pattern.keywords} - {"eps"}
    return named and not more and _fits(rest(pattern), rest(node), found)


def _filled(instead: ast.expr, found: dict[str, Any]) -> Any:
    """What a rule puts in place of what was found."""

    def other(node: ast.AST) -> Any:
        if name := _variable(node):
            return found.get(name)
        if isinstance(node, ast.Name) and node.id == "torch_":
            return ast.parse("__import__('torch')", mode="eval").body
        if isinstance(node, ast.Call) and _open(rest(node)):
            arguments, named = found["..."]
            value = rebuilt(subject(node), other)
            both = [*named, *node.keywords]
            if method(node) == "normalize":
                name = ast.parse("__import__('torch').nn.functional.normalize", mode="eval").body
                return ast.Call(name, [value, *arguments], both)
            return ast.Call(ast.Attribute(value, method(node), ast.Load()), list(arguments), both)
        if method(node) == "cosine_similarity" and is_method(node):
            name = ast.parse("__import__('torch').cosine_similarity", mode="eval").body
            return ast.Call(name, rebuilt([node.func.value, *node.args], other), rebuilt(node.keywords, other))
        if isinstance(node, ast.Attribute) and node.attr == "mT" and (inner := rebuilt(node.value, other)) is not None:
            turned = isinstance(inner, ast.Attribute) and inner.attr in ("T", "mT")
            return inner.value if turned else ast.Attribute(inner, "mT", ast.Load())
        return None

    return rebuilt(instead, other)


def results(node: ast.AST, place: Place) -> Options:
    """Something more is done to a result, or to what a variable holds."""
    whole = isinstance(node, ast.Return) and node.value is not None
    if not whole and not isinstance(node, ast.Assign):
        return
    if isinstance(node.value, ast.Tuple):
        for index, element in enumerate(node.value.elts) if whole else ():
            for kind, says, new in _more(element, place, "one of the results"):
                elements = [*node.value.elts[:index], new, *node.value.elts[index + 1 :]]
                yield kind, says, replaced(node, value=replaced(node.value, elts=elements))
        return
    for kind, says, new in _more(node.value, place, "the result" if whole else place.words(node.value)):
        yield kind, says, replaced(node, value=new)


def _more(value: ast.expr, place: Place, what: str) -> Options:
    for rule in _read_results():
        names = place.arguments if "{y}" in rule.says else [""]
        for name in names:
            instead = _filled(rule.instead, {"x": value, "y": ast.Name(name, ast.Load())})
            yield rule.kind, rule.says.format(x=what, y=f"`{name}`"), instead


@functools.cache
def _read_results() -> list[Rule]:
    return _read(RESULTS)


@functools.cache
def _read_arguments() -> list[Rule]:
    return _read(ARGUMENTS)


def arguments(node: ast.AST, place: Place) -> Options:
    """An argument that has been changed before it is used: once, not once more in a helper that it is handed to."""
    used = isinstance(node, ast.Name) and node.id in place.arguments and isinstance(node.ctx, ast.Load)
    if used and not place.in_helper(node) and (place.is_value(node) or isinstance(place.up(node), ast.Slice)):
        for rule in _read_arguments():
            yield rule.kind, rule.says.format(x=f"`{node.id}`"), _filled(rule.instead, {"x": node}), rule.says


INNER = ("exponential", "logarithm", "square root", "square", "absolute value", "clamp", "detached", "transposed")


def inner(node: ast.AST, place: Place) -> Options:
    """A step too much, inside an expression."""
    inside = isinstance(place.up(node), ast.BinOp | ast.Call | ast.Attribute | ast.Subscript | ast.Tuple | ast.List)
    if inside and place.is_value(node) and isinstance(node, ast.BinOp | ast.Call | ast.Subscript):
        for rule in _read_results():
            if rule.kind.startswith(INNER) and "{y}" not in rule.says:
                yield rule.kind, rule.says.format(x=place.words(node)), _filled(rule.instead, {"x": node})


# -- operators: what a rule can't say ---------------------------------------------------------------------------------------

# where a dim stands among the positional arguments of a method; one further on where a function takes the tensor first
DIM_PLACE = {
    "mean": 0, "sum": 0, "std": 0, "var": 0, "softmax": 0, "log_softmax": 0, "max": 0, "min": 0, "argmax": 0, "argmin": 0,
    "cumsum": 0, "sort": 0, "argsort": 0, "flip": 0, "logsumexp": 0, "unsqueeze": 0, "squeeze": 0, "prod": 0, "amax": 0,
    "amin": 0, "all": 0, "any": 0, "median": 0, "roll": 1, "topk": 1, "gather": 0, "index_select": 0, "cat": 0, "stack": 0,
    "repeat_interleave": 1, "chunk": 1, "split": 1, "unbind": 0, "norm": 1, "rot90": 1, "flatten": 0, "select": 0,
    "narrow": 0, "normalize": 1, "cosine_similarity": 1, "diff": 1, "concatenate": 0,
}  # fmt: skip
REDUCING = {"mean", "sum", "std", "var", "max", "min", "argmax", "argmin", "amax", "amin", "all", "any", "median", "prod",
            "norm", "logsumexp"}  # fmt: skip


def dim_of(node: ast.AST) -> tuple[str, Any, ast.expr] | None:
    """("keyword" or the index among args, the dim's value, its node) of a call along dims, or None."""
    name = method(node)
    if not isinstance(node, ast.Call) or name is None:
        return None
    for keyword in node.keywords:
        if keyword.arg in ("dim", "dims", "axis") and literal(keyword.value) is not None:
            return "keyword", literal(keyword.value), keyword.value
    if name in DIM_PLACE:
        first = DIM_PLACE[name] + (0 if is_method(node) else 1)
        if len(node.args) > first and not (name == "flip" and len(node.args) > first + 1):
            value = literal(node.args[first])
            if isinstance(value, int | tuple | list) and not isinstance(value, bool):
                return str(first), value, node.args[first]
    return None


def other_dim(node: ast.AST, place: Place) -> Options:
    what = word(method(node))
    if (found := dim_of(node)) is None:
        if isinstance(node, ast.Call) and method(node) in ("cat", "stack", "sort", "argsort", "cumsum", "concatenate"):
            for other in (1, 0, -1):
                keywords = [*node.keywords, ast.keyword("dim", constant(other))]
                yield "another dim", f"the {what} goes over dim {other}", replaced(node, keywords=keywords)
        return
    where, value, at = found
    for other in _other_dims(value):
        says = f"the {what} goes over dim {_dims(other)}, where dim {_dims(value)} is needed"
        yield "another dim", says, _with_dim(node, at, other)
    if method(node) in REDUCING:
        keywords = [k for k in node.keywords if k.arg not in ("dim", "axis", "keepdim")]
        args = node.args if where == "keyword" else [a for a in node.args if a is not at][: int(where)]
        says = f"the {what} goes over everything at once, where dim {_dims(value)} is needed"
        yield "another dim", says, replaced(node, args=args, keywords=keywords)
    if method(node) in ("var", "std") and isinstance(value, tuple) and len(value) > 1:
        kept = any(k.arg == "keepdim" for k in node.keywords)
        for dim in value:
            parts = _with_dim(node, at, tuple(d for d in value if d != dim))
            named = [k for k in parts.keywords if k.arg != "keepdim"] + [ast.keyword("keepdim", constant(True))]
            mean = call(replaced(parts, keywords=named), "mean", value, **({"keepdim": True} if kept else {}))
            says = f"the {what} is taken for each place of dim {dim} by itself and then averaged, where one over all of them is needed"
            yield "averaged afterwards", says, mean


def other_dims_everywhere(node: ast.AST, place: Place) -> Options:
    """Another dim wherever a function goes over one."""
    if not isinstance(node, ast.FunctionDef):
        return
    given = {found[1] for n in ast.walk(node) if (found := dim_of(n)) is not None and isinstance(found[1], int)}
    for value, other in itertools.product(sorted(given), (0, 1, 2, -1)):

        def over(part: ast.AST, value: int = value, other: int = other) -> ast.AST | None:
            if (found := dim_of(part)) is None or found[1] != value:
                return None
            new = _with_dim(part, found[2], other)
            return replaced(new, func=rebuilt(new.func, over), args=[rebuilt(a, over) for a in new.args])

        if other != value:
            says = f"everything goes over dim {other}, where dim {value} is needed"
            yield "another dim", says, replaced(node, body=rebuilt(node.body, over))


def _other_dims(value: Any) -> list[Any]:
    if isinstance(value, int):
        return [d for d in (0, 1, 2, 3, -1, -2) if d != value]
    value = tuple(value)
    options = [tuple(reversed(value))] + [value[:i] + value[i + 1 :] for i in range(len(value)) if len(value) > 1]
    options += [(0, *value), (0, 1), (1, 2), (2, 3), (1, 2, 3), (0, 2, 3), (0, 1, 2, 3), (-2, -1), 0, 1]
    return [o for o in dict.fromkeys(options) if o != value]


def _dims(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _with_dim(node: ast.Call, at: ast.expr, other: Any) -> ast.Call:
    keywords = [replaced(k, value=constant(other)) if k.value is at else k for k in node.keywords]
    return replaced(node, args=[constant(other) if a is at else a for a in node.args], keywords=keywords)


# what stands there: what stands there instead
SWAPS = dict(pair.split(": ") for pair in " ".join("""
mean: sum amax median std; sum: mean prod amax; std: var mean; var: std; max: min mean sum; min: max mean sum;
argmax: argmin; argmin: argmax; amax: amin mean; amin: amax mean; any: all; all: any; prod: sum; median: mean;
softmax: log_softmax; floor: ceil round; ceil: floor round; round: floor ceil int; int: round; sin: cos; cos: sin;
log: log2 log10 log1p exp; log2: log log10; exp: log exp2 square; sqrt: square log; square: abs sqrt exp;
abs: square; relu: abs sigmoid; sigmoid: relu tanh; zeros: ones; ones: zeros; tril: triu; triu: tril;
cumsum: cumprod; cumprod: cumsum; argsort: sort; clamp_min: clamp_max; norm: sum; zeros_like: ones_like;
ones_like: zeros_like; repeat: repeat_interleave; repeat_interleave: repeat; hflip: vflip; maximum: minimum;
minimum: maximum; logsumexp: sum; fliplr: flipud; flipud: fliplr; nanmean: mean; cat: stack; stack: cat;
softmin: softmax; isfinite: isnan; isnan: isfinite; mse_loss: l1_loss; l1_loss: mse_loss; cross_entropy: mse_loss;
removeprefix: lstrip; startswith: endswith; extend: append; append: extend
""".split()).split("; "))  # fmt: skip


def other_function(node: ast.AST, place: Place) -> Options:
    name = method(node)
    if isinstance(node, ast.Call):
        for other in SWAPS.get(name, "").split():
            says = f"{article(word(other))} stands where {article(word(name))} is needed"
            yield f"{other} for {name}", says, renamed(node, other)


OPPOSITES = {"maximum": "minimum", "max": "min", "argmax": "argmin", "amax": "amin", "sin": "cos", "zeros": "ones",
             "floor": "ceil", "any": "all"}  # fmt: skip


def opposites(node: ast.AST, place: Place) -> Options:
    """Two opposite functions swapped everywhere."""
    if isinstance(node, ast.FunctionDef):
        for one, two in OPPOSITES.items():
            names = {one: two, two: one}
            called = {method(n) for n in ast.walk(node) if isinstance(n, ast.Call)}
            if {one, two} <= called:

                def other(part: ast.AST, names: dict[str, str] = names) -> ast.AST | None:
                    if isinstance(part, ast.Attribute) and part.attr in names:
                        return ast.Attribute(rebuilt(part.value, other), names[part.attr], ast.Load())
                    known = isinstance(part, ast.Name) and part.id in names
                    return replaced(part, id=names[part.id]) if known else None

                says = f"{one} and {two} are swapped: each stands where the other is needed"
                yield "opposites swapped", says, replaced(node, body=rebuilt(node.body, other))


KEEP = {"len", "range", "enumerate", "zip", "list", "tuple", "dict", "set", "super", "isinstance", "backward", "step",
        "zero_grad", "arange", "zeros", "ones", "eye", "full", "rand", "randn", "randperm", "randint", "empty", "tensor",
        "tolist", "cat", "stack", "size", "append", "items", "keys", "values", "parameters", "manual_seed", "float",
        "item", "str", "Linear", "Sequential", "buffers", "state_dict", "named_parameters", "meshgrid", "where"}  # fmt: skip
DIAGONAL = ("masked_fill", "where", "triu", "tril")


def step_missing(node: ast.AST, place: Place) -> Options:
    """x.exp() -> x, functional.normalize(x, dim=1) -> x, x.T -> x, x - diagonal(x) -> x."""
    if isinstance(node, ast.BinOp) and any(part in ast.unparse(node.right) for part in ("eye(", "diag")):
        yield "diagonal left in", "the diagonal is left in", node.left
    if isinstance(node, ast.Attribute) and node.attr in ("T", "mT") and place.is_value(node):
        yield "transpose missing", "the transpose is missing", node.value
    name = method(node)
    if not isinstance(node, ast.Call) or name is None or name in KEEP or not place.is_value(node):
        return
    if (target := subject(node)) is not None:
        text = ast.unparse(node)
        if name in DIAGONAL and any(part in text for part in ("diag", "eye(", "tril", "triu")):
            yield "diagonal left in", "the diagonal is left in", target
        else:
            yield f"{word(name)} missing", f"the {word(name)} is missing", target


TWICE = {"softmax", "log_softmax", "exp", "log", "log2", "sqrt", "square", "normalize", "sigmoid", "mean", "tanh",
         "cumsum"}  # fmt: skip


def step_twice(node: ast.AST, place: Place) -> Options:
    if isinstance(node, ast.Call) and method(node) in TWICE and subject(node) is not None:
        yield f"{word(method(node))} twice", f"the {word(method(node))} is taken twice", on(node, node)


MOVED = {"square", "sqrt", "exp", "log", "abs", "clamp", "relu", "softmax", "log_softmax", "normalize", "round", "floor",
         "sigmoid", "mean", "sum", "float", "clamp_min", "cumsum"}  # fmt: skip


def moved(node: ast.AST, place: Place) -> Options:
    """A step that comes too late, after what it is to come before; or too early, of a part of what it is to be taken of."""
    if not isinstance(node, ast.Call) or method(node) not in MOVED or not place.is_value(node):
        return
    target, what = subject(node), word(method(node))
    if target is None:
        return
    for above in itertools.islice(place.above(node), 6):
        if isinstance(above, ast.stmt):
            break
        if place.is_value(above) and isinstance(above, ast.BinOp | ast.Call | ast.UnaryOp):
            late = on(node, rebuilt(above, lambda n: target if n is node else None))
            whole = f", after the {word(method(above))}" if method(above) in DIM_PLACE else ""
            yield "order of steps", f"the {what} comes later than it is to{whole}", (above, late)
    for part in list(ast.walk(target))[1:24]:
        if place.is_value(part) and isinstance(part, ast.BinOp | ast.Call | ast.Name | ast.Subscript | ast.Attribute):
            early = rebuilt(target, lambda n, part=part: on(node, part) if n is part else None)
            says = f"the {what} is taken of {place.words(part)}, before a step that it is to come after"
            yield "order of steps", says, early
    if isinstance(target, ast.BinOp):
        both = replaced(target, left=on(node, target.left), right=on(node, target.right))
        yield "order of steps", f"the {what} is taken of each of two parts, where it is to be taken of the whole", both


def before_reducing(node: ast.AST, place: Place) -> Options:
    """Something is done to each value before a mean or a sum that should be taken of the values as they are."""
    if isinstance(node, ast.Call) and method(node) in REDUCING and (target := subject(node)) is not None:
        for name in ("abs", "square", "exp", "log", "sqrt"):
            says = f"{article(word(method(node)))} is taken of the {word(name)} of what it is to be taken of"
            yield f"{word(name)} too much", says, on(node, call(target, name))


def sign(node: ast.AST, place: Place) -> Options:
    signed = isinstance(node, ast.Name | ast.Call | ast.BinOp | ast.Subscript | ast.Attribute)
    above = place.up(node)
    inside = isinstance(above, ast.Return | ast.Call | ast.BinOp | ast.Assign | ast.keyword | ast.Attribute | ast.Tuple)
    if signed and inside and place.is_value(node) and method(node) not in ("range", "zip", "enumerate"):
        turn = isinstance(above, ast.Call) and method(above) in ("rot90", "roll", "rotate90", "square_symmetry")
        kind, says = "sign", f"{place.words(node)} has the wrong sign"
        if turn:
            kind, says = "the other direction", "the turn goes in the other direction"
        yield kind, says.replace("something has", "a value has"), ast.UnaryOp(ast.USub(), node)


OPPOSITE = {
    ast.Gt: [(ast.GtE(), ">=", ">"), (ast.Lt(), "<", ">")], ast.GtE: [(ast.Gt(), ">", ">="), (ast.LtE(), "<=", ">=")],
    ast.Lt: [(ast.LtE(), "<=", "<"), (ast.Gt(), ">", "<")], ast.LtE: [(ast.Lt(), "<", "<="), (ast.GtE(), ">=", "<=")],
    ast.Eq: [(ast.NotEq(), "!=", "==")], ast.NotEq: [(ast.Eq(), "==", "!=")],
    ast.In: [(ast.NotIn(), "not in", "in")], ast.NotIn: [(ast.In(), "in", "not in")],
    ast.Is: [(ast.IsNot(), "is not", "is")], ast.IsNot: [(ast.Is(), "is", "is not")],
}  # fmt: skip


def comparison(node: ast.AST, place: Place) -> Options:
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            for new, is_, needed in OPPOSITE[type(operator)]:
                equal = {is_, needed} in ({">", ">="}, {"<", "<="})
                kind = "at equality" if equal else "comparison turned round"
                says = f"{is_} stands where {needed} is needed" + (", which matters at equality" if equal else "")
                yield kind, says, replaced(node, ops=[*node.ops[:index], new, *node.ops[index + 1 :]])
        if len(node.ops) == 2:
            first = replaced(node, ops=node.ops[:1], comparators=node.comparators[:1])
            last = ast.Compare(node.comparators[0], node.ops[1:], node.comparators[1:])
            for part in (first, last):
                yield "a condition missing", "one end of a chain of comparisons is missing", part
    if isinstance(node, ast.BoolOp):
        pair = ("or", "and") if isinstance(node.op, ast.And) else ("and", "or")
        other = replaced(node, op=ast.Or() if pair[0] == "or" else ast.And())
        yield "and, or", f"'{pair[0]}' stands where '{pair[1]}' is needed", other
        for index in range(len(node.values)):
            rest_ = node.values[:index] + node.values[index + 1 :]
            new = rest_[0] if len(rest_) == 1 else replaced(node, values=rest_)
            yield "a condition missing", "one of the conditions is missing", new
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        turned = replaced(node, test=ast.UnaryOp(ast.Not(), node.test))
        yield "condition turned round", "a condition is turned round", turned
    if isinstance(node, ast.If | ast.IfExp):
        says = "a special case is forgotten: what holds otherwise is done there, too"
        yield "a case forgotten", says, replaced(node, test=constant(False))
        says = "what is meant for a special case is always done"
        yield "the special case always", says, replaced(node, test=constant(True))
    if isinstance(node, ast.comprehension) and not all(map(is_tick, node.ifs)):
        clock = list(filter(is_tick, node.ifs))
        yield "a condition missing", "a condition on what is taken is missing", replaced(node, ifs=clock)


def constants(node: ast.AST, place: Place) -> Options:
    value, above = number_of(node), place.up(node)
    if value is None or isinstance(above, ast.UnaryOp | ast.Slice) or _is_dim(node, place):
        return
    if isinstance(above, ast.Subscript) and above.slice is node:
        return  # indices have an operator of their own
    near = [value + delta for delta in (1, -1)] if isinstance(value, int) else []
    others = [2 * value, value // 2, 0, 256 if value == 255 else 1]
    if isinstance(value, float):
        close = (0.1, -0.1, 0.2, -0.2, 0.5, -0.5, 1.0, -1.0) if value > 0.2 else ()
        others = [2 * value, value / 2, 1 - value, 10 * value, value / 10, value**2, 0.0, 1.0, -value]
        others += [round(value + delta, 6) for delta in close]
    for other in dict.fromkeys([*near, *others]):
        # many limits lead to the same choices: which of them it was, nobody can know
        it = "another limit" if isinstance(above, ast.Compare) else f"{other:.4g}"
        kind = "off by one" if other in near else "another constant"
        yield kind, f"{it} stands where {value:.4g} is needed", constant(other)
    for name in place.arguments if place.is_value(node) else ():
        yield "an argument for it", f"`{name}` stands where {value:.4g} is needed", ast.Name(name, ast.Load())


def _is_dim(node: ast.AST, place: Place) -> bool:
    above = place.up(node)
    if isinstance(above, ast.keyword):
        return above.arg in ("dim", "dims", "axis", "correction", "dim0", "dim1", "start_dim")
    if isinstance(above, ast.Tuple):
        return isinstance(place.up(above), ast.Call | ast.keyword)
    return isinstance(above, ast.Call) and (found := dim_of(above)) is not None and found[2] is node


def counts(node: ast.AST, place: Place) -> Options:
    """One too many or too few, and another size: len(x) for x.shape[1], or the number of all elements."""
    counted = isinstance(node, ast.Call) and method(node) in ("len", "numel", "size")
    shape = isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute) and node.value.attr == "shape"
    argument = isinstance(node, ast.Name) and node.id in place.arguments
    above = place.up(node)
    meant = place.meaning.get(node.id) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) else None
    if meant is not None and (method(meant) == "len" or "shape" in ast.unparse(meant)):
        counted = True
    inside = isinstance(above, ast.Call) and method(above) in ("range", "arange")
    if (place.is_value(node) or isinstance(above, ast.Slice)) and (counted or shape or argument or inside):
        it = place.words(node).replace("something", "a count")
        for operator, says in ((ast.Sub(), "one too few"), (ast.Add(), "one too many")):
            yield "off by one", f"{it} is taken {says}", binary(node, operator, 1)
    if not (counted or shape):
        return
    tensor = node.value.value if shape else subject(node) if isinstance(node, ast.Call) else None
    index = literal(node.slice) if shape else 0
    yield "1 for a size", f"1 stands where {place.words(node).replace('something', 'a size')} is needed", constant(1)
    if tensor is not None:
        where = place.name(tensor) or "a tensor"
        for other in (0, 1, 2, 3, -1):
            if other != index:
                size = ast.Subscript(ast.Attribute(tensor, "shape", ast.Load()), constant(other), ast.Load())
                yield "another size", f"the size of dim {other} of {where} stands where another size is needed", size
        says = f"the number of all elements of {where} stands where the size of one dimension is needed"
        yield "another size", says, call(tensor, "numel")


def indices(node: ast.AST, place: Place) -> Options:
    if isinstance(node, ast.Slice):
        yield from _slices(node)
    if not isinstance(node, ast.Subscript) or isinstance(node.ctx, ast.Del):
        return
    value = literal(node.slice)
    if isinstance(value, int) and not (isinstance(node.value, ast.Attribute) and node.value.attr == "shape"):
        kinds = {-1: "the other end", value + 1: "off by one", value - 1: "off by one", 0: "", 1: "", 2: ""}
        for other, kind in kinds.items():
            if other != value:
                says = f"the place {other} is taken where the place {value} is needed"
                yield kind or "another index", says, replaced(node, slice=constant(other))
        yield "not indexed", "all is taken where one place is needed", node.value
    if isinstance(node.slice, ast.Tuple):
        for swapped in _swapped(node.slice.elts):
            new = replaced(node, slice=replaced(node.slice, elts=swapped))
            yield "indices swapped", "two indices are swapped, rows for columns", new
    if not isinstance(node.ctx, ast.Store) and not isinstance(value, int):
        yield "not selected", "all is taken where a part is to be selected", node.value
        if isinstance(node.slice, ast.Compare | ast.Name | ast.UnaryOp):
            turned = replaced(node, slice=ast.UnaryOp(ast.Invert(), node.slice))
            yield "the others selected", "the others are selected: a mask is turned round", turned


def _slices(node: ast.Slice) -> Options:
    lower, upper = node.lower, node.upper
    for end, at in (("lower", lower), ("upper", upper)):
        if at is not None:
            open_ = "begins at the beginning" if end == "lower" else "goes to the end"
            yield "slice", f"a slice {open_}, where it has a limit", replaced(node, **{end: None})
            for operator, words in ((ast.Add(), "late"), (ast.Sub(), "early")):
                says = f"a slice {'begins' if end == 'lower' else 'ends'} one place too {words}"
                yield "off by one", says, replaced(node, **{end: binary(at, operator, 1)})
    if lower is not None and upper is not None:
        for operator, words in ((ast.Add(), "late"), (ast.Sub(), "early")):
            both = replaced(node, lower=binary(lower, operator, 1), upper=binary(upper, operator, 1))
            yield "off by one", f"a slice begins and ends one place too {words}", both
        says = "a slice begins where it should, and its end is a length counted from the beginning"
        if isinstance(upper, ast.BinOp):
            for side in (upper.left, upper.right):
                yield "slice", says, replaced(node, upper=side)
                yield "slice", "a slice begins at another place than it should", replaced(node, lower=side)
    elif lower is not None or upper is not None:
        at = lower if lower is not None else upper
        yield "the other end", "the other end of a slice is taken", replaced(node, lower=upper, upper=lower)
        minus = ast.UnaryOp(ast.USub(), at)
        turned = replaced(node, lower=minus, upper=None) if lower is None else replaced(node, lower=None, upper=minus)
        says = "the last ones are taken where the first ones are needed, or the first for the last"
        yield "the other end", says, turned
    if node.step is not None:
        yield "slice", "the step of a slice is missing", replaced(node, step=None)
        if lower is not None:
            both = replaced(node, lower=node.step, step=lower)
            yield "slice", "the beginning and the step of a slice are swapped", both


def _swapped(elements: Sequence[Any]) -> Iterator[list[Any]]:
    for a, b in itertools.combinations(range(len(elements)), 2):
        new = list(elements)
        new[a], new[b] = new[b], new[a]
        yield new


def swapped(node: ast.AST, place: Place) -> Options:
    if isinstance(node, ast.Call) and len(node.args) > 1 and not any(isinstance(a, ast.Starred) for a in node.args):
        for args in _swapped(node.args):
            where = method(node) == "where" and args[0] is node.args[0]
            what = "choices of where()" if where else f"arguments of {method(node)}()"
            says = f"{'the ' if where else ''}two {what} are swapped"
            yield "arguments swapped", says, replaced(node, args=args)
    if is_method(node) and len(node.args) == 1 and place.is_value(node):
        new = replaced(node, func=replaced(node.func, value=node.args[0]), args=[node.func.value])
        yield "arguments swapped", f"the two sides of {method(node)}() are swapped", new
    if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Store) and 1 < len(node.elts) < 6:
        for elements in _swapped(node.elts):
            yield "values swapped", "two of several values are taken for each other", replaced(node, elts=elements)
    if isinstance(node, ast.Tuple | ast.List) and isinstance(node.ctx, ast.Load) and 1 < len(node.elts) < 6:
        given = isinstance(place.up(node), ast.Return)
        joined = isinstance(place.up(node), ast.Call) and method(place.up(node)) in ("cat", "stack", "concatenate")
        says = "two of the values that you return are swapped" if given else "two values are swapped"
        says = "two of the parts that are joined are swapped" if joined else says
        for elements in _swapped(node.elts):
            yield "values swapped", says, replaced(node, elts=elements)


def other_name(node: ast.AST, place: Place) -> Options:
    """One argument for another, in one place or everywhere."""
    if isinstance(node, ast.FunctionDef):
        own = [a.arg for a in node.args.args if a.arg in place.arguments]
        for a, b in itertools.combinations(own, 2):
            body = with_names(node.body, {a: b, b: a})
            yield "arguments swapped", f"`{a}` and `{b}` are swapped", replaced(node, body=body)
    inside = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    if not inside or not (place.is_value(node) or isinstance(place.up(node), ast.Slice)):
        return
    around = next((n for n in place.above(node) if isinstance(n, ast.FunctionDef)), None)
    if around is None:
        return
    local = [n.id for n in ast.walk(around) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    known = dict.fromkeys([*(a.arg for a in around.args.args), *local])
    given = set(place.arguments)
    for other in known if node.id in known else ():
        if other != node.id and other != "_":
            it = f"`{other}`" if other in given else place.words(ast.Name(other, ast.Load()))
            needed = f"`{node.id}`" if node.id in given else place.words(node).replace("something", "another value")
            says = f"{it} stands where {needed} is needed".replace("something", "another value", 1)
            if says.count("another value") == 2:
                says = "one intermediate value stands where another is needed"
            yield "one for the other", says, replaced(node, id=other)


def statements(node: ast.AST, place: Place) -> Options:
    above = place.up(node)
    bodies = [getattr(above, name, None) for name in ("body", "orelse")]
    body = next((b for b in bodies if isinstance(b, list) and any(s is node for s in b)), None)
    if not isinstance(node, ast.stmt) or body is None or isinstance(node, ast.FunctionDef | ast.ClassDef):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        name = f"{method(node.value)}()"
        yield f"{name} missing", f"{name} is missing", []
        yield f"{name} twice", f"{name} is called twice", [node, node]
    elif isinstance(node, ast.AugAssign | ast.Assign | ast.If | ast.For):
        yield "a step missing", "a step is left out", []
        if isinstance(node, ast.AugAssign | ast.Assign):
            yield "a step twice", "a step is done twice", [node, node]
    if isinstance(node, ast.AugAssign):
        if isinstance(node.op, ast.Add | ast.Sub):
            added = isinstance(node.op, ast.Add)
            is_, needed = ("subtracted", "added") if added else ("added", "subtracted")
            says = f"a term is {is_} where it is to be {needed}"
            yield "sign", says, replaced(node, op=ast.Sub() if added else ast.Add())
        if isinstance(node.target, ast.Name):
            says = "a running value is overwritten where it is to be added to"
            yield "overwritten", says, ast.Assign([node.target], node.value)
    if isinstance(node, ast.For):
        turned = function("list", node.iter)
        says = "a loop stops after its first round"
        yield "one round alone", says, replaced(node, body=[*node.body, ast.Break()])
        says = "a loop runs from the end to the beginning"
        yield "the other way round", says, replaced(node, iter=function("reversed", turned))
        for which, first, last in (("first", constant(1), None), ("last", None, constant(-1))):
            new = replaced(node, iter=ast.Subscript(turned, ast.Slice(first, last, None), ast.Load()))
            yield "a round missing", f"the {which} round of a loop is left out", new
        if isinstance(body[-1], ast.Return) and body[-1] is not node:
            early = replaced(node, body=[*node.body, body[-1]])
            yield "return inside the loop", "the function returns in the loop's first round", early


def order_of_steps(node: ast.AST, place: Place) -> Options:
    for name in ("body", "orelse"):
        body = getattr(node, name, None)
        if isinstance(body, list) and isinstance(node, ast.FunctionDef | ast.For | ast.While | ast.If):
            for index in range(len(body) - 1):
                if not isinstance(body[index + 1], ast.Return):
                    new = [*body[:index], body[index + 1], body[index], *body[index + 2 :]]
                    yield "order of steps", "two steps are done in the other order", replaced(node, **{name: new})


def arguments_kept(node: ast.AST, place: Place) -> Options:
    """Nothing is done, or it is done to a copy."""
    own = [a.arg for a in node.args.args] if isinstance(node, ast.FunctionDef) else []
    if own and set(own) <= set(place.arguments):
        says = "nothing is done to the arguments, or it is done to copies of them"
        yield "nothing done", says, replaced(node, body=[ast.Pass()])
        for name in own:
            back = replaced(node, body=[ast.Return(ast.Name(name, ast.Load()))])
            yield "nothing done", f"`{name}` comes back as it was", back
            copy = ast.parse(f"{name} = __import__('copy').deepcopy({name})").body
            says = f"a copy of `{name}` is changed, and `{name}` itself stays as it was"
            yield "works on a copy", says, replaced(node, body=[*copy, *node.body])


CHOICES = {"bilinear": ("nearest", "bicubic"), "bicubic": ("bilinear", "nearest"), "nearest": ("bilinear",), "mean": ("sum", "none"),
           "sum": ("mean", "none"), "none": ("mean", "sum"), "reflect": ("constant",), "ij": ("xy",), "xy": ("ij",)}  # fmt: skip
KEPT = ("generator", "dim", "dims", "axis", "correction", "unbiased", "device", None)


def keywords(node: ast.AST, place: Place) -> Options:
    if not isinstance(node, ast.Call):
        return
    for keyword in node.keywords:
        if keyword.arg in KEPT:
            continue
        value, name = literal(keyword.value), keyword.arg
        shown = f"{name}={value!r}"
        told = shown if value is not None and len(shown) < 30 else name
        new = replaced(node, keywords=[k for k in node.keywords if k is not keyword])
        yield f"{name} missing", f"{method(node)}() lacks its {told}", new
        others = (not value,) if isinstance(value, bool) else CHOICES.get(value, ()) if isinstance(value, str) else ()
        for other in others:
            new = [replaced(k, value=constant(other)) if k is keyword else k for k in node.keywords]
            kind = f"{name} turned round" if isinstance(value, bool) else f"another {name}"
            yield kind, f"{name}={other!r} stands where {shown} is needed", replaced(node, keywords=new)
    if method(node) in ("clamp", "clip") and len(node.args) > 1:
        says = "the clamp has one limit alone, where two are needed"
        yield "clamp on one side", says, replaced(node, args=node.args[:1])
    if method(node) in ("sort", "argsort", "topk", "sorted"):
        name = {"topk": "largest", "sorted": "reverse"}.get(method(node), "descending")
        if all(k.arg != name for k in node.keywords):
            turned = ast.keyword(name, constant(name != "largest"))
            says = "the order is turned round: the smallest first for the largest, or the largest for the smallest"
            yield "the other end", says, replaced(node, keywords=[*node.keywords, turned])
    reduced = any(k.arg == "reduction" for k in node.keywords)
    if method(node) in ("cross_entropy", "mse_loss", "l1_loss", "nll_loss") and not reduced:
        total = [*node.keywords, ast.keyword("reduction", constant("sum"))]
        yield "sum for mean", "a sum stands where a mean is needed", replaced(node, keywords=total)


OPERATORS: tuple[Callable[[ast.AST, Place], Options], ...] = (
    arguments_kept, other_dim, other_function, step_missing, rules, step_twice, keywords, comparison, indices, other_dims_everywhere,
    opposites, sign, swapped, other_name, counts, constants, results, arguments, before_reducing, moved, statements, order_of_steps, inner,
)  # fmt: skip
