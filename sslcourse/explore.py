"""What features say about a heap of pictures that nobody has labelled: what is alike, what is odd, what to label next.

Features are float (N, d), a row for each picture, from `evaluate.extract` or a table that `sslcourse embed` wrote. All
distances are between standardized rows of length 1: a direction of large variance would decide alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional

from sslcourse import device as devices
from sslcourse.errors import CourseError, suggest, whole_number

ROWS = 1024  # of the table of similarities that is made at a time: memory stays ROWS * N
TYPICAL = 20  # neighbours whose distance tells how typical a picture is, as in Hacohen et al.
MOST_CLUSTERS = 500  # likewise


def unit(features: Tensor) -> Tensor:
    """Each column to mean 0 and variance 1, then each row to length 1: float32 (N, d). A constant column becomes 0.

    Raises CourseError for anything but finite (N, d), N at least 1.
    """
    if not isinstance(features, Tensor) or features.dim() != 2 or len(features) == 0:
        got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise CourseError(f"features are a tensor (N, d) with a row for each picture, and {got} was given.")
    finite = torch.isfinite(features).all(dim=1)
    if not bool(finite.all()):
        raise CourseError(
            f"the features of {int((~finite).sum())} of {len(features)} pictures aren't finite; take a backbone whose "
            "training went well."
        )
    x = features.double()
    spread = x.std(dim=0, correction=0)
    x = (x - x.mean(dim=0)) / torch.where(spread > 1e-12, spread, torch.inf)
    return functional.normalize(x, dim=1).float()


def nearest(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosine and number of the k nearest rows of bank (N, d) for each row of queries (M, d): (M, k) each, nearest first.

    Both as `unit` gives them. A picture that is in the bank finds itself.
    """
    k = min(whole_number("neighbours", k), len(bank))
    found = [(part @ bank.T).topk(k, dim=1) for part in queries.split(ROWS)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def near_duplicates(features: Tensor, *, least: float = 0.95, most: int | None = None) -> list[tuple[int, int, float]]:
    """Pairs (i, j, cosine) with i < j and a cosine of at least `least`, the most alike first; features (N, d).

    most   how many pairs are kept, the most alike; default: all. After little training, whole classes are this alike

    Features throw away what their training told them to ignore, so that two crops of one photograph come out alike and
    so may two things that only look alike: it is for a person to look.
    """
    if not -1 <= least <= 1:
        raise CourseError(f"least is a cosine, from -1 to 1, and {least!r} was given.")
    most = most if most is None else whole_number("most", most)
    x, found = unit(features), []
    for begin in range(0, len(x), ROWS):
        similarity = x[begin : begin + ROWS] @ x.T  # (rows, N)
        rows, columns = (similarity >= least).nonzero(as_tuple=True)
        later = columns > rows + begin
        rows, columns = rows[later], columns[later]
        values = similarity[rows, columns]
        if most is not None and len(values) > most:  # of those that are as alike as the last one kept, the first
            best = values.argsort(descending=True, stable=True)[:most]
            rows, columns, values = rows[best], columns[best], values[best]
        found += zip((rows + begin).tolist(), columns.tolist(), values.tolist(), strict=True)
        found = sorted(found, key=lambda pair: (-pair[2], pair[:2]))[:most]
    return found


def oddness(features: Tensor, k: int = 10) -> Tensor:
    """How far each picture is from its k nearest others, float32 (N,): the mean of 1 - cosine. The largest are outliers.

    (Distance to neighbours: Ramaswamy et al., 2000.) Raises CourseError for fewer than two pictures.
    """
    x = unit(features)
    if len(x) < 2:
        raise CourseError("one picture alone has no neighbours; give two or more.")
    return _distance_to_others(x, whole_number("neighbours", k))


def _distance_to_others(x: Tensor, k: int) -> Tensor:
    """Mean of 1 - cosine to the k nearest other rows: (N,)."""
    similarity, number = nearest(x, x, k + 1)  # itself among them, but for a copy that may stand before it
    others = number != torch.arange(len(x))[:, None]
    others[others.all(dim=1), -1] = False  # k + 1 others: the last one goes
    return ((1 - similarity) * others).sum(dim=1) / others.sum(dim=1)


# --- which to label next -----------------------------------------------------------------------------------------


def choose(
    features: Tensor, count: int, *, labelled: Tensor | None = None, how: str = "typiclust", seed: int = 0
) -> Tensor:
    """The numbers of `count` pictures to label next, int64 (count,), best first; none of `labelled` (numbers).

    typiclust  groups by k-means, as many as there will be labels, and of each group without one, the largest first, the
               picture that is most like its neighbours (Hacohen et al., 2022, 2202.02794): for few labels
    k-center   one after the other the picture that is farthest from every chosen one (Sener and Savarese, 2018,
               1708.00489): covers the edges, outliers first, and pays off with many labels
    random     for comparison
    """
    x = unit(features)
    ways: dict[str, Callable] = {"typiclust": _typical, "k-center": _far, "random": _drawn}
    if how not in ways:
        raise CourseError(f"{how!r} is no way to choose{suggest(how, ways)}; take one of {', '.join(ways)}.")
    taken = torch.as_tensor([] if labelled is None else labelled, dtype=torch.int64)
    if len(taken) and (taken.min() < 0 or taken.max() >= len(x)):
        raise CourseError(f"labelled holds numbers of pictures, 0 to {len(x) - 1}, and {int(taken.max())} was given.")
    left = len(x) - len(taken.unique())
    if whole_number("pictures to choose", count) > left:
        raise CourseError(f"{count} pictures were asked for, and {left} have no label yet; ask for at most that many.")
    return ways[how](x, count, taken, seed)


def _typical(x: Tensor, count: int, taken: Tensor, seed: int) -> Tensor:
    groups = min(MOST_CLUSTERS, count + len(taken), len(x))
    labels = KMeans(groups, n_init=4, random_state=seed % 2**32).fit_predict(x.numpy())
    cluster = torch.from_numpy(labels.astype(np.int64))  # (N,)
    chosen: list[int] = []
    free = torch.ones(len(x), dtype=torch.bool)
    free[taken] = False
    covered = torch.bincount(cluster[taken], minlength=groups)  # labels in each group
    while len(chosen) < count:
        sizes = torch.bincount(cluster[free], minlength=groups)  # pictures without a label
        order = sorted(range(groups), key=lambda g: (int(covered[g]), -int(sizes[g])))
        group = next(g for g in order if sizes[g])
        members = (cluster == group).nonzero().flatten()
        strange = _distance_to_others(x[members], TYPICAL) if len(members) > 1 else torch.zeros(1)
        best = members[torch.where(free[members], strange, torch.inf).argmin()]
        chosen.append(int(best))
        free[best] = False
        covered[group] += 1
    return torch.tensor(chosen)


def _far(x: Tensor, count: int, taken: Tensor, seed: int) -> Tensor:
    chosen: list[int] = []
    if len(taken):
        distance = torch.cat([(1 - part @ x[taken].T).min(dim=1).values for part in x.split(ROWS)])  # (N,)
    else:  # begin with the picture nearest to the middle: as good as any, and the same each time
        chosen.append(int((x @ x.mean(dim=0)).argmax()))
        distance = 1 - x @ x[chosen[0]]
    distance[torch.cat([taken, torch.tensor(chosen, dtype=torch.int64)])] = -torch.inf
    while len(chosen) < count:
        best = int(distance.argmax())
        chosen.append(best)
        distance = torch.minimum(distance, 1 - x @ x[best])
        distance[best] = -torch.inf
    return torch.tensor(chosen)


def _drawn(x: Tensor, count: int, taken: Tensor, seed: int) -> Tensor:
    order = torch.randperm(len(x), generator=devices.generator(devices.derive_seed(seed, "label next")))
    return order[~torch.isin(order, taken)][:count]
