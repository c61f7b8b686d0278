"""Widgets: each is built, and each of its controls changes the picture."""

from __future__ import annotations

import base64
import html
import inspect
from pathlib import Path

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch

from sslcourse import augment, backbones, patches, plots, weights, widgets
from sslcourse.data.world import draw
from sslcourse.errors import CourseError
from sslcourse.evaluate import Summary
from sslcourse.pretext.clip import CLIP
from sslcourse.pretext.colorization import Colorization
from sslcourse.pretext.context import OFFSETS
from sslcourse.pretext.mae import MaskedAutoencoder, kept
from sslcourse.pretext.rotation import Rotation
from sslcourse.pretext.transformation import ELEMENT_NAMES
from sslcourse.transfer import detection, fewshot, language


def controls(box):
    """The controls above the picture, by description."""
    return {control.description: control for control in box.children[0].children}


def other_value(control):
    """A value that the control doesn't have now."""
    if isinstance(control, ipywidgets.FloatLogSlider):
        return control.value / 3
    if hasattr(control, "options"):
        return next(value for _, value in control._options_full if value != control.value)
    return control.min if control.value > control.min else control.max


def assert_every_control_redraws(box):
    assert all(len(name) > 1 for name in controls(box))  # a handle's name, for who hears the page
    picture = box.children[1]
    assert box.png[:8] == b"\x89PNG\r\n\x1a\n" and f'alt="{html.escape(box.alt)}"' in picture.value and box.alt
    assert controls(box)
    for name, control in controls(box).items():
        before = picture.value
        control.value = other_value(control)
        assert picture.value != before, f"moving {name!r} changes nothing"


@pytest.fixture(autouse=True)
def quick_figures(monkeypatch):
    """Small pictures without the search for a layout: what a widget says is tested, not where its labels stand."""
    for name, value in {"figure.dpi": 45, "savefig.dpi": 45, "figure.constrained_layout.use": False}.items():
        monkeypatch.setitem(plots.STYLE, name, value)


# -- all of them --------------------------------------------------------------------------------------------------------


def test_every_widget_is_tested_here():
    source = Path(__file__).read_text(encoding="utf-8")
    makers = [
        name
        for name, function in inspect.getmembers(widgets, inspect.isfunction)
        if "VBox" in str(function.__annotations__.get("return")) and name != "explorer"
    ]
    assert makers and [name for name in makers if f"widgets.{name}(" not in source] == []


def test_explorer_draws_what_the_controls_say_and_keeps_no_figure_open():
    seen = []

    def paint(a, b):
        seen.append((a, b))
        figure, axis = plt.subplots(figsize=(1, 1))
        axis.set_title(f"{a} {b}")
        return figure

    before = plt.get_fignums()
    box = widgets.explorer(paint, {"a": ipywidgets.IntSlider(1), "b": ipywidgets.IntSlider(2)}, "two numbers")
    box.children[0].children[1].value = 7
    box.children[0].children[0].value = 5
    assert seen == [(1, 2), (1, 7), (5, 7)] and plt.get_fignums() == before
    assert 'alt="two numbers"' in box.children[1].value


def test_where_no_kernel_answers_the_picture_stands_with_its_words():
    box = widgets.explorer(lambda a: plt.figure(figsize=(1, 1)), {"a": ipywidgets.IntSlider(1)}, 'a "square"')
    data, metadata = box._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data and data["text/plain"] == 'a "square"'
    assert base64.b64decode(data["image/png"]) == box.png and metadata["image/png"]["alt"] == 'a "square"'
    assert data["text/html"].startswith('<img alt="a &quot;square&quot;" src="data:image/png;base64,')


def test_the_controls_wrap_and_the_picture_keeps_its_size():
    box = widgets.explorer(lambda a: plt.figure(figsize=(1, 1)), {"a": ipywidgets.IntSlider(1)}, "a square")
    assert box.children[0].layout.flex_flow == "row wrap"
    assert "max-width: 100%" in box.children[1].value and "width=" not in box.children[1].value


