"""Widgets: a lesson's figures to play with. Each adds to a lesson and is never needed; it says nothing a figure doesn't.

A widget is a slider or two above a picture, drawn anew when a slider moves.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from sslcourse import augment, color, comparison, losses, notebook, patches, plots
from sslcourse import device as devices
from sslcourse.data.world_plan import BACKDROPS, COLOUR_NAMES, LIGHTS
from sslcourse.data.world_things import CLASSES
from sslcourse.errors import CourseError
from sslcourse.pretext.context import OFFSETS, POSITION_NAMES, place_pairs
from sslcourse.pretext.mae import hide, random_masking
from sslcourse.pretext.transformation import ELEMENT_NAMES
from sslcourse.transfer import clustering, detection, fewshot, language
from sslcourse.weights import reading

if TYPE_CHECKING:
    from sslcourse.backbones import Backbone
    from sslcourse.data.imageset import ImageSet
    from sslcourse.evaluate import Summary
    from sslcourse.pretext.colorization import Colorization
    from sslcourse.pretext.image_text import ImageText
    from sslcourse.pretext.mae import MaskedAutoencoder
    from sslcourse.pretext.rotation import Rotation


# What ipywidgets leaves out, in the page: a slider's handle gets the name of the slider, for who hears it, and the arrow keys
# in a list stay in the list, where JupyterLab would go to another cell.
MENDED = (
    "const box = this.closest('.sslcourse-explorer');"
    "for (const handle of box.querySelectorAll('.noUi-handle'))"
    " handle.setAttribute('aria-label', handle.closest('.widget-slider').querySelector('.widget-label').textContent);"
    "for (const list of box.querySelectorAll('select')) list.setAttribute('data-lm-suppress-shortcuts', 'true');"
)


class Explorer(widgets.VBox):
    """Controls above a picture, which `draw(**values)` gives for the controls' values, whenever one changes.

    alt  words for the picture. Where there is no kernel to answer the controls, the first picture stands with them alone.
    """

    def __init__(self, draw: Callable[..., Figure], controls: Mapping[str, widgets.Widget], alt: str):
        self.draw, self.controls, self.alt = draw, controls, alt
        self.picture = widgets.HTML()
        # pixels; 80, the usual, cuts "temperature"
        label = max(80, *(9 * len(control.description) for control in controls.values()))
        for control in controls.values():
            control.style.description_width, control.layout.width = f"{label}px", f"{label + 220}px"
            control.observe(self.update, names="value")
        row = widgets.HBox(list(controls.values()), layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__([row, self.picture])
        self.add_class("sslcourse-explorer")
        self.update()

    def update(self, _: object = None) -> None:
        """Draw the picture anew."""
        figure = self.draw(**{name: control.value for name, control in self.controls.items()})
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        plt.close(figure)
        self.png = buffer.getvalue()
        self.picture.value = notebook.tag(self.png, self.alt).replace("<img ", f'<img onload="{MENDED}" ', 1)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        picture, words = notebook.bundle(self.png, self.alt)
        return super()._repr_mimebundle_(**kwargs) | picture, words


def explorer(draw: Callable[..., Figure], controls: Mapping[str, widgets.Widget], alt: str) -> widgets.VBox:
    """Controls above a picture: `draw(**values)` gives the figure for the controls' values, whenever one changes."""
    return Explorer(draw, controls, alt)


