"""Checks of the exercises of lesson 20: prefixes, what may be missing, names, pixels, alikeness, positions."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse.checks.compare import EXACT, Closeness
from sslcourse.checks.framework import Check, Wrong, yourself

THE_COURSE = yourself("sslcourse.weights")  # the text above all of them


def strip(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """{"module.encoder_q.conv1.weight": t, "module.queue": q} to {"conv1.weight": t}: what begins with the prefix."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _states(generator: torch.Generator) -> list[tuple[dict[str, Tensor], str]]:
    def state(*names):
        return {name: torch.rand(2, 3, generator=generator) for name in names}

    return [
        (
            state(
                "module.encoder_q.conv1.weight", "module.encoder_q.layer1.0.module.encoder_q.bn1.bias",
                "module.encoder_q.encoder_q.fc.weight", "module.encoder_k.conv1.weight", "module.queue",
                "ema.module.encoder_q.conv1.weight",
            ),
            "module.encoder_q.",
        ),
        (state("backbone.cls_token", "backbone.blocks.0.backbone.norm1.weight", "backbone_momentum.cls_token"),
            "backbone."),
        (state("module.module.model.0.weight", "module.odd.bias", "model.odd.bias"), "module."),
        (state("trunk.net.0.weight", "head.0.weight", "old_trunk.net.0.weight"), "trunk."),
    ]


def _strip_loop(state, prefix):
    found = {}
    for name in state:
        if name[: len(prefix)] == prefix:
            found[name[len(prefix) :]] = state[name]
    return found


strip_a_prefix = Check(
    name="20.1 strip a prefix", reference=strip, cases=_states, close=EXACT, rights=(_strip_loop,
        lambda state, prefix: {name.replace(prefix, "", 1): state[name] for name in state if name.startswith(prefix)}),
    forbidden=(THE_COURSE,),
    wrongs=(
        Wrong("replaced everywhere", change=(("removeprefix(prefix)", 'replace(prefix, "")'), ("tensor", "t")),
            hint="""You replace the prefix wherever it stands, in the middle of a name as well: `replace` knows no
            beginning. Take it off at the front, and once: `removeprefix`."""),
        Wrong("found anywhere",
            lambda state, prefix: {name.replace(prefix, "", 1): t for name, t in state.items() if prefix in name},
            also=(lambda state, prefix: {name.replace(prefix, ""): t for name, t in state.items() if prefix in name},),
            hint="""You keep every name that has the prefix somewhere in it, so that a second network, behind another
            prefix, gets mixed in. Only names that *begin* with it belong to this network."""),
        Wrong("letters stripped", change=(("removeprefix", "lstrip"), ("tensor", "t")),
            hint="""`lstrip` takes a set of letters and not a word: it goes on eating while letters of the prefix
            follow, and `module.encoder` loses its e. `removeprefix` takes the word."""),
        Wrong("others kept", lambda state, prefix: {name.removeprefix(prefix): t for name, t in state.items()},
            """What doesn't begin with the prefix is still there under its own name: other encoders, queues and heads.
            Leave it out."""),
        Wrong("not stripped", change=((".removeprefix(prefix)", ""), ("tensor", "t")),
            hint="You chose the right entries, and they still have their long names; take the prefix off."),
        Wrong("stripped again and again", change=("removeprefix(prefix)", "removeprefix(prefix).removeprefix(prefix)"),
            hint="""You take the prefix off again and again. A name may hold it twice in a row, and then the second one
            is part of the network's own name. Once is enough."""),
        Wrong("dot left", change=("removeprefix(prefix): tensor for name, tensor",
            'removeprefix(prefix.rstrip(".")): t for name, t'), hint="""Your names begin with a dot. The dot belongs to
            the prefix, which you were given with it; don't take it off."""),
        Wrong("one letter too many", change=((".removeprefix(prefix)", "[len(prefix) + 1 :]"), ("tensor", "t")),
            hint="You cut off one letter too many: the prefix comes with its dot, so the name begins at len(prefix)."),
    ),
    hints=(
        "Which names belong to the network? Write them down for the first case of the lesson, with a pencil.",
        """Two things: choose the names that begin with the prefix (`startswith`), and take exactly that off
        (`removeprefix`).""",
        "{name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}",
    ),
)