def test_a_long_name_of_a_control_has_room():
    """Jupyter gives a name 80 pixels, and cuts what is longer; the names of one row have the same width."""
    names = ipywidgets.IntSlider(1, description="a"), ipywidgets.IntSlider(1, description="temperature")
    widgets.explorer(lambda a, b: plt.figure(figsize=(1, 1)), dict(zip("ab", names, strict=True)), "a square")
    assert [name.style.description_width for name in names] == ["99px", "99px"]


@pytest.fixture
def arguments(monkeypatch):
    """arguments(place, name): a list that grows by the arguments of each call of place.name, which works as before."""

    def watch(place, name):
        calls, original = [], getattr(place, name)

        def watched(*given, **options):
            calls.append((*given, *options.values()))
            return original(*given, **options)

        monkeypatch.setattr(place, name, watched)
        return calls

    return watch


# -- lessons 01 to 07 ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_rotation_slider_asks_the_network_about_the_turned_picture(arguments):
    images, task = draw("val", 3).images, Rotation(backbones.build(seed=0), flip=False)
    shown = arguments(widgets, "answer_figure")
    box = widgets.rotation_slider(task, images)
    assert task.training
    task.eval()
    for picture, turn in ((0, 0), (2, 90), (1, 270)):
        controls(box)["picture"].value, controls(box)["turn (°)"].value = picture, turn
        turned, share, said = shown[-1]
        expected = augment.rotate90(augment.to_float(images[picture : picture + 1]), torch.tensor([turn // 90]))
        assert torch.equal(turned[None], expected) and said == turn
        torch.testing.assert_close(share, task.head(task.backbone(expected)).softmax(dim=1)[0])
    with pytest.raises(CourseError, match="at least one image"):
        widgets.rotation_slider(task, images[:0])
    assert_every_control_redraws(widgets.rotation_slider(task, images))


def test_the_true_rotation_is_marked():
    figure = widgets.answer_figure(torch.rand(3, 8, 8), torch.tensor([0.1, 0.2, 0.3, 0.4]), 90)
    bars = figure.axes[1]
    figure.canvas.draw()
    assert [label.get_text() for label in bars.get_yticklabels()] == ["0°", "90° (true)", "180°", "270°"]
    assert [round(bar.get_width(), 3) for bar in bars.patches] == [0.1, 0.2, 0.3, 0.4]
    others = {bar.get_facecolor() for t, bar in enumerate(bars.patches) if t != 1}
    assert len(others) == 1 and bars.patches[1].get_facecolor() not in others
    plt.close(figure)


def test_label_budget_slider_compares_at_the_chosen_budget(arguments):
    curves = {
        name: {budget: Summary((low + budget / 100, low + 0.1 + budget / 100)) for budget in budgets}
        for name, low, budgets in (("random", 0.1, (1, 5, 20)), ("trained", 0.4, (1, 5, 10, 20)))
    }
    shown = arguments(plots, "bars")
    box = widgets.label_budget_slider(curves)
    assert controls(box)["labels"].options == (1, 5, 20)  # 10 is in one curve alone
    for budget in (1, 20):
        controls(box)["labels"].value = budget
        assert shown[-1][0] == {name: curve[budget] for name, curve in curves.items()}
    with pytest.raises(CourseError, match="every curve has"):
        widgets.label_budget_slider({"a": {1: Summary((0.1,))}, "b": {2: Summary((0.1,))}})
    assert_every_control_redraws(widgets.label_budget_slider(curves))


def test_symmetry_picker_names_what_both_are_together(arguments):
    image = draw("val", 1).images[0]
    shown = arguments(plots, "grid")
    box = widgets.symmetry_picker(image)
    for first, second in ((1, 4), (5, 3), (6, 6)):
        controls(box)["first"].value, controls(box)["then"].value = first, second
        (_, once, twice), titles = shown[-1][:2]
        assert torch.equal(once, augment.one_symmetry(image, first)) and titles[1] == ELEMENT_NAMES[first]
        named = ELEMENT_NAMES.index(titles[2].split("= ")[1])
        assert torch.equal(twice, augment.one_symmetry(image, named))
        assert torch.equal(twice, augment.one_symmetry(once, second))
    assert_every_control_redraws(widgets.symmetry_picker(image))


def test_temperature_slider_paints_at_the_chosen_temperature(arguments):
    images, task = draw("val", 2).images, Colorization(backbones.build(seed=0), objective="classification")
    for weight in task.head.parameters():  # a head that prefers some colours, as a trained one does
        torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
    assert (task.colorize(images, 0.1) - task.colorize(images, 1.0)).abs().amax() > 0.05
    shown = arguments(plots, "grid")
    box = widgets.temperature_slider(task, images)
    for picture, temperature in ((0, 0.1), (1, 1.0)):
        controls(box)["picture"].value, controls(box)["temperature"].value = picture, temperature
        gray, painted, truth = shown[-1][0]
        one = images[picture : picture + 1]
        assert torch.equal(truth, augment.to_float(one)[0])
        torch.testing.assert_close(painted, task.colorize(one, temperature)[0])
        assert (gray.amax(dim=0) - gray.amin(dim=0)).max() < 1e-2
        assert f"T = {temperature:.2g}" in shown[-1][1][1]
    with pytest.raises(CourseError, match="classification"):
        widgets.temperature_slider(Colorization(backbones.build(), objective="regression"), images)
    with pytest.raises(CourseError, match="at least one image"):
        widgets.temperature_slider(task, images[:0])
    assert_every_control_redraws(widgets.temperature_slider(task, images))


def test_gap_slider_cuts_the_two_patches_with_the_gap_between_them(arguments):
    images = draw("val", 2).images
    cut = arguments(patches, "windows")
    box = widgets.gap_slider(images)
    for picture, position, gap in ((1, 4, 0.6), (0, 6, 0.0), (0, 3, 0.3)):
        for name, value in (("picture", picture), ("second is", position), ("gap", gap)):
            controls(box)[name].value = value
        (source, row, column, size), (_, other_row, other_column, _) = cut[-2:]
        assert torch.equal(source[0], images[picture])
        step = (int(other_row - row), int(other_column - column))
        far = size + round(gap * size)
        assert step == tuple(far * way for way in OFFSETS[position])
    with pytest.raises(CourseError, match="at least one image"):
        widgets.gap_slider(images[:0])
    assert_every_control_redraws(widgets.gap_slider(images))


def test_mask_ratio_slider_hides_more_and_more_and_fills_in_the_rest(arguments):
    images, task = draw("val", 2).images, MaskedAutoencoder(backbones.build("vit-tiny", seed=0), normalize=False)
    shown = arguments(plots, "grid")
    box = widgets.mask_ratio_slider(task, images)
    hidden_before = torch.zeros(32, 32, dtype=torch.bool)
    for ratio in (0.25, 0.75, 0.9):
        controls(box)["mask ratio"].value = ratio
        (seen, filled, truth), titles = shown[-1][:2]
        assert torch.equal(truth, augment.to_float(images[0]))
        hidden = (seen != truth).any(dim=0)
        left = kept(64, ratio)
        assert f"{left} of 64" in titles[0] and f"{ratio:.2f}" in titles[1]
        assert hidden.sum() == 16 * (64 - left) and (seen[:, hidden] == 1).all()
        assert (hidden | ~hidden_before).all()  # none comes back
        torch.testing.assert_close(filled[:, ~hidden], truth[:, ~hidden], atol=1e-5, rtol=0)
        assert (filled - truth)[:, hidden].abs().mean() > 0.01
        hidden_before = hidden
    with pytest.raises(CourseError, match="at least one image"):
        widgets.mask_ratio_slider(task, images[:0])
    assert_every_control_redraws(widgets.mask_ratio_slider(task, images))


# -- lesson 08 ----------------------------------------------------------------------------------------------------------


def test_similarity_temperature_slider():
    situations = {"ahead": torch.tensor([0.9, 0.2, 0.1]), "behind": torch.tensor([0.3, 0.8, 0.1, -0.5])}
    assert_every_control_redraws(widgets.similarity_temperature_slider(situations))
    with pytest.raises(CourseError, match="at least one row"):
        widgets.similarity_temperature_slider({})


def test_view_strength_slider():
    images = draw("val", 3).images
    assert_every_control_redraws(widgets.view_strength_slider(images, views=3))
    with pytest.raises(CourseError, match="at least one image"):
        widgets.view_strength_slider(images[:0])


def test_views_of_the_slider_begin_with_the_picture_and_repeat():
    image = draw("val", 1).images[0]
    weak, strong = (widgets.draw_views(image, 4, crop, 0.0, 0.0) for crop in (1.0, 0.2))
    assert weak.shape == strong.shape == (5, 3, 32, 32)
    assert torch.equal((weak[0] * 255).round().to(torch.uint8), image)
    assert torch.equal(strong, widgets.draw_views(image, 4, 0.2, 0.0, 0.0))
    change = [torch.minimum((v[1:] - v[0]).abs().mean(), (v[1:] - v[0].flip(-1)).abs().mean()) for v in (weak, strong)]
    assert change[0] < change[1]


# -- lesson 09 ----------------------------------------------------------------------------------------------------------


def test_neighbour_explorer():
    images = draw("val", 8).images
    pixels = images.flatten(1).float()
    box = widgets.neighbour_explorer(images, {"pixels": pixels, "noise": torch.randn(8, 4)}, torch.arange(8) % 2)
    assert_every_control_redraws(box)
    with pytest.raises(CourseError, match="at least two images"):
        widgets.neighbour_explorer(images[:1], {"pixels": pixels[:1]})
    with pytest.raises(CourseError, match="'pixels' has 7 rows, and there are 8"):
        widgets.neighbour_explorer(images, {"pixels": pixels[:7]})


def test_neighbours_are_the_nearest_and_never_the_picture_itself():
    images = draw("val", 4).images
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 2.0], [5.0, 0.1]])
    figure = widgets.draw_neighbours(images, {"two numbers": features}, 0, 2, torch.tensor([0, 1, 1, 0]))
    drawn = [torch.from_numpy(axis.images[0].get_array().copy()).movedim(-1, 0) for axis in figure.axes]
    assert all(torch.equal(one, images[i]) for one, i in zip(drawn, (0, 3, 1), strict=True))
    assert [axis.get_title() for axis in figure.axes] == ["picture", "1.00 same", "0.99"]


