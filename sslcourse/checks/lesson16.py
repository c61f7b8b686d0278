"""Checks of lesson 16's exercises: losses of images and texts, a classifier out of words, recall, swapped words."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse import losses
from sslcourse.checks import cases
from sslcourse.checks.compare import EXACT, Closeness
from sslcourse.checks.framework import Case, Check, Wrong, value_and_gradients, yourself


def clip_loss(images: Tensor, texts: Tensor, scale: float) -> Tensor:
    """images and texts (N, d), row i of both of one pair; scale of the cosines -> CLIP's loss, a scalar."""
    images = functional.normalize(images, dim=1)
    texts = functional.normalize(texts, dim=1)
    logits = scale * images @ texts.T  # (N, N): a row per image, a column per text
    own = torch.arange(len(images))
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def _pairs(generator: torch.Generator) -> Iterator[Case]:
    """Texts near their images, none of them of length 1."""
    for n, d, scale in ((4, 3, 5.0), (3, 6, 2.0), (6, 4, 14.0)):
        images = cases.normal(generator, n, d)
        texts = images + 0.8 * cases.normal(generator, n, d)
        yield 2 * images, texts * cases.uniform(generator, n, 1, low=0.5, high=3.0), scale


def _clip_in_loop(images, texts, scale):
    x, y = ([v / v.norm() for v in rows] for rows in (images, texts))
    total = 0.0
    for i in range(len(x)):
        own = scale * x[i] @ y[i]
        among_texts = torch.stack([scale * x[i] @ y[j] for j in range(len(y))])
        among_images = torch.stack([scale * x[j] @ y[i] for j in range(len(x))])
        total = total + among_texts.logsumexp(dim=0) - own + among_images.logsumexp(dim=0) - own
    return total / (2 * len(x))


def _clip_by_logarithms(images, texts, scale):
    cosines = functional.cosine_similarity(images[:, None], texts[None], dim=2)
    logits = scale * cosines
    return -(logits.log_softmax(dim=1).diagonal() + logits.log_softmax(dim=0).diagonal()).mean() / 2


which_text_and_which_image = Check(
    name="16.1 which text, and which image?", reference=clip_loss, cases=_pairs, run=value_and_gradients,
    forbidden=(yourself("sslcourse.losses"),), rights=(_clip_in_loop, _clip_by_logarithms),
    wrongs=(
        Wrong("images ask alone",
            change=("(functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2",
            "functional.cross_entropy(logits, own)"), hint="""In your loss each image looks for its text, and no text
            for its image. The texts ask as well: the same scores, transposed. The loss is the mean of both."""),
        Wrong("texts ask alone",
            change=("(functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2",
            "functional.cross_entropy(logits.T, own)"), hint="""In your loss each text looks for its image, and no image
            for its text. Take the mean of both questions."""),
        Wrong("both questions added", change=(" / 2", ""), hint="""You add the two cross-entropies; their mean is asked
            for. (For N vectors that are all alike the loss is log N, not twice that.)"""),
        Wrong("images not normalized", change=("images = functional.normalize(images, dim=1)", "images = images * 1"),
            hint="""The images aren't normalized: a long vector shouts, and the loss falls when vectors grow. Give both
            sides length 1 before you multiply."""),
        Wrong("texts not normalized", change=("texts = functional.normalize(texts, dim=1)", "texts = texts * 1"),
            hint="""The texts aren't normalized: a long vector shouts, and the loss falls when vectors grow. Give both
            sides length 1 before you multiply."""),
        Wrong("normalized over the batch", change=("dim=1)\n    texts", "dim=0)\n    texts"),
            also=(("dim=1", "dim=0"),), hint="""You normalize the columns of the images, over the batch: then pictures
            change each other. Each row is a vector of its own: dim=1."""),
        Wrong("divided by the scale", change=("scale * images @ texts.T", "images @ texts.T / scale"),
            hint="You divide by the scale; it multiplies. The scale is one over the temperature."),
        Wrong("scale forgotten", change=("scale * images", "images"), hint="""The scale doesn't take part. Without it
            cosines lie between -1 and 1, and even a perfect match gets a small share of the softmax."""),
    ),
    hints=(
        "N pictures, N texts: how many choices has each picture, and which of them is right? And each text?",
        """logits = scale * images @ texts.T, both sides of length 1; the right column of row i is i. Then the same,
        transposed.""",
        """own = torch.arange(len(images)); (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T,
        own)) / 2""",
    ),
)


