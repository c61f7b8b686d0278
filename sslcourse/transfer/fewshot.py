"""Few-shot classification in episodes: N classes, K labelled images of each, and queries to tell apart.

An episode is a small problem of its own, "5-way 1-shot" for instance (Vinyals et al., 2016, 1606.04080; Fei-Fei, Fergus
and Perona, 2006, had one image per class before). Its labelled images are the *support*, and the *queries* are what it
is tested on. One episode says little; the mean over a few hundred, with its interval, says what a backbone is worth.

The backbones here are pretrained without labels, on pictures of all classes. So the classes of an episode are new to
whoever labels, and not to the network: that is easier than the benchmarks in which a network never saw them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional

from sslcourse import device as devices
from sslcourse import train
from sslcourse.backbones import Backbone
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError, suggest, whole_number
from sslcourse.features import checked_features, checked_labels
from sslcourse.summary import Summary

METRICS = ("euclidean", "cosine")
# For a support of a few images: each step sees all of them, and no validation says when to stop. Steps and rate were chosen
# on validation images of pocket world, for 1 and 5 shots together.
FINETUNE = train.TrainConfig(steps=30, batch_size=64, learning_rate=1e-3, weight_decay=0.05, log_every=30)


# --- episodes ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Episode:
    """Which images of a labelled set take part, by number. Within it the classes are called 0..N-1.

    classes  int64 (N,): class n of the episode is class classes[n] of the set
    support  int64 (N, K): row n holds the labelled images of class n
    query    int64 (N, Q): row n holds the images of class n that it is tested on; none is in the support
    """

    classes: Tensor
    support: Tensor
    query: Tensor

    @property
    def support_labels(self) -> Tensor:
        """0..N-1 for each image of `support.flatten()`: int64 (N * K,)."""
        return torch.arange(len(self.classes)).repeat_interleave(self.support.shape[1])

    @property
    def query_labels(self) -> Tensor:
        """0..N-1 for each image of `query.flatten()`: int64 (N * Q,)."""
        return torch.arange(len(self.classes)).repeat_interleave(self.query.shape[1])

    def __repr__(self) -> str:
        (ways, shots), queries = self.support.shape, self.query.shape[1]
        return f"Episode({ways}-way {shots}-shot, {queries} queries per class, classes {self.classes.tolist()})"


def episode(labels: Tensor, *, ways: int = 5, shots: int = 1, queries: int = 15, seed: int = 0) -> Episode:
    """Draw `ways` classes, and `shots` + `queries` different images of each, by `seed` alone.

    labels  int64 (M,), the class of each image of a set

    With one seed, other shots give the same classes and queries, and a larger support holds the smaller one: so a curve
    over shots compares like with like. Raises CourseError for labels that aren't classes, for fewer than two ways,
    fewer than one shot or query, more ways than there are classes, and a class with too few images.
    """
    labels = checked_labels(labels)
    ways, shots, queries = whole_number("ways", ways, 2), whole_number("shots", shots), whole_number("queries", queries)
    present, counts = labels.unique(return_counts=True)  # (C,) each
    if ways > len(present):
        raise CourseError(
            f"{ways} ways were asked for, and the labels have {len(present)} classes; ask for at most that many."
        )
    if counts.min() < shots + queries:
        worst = int(counts.argmin())
        raise CourseError(
            f"class {present[worst].item()} has {counts[worst].item()} images, and an episode takes {shots} + {queries} "
            "of a class; ask for fewer shots or queries, or leave the class out."
        )
    generator = devices.generator(devices.derive_seed(seed, "classes"))
    classes = present[torch.randperm(len(present), generator=generator)[:ways]]  # (N,)
    support, query = [], []
    for c in classes.tolist():
        members = (labels == c).nonzero().squeeze(1)
        generator = devices.generator(devices.derive_seed(seed, "images", c))
        drawn = members[torch.randperm(len(members), generator=generator)[: queries + shots]]
        query.append(drawn[:queries])
        support.append(drawn[queries:])
    return Episode(classes, torch.stack(support), torch.stack(query))


def episodes(labels: Tensor, count: int = 200, *, seed: int = 0, **options: Any) -> list[Episode]:
    """`count` episodes, each by a seed of its own that depends on `seed` and its place; `options` as `episode` takes."""
    count = whole_number("episodes", count)
    return [episode(labels, seed=devices.derive_seed(seed, "episode", i), **options) for i in range(count)]


def support_set(images: ImageSet, drawn: Episode) -> ImageSet:
    """The support as a set of its own, class after class, with labels 0..N-1 and the names of the episode's classes."""
    names = tuple(images.classes[c] for c in drawn.classes.tolist())
    return ImageSet(images.images[drawn.support.flatten()], drawn.support_labels, names, f"support from {images.name}")