# -- lesson 11 ----------------------------------------------------------------------------------------------------------


def test_sure_answers_slider():
    probability, right = torch.tensor([0.3, 0.6, 0.96, 0.99]), torch.tensor([False, True, True, False])
    assert_every_control_redraws(widgets.sure_answers_slider(probability, right))
    figure, axis = plt.subplots()
    widgets.draw_sure(axis, probability, right, 0.95)
    assert axis.get_title() == "from 0.95 on: 50% of the pictures, 50.0% of these right"
    plt.close(figure)
    with pytest.raises(CourseError, match="probability for each picture"):
        widgets.sure_answers_slider(probability, right[:3])


def test_sharpening_slider():
    logits = torch.tensor([0.3, 0.1, 0.0, -0.1])
    assert_every_control_redraws(widgets.sharpening_slider(logits, torch.tensor([0.3, 0.0, 0.0, 0.0])))
    with pytest.raises(CourseError, match=r"as long as the logits; they have \(3,\) and \(4,\)"):
        widgets.sharpening_slider(logits, logits[:3])


def test_the_sharpening_slider_says_how_much_of_the_centre_is_off(monkeypatch):
    monkeypatch.setattr(widgets, "explorer", lambda draw, *_: draw)
    logits = torch.tensor([0.3, 0.1, 0.0, -0.1])
    figure = widgets.sharpening_slider(logits, logits)(temperature=0.1, share=0.4)
    assert figure.axes[0].get_title().startswith("40% of the centre taken off, temperature 0.1: ")
    plt.close(figure)


