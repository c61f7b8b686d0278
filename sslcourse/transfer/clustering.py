"""Clustering: groups found in features without a label, how well they meet the classes, and training on them.

The groups of k-means have numbers, and no names. To compare them with classes, each class gets one group of its own, in
the way that makes the most images right (Hungarian matching). Mutual information and the Rand index need no names.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor
from torch.nn import functional

from sslcourse import device as devices
from sslcourse import supervised, train
from sslcourse.backbones import Backbone
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError, suggest, whole_number
from sslcourse.evaluate import extract
from sslcourse.features import checked_features, refuse_not_finite_weights

RELABEL = ("k-means", "classifier")
DEEPCLUSTER = train.TrainConfig(steps=60, batch_size=128, learning_rate=5e-3, weight_decay=0.05)  # of one round
NOISE = 1e-6  # a direction with less than this share of the largest variance is rounding: whitening would blow it up


# --- what k-means sees -------------------------------------------------------------------------------------------


class Whitening:
    """PCA to at most `dims` directions, each brought to variance 1, and then every row to length 1.

    k-means takes every direction at its word: a few of large variance, such as brightness, decide alone. DeepCluster
    (Caron et al., 2018, 1807.05520) prepares its features in this way; Coates and Ng (2012) show what it does to pixels.

    whiten   False keeps the variances of the directions
    unit     False keeps the lengths of the rows
    """

    def __init__(self, dims: int = 32, *, whiten: bool = True, unit: bool = True):
        self.dims = whole_number("dims", dims)
        self.whiten, self.unit = whiten, unit

    def fit(self, features: Tensor) -> Whitening:
        """Learn mean and directions of features (N, d), N at least 2."""
        x = checked_features(features, least=2).double().numpy()
        if not np.ptp(x, axis=0).any():
            raise CourseError("all rows of the features are the same; there is no direction in which they differ.")
        self.pca = PCA(min(self.dims, *x.shape), random_state=0).fit(x)
        variance = self.pca.explained_variance_  # (dims,), largest first
        self.kept = int((variance > NOISE * variance[0]).sum())
        return self

    def __call__(self, features: Tensor) -> Tensor:
        """features (M, d) -> float64 (M, at most dims)."""
        if not hasattr(self, "kept"):
            raise CourseError("this whitening has learned nothing yet; call fit(features) first.")
        x = checked_features(features, width=self.pca.n_features_in_).double()
        z = torch.from_numpy(self.pca.transform(x.numpy()))[:, : self.kept]
        if self.whiten:
            z = z / torch.from_numpy(self.pca.explained_variance_[: self.kept]).sqrt()
        return functional.normalize(z, dim=1) if self.unit else z


# --- k-means -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Clusters:
    """What k-means found: centres float64 (K, d), the cluster of each row int64 (N,), and the sum of squared distances."""

    centres: Tensor
    labels: Tensor
    inertia: float

    def assign(self, features: Tensor) -> Tensor:
        """The nearest centre of each row of features (M, d): int64 (M,)."""
        x = checked_features(features, width=self.centres.shape[1]).double()
        return torch.cdist(x, self.centres, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)

    @property
    def sizes(self) -> Tensor:
        """Rows in each cluster, int64 (K,)."""
        return torch.bincount(self.labels, minlength=len(self.centres))


def k_means(features: Tensor, clusters: int = 10, *, seed: int = 0, starts: int = 10) -> Clusters:
    """Lloyd's k-means from k-means++ starts (Arthur and Vassilvitskii, 2007), by scikit-learn.

    features (N, d); the best of `starts` by the sum of squared distances, drawn by `seed`. A cluster that loses all its
    rows is moved to the row that lies farthest from its centre, so none stays empty. Raises CourseError for features
    that aren't finite numbers, and for fewer different rows than clusters.
    """
    x = checked_features(features).double().numpy()
    clusters, starts = whole_number("clusters", clusters), whole_number("starts", starts)
    if clusters > len(x):
        raise CourseError(
            f"{clusters} clusters were asked for, and there are {len(x)} rows; ask for at most that many."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            found = KMeans(clusters, n_init=starts, random_state=seed % 2**32, algorithm="lloyd").fit(x)
        except ConvergenceWarning:
            different = len(np.unique(x, axis=0))
            raise CourseError(
                f"{clusters} clusters were asked for, and only {different} rows are different from each other; ask for "
                "fewer clusters, and see whether the features have collapsed."
            ) from None
    labels = torch.from_numpy(found.labels_.astype(np.int64))
    return Clusters(torch.from_numpy(found.cluster_centers_), labels, float(found.inertia_))


# --- clusters against classes ------------------------------------------------------------------------------------


def contingency(labels: Tensor, clusters: Tensor) -> Tensor:
    """How many images of class c lie in cluster k: labels and clusters int64 (N,), from 0 -> int64 (C, K)."""
    labels, clusters = _checked_pair(labels, clusters)
    rows, columns = int(labels.max()) + 1, int(clusters.max()) + 1
    return torch.bincount(labels * columns + clusters, minlength=rows * columns).view(rows, columns)


def match(labels: Tensor, clusters: Tensor) -> Tensor:
    """The class of each cluster, int64 (K,), each class at most once, so that the most images are right (Kuhn, 1955).

    -1 for a cluster that has to go without, where there are more clusters than classes.
    """
    table = contingency(labels, clusters)  # (C, K)
    rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
    named = torch.full((table.shape[1],), -1)
    named[torch.from_numpy(columns)] = torch.from_numpy(rows)
    return named


def accuracy(labels: Tensor, clusters: Tensor) -> float:
    """The share of images whose cluster is matched with their class, in [0, 1]; never below 1 / max(C, K)."""
    labels, clusters = _checked_pair(labels, clusters)
    return (match(labels, clusters)[clusters] == labels).float().mean().item()


def purity(labels: Tensor, clusters: Tensor) -> float:
    """The share of images in the majority class of their cluster, in (0, 1]: 1 as soon as every image is a cluster."""
    return (contingency(labels, clusters).amax(dim=0).sum() / len(labels)).item()


def scores(labels: Tensor, clusters: Tensor) -> dict[str, float]:
    """How well clusters meet classes: "accuracy" (Hungarian), "nmi", "ari" and "purity".

    nmi is the mutual information over the arithmetic mean of the two entropies, in [0, 1]; ari the Rand index (Hubert
    and Arabie, 1985), 0 by chance and 1 at best. Neither depends on the numbers of the clusters.
    """
    labels, clusters = _checked_pair(labels, clusters)
    y, k = labels.numpy(), clusters.numpy()
    return {
        "accuracy": accuracy(labels, clusters),
        "nmi": float(normalized_mutual_info_score(y, k)),
        "ari": float(adjusted_rand_score(y, k)),
        "purity": purity(labels, clusters),
    }


# --- DeepCluster -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Round:
    """One round of `deepcluster`.

    labels     int64 (N,): the pseudo-labels that it trained on
    sizes      int64 (K,): how many images had each
    agreement  NMI with the pseudo-labels of the round before, in [0, 1]; NaN in the first round
    loss       mean of the last steps, in nats; log(K) is guessing among equally frequent labels
    """

    labels: Tensor
    sizes: Tensor
    agreement: float
    loss: float


def deepcluster(
    backbone: Backbone,
    images: ImageSet | Tensor,
    clusters: int = 10,
    rounds: int = 8,
    config: train.TrainConfig = DEEPCLUSTER,
    *,
    balanced: bool = True,
    relabel: str = "k-means",
    dims: int = 32,
    stage: int | str = 4,
    augmentation: Callable[[Tensor, torch.Generator], Tensor] = train.standard_augment,
    device: str | torch.device = "auto",
    progress: bool = True,
    on_round: Callable[[int, Round], None] | None = None,
) -> list[Round]:
    """Cluster the features, train on the clusters as if they were classes, and again (Caron et al., 2018, 1807.05520).

    images    an ImageSet, whose labels are never looked at, or uint8 images (N, 3, H, W)
    config    of one round; its seed also draws the starts of k-means
    balanced  every pseudo-label is drawn equally often, as the paper does; False draws images equally often, and a
              network can then lower its loss by knowing the large clusters alone
    relabel   "k-means" of the features, whitened to `dims` directions, with a fresh head in every round; "classifier"
              gives an image the label that the network answers, and keeps the head: what the paper warns of, since
              all labels the same make the loss 0, and a label that nobody has can't come back
    stage     whose features are clustered, as `evaluate.extract` takes it

    The backbone is trained in place, and is afterwards where and in the mode in which it was; during training, and so in
    `on_round`, it is on the device. Raises CourseError where k-means finds fewer different features than clusters.
    """
    pixels = images.images if isinstance(images, ImageSet) else images
    rounds, clusters = whole_number("rounds", rounds), whole_number("clusters", clusters)
    if relabel not in RELABEL:
        raise CourseError(
            f"relabel must be one of {', '.join(RELABEL)}, and is {relabel!r}{suggest(relabel, RELABEL)}."
        )
    refuse_not_finite_weights(backbone)
    config = dataclasses.replace(config, batch_size=min(config.batch_size, max(1, len(pixels))))
    device = devices.pick_device(device)
    classifier, done = None, []
    with devices.on(device, backbone):
        for number in range(rounds):
            if classifier is None or relabel == "k-means":
                features = extract(backbone, pixels, stage=stage, device=device)  # (N, d)
                labels = k_means(Whitening(dims).fit(features)(features), clusters, seed=config.seed, starts=3).labels
                classifier = train.Classifier(backbone, clusters)
            else:
                labels = classifier.predict(pixels, device=device)
            seed = devices.derive_seed(config.seed, "round", number)
            loss = _train_on(
                classifier,
                pixels,
                labels,
                dataclasses.replace(config, seed=seed),
                balanced=balanced,
                augmentation=augmentation,
                device=device,
                progress=progress,
            )
            agreement = normalized_mutual_info_score(done[-1].labels, labels) if done else math.nan
            done.append(Round(labels, torch.bincount(labels, minlength=clusters), float(agreement), loss))
            if on_round is not None:
                on_round(number, done[-1])
    return done


def _train_on(
    classifier: train.Classifier,
    pixels: Tensor,
    labels: Tensor,
    config: train.TrainConfig,
    *,
    balanced: bool,
    augmentation: Callable[[Tensor, torch.Generator], Tensor],
    **options: Any,
) -> float:
    """Train backbone and head on pseudo-labels int64 (N,); the mean loss of the last fifth of the steps."""
    weights = 1 / torch.bincount(labels).double()[labels] if balanced else torch.ones(len(labels)).double()  # (N,)

    def order(step: int) -> Tensor:
        generator = devices.generator(devices.derive_seed(config.seed, "order", step))
        return torch.multinomial(weights, config.batch_size, replacement=True, generator=generator)  # (B,)

    def views(images: Tensor, labels: Tensor, generator: torch.Generator) -> train.Batch:
        return augmentation(images, generator), labels

    config = dataclasses.replace(config, log_every=max(1, config.steps // 20))
    history = train.fit_supervised(
        classifier,
        supervised.classification,
        pixels,
        (labels,),
        config,
        views=views,
        order=order,
        label="DeepCluster",
        **options,
    )
    tail = history.column("loss")[-max(1, len(history) // 5) :]
    return sum(tail) / len(tail)


# --- the border --------------------------------------------------------------------------------------------------


def _checked_pair(labels: Tensor, clusters: Tensor) -> tuple[Tensor, Tensor]:
    """Classes and clusters, int64 (N,) each on the CPU, from 0."""
    pair = [torch.as_tensor(values) for values in (labels, clusters)]
    for name, values in zip(("labels", "clusters"), pair, strict=True):
        if values.dim() != 1 or not len(values) or values.is_floating_point() or values.dtype == torch.bool:
            raise CourseError(
                f"{name} must be whole numbers (N,), one per image, and are {values.dtype} {tuple(values.shape)}."
            )
        if values.min() < 0:
            raise CourseError(f"{name} count from 0, and the smallest is {int(values.min())}; leave such images out.")
    if len(pair[0]) != len(pair[1]):
        raise CourseError(f"there are {len(pair[0])} labels and {len(pair[1])} clusters; give one of each per image.")
    return pair[0].cpu().long(), pair[1].cpu().long()
