"""Checks of the exercises of lesson 15: features for k-means, its step, matching, information, a cut, a score."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import scipy.linalg
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from sslcourse.checks.cases import normal, uniform, whole
from sslcourse.checks.compare import EXACT, Closeness
from sslcourse.checks.framework import Check, Wrong, yourself

THE_COURSE = yourself("sslcourse.transfer")  # the text above all of them


def prepare(train: Tensor, new: Tensor) -> Tensor:
    """train (N, d) and new (M, d): new standardized by train's mean and deviation, each row of length 1 -> (M, d)."""
    z = (new - train.mean(dim=0)) / train.std(dim=0)
    return functional.normalize(z, dim=1)


def _features(generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    cases = []
    for n, m, d in [(20, 6, 4), (35, 9, 3), (15, 5, 7)]:
        units, shift = 10 ** uniform(generator, d, low=-2, high=2), 5 * normal(generator, d)
        train, new = (normal(generator, k, d) * units + shift for k in (n, m))
        cases.append((train, new + 2 * units))
    return [*cases, tuple(x.double() for x in cases[1])]


def _prepare_in_loop(train, new):
    mean, std = train.mean(dim=0), train.std(dim=0)
    rows = [(row - mean) / std for row in new]
    return torch.stack([row / row.norm() for row in rows])


def _prepare_by_hand(train, new):
    z = (new - train.mean(0)) / train.var(0).sqrt()
    return z / z.square().sum(1, keepdim=True).sqrt()


features_for_k_means = Check(
    name="15.1 features for k-means", reference=prepare, cases=_features, rights=(_prepare_in_loop, _prepare_by_hand),
    forbidden=(THE_COURSE,),
    wrongs=(
        Wrong("statistics of the new features", change=("train.", "new."),
            also=(lambda train, new: prepare(torch.cat([train, new]), new),),
            hint="""You standardize the new features by their own mean and deviation. Then the same picture has other
            features in other company, and centres found on `train` don't fit. Take both from `train` alone."""),
        Wrong("left as they are", lambda train, new: new.clone(),
            """The features are as they were. k-means measures squared distances, so the column with the largest numbers
            would decide alone. Standardize every column, then bring every row to length 1."""),
        Wrong("rows alone", change=("normalize(z,", "normalize(new,"), hint="""You bring the rows to length 1 and don't
            standardize: columns in large units still decide, and what all pictures have in common still stands in every
            row. Subtract train's mean and divide by its deviation first."""),
        Wrong("columns alone", change=("functional.normalize(z, dim=1)", "z"),
            hint="""You standardize the columns and leave the rows as long as they are: pictures with strong features
            lie far outside, and pull centres to them. Divide each row by its length at the end."""),
        Wrong("columns of length 1", change=("dim=1", "dim=0"), hint="""You bring the columns to length 1 instead of the
            rows: dim=0 runs over pictures. A row is a picture: dim=1."""),
        Wrong("length first",
            change=(("new - train", "functional.normalize(new, dim=1) - (a := functional.normalize(train, dim=1))"),
            ("train.std", "a.std"), ("functional.normalize(z, dim=1)", "z")),
            also=(lambda train, new: prepare(functional.normalize(train, dim=1), functional.normalize(new, dim=1)),),
            hint="""You bring the rows to length 1 first and standardize afterwards: large units decide about the
            lengths, and in the end no row has length 1. Standardize first."""),
        Wrong("one scale for all columns", change=("dim=0", ""), hint="""You take one mean and one deviation over all
            numbers; columns in large units still decide. Each column needs its own: dim=0."""),
        Wrong("not centred", change=("(new - train.mean(dim=0))", "new"),
            hint="""You divide by the deviation without subtracting the mean, so what all pictures have in common stays
            in every row, and all rows point nearly the same way."""),
        Wrong("divided by the variance", change=(".std(", ".var("), hint="""You divide by the variance, and so turn the
            units round: columns of small numbers decide now. Divide by the standard deviation, its root."""),
    ),
    hints=(
        """Two steps: one that makes all columns count alike, and one that makes all rows equally long. Which comes
        first, and whose mean and deviation are they?""",
        "Subtract train.mean(dim=0), divide by train.std(dim=0), and then divide each row by its length.",
        "functional.normalize((new - train.mean(dim=0)) / train.std(dim=0), dim=1)",
    ),
)


def step(features: Tensor, centres: Tensor) -> Tensor:
    """features (N, d), centres (K, d) -> new centres (K, d): means of members, or the farthest row if empty."""
    away = torch.cdist(features, centres)  # (N, K)
    nearest, label = away.min(dim=1)  # (N,) each
    new = centres.clone()
    for k in range(len(centres)):
        if (label == k).any():
            new[k] = features[label == k].mean(dim=0)
        else:
            new[k] = features[nearest.argmax()]
    return new


def _clusterings(generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    cases = []
    for n, k, d in [(12, 3, 2), (20, 4, 3), (15, 5, 2)]:
        features = 3 * normal(generator, n, d) + 4
        centres = features[torch.randperm(n, generator=generator)[:k]] + 0.3 * normal(generator, k, d)
        if k != 3:
            centres[k - 3] = 60.0  # nobody's nearest
        cases.append((features, centres))
    return [*cases, tuple(x.double() for x in cases[1])]


def _step_by_index_add(features, centres):
    nearest, label = torch.cdist(features, centres).min(dim=1)
    total = torch.zeros_like(centres).index_add_(0, label, features)
    count = torch.bincount(label, minlength=len(centres))[:, None]
    return torch.where(count > 0, total / count.clamp(min=1), features[nearest.argmax()])


def _step_in_loop(features, centres):
    labels, distances = [], []
    for x in features:
        away = [float((x - c).square().sum()) for c in centres]
        labels.append(away.index(min(away)))
        distances.append(min(away))
    farthest = features[distances.index(max(distances))]
    members = [[x for x, label in zip(features, labels, strict=True) if label == k] for k in range(len(centres))]
    return torch.stack([torch.stack(m).mean(dim=0) if m else farthest for m in members])


a_step_of_k_means = Check(
    name="15.2 a step of k-means", reference=step, cases=_clusterings, rights=(_step_by_index_add, _step_in_loop),
    forbidden=(THE_COURSE,),
    wrongs=(
        Wrong("not a number", change=("(label == k).any()", "True"),
            hint="""An empty cluster becomes NaN: the mean of no row. No row is ever near to NaN, so it stays lost, and
            sums over the centres are lost with it. Move it to the row that lies farthest from its own centre."""),
        Wrong("at zero", change=("features[nearest.argmax()]", "0"),
            hint="""An empty cluster lands at zero: a sum of nothing, divided by at least 1. Zero is an arbitrary place.
            Move it to the row that lies farthest from its own centre."""),
        Wrong("left where it is", change=("features[nearest.argmax()]", "centres[k]"),
            hint="""An empty cluster stays where nobody is near, and will be empty in the next step as well. Move it to
            the row that lies farthest from its own centre."""),
        Wrong("left out", change=("return new", "return new[label.unique()]"), hint="""You return fewer centres than you
            got: clusters without members are dropped, and all numbers after them move up. K centres go in, K come out;
            an empty one moves to the row that lies farthest from its own centre."""),
        Wrong("at the mean of all", change=("features[nearest.argmax()]", "features.mean(dim=0)"),
            hint="""An empty cluster moves to the mean of all rows, where there may be nobody. Move it to the row that
            is served worst: the one that lies farthest from its own centre."""),
        Wrong("the nearest row", change=("nearest.argmax", "away[:, k].argmin"),
            also=(("nearest.argmax", "nearest.argmin"),), hint="""An empty cluster moves to the row that is nearest to
            it. That one may be served well by its centre already; the row that is served worst is the one whose
            *nearest* centre is farthest: min over centres, then argmax over rows."""),
        Wrong("farthest from the wrong centre", change=("nearest.argmax", "away[:, k].argmax"),
            also=(("nearest.argmax", "away.amax(dim=1).argmax"),),
            hint="""You take the row farthest from the empty centre, or from any centre. Each row counts with the
            distance to its own, nearest centre: min over centres first, then argmax over rows."""),
        Wrong("sums instead of means", change=(".mean(", ".sum("),
            hint="Your centres are sums of their members: divide by how many there are."),
        Wrong("members of the farthest centre", change=("away.min(dim=1)", "away.amin(dim=1), away.argmax(dim=1)"),
            also=(("away.min(", "away.max("),),
            hint="Every row joins the centre that lies farthest from it: argmax where argmin belongs."),
    ),
    hints=(
        """Two things happen: every row joins its nearest centre, and every centre moves to the mean of its rows. What
        is the mean of no rows?""",
        """torch.cdist(features, centres) has a row per feature and a column per centre; its min over dim 1 gives both
        the distance to the own centre and its number. The row for an empty cluster is where that distance is
        largest.""",
        """nearest, label = torch.cdist(features, centres).min(dim=1); new[k] = features[label == k].mean(dim=0) if
        (label == k).any() else features[nearest.argmax()]""",
    ),
)


def hungarian(labels: Tensor, clusters: Tensor) -> float:
    """labels and clusters int64 (N,): the share of right images under the best one-to-one match."""
    table = _count(labels, clusters).numpy()
    best = linear_sum_assignment(table, maximize=True)
    return table[best].sum().item() / len(labels)


def _tables(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    tables = [
        # greedy takes the 9 and loses the two 8s; majority votes name two clusters alike
        [[9, 8, 1], [8, 0, 2], [0, 3, 4]],
        [[10, 9, 0, 1], [9, 2, 3, 0], [1, 0, 2, 6], [7, 0, 1, 5]],
        [[6, 5, 4, 1], [0, 5, 1, 1], [1, 1, 2, 3]],  # more clusters than classes
        [[2, 7, 1], [6, 5, 0], [0, 1, 1], [3, 0, 2]],  # and fewer
    ]
    for table in map(torch.tensor, tables):
        y, k = table.nonzero().T.repeat_interleave(table[table > 0], dim=1)
        order = torch.randperm(len(y), generator=generator)
        yield y[order], k[order]


def _count(labels, clusters):
    rows, columns = int(labels.max()) + 1, int(clusters.max()) + 1
    return torch.bincount(labels * columns + clusters, minlength=rows * columns).view(rows, columns)


def _hungarian_by_permutations(labels, clusters):
    table = _count(labels, clusters)
    side = max(table.shape)
    square = torch.zeros(side, side, dtype=torch.int64)
    square[: table.shape[0], : table.shape[1]] = table
    best = max(sum(square[p[k], k].item() for k in range(side)) for p in itertools.permutations(range(side)))
    return best / len(labels)


def _hungarian_by_cost(labels, clusters):
    table = _count(labels, clusters).T.numpy()
    clusters_of, classes_of = linear_sum_assignment(table.max() - table)
    return float(table[clusters_of, classes_of].sum() / len(labels))


def _hungarian_greedy(labels, clusters):
    table, right = _count(labels, clusters).clone(), 0
    for _ in range(min(table.shape)):
        row, column = divmod(int(table.argmax()), table.shape[1])
        right += int(table[row, column])
        table[row], table[:, column] = -1, -1
    return right / len(labels)


def _hungarian_in_turn(labels, clusters):
    table, right = _count(labels, clusters).clone(), 0
    for k in range(table.shape[1]):
        if (table[:, k] >= 0).any():
            row = int(table[:, k].argmax())
            right += int(table[row, k])
            table[row] = -1
    return right / len(labels)


hungarian_accuracy = Check(
    name="15.3 Hungarian accuracy", reference=hungarian, cases=_tables, close=Closeness(plain=True),
    forbidden=(THE_COURSE,),
    rights=(_hungarian_by_permutations, _hungarian_by_cost),
    wrongs=(
        Wrong("majority votes", change=("table[best]", "table.max(axis=0)"),
            hint="""You give every cluster the name of its majority class, so two clusters may get the same name and a
            class none. That is purity: it grows with the number of clusters, and reaches 1 when every image is a
            cluster of its own. Match one to one, with linear_sum_assignment."""),
        Wrong("every class its largest cluster", change=("table[best]", "table.max(axis=1)"),
            hint="""You give every class its largest cluster, so one cluster may serve several classes: one cluster for
            everything would score 1. Match one to one, with linear_sum_assignment."""),
        Wrong("greedy", _hungarian_greedy, also=(_hungarian_in_turn,), hint="""You match greedily: the largest cell
            first. Where 9 and 8 stand in a row, and 8 and 0 below, taking the 9 leaves the 0: 9 in all, where 8 + 8 was
            to be had. linear_sum_assignment looks at all pairs together."""),
        Wrong("the numbers taken for classes", lambda labels, clusters: (labels == clusters).float().mean().item(),
            """You compare the numbers of clusters with those of classes. Numbers of clusters mean nothing: cluster 3
            may be class 0. Match them first."""),
        Wrong("the worst match", change=(", maximize=True", ""), hint="""You get the worst match: linear_sum_assignment
            minimizes a cost by default. Pass maximize=True, or minus the table."""),
        Wrong("a number, not a share", change=(" / len(labels)", ""),
            hint="You return how many images are right; divide by how many there are."),
    ),
    hints=(
        """Count first: how many images of class c lie in cluster k? Then choose cells of that table, no two of them in
        a row or a column, with the largest sum.""",
        """scipy.optimize.linear_sum_assignment(table, maximize=True) gives the rows and columns of these cells. It
        takes tables that aren't square, too.""",
        "rows, columns = linear_sum_assignment(table, maximize=True); table[rows, columns].sum() / len(labels)",
    ),
)


def nmi(table: Tensor) -> Tensor:
    """table int64 (C, K), images of class c in cluster k -> mutual information over the mean entropy."""
    p = table.double() / table.sum()  # (C, K)
    classes, clusters, both = (torch.special.entr(x).sum() for x in (p.sum(dim=1), p.sum(dim=0), p))
    information = classes + clusters - both
    return information / ((classes + clusters) / 2)


def _counts(generator: torch.Generator) -> list[tuple[Tensor]]:
    uneven = 1 + whole(generator, 19, 3, 6)
    sparse = torch.tensor([[9, 0, 1, 0], [0, 7, 0, 0], [2, 1, 0, 12], [0, 0, 5, 4], [0, 3, 0, 0]])
    return [(uneven,), (sparse,), (torch.diag(torch.tensor([5, 3, 8])) + torch.ones(3, 3, dtype=torch.int64),)]


def _nmi_by_logs(table):
    p = table.double() / table.sum()
    rows, columns = p.sum(dim=1, keepdim=True), p.sum(dim=0, keepdim=True)
    information = torch.where(p > 0, p * (p / (rows * columns)).clamp(min=1e-300).log(), 0.0).sum()
    entropy = -(rows * rows.log()).sum() - (columns * columns.log()).sum()
    return 2 * information / entropy


def _nmi_in_loop(table):
    total = int(table.sum())
    rows, columns = [[int(x) for x in table.sum(dim=d)] for d in (1, 0)]
    information = 0.0
    for c, row in enumerate(table.tolist()):
        for k, n in enumerate(row):
            if n:
                information += n / total * math.log2(n * total / (rows[c] * columns[k]))
    entropy = [-sum(n / total * math.log2(n / total) for n in side if n) for side in (rows, columns)]
    return torch.tensor(information / (sum(entropy) / 2))


normalized_mutual_information = Check(
    name="15.4 normalized mutual information", reference=nmi, cases=_counts, close=Closeness(rtol=1e-4, atol=1e-6),
    forbidden=(THE_COURSE,),
    rights=(_nmi_by_logs, _nmi_in_loop),
    wrongs=(
        Wrong("not normalized", change=(" / ((classes + clusters) / 2)", ""),
            also=((" / ((classes + clusters) / 2)", " / math.log(2)"),),
            hint="""That is the mutual information itself, in nats or bits. It can't be compared between numbers of
            clusters: divide it by the mean of the two entropies."""),
        Wrong("0 times log 0", change=("torch.special.entr(x)", "-(x * x.log())"),
            hint="""An empty cell gives 0 * log 0 = NaN. Its share is 0: in the limit p log p goes to 0. Leave empty
            cells out, or use torch.special.entr, which knows."""),
        Wrong("divided by the sum", change=(" / 2", ""),
            hint="You divide by the sum of the entropies, so the best value is 0.5: divide by their mean."),
        Wrong("another mean", change=("((classes + clusters) / 2)", "(classes * clusters).sqrt()"),
            hint="""You divide by the geometric mean of the entropies, which is another NMI; papers have both. Here it
            is the arithmetic mean, as in scikit-learn."""),
        Wrong("divided by the entropy of both", change=("((classes + clusters) / 2)", "both"), hint="""You divide by the
            joint entropy of class and cluster. Divide by the mean of the two single entropies."""),
        Wrong("one entropy alone", change=("((classes + clusters) / 2)", "classes"),
            also=(("((classes + clusters) / 2)", "clusters"),),
            hint="""You divide by one of the two entropies. By that of the classes alone, a cluster for every image
            scores 1 (completeness and homogeneity are the names of these two). Divide by the mean of both."""),
        Wrong("the largest entropy there could be", change=("(classes + clusters) / 2", "math.log(table.numel()) / 2"),
            hint="""You divide by log C and log K, the entropies of classes and clusters that are all equally large.
            These aren't: work out the entropies of the sums of rows and of columns."""),
        Wrong("a sign", change=("return information", "return -information"),
            hint="Your result is negative. Information never is: look at the sign of an entropy."),
        Wrong("Hungarian accuracy",
            lambda table: table[linear_sum_assignment(table.numpy(), maximize=True)].sum() / table.sum(),
            """That is the accuracy of the best match. NMI matches nothing: it asks how many nats the cluster tells
            about the class."""),
    ),
    hints=(
        """Divide the table by its sum: now it holds probabilities. What are the entropies of its row sums, of its
        column sums, and of all its cells?""",
        """The information is H(classes) + H(clusters) - H(both). Divide it by (H(classes) + H(clusters)) / 2.
        torch.special.entr(p) is -p log p, and 0 at 0.""",
        """h = [torch.special.entr(x).sum() for x in (p.sum(1), p.sum(0), p)]; (h[0] + h[1] - h[2]) / ((h[0] + h[1]) /
        2)""",
    ),
)


def cut(weights: Tensor, side: int) -> Tensor:
    """weights float64 (P, P), symmetric and above 0, P = side * side -> bool (side, side): True on the object."""
    root = weights.sum(dim=1).rsqrt()  # (P,)
    symmetric = torch.eye(len(weights), dtype=weights.dtype) - root[:, None] * weights * root
    vector = root * torch.linalg.eigh(symmetric).eigenvectors[:, 1]
    return _inwards(vector > 0, side)


def _inwards(inside, side):
    inside = inside.view(side, side)
    return ~inside if _at_border(inside) > _at_border(~inside) else inside


def _at_border(inside):
    return int(inside.sum() - inside[1:-1, 1:-1].sum())


def _graphs(generator: torch.Generator) -> list[tuple[Tensor, int]]:
    cases = []  # an object larger than the rest, one in a corner and one along a border among them
    places = [(6, 1, 2, 4, 5), (7, 1, 1, 6, 6), (5, 1, 1, 4, 4), (6, 0, 0, 3, 4), (6, 4, 0, 6, 6)]
    for side, top, left, bottom, right in places:
        inside = torch.zeros(side, side, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        inside = inside.flatten()
        noise = torch.rand(side**2, side**2, generator=generator, dtype=torch.float64)
        weights = torch.where(inside[:, None] == inside, 0.6 + 0.4 * noise, 0.25 * noise + 0.02)
        # parts of unequal degree: so the plain Laplacian, and W itself, give other vectors
        lonely = torch.arange(side**2) == side - 1
        weights = torch.where(lonely[:, None] | lonely, weights * 0.05, weights)
        cases.append(((weights + weights.T) / 2, side))
    return cases


def _cut_by_scipy(weights, side):
    degree = torch.diag(weights.sum(dim=1)).numpy()
    _, vectors = scipy.linalg.eigh(degree - weights.numpy(), degree)
    return _inwards(torch.from_numpy(vectors[:, 1]) > 0, side)


def _cut_by_random_walk(weights, side):
    values, vectors = torch.linalg.eig(weights / weights.sum(dim=1, keepdim=True))
    second = values.real.argsort(descending=True)[1]
    return _inwards(vectors[:, second].real > 0, side)


cut_a_picture = Check(
    name="15.5 cut a picture", reference=cut, cases=_graphs, close=EXACT, rights=(_cut_by_scipy, _cut_by_random_walk),
    forbidden=(THE_COURSE,),
    wrongs=(
        Wrong("the background", change=("return _inwards", "return ~_inwards"),
            hint="""You found the cut and took the wrong side: your object holds most of the picture's border. The sign
            of an eigenvector means nothing; take the side with fewer patches on the border."""),
        Wrong("the sign left to chance",
            change=("_inwards(vector > 0, side)", "(vector * vector[0] > 0).view(side, side)"), hint="""Your side
            depends on the sign of one patch, or on the one that the library happened to give. The sign of an
            eigenvector means nothing: count the border patches of both sides, and take the side with fewer."""),
        Wrong("the smaller side", change=("_at_border(inside) > _at_border(~inside)", "inside.sum() > (~inside).sum()"),
            hint="""You take the smaller of the two sides for the object. Often it is; but a thing near to the camera
            fills most of its picture. Count the border patches of both sides, and take the side with fewer."""),
        Wrong("the first eigenvector", change=("[:, 1]", "[:, 0]"),
            hint="""You take the eigenvector of the smallest eigenvalue. That one is 0, and its vector has one sign
            everywhere: it cuts nothing. Take the second, index 1."""),
        Wrong("the last eigenvector", change=("[:, 1]", "[:, -1]"),
            hint="""You take the eigenvector of the largest eigenvalue. Small eigenvalues belong to cuts that sever
            little, so it is the second from the small end: eigh sorts them upwards, index 1."""),
        Wrong("not normalized", change=("torch.eye(len(weights), dtype=weights.dtype) - root[:, None] * weights * root",
            "torch.diag(weights.sum(dim=1)) - weights"),
            hint="""You use D - W without the degrees on the other side. Its cheapest cut takes off one loosely tied
            patch. The normalized cut solves (D - W) v = lambda D v: scipy.linalg.eigh(D - W, D)."""),
        Wrong("W instead of D - W", change=("eigh(symmetric)", "eigh(weights)"), hint="""You take eigenvectors of the
            weights themselves. Build D, the diagonal matrix of the row sums, and solve (D - W) v = lambda D v."""),
        Wrong("the third eigenvector", change=("[:, 1]", "[:, 2]"),
            hint="You take index 2, the third eigenvector: it cuts one of the two parts again. Index 1 is the second."),
        Wrong("numbers instead of a mask", change=("_inwards(vector > 0, side)",
            "vector.abs().view(side, side) * (2 * _inwards(vector > 0, side) - 1)"),
            hint="You return the vector; the exercise asks for a mask: compare it with 0."),
    ),
    hints=(
        """D is the diagonal matrix of the row sums. Which eigenvector of (D - W) v = lambda D v has one sign on the
        object and the other on the rest? And which of the two signs is the object?""",
        """scipy.linalg.eigh(D - W, D) gives the eigenvectors as columns, smallest eigenvalue first. Take column 1,
        compare it with 0, and turn the mask round if it holds more than half of the patches on the border.""",
        """inside = (vectors[:, 1] > 0).view(side, side); border = inside.sum() - inside[1:-1, 1:-1].sum(); the border
        has 4 * side - 4 patches""",
    ),
)


def strangeness(normal: Tensor, asked: Tensor, defective: Tensor) -> tuple[Tensor, float]:
    """normal (N, d), asked (M, d), defective bool (M,) -> distances to the nearest normal row (M,), and their AUROC."""
    mean, std = normal.mean(dim=0), normal.std(dim=0)
    score = torch.cdist((asked - mean) / std, (normal - mean) / std).amin(dim=1)  # (M,)
    return score, _pairs_in_order(score, defective)


def _pairs_in_order(score, defective):
    bad, good = score[defective][:, None], score[~defective]
    return ((bad > good).double() + 0.5 * (bad == good).double()).mean().item()


def _inspections(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for n, m, d, shift in [(24, 12, 3, 3), (20, 16, 4, -3), (22, 10, 2, 3)]:
        units = torch.cat([torch.tensor([8.0]), 10 ** uniform(generator, d - 1, low=-1)])
        usual, asked = normal(generator, n, d), normal(generator, m, d)
        defective = torch.arange(m) % 3 == 0
        asked[defective, 1] += uniform(generator, int(defective.sum()), low=2.5, high=3.5)
        asked[1] = asked[4] = asked[0] = usual[0]  # two normal ones with the same score, and a defective one: ties
        yield usual * units + shift, asked * units + shift, defective


def _strange_in_loop(normal, asked, defective):
    score = torch.stack([((row - normal) / normal.std(dim=0)).square().sum(dim=1).min().sqrt() for row in asked])
    won = [
        (b > g) + 0.5 * (b == g)
        for b, bad in zip(score.tolist(), defective.tolist(), strict=True)
        for g, wrong in zip(score.tolist(), defective.tolist(), strict=True)
        if bad and not wrong
    ]
    return score, sum(won) / len(won)


def _strange_by_sklearn(normal, asked, defective):
    from sklearn.metrics import roc_auc_score
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler

    scale = normal.std(dim=0, correction=0) / normal.std(dim=0)
    scaler = StandardScaler().fit(normal.numpy())
    a, b = (torch.from_numpy(scaler.transform(x.numpy())) * scale for x in (normal, asked))
    score, _ = NearestNeighbors(n_neighbors=1).fit(a.numpy()).kneighbors(b.numpy())
    score = torch.from_numpy(score[:, 0]).float()
    return score, float(roc_auc_score(defective.numpy(), score.numpy()))


how_strange_is_it = Check(
    name="15.6 how strange is it?", reference=strangeness, cases=_inspections, close=Closeness(plain=True),
    forbidden=(THE_COURSE,),
    rights=(_strange_in_loop, _strange_by_sklearn),
    wrongs=(
        Wrong("scaled by the defects, too", change=(("mean, std", "both = torch.cat([normal, asked]); mean, std"),
            ("normal.mean", "both.mean"), ("normal.std", "both.std")), also=((("normal.mean", "asked.mean"),
            ("normal.std", "asked.std")),),
            hint="""Mean and deviation come from the pictures under test as well. Among them are the defects: the column
            that they spoil gets a larger deviation, and that hides them. Take both from `normal` alone."""),
        Wrong("nothing scaled", change=("(asked - mean) / std, (normal - mean) / std", "asked, normal"),
            hint="""The columns have their own units still, so the one with the largest numbers decides alone. Divide by
            the deviation of the normal rows, column by column."""),
        Wrong("AUROC the wrong way round", change=("bad > good", "bad < good"),
            hint="""Your scores are right, and the AUROC is 1 minus what it should be: you count the pairs in which the
            normal one has the higher score. A defective one should."""),
        Wrong("nearness", change=("torch.cdist(", "-torch.cdist("), hint="""Your scores are the wrong way round: minus a
            distance is largest for what is normal, and the AUROC falls below 0.5. Larger must be stranger."""),
        Wrong("ties", change=("0.5 *", "1.0 *"), also=((" + 0.5 * (bad == good).double()", ""),),
            hint="""Two equal scores are no decision: a tie between a defective and a normal one counts half. Yours
            counts wholly, or not at all."""),
        Wrong("accuracy at a threshold", change=("score, _pairs_in_order(score, defective)",
            "score, ((score > score.median()) == defective).double().mean().item()"),
            hint="""That is the accuracy at one threshold. AUROC needs none: it is the share of pairs, a defective and a
            normal one, in which the defective one has the higher score."""),
        Wrong("mean distance", change=(".amin(", ".mean("), also=((".amin(", ".amax("),),
            hint="""You take the mean distance to all normal rows, or the largest. Where there are several kinds of
            normal, all are far from most of them: the nearest counts, the minimum over the normal rows."""),
        Wrong("distance to the mean", change=("torch.cdist((asked - mean) / std, (normal - mean) / std).amin(dim=1)",
            "((asked - mean) / std).norm(dim=1)"),
            hint="""You measure the distance to the mean of the normal rows; the nearest normal row is asked for. What
            lies between two kinds of normal can be near to the mean, and like neither."""),
        Wrong("squared", change=(".amin(dim=1)", ".amin(dim=1).square()"), hint="""Your scores are squared distances.
            The AUROC doesn't mind, since the order stays; the exercise asks for distances."""),
    ),
    hints=(
        """Three steps: bring the columns to one scale, find the nearest normal row, and count pairs. In which step may
        the pictures under test take part, and in which not?""",
        """Standardize both by normal.mean(dim=0) and normal.std(dim=0). torch.cdist gives all distances; the minimum
        over the normal rows is the score. For the AUROC compare score[defective][:, None] with score[~defective].""",
        """bad, good = score[defective][:, None], score[~defective]; ((bad > good).double() + 0.5 * (bad ==
        good)).mean()""",
    ),
)
