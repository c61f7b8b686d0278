"""Names in figures: what a class is called is text, whatever letters it has."""

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

from sslcourse import plots, widgets
from sslcourse.data.imageset import ImageSet
from sslcourse.summary import Summary, of_accuracies
from sslcourse.train import History
from sslcourse.transfer import fewshot

HOSTILE = ("$10_$20", "$^$", "_hidden", r"\frac$x$", "$$", "100 % & #", "a" * 300, "two\nlines", "\udcff", "名前", "")
PICTURES = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
CURVE = {1: of_accuracies((0.4, 0.5), 40), 10: of_accuracies((0.6, 0.6), 40)}
LABELS = torch.arange(24) % 2


def box(name):
    figure, axis = plt.subplots()
    plots.draw_boxes(axis, PICTURES[0], torch.tensor([[1.0, 1, 6, 6]]), torch.tensor([0]), (name,))
    return figure


def mask(name):
    figure, axis = plt.subplots()
    plots.draw_mask(axis, PICTURES[0], torch.ones(8, 8, dtype=torch.int64), (name,))
    return figure


def episode(name):
    images = ImageSet(torch.randint(256, (24, 3, 8, 8), dtype=torch.uint8), LABELS, (name or "empty", f"other {name}"))
    drawn = fewshot.episode(LABELS, ways=2, shots=1, queries=2)
    return widgets.draw_episode(images, drawn, drawn.query_labels, name)


def ranking(name):
    row = {"0": {"key": "", "backbone": "", "linear": {"10": 0.5}}}
    return widgets.draw_ranking({"tasks": [name], "labels": 10, "runs": {name: row}}, "linear", 10)


FIGURES = {
    "titles": lambda name: plots.grid(PICTURES, [name] * 4),
    "rows": lambda name: plots.grid(PICTURES, columns=2, rows=[name, name]),
    "title": lambda name: plots.grid(PICTURES, title=name),
    "boxes": box,
    "masks": mask,
    "history": lambda name: plots.history({name: History([{"step": 1, name: 0.5}])}, name, unit=name).figure,
    "curves": lambda name: plots.label_efficiency({name: CURVE}).figure,
    "bars": lambda name: plots.bars({name: CURVE[10]}).figure,
    "heat": lambda name: plots.heat(torch.eye(2), [name, "other"], [name, "other"]).figure,
    "episode": episode,
    "ranking": ranking,
}


@pytest.mark.filterwarnings("ignore:Glyph .* missing")
@pytest.mark.parametrize("name", HOSTILE, ids=repr)
@pytest.mark.parametrize("which", FIGURES)
def test_no_name_breaks_a_figure_or_becomes_a_formula(which, name):
    figure = FIGURES[which](name)
    figure.canvas.draw()
    for text in figure.findobj(Text):
        assert not text._preprocess_math(text.get_text())[1], "set as a formula"
    plt.close(figure)


@pytest.mark.parametrize("which", sorted(set(FIGURES) - {"title"}))
def test_a_name_with_dollars_is_shown_as_it_is(which):
    figure = FIGURES[which]("$1_$2")
    figure.canvas.draw()
    shown = [text._preprocess_math(text.get_text())[0] for text in figure.findobj(Text)]
    assert any("$1_$2" in text for text in shown)
    plt.close(figure)


@given(st.text(max_size=80))
def test_a_short_name_is_kept_to_the_letter(name):
    text = plots.as_text(name)
    assert "$" not in text.replace(r"\$", "") and "\n" not in text and not text.startswith("_")
    if len(name) <= plots.LONGEST and name.isprintable() and "\\" not in name and "$" not in name:
        assert text.removeprefix(" ") == name.removeprefix(" ")
    assert len(text.replace(r"\$", "$")) <= plots.LONGEST + 1


def test_a_long_name_keeps_its_beginning_and_its_end():
    text = plots.as_text("begin" + "x" * 200 + "end")
    assert text.startswith("begin") and text.endswith("end") and "…" in text and len(text) == plots.LONGEST


def test_two_names_that_look_alike_are_two_bars():
    names = ["n" * 100 + "1" + "n" * 100, "n" * 100 + "2" + "n" * 100]
    axis = plots.bars(dict.fromkeys(names, Summary((0.5, 0.6))))
    assert len(axis.patches) == 2 and len({patch.get_y() for patch in axis.patches}) == 2
    plt.close(axis.figure)


def test_bars_and_bands_end_where_the_interval_ends():
    sure, vague = of_accuracies((0.5, 0.6, 0.55), 1000), of_accuracies((0.5, 0.9), 40)
    axis = plots.bars({"sure": sure, "vague": vague, "alone": of_accuracies((0.7,), 40)})
    ends = [tuple(bar.get_segments()[0][:, 0]) for bar in axis.collections]
    assert ends == [pytest.approx(sure.interval), pytest.approx(vague.interval), pytest.approx((0.7, 0.7))]
    assert vague.interval[1] == 1.0
    plt.close(axis.figure)


def test_numbers_of_a_heat_map_stand_in_their_cells_and_are_legible():
    axis = plots.heat(torch.tensor([[0.0, 1.0, 0.25]]), ["row"], ["a", "b", "c"])
    found = {text.get_position(): (text.get_text(), text.get_color()) for text in axis.texts}
    assert found == {(0, 0): ("0.00", "white"), (1, 0): ("1.00", "black"), (2, 0): ("0.25", "white")}
    plt.close(axis.figure)


def test_what_is_compared_with_stands_above_in_gray():
    axis = plots.bars({"mine": CURVE[10]}, beside={"raw pixels": CURVE[1]})
    assert [label.get_text() for label in axis.get_yticklabels()] == ["raw pixels", "mine"]
    colors = [bar.get_facecolor()[:3] for bar in axis.patches]
    assert colors == [plots.to_rgb(plots.GRAY), plots.to_rgb(plots.PALETTE[0])]


def test_names_of_boxes_do_not_cover_each_other():
    boxes = torch.tensor([[2.0, 4, 20, 20], [2, 4, 20, 20], [3, 5, 20, 20], [3, 4, 21, 20], [2, 5, 21, 21]])
    figure, axis = plt.subplots(figsize=(1.6, 1.6), layout="constrained")
    picture = torch.zeros(3, 32, 32, dtype=torch.uint8)
    plots.draw_boxes(axis, picture, boxes, torch.zeros(5, dtype=torch.int64), ("mushroom",))
    figure.draw_without_rendering()
    seen = [text.get_window_extent() for text in axis.texts]
    plt.close(figure)
    assert 2 <= len(seen) < 5
    assert not any(one.overlaps(other) for k, one in enumerate(seen) for other in seen[:k])