def test_normality_slider():
    assert_every_control_redraws(widgets.normality_slider())


def test_a_normal_cloud_has_the_normal_curve_and_a_small_statistic():
    cloud = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(200) + 0.5) / 200)
    statistics = []
    for numbers in (cloud, 3 * cloud, torch.zeros(200)):
        figure, axes = plt.subplots(1, 2)
        widgets.draw_normality(axes, numbers)
        cosine, _, normal = axes[1].lines
        statistics.append(float(axes[0].get_title().split()[-1]))
        near = max(abs(cosine.get_ydata() - normal.get_ydata())) < 0.02
        assert near == (numbers is cloud)
        plt.close(figure)
    assert statistics[0] < 0.1 < min(statistics[1:])


def test_answers_sharpen_and_the_title_says_by_how_much():
    axis = plt.figure().add_subplot()
    for temperature, low, high in ((1e-3, 0.99, 1.01), (1e3, 0.24, 0.26)):
        axis.clear()
        widgets.draw_answers(axis, torch.tensor([0.3, 0.1, 0.0, -0.1]), temperature)
        assert low < max(bar.get_height() for bar in axis.patches) < high
    assert "1.39 of 1.39 nats" in axis.get_title()
    plt.close("all")


# -- lesson 13 ----------------------------------------------------------------------------------------------------------