# --- prototypes --------------------------------------------------------------------------------------------------


def prototypes(support: Tensor) -> Tensor:
    """The mean feature of each class (Snell, Swersky and Zemel, 2017, 1703.05175): (N, K, d) -> (N, d)."""
    if support.dim() != 3:
        raise CourseError(
            f"prototypes need the features of the support as (N, K, d), a row for each class, and got "
            f"{tuple(support.shape)}; features[episode.support] has that shape."
        )
    return support.float().mean(dim=1)


def scores(queries: Tensor, centres: Tensor, metric: str = "euclidean") -> Tensor:
    """How near each query (M, d) is to each prototype (N, d), larger is nearer: (M, N).

    metric   "euclidean": minus the squared distance, so that a softmax over classes is that of equally wide Gaussians
             around the prototypes. "cosine": the cosine, in [-1, 1], which doesn't count lengths
    """
    if metric not in METRICS:
        raise CourseError(
            f"metric {metric!r} is unknown{suggest(metric, METRICS)}; choose one of {', '.join(METRICS)}."
        )
    queries, centres = queries.float(), centres.float()
    if metric == "cosine":
        return functional.normalize(queries, dim=1) @ functional.normalize(centres, dim=1).T
    # not by |q|² - 2 q·c + |c|², which loses all digits where features are far from zero
    return -torch.cdist(queries, centres, compute_mode="donot_use_mm_for_euclid_dist").square()


# --- three ways to answer an episode -----------------------------------------------------------------------------


def by_prototype(features: Tensor, drawn: Episode, metric: str = "euclidean") -> Tensor:
    """Each query gets the class of its nearest prototype: features (M, d) of the whole set -> int64 (N * Q,), 0..N-1."""
    centres = prototypes(_rows(features, drawn.support))
    return scores(_rows(features, drawn.query).flatten(0, 1), centres, metric).argmax(dim=1)


def by_linear_head(features: Tensor, drawn: Episode, penalty: float = 1.0) -> Tensor:
    """Logistic regression on the support's features, each brought to length 1: int64 (N * Q,), 0..N-1.

    As Tian et al. (2020, 2003.11539) do it. `penalty` is scikit-learn's C, the inverse strength of the L2 penalty; it is
    fixed, since an episode has no image to choose it on.
    """
    x = functional.normalize(_rows(features, drawn.support).flatten(0, 1).double(), dim=1)  # (N * K, d)
    asked = functional.normalize(_rows(features, drawn.query).flatten(0, 1).double(), dim=1)  # (N * Q, d)
    with threadpool_limits(1, user_api="blas"):
        model = LogisticRegression(C=penalty, max_iter=1000).fit(x.numpy(), drawn.support_labels.numpy())
        return torch.from_numpy(model.predict(asked.numpy()))


def by_finetuning(
    backbone: Backbone, images: ImageSet, drawn: Episode, config: train.TrainConfig = FINETUNE, **options: Any
) -> Tensor:
    """Fine-tune a copy of the backbone with a fresh head on the support: int64 (N * Q,), 0..N-1.

    `options` are `train.finetune`'s: `tune="head"` leaves the backbone as it is.
    """
    classifier, _ = train.finetune(backbone, support_set(images, drawn), config, **{"progress": False} | options)
    return classifier.predict(images.images[drawn.query.flatten()], device=options.get("device", "auto"))


def accuracy(answer: Callable[[Episode], Tensor], drawn: Iterable[Episode]) -> Summary:
    """The share of queries that `answer` gets right, in [0, 1], a value per episode: with mean and 95% interval.

    `answer` takes an episode and gives classes int64 (N * Q,), such as `lambda e: by_prototype(features, e)`.
    """
    values = []
    for one in drawn:
        given, right = answer(one), one.query_labels
        if given.shape != right.shape:
            raise CourseError(
                f"an answer to this episode is {len(right)} classes, one per query, and got {tuple(given.shape)}."
            )
        values.append((given.cpu() == right).float().mean().item())
    if not values:
        raise CourseError("there is no episode to measure; draw at least one.")
    return Summary(tuple(values))


# --- the border --------------------------------------------------------------------------------------------------


def _rows(features: Tensor, chosen: Tensor) -> Tensor:
    """features[chosen]: (M, d) and int64 (N, K) -> (N, K, d)."""
    features = checked_features(features)
    if int(chosen.max()) >= len(features):
        raise CourseError(
            f"the episode names image {int(chosen.max())}, and the features are {tuple(features.shape)}; give the "
            "features (M, d) of the whole set that it was drawn from."
        )
    return features[chosen]
