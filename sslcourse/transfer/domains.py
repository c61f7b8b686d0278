"""From one domain to another: who learned on photos, and is asked about sketches.

The classes stay, and the pictures change. Nothing here looks at a label of the domain that it is tested on, except to
count right answers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from sslcourse import augment, evaluate
from sslcourse import device as devices
from sslcourse.backbones import Backbone
from sslcourse.data.imageset import ImageSet
from sslcourse.data.splits import Splits
from sslcourse.errors import CourseError, whole_number
from sslcourse.evaluate import Features, LinearProbe
from sslcourse.features import refuse_not_finite_weights
from sslcourse.summary import Summary, of_accuracies


def transfer_matrix(
    features: Mapping[str, Features],
    splits: Mapping[str, Splits],
    labels_per_class: int = 50,
    seeds: int | Iterable[int] = 5,
) -> dict[tuple[str, str], Summary]:
    """Test accuracy of a linear probe that learns on one domain and is tested on another, for every two of them.

    features  name of a domain -> its `evaluate.Features`
    splits    name of a domain -> its splits, with the same classes everywhere
    seeds     how many, or which: a seed draws the labelled images of the source

    Returns {(source, target): a value per seed}. Labels and the choice of the penalty (on validation) are the source's:
    of the target, only the features of its test images are used. Raises CourseError for domains that don't fit together.
    """
    _refuse_strangers(features, splits)
    seeds = evaluate.seeds_of(seeds)
    values: dict[tuple[str, str], list[float]] = {(s, t): [] for s in features for t in features}
    for source, known in features.items():
        part = splits[source]
        for seed in seeds:
            chosen = part.train.indices_per_class(labels_per_class, seed)  # (C * K,)
            probe = LinearProbe().fit(known.train[chosen], part.train.labels[chosen], known.val, part.val.labels)
            for target, asked in features.items():
                right = probe.predict(asked.test) == splits[target].test.labels.cpu()  # (M,)
                values[source, target].append(right.float().mean().item())
    return {pair: of_accuracies(found, len(splits[pair[1]].test)) for pair, found in values.items()}


def _refuse_strangers(features: Mapping[str, Features], splits: Mapping[str, Splits]) -> None:
    """Every domain needs features and splits, as many rows as images, and the classes of the first one."""
    if not features or set(features) != set(splits):
        raise CourseError(
            f"features and splits need the same domains, and name {', '.join(features) or 'none'} and "
            f"{', '.join(splits) or 'none'}."
        )
    first = next(iter(splits))
    for name, part in splits.items():
        evaluate.refuse_unlabelled(part)
        if part.train.classes != splits[first].train.classes:
            raise CourseError(
                f"{name} has other classes than {first}: {', '.join(part.train.classes)}; a probe that learned on one "
                "can't answer for the other."
            )
        for split in ("train", "val", "test"):
            rows, images = len(getattr(features[name], split)), len(getattr(part, split))
            if rows != images:
                raise CourseError(
                    f"the features of {name} have {rows} rows for {split}, and there are {images} images; "
                    "give the features of these very splits."
                )


def adapt_batch_norm(
    backbone: Backbone,
    images: ImageSet | Tensor,
    *,
    batch_size: int = 512,
    device: str | torch.device = "auto",
) -> Backbone:
    """A copy whose batch-norm statistics are those of these images: adaptive batch norm (Li et al., 2016, 1603.04779).

    images   unlabeled images of the target domain, uint8 (N, 3, H, W): a few hundred or more. No weight changes

    The copy is on the CPU and in evaluation mode. Raises CourseError for fewer than two images, and for a backbone
    without batch norm.
    """
    pixels = images.images if isinstance(images, ImageSet) else images
    if len(pixels) < 2:
        raise CourseError(f"the statistics of a domain need at least two images, and {len(pixels)} was given.")
    if not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules()):
        raise CourseError(f"{backbone.arch} has no batch norm, so that there is nothing to adapt in it.")
    refuse_not_finite_weights(backbone)
    batch_size, device = whole_number("batch_size", batch_size), devices.pick_device(device)
    adapted = copy.deepcopy(backbone).to(device, memory_format=devices.memory_format(device))
    parts = -(-len(pixels) // batch_size)
    # every parts-th image: batches of one size, each from the whole set, even where that is sorted by class
    batches = (augment.to_float(pixels[i::parts].to(device)) for i in range(parts))
    update_bn(batches, adapted)
    return adapted.cpu().eval()