def rotation_slider(task: Rotation, images: Tensor, classes: Sequence[str] | None = None) -> widgets.VBox:
    """Turn a picture, and see what the network answers: `images` are uint8 (N, 3, H, H), `task` a trained Rotation."""
    if len(images) == 0:
        raise CourseError("rotation_slider needs at least one image.")

    @torch.no_grad()
    def draw(picture: int, turn: int) -> Figure:
        turned = torch.rot90(augment.to_float(images[picture]), turn // 90, dims=(-2, -1))  # (3, H, H)
        with devices.evaluating(task):
            seen = turned[None].to(task.backbone.mean.device)  # (1, 3, H, H)
            share = task.head(task.backbone(seen)).softmax(dim=1)[0].cpu()  # (4,)
        return answer_figure(turned, share, turn)

    return explorer(
        draw,
        {
            "picture": widgets.IntSlider(0, 0, len(images) - 1, description="picture", continuous_update=False),
            "turn": widgets.SelectionSlider(options=[0, 90, 180, 270], value=0, description="turn (°)"),
        },
        "a turned picture beside the network's probability for each of the four rotations",
    )


def answer_figure(turned: Tensor, share: Tensor, turn: int) -> Figure:
    """A turned picture (3, H, H) beside the probabilities (4,) of the four rotations; the true one is marked."""
    with plt.rc_context(plots.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(5.6, 2.5), width_ratios=(1, 1.5))
        left.imshow(plots.to_picture(turned), interpolation="nearest")
        left.axis("off")
        left.set_title(f"turned by {turn}°")
        colors = [plots.PALETTE[2] if 90 * t == turn else plots.PALETTE[0] for t in range(4)]
        names = [f"{90 * t}°" + (" (true)" if 90 * t == turn else "") for t in range(4)]
        right.barh(names, share, color=colors)
        right.invert_yaxis()
        right.set(xlim=(0, 1), xlabel="probability", title="the network's answer")
    return figure


def label_budget_slider(curves: Mapping[str, Mapping[int, Summary]]) -> widgets.VBox:
    """Move the number of labels per class, and compare the methods there; `curves` as `plots.label_efficiency` takes."""
    budgets = sorted(set.intersection(*(set(curve) for curve in curves.values()))) if curves else []
    if not budgets:
        raise CourseError("label_budget_slider needs a number of labels that every curve has.")

    def draw(budget: int) -> Figure:
        with plt.rc_context(plots.STYLE):
            figure, axis = plt.subplots(figsize=(6.4, 0.8 + 0.5 * len(curves)))
            plots.bars({name: curve[budget] for name, curve in curves.items()}, axis=axis)
            axis.set_title(f"{budget} labels per class")
        return figure

    middle = budgets[len(budgets) // 2]
    slider = widgets.SelectionSlider(options=budgets, value=middle, description="labels", continuous_update=False)
    return explorer(draw, {"budget": slider}, "test accuracy of each method at the chosen number of labels per class")


def symmetry_picker(image: Tensor) -> widgets.VBox:
    """Pick two symmetries of the square: see the image (3, H, H) after the first, after both, and what both are together."""
    options = [(name, element) for element, name in enumerate(ELEMENT_NAMES)]

    def draw(first: int, second: int) -> Figure:
        once = augment.one_symmetry(image, first)
        twice = augment.one_symmetry(once, second)
        together = ELEMENT_NAMES[compose(first, second)]
        titles = ["original", ELEMENT_NAMES[first], f"then {ELEMENT_NAMES[second]}\n= {together}"]
        return plots.grid([image, once, twice], titles, columns=3, size=1.7)

    return explorer(
        draw,
        {
            "first": widgets.Dropdown(options=options, value=1, description="first"),
            "second": widgets.Dropdown(options=options, value=4, description="then"),
        },
        "a picture, the picture after one symmetry, and after a second one",
    )


def compose(first: int, second: int) -> int:
    """The symmetry of the square that equals `first` and then `second`, found by moving a picture with no symmetry."""
    probe = torch.arange(9).view(1, 3, 3)
    moved = augment.one_symmetry(augment.one_symmetry(probe, first), second)
    return next(e for e in range(8) if torch.equal(augment.one_symmetry(probe, e), moved))


def temperature_slider(task: Colorization, images: Tensor) -> widgets.VBox:
    """Colour a picture at the temperature of your choice: `images` uint8 (N, 3, H, W), `task` a Colorization by classification."""
    if len(images) == 0:
        raise CourseError("temperature_slider needs at least one image.")
    if task.objective != "classification":
        raise CourseError(
            "temperature_slider needs a Colorization with objective='classification'; regression knows no temperature."
        )

    def draw(picture: int, temperature: float) -> Figure:
        one = images[picture : picture + 1]  # (1, 3, H, W)
        light = color.rgb_to_lab(augment.to_float(one))
        light[:, 1:] = 0
        shown = [color.lab_to_rgb(light)[0], task.colorize(one, temperature)[0], augment.to_float(one)[0]]
        return plots.grid(
            shown, ["what it sees", f"painted at T = {temperature:.2g}", "the truth"], columns=3, size=1.8
        )

    return explorer(
        draw,
        {
            "picture": widgets.IntSlider(0, 0, len(images) - 1, description="picture", continuous_update=False),
            "temperature": widgets.FloatLogSlider(
                0.38,
                base=10,
                min=-2,
                max=0.5,
                step=0.05,
                description="temperature",
                readout_format=".2g",
                continuous_update=False,
            ),
        },
        "a gray picture, the same painted at the chosen temperature, and its true colours",
    )


def gap_slider(images: Tensor, patch: float = 0.375) -> widgets.VBox:
    """Move two patches of a picture apart, and look across the gap: `images` are uint8 (N, 3, H, W), `patch` a share."""
    if len(images) == 0:
        raise CourseError("gap_slider needs at least one image.")

    def draw(picture: int, position: int, gap: float) -> Figure:
        with plt.rc_context(plots.STYLE):
            figure, axes = plt.subplots(1, 3, figsize=(6.6, 2.6))
            draw_pair(axes, images[picture], position, gap, patch)
        return figure

    places = [(name, place) for place, name in enumerate(POSITION_NAMES)]
    return explorer(
        draw,
        {
            "picture": widgets.IntSlider(0, 0, len(images) - 1, description="picture", continuous_update=False),
            "position": widgets.Dropdown(options=places, value=4, description="second is"),
            "gap": widgets.FloatSlider(
                0.15, min=0.0, max=0.6, step=0.05, description="gap", readout_format=".2f", continuous_update=False
            ),
        },
        "two patches outlined on a picture, a gap between them, and the two patches alone",
    )


def draw_pair(axes: Sequence, image: Tensor, position: int, gap: float, patch: float, jitter: float = 0.0) -> None:
    """On three axes: a picture (3, H, W) with two patches outlined, and the two alone. `position` counts in OFFSETS."""
    image, place = image.cpu(), torch.tensor([position % len(OFFSETS)])
    size, first, second = place_pairs(place, image.shape[-2:], patch, gap, jitter, torch.Generator().manual_seed(1))
    axes[0].imshow(plots.to_picture(image), interpolation="nearest")
    names = ("first", f"second: {POSITION_NAMES[position]}")
    for axis, corner, color_of, name in zip(axes[1:], (first, second), plots.PALETTE[:2], names, strict=True):
        row, column = corner[0].tolist()
        box = plt.Rectangle((column - 0.5, row - 0.5), size, size, fill=False, edgecolor=color_of, linewidth=2.5)
        axes[0].add_patch(box)
        axis.imshow(plots.to_picture(patches.windows(image[None], *corner.T, size)[0]), interpolation="nearest")
        axis.set_title(name, fontsize=9, color=color_of)
    axes[0].set_title(f"gap {gap:.2f} of a patch", fontsize=9)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)


def mask_ratio_slider(task: MaskedAutoencoder, images: Tensor) -> widgets.VBox:
    """Take away as many patches as you like: `images` uint8 (N, 3, H, H), `task` a trained MaskedAutoencoder.

    The patches go in one order, so that a higher ratio takes more of them, and none comes back.
    """
    if len(images) == 0:
        raise CourseError("mask_ratio_slider needs at least one image.")
    trunk = task.backbone.trunk

    def draw(picture: int, ratio: float) -> Figure:
        one = augment.to_float(images[picture : picture + 1].cpu())  # (1, 3, H, H)
        keep, restore = random_masking(1, trunk.side**2, ratio, torch.Generator().manual_seed(picture))
        seen = hide(one, keep, restore, trunk.patch)
        shown = [seen[0], task.reconstruct(one, keep, restore)[0], one[0]]
        left = f"{keep.shape[1]} of {trunk.side**2} patches left"
        return plots.grid(shown, [left, f"filled in at {ratio:.2f}", "the truth"], columns=3, size=1.8)

    return explorer(
        draw,
        {
            "picture": widgets.IntSlider(0, 0, len(images) - 1, description="picture", continuous_update=False),
            "ratio": widgets.FloatSlider(
                0.75, min=0.05, max=0.95, step=0.05, description="mask ratio", continuous_update=False
            ),
        },
        "a picture with patches taken away, the same filled in by the network, and the whole picture",
    )


def similarity_temperature_slider(situations: Mapping[str, Tensor]) -> widgets.VBox:
    """Watch a softmax over similarities sharpen: `situations` names rows of cosines (K,), the partner's first."""
    if not situations:
        raise CourseError("similarity_temperature_slider needs at least one row of similarities.")

    def draw(situation: str, temperature: float) -> Figure:
        with plt.rc_context(plots.STYLE):
            figure, axis = plt.subplots(figsize=(6.2, 2.8))
            draw_softmax(axis, situations[situation], temperature)
        return figure

    slider = widgets.FloatLogSlider(
        0.2, base=10, min=-2, max=1, step=0.05, description="temperature", readout_format=".2g", continuous_update=False
    )
    names = widgets.Dropdown(options=list(situations), description="situation")
    return explorer(
        draw,
        {"situation": names, "temperature": slider},
        "the probability of the partner and of each negative at the chosen temperature",
    )


def draw_softmax(axis: Axes, similarity: Tensor, temperature: float) -> None:
    """Bars of softmax(similarity / temperature) on an axis: similarity (K,) are cosines, the partner's first."""
    share = (similarity / temperature).softmax(dim=0)  # (K,)
    colors = [plots.PALETTE[2]] + [plots.PALETTE[1]] * (len(share) - 1)
    axis.bar(range(len(share)), share.tolist(), color=colors)
    axis.set_xticks(range(len(share)), [f"{s:.2g}" for s in similarity.tolist()], fontsize=9)
    axis.set(ylim=(0, 1), xlabel="cosine (partner first)", ylabel="probability")
    axis.set_title(f"T = {temperature:.2g}: loss {-share[0].log().item():.2f}", fontsize=9)


def view_strength_slider(images: Tensor, views: int = 7) -> widgets.VBox:
    """Make views of a picture as weak or as strong as you like: `images` are uint8 (N, 3, H, W)."""
    if len(images) == 0:
        raise CourseError("view_strength_slider needs at least one image.")

    def draw(picture: int, crop: float, jitter: float, gray: float) -> Figure:
        shown = draw_views(images[picture], views, crop, jitter, gray, seed=picture)
        title = f"crops of at least {crop:.2f} of the picture, jitter {jitter:.1f}, gray {gray:.1f}"
        return plots.grid(shown, ["picture"] + ["view"] * views, columns=views + 1, title=title)

    return explorer(
        draw,
        {
            "picture": widgets.IntSlider(0, 0, len(images) - 1, description="picture", continuous_update=False),
            "crop": widgets.FloatSlider(0.2, min=0.05, max=1, step=0.05, description="crop", continuous_update=False),
            "jitter": widgets.FloatSlider(0.5, min=0, max=1, step=0.1, description="jitter", continuous_update=False),
            "gray": widgets.FloatSlider(0.2, min=0, max=1, step=0.1, description="gray", continuous_update=False),
        },
        "a picture and random views of it, at the chosen strength of crop and colour",
    )


def draw_views(image: Tensor, views: int, crop: float, jitter: float, gray: float, seed: int = 0) -> Tensor:
    """A picture (3, H, W) and random views of it, (1 + views, 3, H, W): with one seed, the same draw at every strength."""
    image = image.cpu()
    shown = [augment.to_float(image)]
    for k in range(views):
        generator = torch.Generator().manual_seed(1000 * seed + k)
        how = {"scale": (crop, 1.0), "jitter": jitter, "gray": gray}
        shown.append(augment.view(image[None], generator, **how)[0])
    return torch.stack(shown)


def neighbour_explorer(
    images: Tensor, representations: Mapping[str, Tensor], labels: Tensor | None = None, most: int = 10
) -> widgets.VBox:
    """Pick a picture, and see its nearest neighbours under each representation.

    images uint8 (N, 3, H, W); representations names features (N, d) of these images; labels int64 (N,) mark, in green,
    what is of the same class; `most` neighbours at most.
    """
    refuse_strangers(images, representations)
    most = min(most, len(images) - 1)

    def draw(picture: int, neighbours: int) -> Figure:
        return draw_neighbours(images, representations, picture, neighbours, labels)

    return explorer(
        draw,
        {
            "picture": widgets.IntSlider(0, 0, len(images) - 1, description="picture", continuous_update=False),
            "neighbours": widgets.IntSlider(min(6, most), 1, most, description="neighbours", continuous_update=False),
        },
        "a picture, and its nearest neighbours under each representation, a row each",
    )


def refuse_strangers(images: Tensor, representations: Mapping[str, Tensor]) -> None:
    """Neighbours need two images at least, and every representation a row for each."""
    if len(images) < 2 or not representations:
        raise CourseError("neighbours need at least two images and one representation of them.")
    for name, found in representations.items():
        if len(found) != len(images):
            raise CourseError(
                f"the representation {name!r} has {len(found)} rows, and there are {len(images)} images; "
                "give the features of these very images."
            )


def draw_neighbours(
    images: Tensor, representations: Mapping[str, Tensor], picture: int, count: int, labels: Tensor | None = None
) -> Figure:
    """A row for each representation: picture number `picture` and the `count` others nearest to it by cosine."""
    refuse_strangers(images, representations)
    shown, titles, colors = [], [], []
    for found in representations.values():
        unit = torch.nn.functional.normalize(found.float(), dim=1)  # (N, d)
        cosine = unit @ unit[picture]  # (N,)
        cosine[picture] = -torch.inf  # not itself
        nearest = cosine.topk(count)
        shown += [images[picture], *images[nearest.indices]]
        titles += ["picture", *(f"{value:.2f}" for value in nearest.values.tolist())]
        same = [False] * count if labels is None else (labels[nearest.indices] == labels[picture]).tolist()
        colors += ["black", *(plots.PALETTE[2] if alike else "black" for alike in same)]
        titles[-count:] = [f"{text} same" if alike else text for text, alike in zip(titles[-count:], same, strict=True)]
    return plots.grid(
        torch.stack(shown), titles, columns=count + 1, size=1.0, rows=list(representations), colors=colors,
        title="Nearest neighbours, by cosine",
    )  # fmt: skip


def sharpening_slider(logits: Tensor, center: Tensor) -> widgets.VBox:
    """Watch centring and sharpening: the distribution that a teacher makes of its logits (K,), with more or less of the centre (K,)."""
    if logits.shape != center.shape:
        raise CourseError(
            f"sharpening_slider needs a centre as long as the logits; they have {tuple(center.shape)} and {tuple(logits.shape)}."
        )

    def draw(temperature: float, share: float) -> Figure:
        with plt.rc_context(plots.STYLE):
            figure, axis = plt.subplots(figsize=(6.2, 2.8))
            draw_answers(axis, logits - share * center, temperature)
            axis.set_title(f"{share:.0%} of the centre taken off, {axis.get_title()}", fontsize=9)
        return figure

    slider = widgets.FloatLogSlider(
        0.1,
        base=10,
        min=-2,
        max=0.5,
        step=0.05,
        description="temperature",
        readout_format=".2g",
        continuous_update=False,
    )
    taken = widgets.FloatSlider(0.0, min=0, max=1, step=0.1, description="centre", continuous_update=False)
    return explorer(
        draw,
        {"temperature": slider, "share": taken},
        "the teacher's probability of each made-up answer, at the chosen temperature and share of the centre taken off",
    )


def draw_answers(axis: Axes, logits: Tensor, temperature: float) -> None:
    """Bars of softmax(logits / temperature) on an axis, with the entropy in the title: logits (K,)."""
    share = (logits / temperature).softmax(dim=0)  # (K,)
    entropy = -(share * share.clamp(min=1e-12).log()).sum().item()
    axis.bar(range(1, len(share) + 1), share.tolist(), color=plots.PALETTE[0])
    axis.set(ylim=(0, 1), xlabel="made-up answer", ylabel="probability")
    axis.set_title(f"temperature {temperature:.2g}: {entropy:.2f} of {math.log(len(share)):.2f} nats", fontsize=9)


def sure_answers_slider(probability: Tensor, right: Tensor) -> widgets.VBox:
    """Choose from which probability on an answer is taken for a label: how many are taken, and how many of these are right.

    probability (N,) of each picture's likeliest class; right bool (N,), whether that class is the true one.
    """
    if probability.shape != right.shape or not len(right):
        raise CourseError(
            "sure_answers_slider needs a probability for each picture and whether it was right; they have "
            f"{tuple(probability.shape)} and {tuple(right.shape)}."
        )

    def draw(threshold: float) -> Figure:
        with plt.rc_context(plots.STYLE):
            figure, axis = plt.subplots(figsize=(6.8, 3.0))
            draw_sure(axis, probability, right, threshold)
        return figure

    slider = widgets.FloatSlider(0.95, min=0.5, max=0.99, step=0.01, description="threshold", continuous_update=False)
    return explorer(
        draw,
        {"threshold": slider},
        "bars of how many pictures get which probability, right and wrong ones apart, with a line at the chosen threshold",
    )


def draw_sure(axis: Axes, probability: Tensor, right: Tensor, threshold: float) -> None:
    """How sure right and wrong answers are, on an axis, with what a threshold takes in the title; as `sure_answers_slider`."""
    sure = probability >= threshold
    taken, fine = sure.float().mean().item(), right[sure].float().mean().item() if sure.any() else math.nan
    parts = [probability[right].tolist(), probability[~right].tolist()]
    colors = [plots.PALETTE[2], plots.PALETTE[1]]
    axis.hist(parts, bins=20, range=(0, 1), stacked=True, color=colors, log=True)
    axis.axvline(threshold, color="black", linestyle=":", linewidth=1)
    axis.set(xlabel="probability of the likeliest class (green: right, orange: wrong)", ylabel="pictures", xlim=(0, 1))
    axis.set_title(f"from {threshold:.2f} on: {taken:.0%} of the pictures, {fine:.1%} of these right", fontsize=9)


def normality_slider() -> widgets.VBox:
    """Move two heaps of numbers, and see how far SIGReg's statistic takes them to be from a standard normal distribution."""
    steps = (torch.arange(64) + 0.5) / 64
    heap = torch.distributions.Normal(0.0, 1.0).icdf(steps)  # (64,), evenly spaced in probability

    def draw(gap: float, width: float) -> Figure:
        numbers = torch.cat([width * heap - gap / 2, width * heap + gap / 2])
        with plt.rc_context(plots.STYLE):
            figure, axes = plt.subplots(1, 2, figsize=(7.4, 2.8))
            draw_normality(axes, numbers)
        return figure

    gap = widgets.FloatSlider(2.0, min=0, max=5, step=0.1, description="gap", continuous_update=False)
    width = widgets.FloatSlider(0.3, min=0.05, max=2, step=0.05, description="width", continuous_update=False)
    return explorer(
        draw,
        {"gap": gap, "width": width},
        "two heaps of numbers beside the normal density, and their characteristic function beside the normal one",
    )


def draw_normality(axes: Sequence[Axes], numbers: Tensor, reach: float = 3.0) -> None:
    """Numbers (N,) on two axes: how they lie, and their characteristic function, each beside a standard normal one's."""
    first, second = axes
    line = torch.linspace(-4.5, 4.5, 181)
    first.hist(numbers.clamp(-4.5, 4.5).tolist(), bins=36, range=(-4.5, 4.5), density=True, color=plots.PALETTE[0])
    first.plot(line, (-line.square() / 2).exp() / math.sqrt(2 * math.pi), color="black", linestyle=":")
    first.set(xlabel="number", ylabel="density", ylim=(0, 1.5))
    t = torch.linspace(0, reach, 61)
    angle = numbers[:, None] * t  # (N, 61)
    second.plot(t, angle.cos().mean(dim=0), color=plots.PALETTE[0], label="mean cosine")
    second.plot(t, angle.sin().mean(dim=0), color=plots.PALETTE[1], linestyle="--", label="mean sine")
    second.plot(t, (-t.square() / 2).exp(), color="black", linestyle=":", label="normal")
    second.set(xlabel="frequency t", ylim=(-1.1, 1.1))
    second.legend(frameon=False, fontsize=7)
    statistic = losses.sigreg(numbers[:, None], torch.ones(1, 1)).item()
    first.set_title(f"statistic {statistic:.2f}", fontsize=9)


def episode_player(frames: Tensor, values: Tensor, done: Sequence[int], names: Sequence[str]) -> widgets.VBox:
    """Go through an episode frame by frame, beside what a network took each action to be worth.

    frames uint8 (T + 1, 3, H, W), values (T, A), done the T actions that were chosen, names of the A actions.
    """
    if not len(frames) - 1 == len(values) == len(done) > 0:
        raise CourseError(
            f"an episode of T steps has T + 1 frames, T rows of values and T actions, and got {len(frames)}, {len(values)} "
            f"and {len(done)}."
        )

    def draw(step: int) -> Figure:
        with plt.rc_context(plots.STYLE):
            figure, axes = plt.subplots(1, 2, figsize=(6.2, 2.7))
            draw_moment(axes, frames[step], values[step] if step < len(values) else None, (*done, -1)[step], names)
            axes[0].set_title(f"frame {step} of {len(done)}", fontsize=9)
        return figure

    step = widgets.IntSlider(0, min=0, max=len(done), description="step", continuous_update=False)
    return explorer(draw, {"step": step}, "a frame of an episode, and bars for what each action was taken to be worth")


def draw_moment(axes: Sequence[Axes], frame: Tensor, values: Tensor | None, chosen: int, names: Sequence[str]) -> None:
    """A frame, and the value of each action, the chosen one coloured; None after the last step."""
    first, second = axes
    first.imshow(plots.to_picture(frame))
    first.set(xticks=[], yticks=[])
    first.grid(False)
    heights = [0.0] * len(names) if values is None else values.tolist()
    colors = [plots.PALETTE[1] if k == chosen else plots.PALETTE[0] for k in range(len(names))]
    second.bar(range(len(names)), heights, color=colors)
    second.set(ylabel="value", ylim=(min(0.0, *heights) - 0.05, max(1.0, *heights) + 0.05))
    second.set_xticks(range(len(names)), names)


def episode_explorer(
    images: ImageSet,
    representations: Mapping[str, Tensor],
    *,
    ways: int = 5,
    queries: int = 7,
    shots: Sequence[int] = (1, 5),
    episodes: int = 50,
) -> widgets.VBox:
    """Draw few-shot episodes by their seed, and see what the nearest prototype (cosine) answers under each representation.

    representations names features (M, d) of these labelled images; `shots` are the sizes of the support to choose from.
    """
    refuse_strangers(images.images, representations)
    labels = images.require_labels()
    fewshot.episode(labels, ways=ways, shots=max(shots), queries=queries)  # asks for too much? Say so now

    def draw(seed: int, name: str, support: int) -> Figure:
        drawn = fewshot.episode(labels, ways=ways, shots=support, queries=queries, seed=seed)
        predicted = fewshot.by_prototype(representations[name], drawn, "cosine")
        return draw_episode(images, drawn, predicted, name)

    return explorer(
        draw,
        {
            "seed": widgets.IntSlider(0, 0, episodes - 1, description="episode", continuous_update=False),
            "name": widgets.Dropdown(options=list(representations), description="features"),
            "support": widgets.SelectionSlider(options=list(shots), value=shots[0], description="shots"),
        },
        "an episode: a row per class, its labelled pictures on the left, queries and the answers to them on the right",
    )


def draw_episode(images: ImageSet, drawn: fewshot.Episode, predicted: Tensor, name: str = "") -> Figure:
    """An episode with a row per class: support, a gap, queries; over each query is the class that it was given.

    predicted int64 (N * Q,), 0..N-1: what is right is green and says "right", what is wrong names the wrong class.
    """
    (ways, shots), asked = drawn.support.shape, drawn.query.shape[1]
    names = [images.classes[c] for c in drawn.classes.tolist()]
    predicted = predicted.view(ways, asked)
    share = (predicted == torch.arange(ways)[:, None]).float().mean().item()
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(
            ways,
            shots + 1 + asked,
            squeeze=False,
            width_ratios=[1] * shots + [0.35] + [1] * asked,
            figsize=(0.85 * (shots + asked) + 1.3, 1.02 * ways + 0.5),
        )
        for axis in axes.flat:
            axis.axis("off")
        for n in range(ways):
            for k, i in enumerate(drawn.support[n].tolist()):
                _framed(axes[n, k], images.images[i], "black", names[n] if k == 0 else "")
            for q, i in enumerate(drawn.query[n].tolist()):
                given = int(predicted[n, q])
                color, text = (plots.PALETTE[2], "right") if given == n else (plots.PALETTE[1], names[given])
                _framed(axes[n, shots + 1 + q], images.images[i], color, text)
        figure.suptitle(
            f"{plots.as_text(name) + ': ' if name else ''}{shots}-shot, {share:.2f} of {predicted.numel()} queries right\n"
            "left of the gap: support, with its class; right of it: queries, with the answers",
            fontsize=10,
        )
    return figure


def _framed(axis: Axes, image: Tensor, color: str, text: str) -> None:
    """A picture in a frame of this colour, with a word in the same colour over it."""
    axis.axis("on")
    axis.grid(False)
    axis.set(xticks=[], yticks=[])
    axis.imshow(plots.to_picture(image), interpolation="nearest")
    axis.set_title(plots.as_text(text, longest=20), fontsize=8, fontweight="normal", color=color, pad=2)
    for spine in axis.spines.values():
        spine.set(visible=True, color=color, linewidth=2)


def cluster_slider(images: Tensor, groupings: Mapping[int, Tensor], labels: Tensor | None = None) -> widgets.VBox:
    """Choose the number of clusters, and look into them: images uint8 (N, 3, H, W), groupings {K: cluster of each, int64 (N,)}.

    labels, int64 (N,), only add how well the clusters meet them.
    """
    if not groupings:
        raise CourseError("cluster_slider needs the clusters for at least one K.")
    for k, found in groupings.items():
        if len(found) != len(images):
            raise CourseError(
                f"the clusters for K = {k} are {len(found)}, and there are {len(images)} images; give one per image."
            )

    def draw(clusters: int) -> Figure:
        return contact_sheet(images, groupings[clusters], labels)

    slider = widgets.SelectionSlider(options=sorted(groupings), description="clusters", continuous_update=False)
    return explorer(draw, {"clusters": slider}, "some pictures of each cluster, a row each, for the chosen number")


def contact_sheet(
    images: Tensor,
    clusters: Tensor,
    labels: Tensor | None = None,
    *,
    columns: int = 12,
    most: int = 12,
    title: str | None = None,
) -> Figure:
    """The first pictures of each of the `most` largest clusters, a row each: images (N, 3, H, W), clusters int64 (N,)."""
    sizes = torch.bincount(clusters)  # (K,)
    largest = sizes.argsort(descending=True, stable=True)[:most]
    largest = largest[sizes[largest] > 0]
    shown = torch.full((len(largest) * columns, *images.shape[1:]), 255, dtype=images.dtype)  # white where none is left
    for row, cluster in enumerate(largest.tolist()):
        members = images[clusters == cluster][:columns]
        shown[row * columns : row * columns + len(members)] = members
    if title is None:
        title = f"{int((sizes > 0).sum())} clusters"
        if labels is not None:
            found = clustering.scores(labels, clusters)
            title += (
                f": purity {found['purity']:.2f}, Hungarian accuracy {found['accuracy']:.2f}, NMI {found['nmi']:.2f}"
            )
    names = [f"{sizes[cluster]} pictures" for cluster in largest.tolist()]
    return plots.grid(shown, columns=columns, size=0.62, rows=names, title=title)


PROTOCOL_NAMES = {"knn": "kNN", "linear": "linear probe", "finetune": "fine-tuned"}


def ranking_explorer(results: Mapping[str, Any]) -> widgets.VBox:
    """Choose protocol and labels per class, and see every method of a comparison ranked, with its 95% interval.

    results is what `compare.read` or `compare.run` gives. Where a protocol wasn't measured with so many labels, the
    nearest number of labels is shown, and the title says so.
    """
    budgets = {protocol: measured_budgets(results, protocol) for protocol in PROTOCOL_NAMES}
    budgets = {protocol: found for protocol, found in budgets.items() if found}
    if not budgets:
        raise CourseError("these results hold no measurement of a pretext task; run `sslcourse compare` first.")
    options = sorted(set().union(*budgets.values()))

    def draw(protocol: str, labels: int) -> Figure:
        nearest = min(budgets[protocol], key=lambda b: abs(math.log(b / labels)))
        figure = draw_ranking(results, protocol, nearest)
        if nearest != labels:
            axis = figure.axes[0]
            axis.set_title(f"{axis.get_title()}\n({labels} weren't measured)", fontsize="medium", fontweight="bold")
        return figure

    names = [(PROTOCOL_NAMES[protocol], protocol) for protocol in budgets]
    start = "linear" if "linear" in budgets else next(iter(budgets))
    return explorer(
        draw,
        {
            "protocol": widgets.Dropdown(options=names, value=start, description="protocol"),
            "labels": widgets.SelectionSlider(
                options=options, value=results["labels"], description="labels", continuous_update=False
            ),
        },
        "bars of test accuracy, best first, with 95% intervals and a dot per seed; baselines are gray",
    )


def measured_budgets(results: Mapping[str, Any], protocol: str) -> list[int]:
    """Labels per class with which a pretext task was measured by this protocol."""
    return sorted({b for task in results["tasks"] for b in comparison.curve(results, task, protocol)})


def draw_ranking(results: Mapping[str, Any], protocol: str, labels: int) -> Figure:
    """Rows of a comparison as bars, best first, with 95% intervals and a dot per seed; baselines are gray."""
    rows = {row: comparison.accuracies(results, row, protocol, labels) for row in results["runs"]}
    ranked = sorted((row for row in rows if rows[row]), key=lambda row: rows[row].mean, reverse=True)
    with plt.rc_context(plots.STYLE):
        figure, axis = plt.subplots(figsize=(7.2, 0.27 * len(ranked) + 1.1))
        for place, row in enumerate(ranked):
            summary, task = rows[row], row in results["tasks"]
            low, high = plots.interval_or_mean(summary)
            around, color = [[summary.mean - low], [high - summary.mean]], plots.PALETTE[0] if task else "0.7"
            axis.barh(place, summary.mean, xerr=around, color=color, capsize=2, alpha=0.85)
            axis.plot(summary.values, [place] * len(summary.values), "k.", markersize=3, alpha=0.6)
        tuned = protocol == "finetune"
        names = [f"from scratch ({row})" if tuned and row.startswith(comparison.RANDOM) else row for row in ranked]
        axis.set_yticks(range(len(ranked)), [plots.as_text(name) for name in names])
        axis.invert_yaxis()
        axis.grid(False, axis="y")
        axis.set(xlim=(0, 1), xlabel="test accuracy", title=f"{PROTOCOL_NAMES[protocol]}, {labels} labels per class")
    return figure


def detection_threshold_slider(images: ImageSet, found: Sequence[detection.Boxes], shown: int = 6) -> widgets.VBox:
    """Ask a detector to be surer: boxes, precision and recall at a score threshold of your choice (IoU 0.5).

    images  annotated pictures; found  what `detection.detect` gave for them; shown  how many of them to look at
    """
    right = detection.hits(found, images)
    if not sum(map(len, right)):
        raise CourseError("detection_threshold_slider needs at least one picture in which something was found.")

    def draw(threshold: float, first: int) -> Figure:
        return draw_at_threshold(images, found, right, threshold, first, min(shown, len(images)))

    return explorer(
        draw,
        {
            "threshold": widgets.FloatSlider(
                0.5, min=0.05, max=0.95, step=0.05, description="threshold", continuous_update=False
            ),
            "first": widgets.IntSlider(0, 0, len(images) - 1, description="pictures", continuous_update=False),
        },
        "pictures with the boxes above the threshold, and precision and recall against the threshold",
    )


def draw_at_threshold(
    images: ImageSet,
    found: Sequence[detection.Boxes],
    right: Sequence[Tensor],
    threshold: float,
    first: int = 0,
    count: int = 6,
) -> Figure:
    """Pictures `first`, ... with the boxes whose score reaches the threshold, over precision and recall of all pictures.

    right  `detection.hits` of what was found: hits are drawn solid and green, the others dashed and orange
    """
    scores, hit = torch.cat([one["scores"] for one in found]), torch.cat(list(right))
    true = sum(len(one["labels"]) for one in detection.targets(images))
    steps = torch.arange(0.05, 0.96, 0.05)
    kept = scores >= steps[:, None] - 1e-6  # (S, all boxes)
    number, correct = kept.sum(dim=1), (kept & hit).sum(dim=1)  # (S,) each
    with plt.rc_context(plots.STYLE):
        figure = plt.figure(figsize=(1.75 * count, 4.3))
        grid = figure.add_gridspec(2, count, height_ratios=(1.15, 1))
        for column in range(count):
            i = (first + column) % len(images)
            axis, above = figure.add_subplot(grid[0, column]), found[i]["scores"] >= threshold - 1e-6
            boxes, labels = found[i]["boxes"][above], found[i]["labels"][above]
            plots.draw_boxes(axis, images.images[i], boxes, labels, images.classes, right[i][above])
            things = int((images.box_labels[i] >= 0).sum())
            axis.set_title(f"{int(right[i][above].sum())} of {things} found", fontsize=9)
        axis = figure.add_subplot(grid[1, :])
        some = number > 0
        axis.plot(steps[some], (correct / number)[some], "o-", markersize=3, label="precision: right among the boxes")
        axis.plot(steps, correct / max(true, 1), "s-", markersize=3, label="recall: found among the things")
        axis.axvline(threshold, color="black", linestyle=":")
        axis.set(xlabel="score threshold", ylabel="share", ylim=(0, 1.02), xlim=(0, 1))
        axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        left = int((scores >= threshold - 1e-6).sum())
        axis.set_title(f"threshold {threshold:.2f}: {left} boxes for {true} things in {len(images)} pictures")
    return figure


def checkpoint_explorer(loaded: Mapping[str, Backbone]) -> widgets.VBox:
    """Choose a checkpoint and how many levels of its names are told apart: `loaded` are what `weights.load` gave."""
    if not loaded:
        raise CourseError("checkpoint_explorer needs at least one backbone that weights.load read.")

    def draw(file: str, depth: int) -> Figure:
        with plt.rc_context(plots.STYLE):
            figure, axis = plt.subplots(figsize=(9, 4.2))
            draw_checkpoint(loaded[file], depth=depth, axis=axis, title=file, most=12)
        return figure

    return explorer(
        draw,
        {
            "file": widgets.Dropdown(options=list(loaded), description="file"),
            "depth": widgets.IntSlider(3, 1, 7, description="levels", continuous_update=False),
        },
        "bars of the number of values in each group of a checkpoint's entries; what became the backbone is blue",
    )


def draw_checkpoint(backbone: Backbone, *, depth: int, axis: Axes, title: str, most: int = 6) -> None:
    """A bar per group of entries of the file that a backbone was read from, as long as its number of values.

    Entries that share the first `depth` parts of their names are a group. What became the backbone is blue, the rest is
    gray; of more than `most` groups the smallest are put together.
    """
    groups = checkpoint_groups(backbone, depth)
    ranked = sorted(groups.items(), key=lambda group: sum(group[1]), reverse=True)
    shown = [(name, counts) for name, counts in ranked[: most - (len(ranked) > most)]]
    if rest := ranked[len(shown) :]:
        shown.append((f"{len(rest)} smaller groups", [sum(counts[i] for _, counts in rest) for i in (0, 1)]))
    for place, (_, (used, left)) in enumerate(shown):
        axis.barh(place, used, color=plots.PALETTE[0])
        axis.barh(place, left, left=used, color="0.7")
        axis.text(used + left, place, f" {used + left:,}", va="center", fontsize=7)
    axis.set_yticks(range(len(shown)), [plots.as_text(name) for name, _ in shown], fontsize=8)
    axis.invert_yaxis()
    axis.grid(False, axis="y")
    axis.set_xlim(0, 1.22 * max(sum(counts) for _, counts in shown))
    axis.xaxis.set_major_locator(plt.MaxNLocator(4))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g}")
    axis.set(xlabel="values (millions)", title=title)