def test_episode_explorer():
    images = draw("val", 60)
    features = {"pixels": images.images.flatten(1).float(), "noise": torch.randn(60, 4)}
    options = {"ways": 3, "queries": 2, "shots": (1, 2)}
    assert_every_control_redraws(widgets.episode_explorer(images, features, **options))
    with pytest.raises(CourseError, match="an episode takes 40 \\+ 2 of a class"):
        widgets.episode_explorer(images, features, **options | {"shots": (1, 40)})
    with pytest.raises(CourseError, match="'pixels' has 59 rows, and there are 60"):
        widgets.episode_explorer(images, {"pixels": features["pixels"][:59]})


def test_the_picture_of_an_episode_says_what_is_right_and_names_what_was_given_instead():
    images = draw("val", 60)
    drawn = fewshot.episode(images.labels, ways=2, shots=1, queries=2)
    first, second = (images.classes[c] for c in drawn.classes.tolist())
    figure = widgets.draw_episode(images, drawn, torch.tensor([0, 1, 0, 1]), "made up")
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [first, "", "right", second, second, "", first, "right"]
    shown = [torch.from_numpy(a.images[0].get_array().copy()).movedim(-1, 0) for a in figure.axes if a.images]
    order = torch.cat([drawn.support, drawn.query], dim=1).flatten()
    assert all(torch.equal(one, images.images[i]) for one, i in zip(shown, order, strict=True))
    assert "1-shot, 0.50 of 4 queries right" in figure.get_suptitle()


# -- lesson 15 ----------------------------------------------------------------------------------------------------------