def judge(wanted: list[str], given: list[str], head: str) -> tuple[list[str], list[str], bool]:
    """Names of the network and the file -> (missing, left, fine): both sorted; fine where only the head is missing."""
    missing, left = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    return missing, left, all(name.startswith(f"{head}.") for name in missing)


def _name_lists(generator: torch.Generator) -> list[tuple[list[str], list[str], str]]:
    body = ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer1.0.fc.weight"]
    norm = ["fc_norm.weight", "fc_norm.bias"]
    head = ["fc.weight", "fc.bias"]
    cases = [
        (body + head, body + ["queue"], "fc"),
        (body + head, body + head, "fc"),
        (body + head, body, "fc"),
        (body + head, body + head + ["queue"], "fc"),
        (body + norm + head, body + ["head.0.weight"], "fc"),
        (body + head, body[1:] + ["epoch"], "fc"),
        (body + head, body[:3] + head, "fc"),
        (body + ["head.0.weight", "head.2.bias"], [*body, "mask_token", "decoder.0.weight"], "head"),
    ]

    def mixed(names):
        return [names[i] for i in torch.randperm(len(names), generator=generator)]

    return [(mixed(wanted), mixed(given), which) for wanted, given, which in cases]


def _judge_loop(wanted, given, head):
    missing = [name for name in sorted(wanted) if name not in given]
    left = [name for name in sorted(given) if name not in wanted]
    fine = True
    for name in missing:
        if name.split(".")[0] != head:
            fine = False
    return missing, left, fine


def _judge_sets(wanted, given, head):
    missing = set(wanted).difference(given)
    others = {name for name in missing if name.partition(".")[0] != head}
    return sorted(missing), sorted(set(given).difference(wanted)), not others


may_that_be_missing = Check(
    name="20.2 may that be missing?", reference=judge, cases=_name_lists, rights=(_judge_loop, _judge_sets),
    forbidden=(THE_COURSE,),
    wrongs=(
        Wrong("missing and left swapped", change=("return missing, left", "return left, missing"),
            also=(lambda wanted, given, head: judge(given, wanted, head),),
            hint="""Missing and left are swapped: missing is what the *network* wants and the file doesn't have; left is
            what the file has and the network doesn't want."""),
        Wrong("head without its dot", change=('f"{head}."', "head"),
            hint="""You take everything that begins with the letters of the head for the head: `fc_norm` begins with
            `fc`, too, and is a layer that the features pass through. Ask for the name with its dot."""),
        Wrong("head anywhere in a name", change=('name.startswith(f"{head}.")', "head in name"),
            also=(('name.startswith(f"{head}.")', 'head in name.split(".")'),),
            hint="""You take a name for the head's wherever the head's name occurs in it: `layer1.0.fc.weight` is part
            of a block. Only what begins with the head and a dot is the head."""),
        Wrong("nothing may be missing", change=('all(name.startswith(f"{head}.") for name in missing)', "not missing"),
            hint="""You refuse every file that lacks anything. The head may be missing: it served the pretext task, and
            you will put another in its place."""),
        Wrong("nothing may be left", change=("in missing)", "in missing) and not left"),
            hint="""You refuse files that hold more than the network wants. What is left is worth a look, and does no
            harm to what was loaded: whether the load is fine hangs on what is missing."""),
        Wrong("one of them is enough", change=("all(name", "not missing or any(name"),
            hint="""You accept a file as soon as *one* of the missing names is the head's. All of them must be, or part
            of the network keeps its random numbers."""),
        Wrong("head hidden",
            change=("return missing,", 'return [name for name in missing if not name.startswith(f"{head}.")],'),
            hint="""You leave the head's names out of the list of what is missing. They are missing, and whoever reads
            the report should see it; they only don't make it a failure."""),
        Wrong("head must be missing", change=("in missing)", "in missing) and bool(missing)"),
            hint="You refuse a file in which nothing is missing at all. That is the best case: it is fine."),
    ),
    hints=(
        "Two sets of names. Which difference is what the network lacks, and which is what the file has too much of?",
        """missing = wanted without given, left = given without wanted, both sorted. Fine: every missing name begins
        with the head's name and a dot; of an empty list that is true.""",
        "missing = sorted(set(wanted) - set(given)); fine = all(name.startswith(head + '.') for name in missing)",
    ),
)


