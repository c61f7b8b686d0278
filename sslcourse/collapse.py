"""Collapse, watched: the shape of a pretext task's embeddings on held-out images, before, during and after training."""

from __future__ import annotations

import copy
from typing import Any

import torch

from sslcourse import augment, geometry, losses
from sslcourse.data.imageset import ImageSet
from sslcourse.evaluate import knn_scores
from sslcourse.pretext import PretextTask
from sslcourse.train import TrainConfig, pretrain

NEIGHBOURS = 5


@torch.no_grad()
def look(task: PretextTask, asked: ImageSet, bank: ImageSet) -> dict[str, float]:
    """What is to be seen of a task with a `projector`, which stays as it is.

    "spread"          of the embeddings of `asked`, on the unit sphere: 0 where all are one, about 1 where they point
                      everywhere (`losses.spread`)
    "deviation"       the mean of their dimensions' standard deviations
    "effective rank"  how many dimensions they use (`geometry.effective_rank`)
    "kNN"             accuracy of the features of `asked`, before the projector: five nearest of those of `bank`

    Batch norm takes the statistics of all these images together, as it does of a batch in training. It hides a collapse
    that an average over earlier batches shows, and the other way round: this is the one that the loss acts on.
    """
    task = copy.deepcopy(task).train()  # its running averages move, and are thrown away
    images = augment.to_float(torch.cat([asked.images, bank.images]))
    h = task.backbone(images.to(task.backbone.mean.device))  # (N + M, D)
    z = task.projector(h)[: len(asked)].float()  # (N, d)
    queries, seen = h.split([len(asked), len(bank)])
    votes = knn_scores(seen, bank.labels, queries, classes=len(bank.classes), k=NEIGHBOURS)
    return {
        "spread": losses.spread(z).item(),
        "deviation": z.std(dim=0).mean().item(),
        "effective rank": geometry.effective_rank(z),
        "kNN": (votes.argmax(dim=1).cpu() == asked.labels.cpu()).float().mean().item(),
    }


def watch(
    task: PretextTask, images: ImageSet, config: TrainConfig, asked: ImageSet, bank: ImageSet
) -> list[dict[str, Any]]:
    """Train a task on images: what `look` sees before it, every `config.log_every` steps and at the end, with the log."""
    seen = [{"step": 0} | look(task, asked, bank)]
    pretrain(task, images, config, progress=False, on_log=lambda record: seen.append(record | look(task, asked, bank)))
    return seen