def test_cluster_slider():
    images = draw("val", 9).images
    groupings = {2: torch.arange(9) % 2, 3: torch.arange(9) // 3}
    assert_every_control_redraws(widgets.cluster_slider(images, groupings, torch.arange(9) % 3))
    with pytest.raises(CourseError, match="at least one K"):
        widgets.cluster_slider(images, {})
    with pytest.raises(CourseError, match="K = 2 are 8, and there are 9 images"):
        widgets.cluster_slider(images, {2: torch.arange(8) % 2})


def test_a_contact_sheet_has_a_row_for_each_cluster_largest_first():
    images = draw("val", 6).images
    clusters = torch.tensor([2, 2, 0, 2, 0, 5])
    figure = widgets.contact_sheet(images, clusters, torch.tensor([0, 0, 1, 0, 1, 1]), columns=3)
    drawn = [torch.from_numpy(axis.images[0].get_array().copy()).movedim(-1, 0) for axis in figure.axes]
    white = torch.full_like(images[0], 255)
    expected = [*images[[0, 1, 3]], *images[[2, 4]], white, images[5], white, white]
    assert all(torch.equal(a, b) for a, b in zip(drawn, expected, strict=True))
    assert [figure.axes[i].get_ylabel() for i in (0, 3, 6)] == ["3 pictures", "2 pictures", "1 pictures"]
    assert figure._suptitle.get_text().startswith("3 clusters: purity 1.00, Hungarian accuracy 0.83")
    plt.close("all")


# -- lesson 12 ----------------------------------------------------------------------------------------------------------


def comparison():
    """Results as `compare.run` gives them, of two tasks and a baseline: the probe with 1 and 10 labels, the rest with 10."""

    def runs(first, tenth, tuned):
        return {
            str(seed): {"backbone": "resnet-tiny"}
            | {
                "linear": {"1": first + 0.01 * seed, "10": tenth - 0.02 * seed},
                "knn": {"10": tenth / 2},
                "finetune": {"10": tuned},
            }
            for seed in range(3)
        }

    rows = {"random weights": runs(0.1, 0.2, 0.5), "rotation": runs(0.4, 0.7, 0.8), "simclr": runs(0.5, 0.6, 0.7)}
    return {"tasks": ["rotation", "simclr"], "labels": 10, "runs": rows}


def test_ranking_explorer():
    box = widgets.ranking_explorer(comparison())
    assert list(controls(box)["labels"].options) == [1, 10]
    assert_every_control_redraws(box)
    with pytest.raises(CourseError, match="no measurement of a pretext task"):
        widgets.ranking_explorer({"tasks": [], "labels": 10, "runs": {}})


def test_a_ranking_has_the_best_row_first_with_its_interval_and_says_what_was_measured():
    results = comparison()
    for labels, order in (
        (1, ["simclr", "rotation", "random weights"]),
        (10, ["rotation", "simclr", "random weights"]),
    ):
        figure = widgets.draw_ranking(results, "linear", labels)
        axis = figure.axes[0]
        assert [tick.get_text() for tick in axis.get_yticklabels()] == order
        assert axis.get_title() == f"linear probe, {labels} labels per class"
    means = [Summary((0.7, 0.68, 0.66)), Summary((0.6, 0.58, 0.56)), Summary((0.2, 0.18, 0.16))]
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([summary.mean for summary in means])
    ends = [lines.get_segments()[0][:, 0] for lines in axis.collections]
    assert all(e.tolist() == pytest.approx(summary.interval) for e, summary in zip(ends, means, strict=True))
    tuned = widgets.draw_ranking(results, "finetune", 10).axes[0]
    assert tuned.get_yticklabels()[-1].get_text() == "from scratch (random weights)"
    assert widgets.measured_budgets(results, "linear") == [1, 10]
    assert widgets.measured_budgets(results, "knn") == [10]
    plt.close("all")


# -- lesson 14 ----------------------------------------------------------------------------------------------------------


def found_in(images, generator):
    """The true boxes with random scores, and a wrong one in each picture."""
    wrong = torch.tensor([[0.0, 0, 3, 3]])
    return [
        {
            "boxes": torch.cat([one["boxes"], wrong]),
            "labels": torch.cat([one["labels"], one["labels"][:1]]),
            "scores": torch.rand(len(one["labels"]) + 1, generator=generator),
        }
        for one in detection.targets(images)
    ]


def test_detection_threshold_slider():
    images = draw("val", 3, mode="crowd")
    found = found_in(images, torch.Generator().manual_seed(0))
    assert_every_control_redraws(widgets.detection_threshold_slider(images, found, shown=2))
    nothing = [{name: value[:0] for name, value in one.items()} for one in found]
    for pictures, boxes in ((images, nothing), (images.select([]), [])):
        with pytest.raises(CourseError, match="at least one picture in which something was found"):
            widgets.detection_threshold_slider(pictures, boxes)


def test_at_a_threshold_the_boxes_that_reach_it_are_drawn_and_counted():
    images = draw("val", 3, mode="crowd")
    found = found_in(images, torch.Generator().manual_seed(0))
    right = detection.hits(found, images)
    figure = widgets.draw_at_threshold(images, found, right, 0.5, first=2, count=2)
    for axis, i in zip(figure.axes, (2, 0), strict=False):  # begins again after the last
        above = found[i]["scores"] >= 0.5
        things = int((images.box_labels[i] >= 0).sum())
        assert axis.get_title() == f"{int((right[i] & above).sum())} of {things} found"
        edges = [patch.get_edgecolor()[:3] for patch in axis.patches][1::2]  # every second one is a white rim
        colors = [plt.matplotlib.colors.to_rgb(plots.PALETTE[2 if hit else 1]) for hit in right[i][above]]
        assert edges[::-1] == colors  # the surest is drawn last, on top
        assert [text.get_text() for text in axis.texts][::-1] == [images.classes[k] for k in found[i]["labels"][above]]
    precision, recall = (line.get_ydata()[9] for line in figure.axes[-1].lines[:2])  # at 0.5
    expected = detection.precision_and_recall(found, images, 0.5)
    assert (precision, recall) == pytest.approx(expected, abs=1e-6)
    plt.close("all")


def test_a_mask_is_painted_over_the_gray_picture_and_named():
    image = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    mask = torch.zeros(8, 8, dtype=torch.int64)
    mask[:4, :5], mask[7, 7] = 2, 1
    _, axis = plt.subplots()
    plots.draw_mask(axis, image, mask, ("a", "b"))
    shown = torch.from_numpy(axis.images[0].get_array().data.copy())
    assert shown[5, 0].tolist() == pytest.approx([0.4 * 100 / 255 + 0.6] * 3)
    blend = [0.25 * 100 / 255 + 0.75 * v for v in plt.matplotlib.colors.to_rgb(plots.MASK_COLORS[1])]
    assert shown[0, 0].tolist() == pytest.approx(blend) and shown[7, 7].tolist() != shown[0, 0].tolist()
    assert [text.get_text() for text in axis.texts] == ["b"]  # one pixel of a is too small for a name
    _, other = plt.subplots()
    plots.draw_mask(other, augment.to_float(image), mask, ("a", "b"))
    assert torch.allclose(torch.from_numpy(other.images[0].get_array().data.copy()).double(), shown)
    plt.close("all")


# -- lesson 20 ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def moco_file(tmp_path):
    """A backbone read from a checkpoint with two encoders and a queue."""
    trunk = backbones.build(seed=0).trunk.state_dict()
    state = {f"module.{who}.{name}": t for who in ("encoder_q", "encoder_k") for name, t in trunk.items()}
    torch.save({"epoch": 3, "state_dict": state | {"module.queue": torch.rand(7, 9)}}, tmp_path / "moco.pth.tar")
    return weights.load(tmp_path / "moco.pth.tar", quiet=True)


def test_checkpoint_explorer(moco_file):
    box = widgets.checkpoint_explorer({"MoCo": moco_file, "again": moco_file})
    assert_every_control_redraws(box)
    with pytest.raises(CourseError, match="at least one backbone"):
        widgets.checkpoint_explorer({})


def test_a_checkpoint_is_drawn_with_what_was_used_and_what_was_left(moco_file):
    values = sum(t.numel() for t in moco_file.trunk.state_dict().values())
    assert widgets.checkpoint_groups(moco_file, 3) == {
        "state_dict.module.encoder_q": [values, 0],
        "state_dict.module.encoder_k": [0, values],
        "state_dict.module.queue": [0, 63],
    }
    assert widgets.checkpoint_groups(moco_file, 1) == {"state_dict": [values, values + 63]}
    axis = plt.figure().subplots()
    widgets.draw_checkpoint(moco_file, depth=3, axis=axis, title="MoCo", most=2)
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["state_dict.module.encoder_q", "2 smaller groups"]
    assert [bar.get_width() for bar in axis.patches] == [values, 0, 0, values + 63]
    with pytest.raises(CourseError, match="not read from a file"):
        widgets.checkpoint_groups(backbones.build(), 2)
    plt.close("all")


# -- lesson 19 ----------------------------------------------------------------------------------------------------------


def test_scaling_explorer():
    assert_every_control_redraws(widgets.scaling_explorer())


def test_a_step_is_what_the_model_says():
    one = widgets.step_seconds(1, 100, speed=50.0, parameters=1e6, bandwidth=1e9)
    assert one == {"compute": 2.0, "gradients": 0.0, "fixed": 5e-3}  # nobody to send to
    four = widgets.step_seconds(4, 100, speed=50.0, parameters=1e6, bandwidth=1e6, overlap=0.0, fixed=0.0)
    assert four == pytest.approx({"compute": 0.5, "gradients": 2 * 3 / 4 * 4 * 1e6 / 1e6, "fixed": 0.0})
    half = widgets.step_seconds(4, 1000, speed=50.0, parameters=1e6, bandwidth=1e6)
    assert half["gradients"] == pytest.approx(3.0)
    little = widgets.step_seconds(4, 100, speed=50.0, parameters=1e6, bandwidth=1e6)  # too short a step to hide half
    assert little["gradients"] == pytest.approx(6.0 - 2 / 3 * 0.5)


def test_a_shared_batch_gains_less_than_one_that_grows():
    figure = widgets.draw_scaling(64, 512, 12.5e9, 23.5e6)
    ideal, growing, shared = (line.get_ydata() for line in figure.axes[1].lines[:3])
    assert all(a >= b >= c > 0 for a, b, c in zip(ideal, growing, shared, strict=True)) and shared[-1] < growing[-1]
    gained = shared[6]
    assert figure.axes[1].get_title() == f"What 64 gain: {gained:.1f} times, {gained / 64:.0%} of the ideal"
    bars = sum(bar.get_width() for bar in figure.axes[0].patches) / 1e3
    assert bars == pytest.approx(
        sum(widgets.step_seconds(64, 512, speed=1000.0, parameters=23.5e6, bandwidth=12.5e9).values())
    )
    plt.close("all")


def test_sentence_search_shows_what_is_nearest():
    task = CLIP(backbones.build(seed=1))
    images = draw("val", 12).images
    assert_every_control_redraws(widgets.sentence_search(task, images))
    figure = widgets.draw_search(task, images, language.of_images(task, images), "a red boat", 4)
    shown = [float(axis.get_title()) for axis in figure.axes]
    assert len(shown) == 4 and shown == sorted(shown, reverse=True)
    plt.close(figure)
    with pytest.raises(CourseError, match="shows 6 pictures, and got 5"):
        widgets.sentence_search(task, images[:5])


def test_the_player_goes_through_an_episode_and_refuses_what_is_none():
    frames, values = torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.rand(3, 4)
    player = widgets.episode_player(frames, values, [0, 1, 2], ("up", "down", "left", "right"))
    first = player.png
    player.controls["step"].value = 3
    assert player.png != first
    with pytest.raises(CourseError, match="T \\+ 1 frames"):
        widgets.episode_player(frames, values[:2], [0, 1, 2], ("up", "down", "left", "right"))