def to_transformers(name: str) -> str:
    """torchvision's name of a ResNet's tensor, without fc -> the name in Transformers' ResNetModel."""
    *path, last = name.split(".")
    kind = (
        "normalization"
        if path[-1].startswith("bn") or path[-2:-1] == ["downsample"] and path[-1] == "1"
        else "convolution"
    )
    if len(path) == 1:
        return f"embedder.embedder.{kind}.{last}"
    place = f"encoder.stages.{int(path[0].removeprefix('layer')) - 1}.layers.{path[1]}"
    where = "shortcut" if path[2] == "downsample" else f"layer.{int(path[2][-1]) - 1}"
    return f"{place}.{where}.{kind}.{last}"


def _torchvision_names(generator: torch.Generator) -> list[tuple[str]]:
    fixed = ["conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight"]
    fixed += ["layer2.0.downsample.1.bias", "layer4.2.bn3.weight"]
    drawn = []
    for part in ("conv", "bn"):
        stage, block, layer = (
            int(torch.randint(*ends, (1,), generator=generator)) for ends in ((1, 5), (0, 6), (1, 4))
        )
        drawn.append(f"layer{stage}.{block}.{part}{layer}.{'weight' if part == 'conv' else 'running_mean'}")
    return [(name,) for name in fixed + drawn]


def _names_by_replacing(name):
    if name.startswith(("conv1", "bn1")):
        return name.replace("conv1", "embedder.embedder.convolution").replace("bn1", "embedder.embedder.normalization")
    for stage in range(1, 5):
        name = name.replace(f"layer{stage}.", f"encoder.stages.{stage - 1}.layers.")
    for i in range(1, 4):
        name = name.replace(f".conv{i}.", f".layer.{i - 1}.convolution.").replace(
            f".bn{i}.", f".layer.{i - 1}.normalization."
        )
    return name.replace("downsample.0", "shortcut.convolution").replace("downsample.1", "shortcut.normalization")


def _names_by_match(name):
    match name.split("."):
        case [stem, last]:
            return f"embedder.embedder.{'convolution' if stem == 'conv1' else 'normalization'}.{last}"
        case [stage, block, "downsample", number, last]:
            kind = ("convolution", "normalization")[int(number)]
            return f"encoder.stages.{int(stage[-1]) - 1}.layers.{block}.shortcut.{kind}.{last}"
        case [stage, block, part, last]:
            kind = "convolution" if part[:-1] == "conv" else "normalization"
            return f"encoder.stages.{int(stage[-1]) - 1}.layers.{block}.layer.{int(part[-1]) - 1}.{kind}.{last}"