def sigmoid_loss(images: Tensor, texts: Tensor, scale: float, bias: float) -> Tensor:
    """images and texts (N, d) of length 1, row i of both of one pair -> SigLIP's loss, a scalar."""
    logits = scale * images @ texts.T + bias  # (N, N)
    belongs = 2 * torch.eye(len(images)) - 1  # (N, N): 1 for a pair, -1 for two that don't belong together
    return -functional.logsigmoid(belongs * logits).sum() / len(images)


def _unit_pairs(generator: torch.Generator) -> Iterator[Case]:
    for (images, texts, _), scale, bias in zip(_pairs(generator), (3.0, 10.0, 2.0), (-2.0, -4.0, 0.5), strict=True):
        yield functional.normalize(images, dim=1), functional.normalize(texts, dim=1), scale, bias


def _sigmoid_in_loop(images, texts, scale, bias):
    total = 0.0
    for i in range(len(images)):
        for j in range(len(texts)):
            logit = scale * images[i] @ texts[j] + bias
            total = total + functional.softplus(-logit if i == j else logit)
    return total / len(images)


def _sigmoid_by_torch(images, texts, scale, bias):
    logits = scale * images @ texts.T + bias
    return functional.binary_cross_entropy_with_logits(logits, torch.eye(len(images)), reduction="sum") / len(images)


each_pair_by_itself = Check(
    name="16.2 each pair by itself", reference=sigmoid_loss, cases=_unit_pairs, run=value_and_gradients,
    forbidden=(yourself("sslcourse.losses"),), rights=(_sigmoid_in_loop, _sigmoid_by_torch),
    wrongs=(
        Wrong("mean over all pairs", change=(".sum() / len(images)", ".mean()"),
            hint="""You take the mean over all N * N pairs. SigLIP adds them up and divides by N: otherwise the N that
            belong together would weigh less and less in a larger batch."""),
        Wrong("sum", change=(" / len(images)", ""),
            hint="You add up over all pairs; the sum is divided by N, the number of images."),
        Wrong("no negatives", change=("-functional.logsigmoid(belongs * logits).sum()",
            "-functional.logsigmoid(logits.diagonal()).sum()"),
            hint="""You ask about the pairs that belong together, and about no others: the network could answer yes to
            everything. Every image with every text is a question."""),
        Wrong("all belong together", change=("belongs * logits", "logits"), hint="""You treat every pair as one that
            belongs together. Off the diagonal the right answer is no: there the logit's sign turns."""),
        Wrong("zero off the diagonal", change=("2 * torch.eye(len(images)) - 1", "torch.eye(len(images))"),
            hint="""Off the diagonal you multiply by 0, which makes every such pair a constant log 2, without a
            gradient. It is -1 there."""),
        Wrong("signs swapped", change=("2 * torch.eye(len(images)) - 1", "1 - 2 * torch.eye(len(images))"),
            hint="Your signs are swapped: your loss is smallest where no pair fits and all the others do."),
        Wrong("bias forgotten", change=(" + bias", ""), hint="""The bias is missing. Of N * N pairs only N belong
            together, and the bias lets the network begin with a no."""),
        Wrong("bias scaled", change=("scale * images @ texts.T + bias", "scale * (images @ texts.T + bias)"), hint="""
            You multiply the bias by the scale, too. The scale belongs to the cosines alone: scale * cosine + bias."""),
        Wrong("not the logarithm",
            change=("-functional.logsigmoid(belongs * logits)", "(1 - torch.sigmoid(belongs * logits))"),
            hint="""You add up probabilities of being wrong. The loss is minus the logarithm of the probability of being
            right: functional.logsigmoid."""),
    ),
    hints=(
        "Take one image and one text. Do they belong together, yes or no? What is the loss of such a question?",
        "-logsigmoid(logit) for a pair, -logsigmoid(-logit) for two that don't belong together: a sign decides.",
        "belongs = 2 * torch.eye(N) - 1; -functional.logsigmoid(belongs * logits).sum() / N",
    ),
)


def class_directions(texts: Tensor) -> Tensor:
    """texts (C, P, d), embeddings of P prompts for each of C classes -> a direction of length 1 for each, (C, d)."""
    directions = functional.normalize(texts, dim=2)
    return functional.normalize(directions.mean(dim=1), dim=1)