def checkpoint_groups(backbone: Backbone, depth: int) -> dict[str, list[int]]:
    """{the first `depth` parts of a name: [values that became the backbone, values that were left]}, in file order."""
    report = getattr(backbone, "report", None)
    if report is None:
        raise CourseError("this backbone was not read from a file; give what weights.load returned.")
    used, groups = set(report.used), {}
    for name, tensor in reading.read(Path(report.path)).tensors.items():
        counts = groups.setdefault(".".join(name.split(".")[:depth]), [0, 0])
        counts[name not in used] += tensor.numel()
    return groups


# --- lesson 19: what more GPUs gain ------------------------------------------------------------------------------


def step_seconds(
    gpus: int,
    batch: int,
    *,
    speed: float,
    parameters: float,
    bandwidth: float,
    overlap: float = 0.5,
    fixed: float = 5e-3,
) -> dict[str, float]:
    """A model of one step, in seconds by part, with nothing measured in it: compute, gradients, fixed.

    gpus        that share the batch;  batch  images of all together
    speed       images/s of one GPU
    parameters  values whose gradients are averaged, in float32
    bandwidth   bytes/s that a GPU sends while it receives as many. A ring sends 2 (n - 1) / n times the gradients
                (Patarasuk and Yuan, 2009)
    overlap     share of the gradients' way that hides behind the backward pass, two thirds of the computing, at most
    fixed       seconds of each step that no GPU takes off another: starting kernels, batch norm's waits, the optimizer
    """
    compute = batch / gpus / speed
    sent = 2 * (gpus - 1) / gpus * 4 * parameters / bandwidth
    return {"compute": compute, "gradients": sent - min(overlap * sent, 2 / 3 * compute), "fixed": fixed}


