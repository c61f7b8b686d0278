"""Tables in a notebook: HTML with a caption, and the same as text."""

import pytest

from sslcourse import comparison, tables
from sslcourse.summary import Summary


def test_html_has_a_caption_and_names_its_rows_and_columns():
    text = tables.as_html([["", "test <accuracy>"], ["raw & pixels", "0.43"]], "10 labels")
    assert "<caption>10 labels</caption>" in text and '<th scope="col">test &lt;accuracy&gt;</th>' in text
    assert '<tr><th scope="row">raw &amp; pixels</th><td>0.43</td></tr>' in text


def test_a_long_name_may_break_in_a_narrow_page_and_a_short_one_stays_whole():
    name = "encoder.stages.0.layers.0.layer.0.convolution.weight"
    text = tables.as_html([["", "here"], [name, "layer1.0.conv1.weight"], ["a" * 30 + "&<x>.y", "0.43"]])
    assert "encoder.<wbr>stages.<wbr>0.<wbr>layers" in text and text.replace("<wbr>", "").count(name) == 1
    assert "<td>layer1.0.conv1.weight</td>" in text and "a&amp;&lt;x&gt;.y" in text.replace("<wbr>", "")


def test_outside_a_notebook_a_table_is_printed(capsys):
    tables.show(["", "steps"], [["mine", 300], ["yours", 5]], "how long")
    assert capsys.readouterr().out == "how long\n       steps\nmine   300\nyours  5\n"


def test_accuracies_have_their_intervals(capsys):
    tables.show_accuracies({"several": Summary((0.4, 0.5, 0.6)), "one": Summary((0.3,))}, "probe")
    several, one = capsys.readouterr().out.splitlines()[2:]
    assert (
        several.startswith("several  0.500 ± 0.100") and "0.252 to 0.748" in several and one.strip() == "one      0.300"
    )


@pytest.mark.parametrize("labels", [1, 10, 100])
def test_floors_and_ceiling_are_those_of_the_stored_comparison(labels):
    found, results = comparison.floors_and_ceiling(labels), comparison.stored()
    assert list(found) == ["raw pixels", "random network", "trained from scratch"]
    assert found["raw pixels"] == comparison.accuracies(results, "raw pixels", "linear", labels)
    tuned = comparison.accuracies(comparison.scratch(), "trained from scratch", "finetune", labels)
    assert found["trained from scratch"] == tuned and len(tuned.values) == 5


def test_what_was_not_measured_is_left_out():
    assert list(comparison.floors_and_ceiling(500)) == ["random network", "trained from scratch"]