names_for_transformers = Check(
    name="20.3 another library's names", reference=to_transformers, cases=_torchvision_names,
    forbidden=(THE_COURSE,),
    rights=(_names_by_replacing, _names_by_match),
    wrongs=(
        Wrong("stages from 1", change=("'layer')) - 1", "'layer'))"), hint="""Your stages are numbered from 1.
            torchvision counts its layers from 1 and Transformers its stages from 0: layer1 is stages.0."""),
        Wrong("layers from 1", change=("int(path[2][-1]) - 1", "path[2][-1]"), hint="""Within a block you number from 1.
            conv1 and bn1 are layer.0 in Transformers: take 1 off that number as well."""),
        Wrong("everything from 1", change=(("'layer')) - 1", "'layer'))"), ("int(path[2][-1]) - 1", "path[2][-1]")),
            hint="""You carry torchvision's numbers over as they are. It counts stages, and convolutions in a block,
            from 1, and Transformers counts both from 0."""),
        Wrong("blocks less one", change=("{path[1]}", "{int(path[1]) - 1}"),
            hint="You take 1 off the block's number, too. Blocks are counted from 0 in both libraries."),
        Wrong("norms called convolutions", change=('"normalization"', '"convolution"'), hint="""Every tensor of yours
            becomes a convolution's. What begins with bn, and the second part of a shortcut, are normalizations."""),
        Wrong("norm of the shortcut", change=(' or path[-2:-1] == ["downsample"] and path[-1] == "1"', ""),
            hint="""Both parts of the shortcut become convolutions, so that two names are one: downsample.0 is the
            convolution, and downsample.1 the normalization."""),
        Wrong("downsample kept",
            lambda name: to_transformers(name).replace("shortcut.convolution", "downsample.0")
            .replace("shortcut.normalization", "downsample.1"), """`downsample` has another name in Transformers:
            shortcut.convolution for downsample.0, and shortcut.normalization for downsample.1."""),
        Wrong("one embedder", change=("embedder.embedder", "embedder"),
            hint="The stem's names begin with embedder.embedder, twice: a module of that name inside of another."),
        Wrong("layers left out", change=(".layers.", "."),
            hint="Between a stage and the number of its block stands `layers`: encoder.stages.0.layers.0."),
        Wrong("encoder left out", change=("encoder.stages", "stages"),
            hint="The stages are inside of `encoder`: encoder.stages.0.layers.0."),
    ),
    hints=(
        "Split the name at its dots. How many parts has a name of the stem, of a block's layer, of a shortcut?",
        """Three cases: the stem (conv1, bn1), the shortcut (downsample.0, downsample.1), and layers of a block (conv1
        to conv3, bn1 to bn3). Stages and layers lose 1, blocks don't.""",
        """f'encoder.stages.{int(stage[-1]) - 1}.layers.{block}.layer.{int(part[-1]) - 1}.convolution.weight' is the
        third case for a convolution.""",
    ),
)


def renormalize(x: Tensor, old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]) -> Tensor:
    """x (N, 3, H, W), normalized with old = (mean, std), (3,) each -> the same pictures normalized with new."""
    old_mean, old_std = old[0].view(1, 3, 1, 1), old[1].view(1, 3, 1, 1)
    new_mean, new_std = new[0].view(1, 3, 1, 1), new[1].view(1, 3, 1, 1)
    return (x * old_std + old_mean - new_mean) / new_std


def _pixels(generator: torch.Generator) -> Iterator[tuple]:
    def pair():
        return 0.3 + 0.4 * torch.rand(3, generator=generator), 0.15 + 0.4 * torch.rand(3, generator=generator)

    for size in ((2, 3, 4, 5), (3, 3, 3, 3), (1, 3, 6, 3)):
        old, new = pair(), pair()
        pictures = torch.rand(size, generator=generator)
        pictures[..., :1, :1] = 1.2  # resizing by bicubic interpolation gives values outside of [0, 1] as well
        yield (pictures - old[0].view(3, 1, 1)) / old[1].view(3, 1, 1), old, new


def _pixels_by_channel(x, old, new):
    out = torch.empty_like(x)
    for c in range(3):
        picture = x[:, c] * old[1][c] + old[0][c]
        out[:, c] = (picture - new[0][c]) / new[1][c]
    return out


def _pixels_one_map(x, old, new):
    scale, shift = old[1] / new[1], (old[0] - new[0]) / new[1]
    return x * scale[:, None, None] + shift[:, None, None]