def scaling_explorer() -> widgets.VBox:
    """Choose a batch, a link and a network, and see what more GPUs gain by the model of `step_seconds`."""
    links = {"10 Gbit/s": 1.25e9, "100 Gbit/s": 12.5e9, "200 Gbit/s": 25e9, "300 GB/s": 300e9}
    networks = {"ResNet-18, 11 million": 11.2e6, "ResNet-50, 25 million": 23.5e6, "ViT-L, 304 million": 304e6}

    def draw(gpus: int, batch: int, link: float, network: float) -> Figure:
        return draw_scaling(gpus, batch, link, network)

    def slider(options: Sequence[int], value: int, name: str) -> widgets.SelectionSlider:
        return widgets.SelectionSlider(options=options, value=value, description=name, continuous_update=False)

    return explorer(
        draw,
        {
            "gpus": slider([1, 2, 4, 8, 16, 32, 64, 128, 256], 16, "GPUs"),
            "batch": slider([128, 256, 512, 1024, 2048, 4096, 8192], 1024, "batch"),
            "link": widgets.Dropdown(options=list(links.items()), value=25e9, description="link"),
            "network": widgets.Dropdown(options=list(networks.items()), value=23.5e6, description="network"),
        },
        "bars of a step's parts at the chosen number of GPUs, beside curves of the speed gained against the number of GPUs",
    )