def _prompts(generator: torch.Generator) -> list[Case]:
    shapes = ((3, 4, 5), (5, 2, 3), (2, 6, 4))
    return [(cases.normal(generator, *s) * cases.uniform(generator, *s[:2], 1, low=0.3, high=4.0),) for s in shapes]


def _directions_in_loop(texts):
    found = []
    for prompts in texts:
        total = sum(prompt / prompt.norm() for prompt in prompts)
        found.append(total / total.norm())
    return torch.stack(found)


a_classifier_out_of_words = Check(
    name="16.3 a classifier out of words", reference=class_directions, cases=_prompts,
    rights=(
        _directions_in_loop,
        lambda texts: functional.normalize((texts / texts.norm(dim=2, keepdim=True)).sum(1), dim=1),
    ),
    wrongs=(
        Wrong("long prompts weigh more", change=("functional.normalize(texts, dim=2)", "texts * 1"),
            hint="""You average the prompts as they are, so that a longer vector weighs more. Each prompt counts alike:
            give it length 1 first."""),
        Wrong("mean not normalized",
            change=("functional.normalize(directions.mean(dim=1), dim=1)", "directions.mean(dim=1)"),
            hint="""The mean of directions is shorter than 1, the more so the less its prompts agree, and its class
            would get lower scores for that. Normalize the mean as well."""),
        Wrong("mean over the classes",
            lambda texts: functional.normalize(functional.normalize(texts, dim=2).mean(dim=0), dim=1),
            """You average over the classes, and one prompt of all classes is left. The classes lie along dim 0, the
            prompts along dim 1: average these."""),
        Wrong("the first prompt alone", lambda texts: functional.normalize(texts[:, 0], dim=1),
            "You take the first prompt of each class. All of its prompts take part, through their mean."),
        Wrong("normalized over the prompts", change=("dim=2", "dim=1"),
            hint="You normalize over the prompts, dim=1. A vector's numbers lie along the last dimension, dim=2."),
    ),
    hints=(
        "One direction from several: what should happen to a prompt whose vector is ten times as long?",
        "Normalize each prompt (its numbers lie along dim 2), average over the prompts (dim 1), normalize the mean.",
        "functional.normalize(functional.normalize(texts, dim=2).mean(dim=1), dim=1)",
    ),
)


def recall_at(similarity: Tensor, k: int) -> float:
    """similarity (N, N), a row per query, its own of the gallery at column i -> the share of queries found, a float."""
    own = similarity.diagonal()[:, None]  # (N, 1)
    before = (similarity > own).sum(dim=1)  # (N,) how many are more alike
    return (before < k).float().mean().item()


def _similarities(generator: torch.Generator) -> list[Case]:
    """Own ones a little higher, so that they stand at every place; some rows find theirs first, some last."""
    return [(cases.normal(generator, n, n) + torch.eye(n), k) for n, k in ((15, 4), (12, 1), (20, 7), (11, 3))]


def _recall_by_topk(similarity, k):
    nearest = similarity.topk(k, dim=1).indices  # (N, k)
    return (nearest == torch.arange(len(similarity))[:, None]).any(dim=1).float().mean().item()


def _recall_by_sorting(similarity, k):
    order = similarity.argsort(dim=1, descending=True)
    return sum(i in row[:k].tolist() for i, row in enumerate(order)) / len(similarity)


among_the_first_k = Check(
    name="16.4 among the first k", reference=recall_at, cases=_similarities, close=Closeness(plain=True),
    rights=(_recall_by_topk, _recall_by_sorting),
    wrongs=(
        Wrong("one place too generous", change=("before < k", "before <= k"), hint="""You count one place too many:
            where k others are more alike, one's own stands at place k + 1. Less than k may stand before it."""),
        Wrong("from the other side", change=("sum(dim=1)", "sum(dim=0)"),
            also=(lambda similarity, k: _recall_by_topk(similarity.T, k),),
            hint="You count down the columns. Query i is row i: all that it is compared with lies along dim 1."),
        Wrong("the least alike", change=("similarity > own", "similarity < own"),
            hint="You count what is less alike than one's own. What stands before it is more alike."),
        Wrong("first place alone",
            lambda similarity, k: (similarity.argmax(1) == torch.arange(len(similarity))).float().mean().item(),
            "You ask for the first place, whatever k is. One's own may stand anywhere among the first k."),
        Wrong("a count", change=("float().mean()", "float().sum()"),
            hint="You count the queries that are found; their share of all queries is asked for."),
        Wrong("share of what is found", lambda similarity, k: _recall_by_topk(similarity, k) / k,
            """You divide by k as well: that is precision. There is a single right one for each query, and recall asks
            whether it is there."""),
    ),
    hints=(
        "For one query: how many of the candidates are more alike than its own?",
        """Fewer than k may stand before one's own. All queries at once: compare the matrix with its diagonal, as a
        column.""",
        "own = similarity.diagonal()[:, None]; ((similarity > own).sum(dim=1) < k).float().mean().item()",
    ),
)


