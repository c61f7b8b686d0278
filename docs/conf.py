"""Sphinx's settings for the site of the course; tools/make_site.py copies them beside the pages and calls it.

The pages read with the network off: formulas are MathML, which browsers draw by themselves, search runs in the page, and
nothing is fetched from anywhere else.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

project = "Self-supervised vision, hands on"
author = "The sslcourse authors"
project_copyright = "The sslcourse authors; code MIT, text and figures CC BY 4.0"

extensions = ["myst_nb"]
exclude_patterns = ["_static"]
suppress_warnings = [
    "myst.header",
    "misc.highlighting_failure",
]  # lessons skip levels; an exercise's stub isn't whole code
nb_execution_mode = "off"  # what is shown was computed before, and is in the notebooks
nb_ipywidgets_js = {}  # else every page would ask another host for them
nb_output_stderr = "show"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_js_files = ["course.js"]
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"


# What latex2mathml doesn't know, in words that it does
SPELT = {r"\\arg(?![a-z])": r"\\operatorname{arg}", r"\\[lr]Vert": r"\\|"}


def mathml(source: str, display: str) -> str:
    """A formula as MathML. What was written is beside it, for who copies it."""
    spelt = source
    for pattern, words in SPELT.items():
        spelt = re.sub(pattern, words, spelt)
    element = convert(spelt, display=display)
    if unknown := re.search(r"\\[a-zA-Z]+", element):
        raise ValueError(
            f"{unknown[0]} in the formula {source!r} isn't known to latex2mathml; spell it otherwise in conf.py"
        )
    written = f'<annotation encoding="application/x-tex">{html.escape(source)}</annotation>'
    inner = element.partition(">")
    body = inner[2].removesuffix("</math>")
    return f"{inner[0]}><semantics>{body}{written}</semantics></math>"


def visit_inline(translator: Any, node: Any) -> None:
    from docutils import nodes

    translator.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_block(translator: Any, node: Any) -> None:
    from docutils import nodes

    # a wide formula scrolls by itself, by keyboard as well
    translator.body.append(
        f'<div class="math-block" tabindex="0" role="group" aria-label="formula">{mathml(node.astext(), "block")}</div>\n'
    )
    raise nodes.SkipNode


def setup(app: Any) -> None:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