def draw_scaling(gpus: int, batch: int, bandwidth: float, parameters: float) -> Figure:
    """A step's parts at `gpus`, beside the speed gained over one GPU: the batch shared among them, or growing with them.

    One GPU does 1,000 images/s of ResNet-50's 23.5 million weights, and of other networks in proportion: an assumption.
    """
    speed = 1000 * 23.5e6 / parameters
    how = {"speed": speed, "parameters": parameters, "bandwidth": bandwidth}
    counts = [2**k for k in range(9)]
    alone = sum(step_seconds(1, batch, **how).values())
    shared = [alone / sum(step_seconds(n, batch, **how).values()) for n in counts]
    growing = [n * alone / sum(step_seconds(n, n * batch, **how).values()) for n in counts]
    with plt.rc_context(plots.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), width_ratios=(1, 1.5))
        parts, start = step_seconds(gpus, batch, **how), 0.0
        for color, (name, seconds) in zip(plots.PALETTE, parts.items(), strict=False):
            left.barh(0, 1e3 * seconds, left=start, color=color, label=f"{name}: {1e3 * seconds:.1f} ms")
            start += 1e3 * seconds
        left.set(yticks=[], xlabel="milliseconds", ylim=(-0.5, 1.6))
        left.set_title(f"{batch:,} images on {gpus} GPU{'s' if gpus > 1 else ''}: {start:.1f} ms")
        left.legend(frameon=False, loc="upper left")
        right.plot(counts, counts, color="0.6", linestyle=":", label="ideal")
        right.plot(counts, growing, "s-", markersize=4, label=f"batch of {batch:,} for each GPU")
        right.plot(counts, shared, "o-", markersize=4, label=f"batch of {batch:,} shared by all")
        right.axvline(gpus, color="black", linewidth=0.8, linestyle="--")
        right.set_xscale("log", base=2)
        right.set_yscale("log", base=2)
        right.set_xticks(counts, [str(n) for n in counts])
        right.set_yticks(counts, [str(n) for n in counts])
        right.set(xlabel="GPUs", ylabel="times the images/s of one")
        gained = alone / (start / 1e3)
        right.set_title(f"What {gpus} gain: {gained:.1f} times, {gained / gpus:.0%} of the ideal")
        right.legend(frameon=False)
    return figure