pixels_for_another_network = Check(
    name="20.4 pixels for another network", reference=renormalize, cases=_pixels, close=Closeness(rtol=1e-4, atol=1e-5),
    forbidden=(THE_COURSE,),
    rights=(_pixels_by_channel, _pixels_one_map),
    wrongs=(
        Wrong("normalized twice", change=("x * old_std + old_mean", "x"),
            hint="""You normalize once more without undoing the first: the pictures come normalized already. First back
            to pixels, x * std + mean of the old, then the new."""),
        Wrong("only undone", change=("(x * old_std + old_mean - new_mean) / new_std", "x * old_std + old_mean"),
            hint="""You bring the pictures back to pixels and stop. The other network wants its own mean off and its own
            std."""),
        Wrong("old and new swapped", lambda x, old, new: renormalize(x, new, old),
            "Old and new are swapped: x was normalized with *old*, so old is undone, and new is applied."),
        Wrong("mean before std", change=("x * old_std + old_mean", "(x + old_mean) * old_std"),
            hint="""You undo in the wrong order. Normalizing takes the mean off first and divides then; backwards,
            multiply by std first and add the mean then."""),
        Wrong("std before mean", change=("(x * old_std + old_mean - new_mean) / new_std",
            "(x * old_std + old_mean) / new_std - new_mean"), hint="""You undo rightly and apply the new one in the
            wrong order: the mean goes off first, and the difference is divided by std."""),
        Wrong("std forgotten", lambda x, old, new: x + old[0].view(1, 3, 1, 1) - new[0].view(1, 3, 1, 1),
            "You exchange the means and leave the standard deviations: the pictures stay in units of the old one."),
        Wrong("clamped", change=("x * old_std + old_mean", "(x * old_std + old_mean).clamp(0, 1)"),
            hint="""You cut pixels off at 0 and 1 in between. Interpolated pictures may lie a little outside, and the
            network that made them didn't cut: change the scale, and nothing else."""),
        Wrong("taken off again", change=("x * old_std + old_mean", "(x - old_mean) / old_std"),
            hint="You apply the old normalization again in place of undoing it: back is x * std + mean."),
        Wrong("channels reversed", lambda x, old, new: torch.cat([renormalize(x.flip(1), old, new).flip(1)]),
            """The channels get each other's numbers, last for first. Mean and std stand in the order of the channels of
            x."""),
    ),
    hints=(
        "Write down how one red pixel p became x. How do you get p back from x?",
        """x = (p - mean_old) / std_old, so p = x * std_old + mean_old. Then the same formula with the new pair. Mean
        and std are (3,), and x is (N, 3, H, W): .view(1, 3, 1, 1) puts them at the channels.""",
        "(x * old_std + old_mean - new_mean) / new_std, each of them .view(1, 3, 1, 1)",
    ),
)


def cka(x: Tensor, y: Tensor) -> Tensor:
    """x (N, d), y (N, e): features of the same N pictures -> linear CKA, a tensor without dimensions, in [0, 1]."""
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    return (y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())


