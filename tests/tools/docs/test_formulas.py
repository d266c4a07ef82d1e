"""Formulas become drawings without a script, and their source can be read aloud."""

import html
import re
import xml.etree.ElementTree as ET

import pytest

from tools.docs.formulas import formula


@pytest.mark.parametrize("source", [r"\frac{1}{2}", r"a < b & c", r"  s_l \leq 7  "])
def test_a_formula_is_one_drawing_with_its_source(source):
    text = formula(source, "math", "class", {}, None)
    drawn = ET.fromstring(text)
    assert drawn.attrib["aria-label"] == source.strip()
    assert (drawn.tag, drawn.attrib["role"]) == ("p", "img")
    assert html.escape(source.strip()) in text
    (svg,) = drawn
    assert svg.attrib["fill"] == "currentColor"
    assert "<style" not in text
    assert "<script" not in text
    # Nothing in a colour of its own: it would not be seen on a light or a dark page.
    assert {*re.findall(r"fill: *([^;\"]+)|stroke: *([^;\"]+)", text)} <= {("none", "")}


def test_equal_formulas_are_equal_bytes_and_others_differ():
    assert formula("a + b") == formula("a + b")
    assert formula("a + b") != formula("a - b")


def test_what_cannot_be_read_is_named():
    with pytest.raises(ValueError, match="frac"):
        formula(r"\frac{1}{")