def exchange(tokens: Tensor, member: Tensor) -> Tensor:
    """tokens int64 (N, L), member bool (V,) -> int64 (N, L): in each row the group's first two words change places."""
    result = tokens.clone()
    for row in result:
        places = member[row].nonzero()[:, 0]  # where the group's words stand
        if len(places) >= 2:
            first, second = places[0].item(), places[1].item()
            row[first], row[second] = row[second].item(), row[first].item()
    return result


def _sentences(generator: torch.Generator) -> list[Case]:
    """Rows with no word of the group, one, two, two alike, three; the words of a group are 3, 5, 6 and 8 of ten."""
    member = torch.tensor([number in (3, 5, 6, 8) for number in range(10)])
    rows = "1528400 7124000 3900000 6132849 1488327 2530000"
    tokens = torch.tensor([list(map(int, row)) for row in rows.split()])
    return [(tokens, member), (tokens[torch.randperm(6, generator=generator)[:4]], member), (tokens[:, :5], ~member)]


def _exchange_by_places(tokens, member):
    belongs = member[tokens]
    order = belongs.long().cumsum(dim=1)
    first, second = belongs & (order == 1), belongs & (order == 2)
    a, b = ((tokens * place).sum(dim=1, keepdim=True) for place in (first, second))
    two = second.any(dim=1, keepdim=True)
    return torch.where(first & two, b.expand_as(tokens), torch.where(second, a.expand_as(tokens), tokens))


def _exchange_by_lists(tokens, member):
    group, rows = set(member.nonzero()[:, 0].tolist()), tokens.tolist()
    for row in rows:
        places = [i for i, word in enumerate(row) if word in group][:2]
        if len(places) == 2:
            i, j = places
            row[i], row[j] = row[j], row[i]
    return torch.tensor(rows)


swapped_words = Check(
    name="16.5 swapped words", reference=exchange, cases=_sentences, close=EXACT,
    rights=(_exchange_by_places, _exchange_by_lists),
    wrongs=(
        Wrong("first and last", change=("places[1].item()", "places[-1].item()"), hint="""Where the group has three
            words in a row, you exchange the first with the last. The first two change places, and a third stays."""),
        Wrong("one of them lost", change=("row[first], row[second] = row[second].item(), row[first].item()",
            "row[first] = row[second]; row[second] = row[first]"),
            hint="""You write the second word over the first, and then the first, which is the second by now, over the
            second: one of the two is lost. Keep both before you write."""),
        Wrong("all of them moved on",
            change=(("first, second = places[0].item(), places[1].item()", "row[places] = row[places].roll(1)"),
            ("row[first], row[second] = row[second].item(), row[first].item()", "pass")), hint="""You move every word of
            the group to the next place. Only the first two change places; where there is a third, it stays."""),
        Wrong("words of any group", change=("member[row].nonzero()[:, 0]", "torch.tensor([0, 1])"), hint="""You exchange
            the first two words of the sentence. Only words of the group change places, wherever they stand."""),
        Wrong("those outside the group", change=("member[row]", "(~member)[row]"),
            hint="You exchange words that are not of the group: member is True for those that are."),
        Wrong("nothing exchanged", lambda tokens, member: tokens.clone(),
            "Nothing has changed places. In the first row words 5 and 8 are of the group, and should."),
        Wrong("exchanged in place", change=("tokens.clone()", "tokens"),
            hint="""The result is right, but you have changed the tokens that you were given as well. A batch keeps its
            true captions beside the swapped ones: work on a copy."""),
    ),
    hints=(
        "Take one row. Where do words of the group stand in it? What if there is one alone?",
        """member[row] says for each word whether it is of the group; .nonzero() gives the places. Keep both words
        before you write.""",
        "a, b = row[i].item(), row[j].item(); row[i], row[j] = b, a, for the first two places, on tokens.clone()",
    ),
)