def _feature_pairs(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    for n, d, e in ((12, 3, 5), (9, 4, 4), (20, 6, 2)):
        x = torch.randn(n, d, generator=generator, dtype=torch.float64) + 2
        y = torch.randn(n, e, generator=generator, dtype=torch.float64) - 1 + x[:, :1]
        yield x, y


def _cka_by_tables(x, y):
    x, y = x - x.mean(0, keepdim=True), y - y.mean(0, keepdim=True)
    k, m = x @ x.T, y @ y.T
    return (k * m).sum() / ((k * k).sum() * (m * m).sum()).sqrt()


def _cka_by_centring_matrix(x, y):
    n = len(x)
    h = torch.eye(n, dtype=x.dtype) - 1 / n
    k, m = h @ x @ x.T @ h, h @ y @ y.T @ h
    return torch.trace(k @ m) / torch.sqrt(torch.trace(k @ k) * torch.trace(m @ m))


def _cka_loop(x, y):
    x, y = x - x.mean(0), y - y.mean(0)

    def overlap(a, b):
        return sum((a[:, i] @ b[:, j]) ** 2 for i in range(a.shape[1]) for j in range(b.shape[1]))

    return overlap(x, y) / (overlap(x, x) * overlap(y, y)) ** 0.5


linear_cka = Check(
    name="20.5 linear CKA", reference=cka, cases=_feature_pairs, forbidden=(THE_COURSE, yourself("sslcourse.transfer.similarity")),
    rights=(_cka_by_tables, _cka_by_centring_matrix, _cka_loop),
    wrongs=(
        Wrong("not centred", change=("x, y = x - x.mean(dim=0), y - y.mean(dim=0)", "pass"),
            hint="""You don't centre. Then what all pictures have in common counts as similarity, and any two networks
            with positive features look alike. Take each feature's mean over the pictures off first."""),
        Wrong("rows centred", change=("dim=0", "dim=1, keepdim=True"), hint="""You take off each picture's mean over its
            features (dim=1). It is each *feature's* mean over the pictures that has to go: dim=0."""),
        Wrong("one mean for all", change=("dim=0", ""), hint="""You take one mean off all numbers. Each feature has its
            own: mean(dim=0)."""),
        Wrong("numerator not squared", change=(("dim=0", "0"), ("square().sum", "norm")),
            hint="Above the line stands the norm, and should stand its square: the sum of the squares of Yᵀ X."),
        Wrong("root of it all", lambda x, y: cka(x, y).sqrt(),
            "You take one root too many: your value is the root of CKA."),
        Wrong("no denominator", change=(("dim=0", "0"), ("/ ((x.T @ x).norm() * (y.T @ y).norm())", "")),
            hint="""You give the overlap of the two tables, which grows with the features' scale. Divide by both tables'
            own lengths, and x against itself gives 1."""),
        Wrong("denominator not rooted", change=(("dim=0", "0"), ("(x.T @ x).norm", "(x.T @ x).square().sum"),
            ("(y.T @ y).norm", "(y.T @ y).square().sum")), hint="""Below the line stand squares, and should stand the
            norms, their roots: x against itself must give 1."""),
        Wrong("norms of the features", change=(("dim=0", "0"), ("(x.T @ x).norm()", "x.norm() ** 2"),
            ("(y.T @ y).norm()", "y.norm() ** 2")),
            hint="You divide by the norms of the features, x and y. It is the norms of xᵀx and yᵀy that belong there."),
        Wrong("standardized", lambda x, y: cka(x / x.std(dim=0), y / y.std(dim=0)),
            """You divide each feature by its standard deviation first. That is another measure: in CKA a direction
            counts by how much the features vary along it. Centre, and leave the scale."""),
        Wrong("squared after the sum", change=(("dim=0", "0"), ("square().sum", "sum().square")), hint="""You add up the
            entries of Yᵀ X and square the sum: entries of opposite signs cancel. Square each, then add."""),
    ),
    hints=(
        "What must CKA of x with itself be? And if 100 is added to every number of x? Try both on your function.",
        """Centre both over the pictures (dim=0). Then the sum of squares of y.T @ x, over the Frobenius norm of x.T @ x
        times that of y.T @ y.""",
        """(y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()), after x = x - x.mean(dim=0) and the same
        for y""",
    ),
)


def resize_positions(positions: Tensor, side: int) -> Tensor:
    """positions (1, 1 + g * g, d), class token first -> (1, 1 + side * side, d), patches' bicubically interpolated."""
    first, patches = positions[:, :1], positions[:, 1:]
    g = round(patches.shape[1] ** 0.5)
    grid = patches.transpose(1, 2).reshape(1, -1, g, g)  # (1, d, g, g)
    grid = functional.interpolate(grid, (side, side), mode="bicubic", align_corners=False)  # (1, d, side, side)
    return torch.cat([first, grid.flatten(2).transpose(1, 2)], dim=1)


def _positions_by_channel(positions, side):
    g = int((positions.shape[1] - 1) ** 0.5 + 0.5)
    columns = []
    for c in range(positions.shape[2]):
        one = positions[0, 1:, c].view(1, 1, g, g)
        columns.append(functional.interpolate(one, size=side, mode="bicubic").reshape(-1))
    return torch.cat([positions[:, :1], torch.stack(columns, dim=1)[None]], dim=1)


def _positions_permuted(positions, side):
    g = round((positions.shape[1] - 1) ** 0.5)
    grid = positions[:, 1:].unflatten(1, (g, g)).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, (side, side), mode="bicubic").permute(0, 2, 3, 1)
    return torch.cat((positions[:, :1], grid.flatten(1, 2)), dim=1)