def sentence_search(task: ImageText, images: Tensor, shown: int = 6) -> widgets.VBox:
    """Say what you look for, word by word, and see the pictures that are nearest: `images` uint8 (N, 3, H, W)."""
    if len(images) < shown:
        raise CourseError(f"sentence_search shows {shown} pictures, and got {len(images)}; give more.")
    seen = language.of_images(task, images)  # (N, dim)

    def draw(colour: str, thing: str, where: str, light: str) -> Figure:
        return draw_search(task, images, seen, " ".join(filter(None, ["a", colour, thing, where, light])), shown)

    def choice(name: str, options: Sequence[str], value: str = "") -> widgets.Dropdown:
        return widgets.Dropdown(
            options=[(option or "(not said)", option) for option in options], value=value, description=name
        )

    backgrounds = [f"on a {name} background" for name in BACKDROPS if name != "confetti"]
    return explorer(
        draw,
        {
            "colour": choice("colour", ["", *COLOUR_NAMES], "red"),
            "thing": choice("thing", CLASSES, "boat"),
            "where": choice("background", ["", *backgrounds, "on a background of confetti"]),
            "light": choice("light", ["", *(f"in {light}" for light in LIGHTS[False, "photo"])]),
        },
        "the pictures that the network finds nearest to the chosen sentence, each with its cosine",
    )


def draw_search(task: ImageText, images: Tensor, seen: Tensor, sentence: str, shown: int = 6) -> Figure:
    """The `shown` pictures nearest to a sentence, nearest first; `seen` (N, dim) is where the images lie."""
    cosines, order = (seen @ language.of_texts(task, [sentence])[0]).topk(shown)
    titles = [f"{value:.2f}" for value in cosines.tolist()]
    return plots.grid(images[order], titles, columns=shown, size=1.25, title=sentence)