def with_hard_negatives(images: Tensor, texts: Tensor, swapped: Tensor, scale: float) -> Tensor:
    """images, texts and swapped (N, d) of length 1: images have 2N texts to choose from, texts N images -> a scalar."""
    own = torch.arange(len(images))
    to_texts = scale * images @ torch.cat([texts, swapped]).T  # (N, 2N)
    to_images = scale * texts @ images.T  # (N, N)
    return (functional.cross_entropy(to_texts, own) + functional.cross_entropy(to_images, own)) / 2


def _with_doubles(generator: torch.Generator) -> Iterator[Case]:
    for images, texts, scale in _pairs(generator):
        swapped = texts / texts.norm(dim=1, keepdim=True) + 0.4 * cases.normal(generator, *texts.shape)
        yield *(functional.normalize(x, dim=1) for x in (images, texts, swapped)), scale


def _hard_in_parts(images, texts, swapped, scale):
    right, wrong = (scale * images @ x.T for x in (texts, swapped))
    asked = torch.stack([right.logsumexp(1), wrong.logsumexp(1)]).logsumexp(0) - right.diagonal()
    return (asked.mean() + (right.logsumexp(0) - right.diagonal()).mean()) / 2


def _hard_in_loop(images, texts, swapped, scale):
    total = 0.0
    for i in range(len(images)):
        own = scale * images[i] @ texts[i]
        choices = torch.stack([scale * images[i] @ text for text in (*texts, *swapped)])
        total = total + choices.logsumexp(0) - own
        total = total + torch.stack([scale * image @ texts[i] for image in images]).logsumexp(0) - own
    return total / (2 * len(images))


hard_negatives = Check(
    name="16.6 hard negatives", reference=with_hard_negatives, cases=_with_doubles, run=value_and_gradients,
    forbidden=(yourself("sslcourse.losses"),), rights=(_hard_in_loop, _hard_in_parts),
    wrongs=(
        Wrong("no hard negatives", lambda images, texts, swapped, scale: losses.clip(images, texts, scale), """The
            swapped texts don't take part. For every image they are N more texts to choose from, all of them wrong."""),
        Wrong("swapped texts as positives", change=("[texts, swapped]", "[swapped, texts]"),
            hint="""In your matrix the swapped texts come first, so that they are taken for the right ones. Texts first,
            then the swapped ones: the right column of row i is i."""),
        Wrong("swapped texts ask, too", lambda images, texts, swapped, scale: (
                functional.cross_entropy(scale * images @ torch.cat([texts, swapped]).T, torch.arange(len(images)))
                + functional.cross_entropy(
                    scale * torch.cat([texts, swapped]) @ images.T, torch.arange(len(images)).repeat(2)
                )
            ) / 2,
            "Your swapped texts look for an image as well, and there is none that they fit. Only the true texts ask."),
        Wrong("its own alone", lambda images, texts, swapped, scale: (
                functional.cross_entropy(
                    torch.cat([scale * images @ texts.T, scale * (images * swapped).sum(1, keepdim=True)], 1),
                    torch.arange(len(images)),
                )
                + functional.cross_entropy(scale * texts @ images.T, torch.arange(len(images)))
            ) / 2, """Each of your images meets its own swapped text alone. Here it has all of them to choose from, 2N
            texts in all, as in the paper."""),
        Wrong("images ask alone",
            change=("(functional.cross_entropy(to_texts, own) + functional.cross_entropy(to_images, own)) / 2",
            "functional.cross_entropy(to_texts, own)"), hint="""The texts don't ask for their images any more. The hard
            negatives change one direction; the other one stays as it was, and the loss is the mean of both."""),
    ),
    hints=(
        "Which question gets more choices by swapped texts: an image's, or a text's?",
        """Images choose among torch.cat([texts, swapped]), 2N texts; the right one is still at column i. Texts choose
        among N images.""",
        """cross_entropy(scale * images @ torch.cat([texts, swapped]).T, own), and cross_entropy(scale * texts @
        images.T, own)""",
    ),
)