positions_for_another_size = Check(
    name="20.6 positions for another size", reference=resize_positions,
    forbidden=(THE_COURSE,),
    cases=lambda g: [(torch.randn(1, 1 + grid * grid, d, generator=g), side)
            for grid, d, side in ((3, 5, 6), (4, 2, 3), (2, 6, 5))],
    rights=(_positions_by_channel, _positions_permuted),
    wrongs=(
        Wrong("positions as a line", change=((".reshape(1, -1, g, g)", ""),
            ('grid, (side, side), mode="bicubic", align_corners=False', 'grid, side * side, mode="linear"')),
            also=(lambda positions, side: functional.interpolate(
                positions.transpose(1, 2), 1 + side * side, mode="linear").transpose(1, 2),),
            hint="""You interpolate the positions as one long line. They are a square that is read row by row: the last
            patch of a row is no neighbour of the first of the next. Bring them into (1, d, g, g) first."""),
        Wrong("reshaped into another order", change=("patches.transpose(1, 2)", "patches"),
            hint="""reshape to (1, d, g, g) keeps the order in memory, where the d numbers of one position stand
            together: channels and places get mixed. First transpose(1, 2), then reshape."""),
        Wrong("reshaped back", change=("grid.flatten(2).transpose(1, 2)", "grid.reshape(1, side * side, -1)"),
            hint="""The way there is right. On the way back, reshape mixes channels and places: flatten the square and
            transpose, so that each position has its d numbers again."""),
        Wrong("rows and columns swapped", change=("grid.flatten(2)", "grid.mT.flatten(2)"), hint="""Rows and columns are
            swapped: the square comes out mirrored at its diagonal. Patches are read row by row."""),
        Wrong("class token lost", lambda positions, side: resize_positions(positions, side)[:, 1:],
            "The class token's position is gone. It has no place in the square, and stays in front, unchanged."),
        Wrong("class token last", lambda positions, side: resize_positions(positions, side).roll(-1, dims=1),
            "The class token's position stands at the end. It was the first, and the network expects it there."),
        Wrong("class token changed", change=("[first,", "[grid.mean(dim=(2, 3))[:, None],"),
            hint="The class token's position is an average now. It has no place in the square: take it over as it is."),
        Wrong("corners aligned", change=("align_corners=False", "align_corners=True"),
            hint="""You align the corners: then the outermost patches' centres stay where they are, and the picture's
            edge moves. A patch is an area, and align_corners=False, the default, keeps the edges."""),
        Wrong("bilinear", change=("bicubic", "bilinear"),
            hint="You interpolate linearly. Asked for is mode='bicubic', as DINO's code does it."),
        Wrong("nearest", change=('mode="bicubic", align_corners=False', 'mode="nearest"'), hint="""You copy the nearest
            position, so that several patches get the same one. Interpolate: mode='bicubic'."""),
    ),
    hints=(
        """How many numbers has one position, and how do positions 1, 2, 3, ... lie in the picture? Which one lies
        nowhere?""",
        """Put position 0 aside. The rest: (1, g * g, d) to (1, d, g, g), functional.interpolate with mode='bicubic',
        back to (1, side * side, d), and position 0 in front again.""",
        """grid = positions[:, 1:].transpose(1, 2).reshape(1, -1, g, g); grid = functional.interpolate(grid, (side,
        side), mode='bicubic'); torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)""",
    ),
)
