"""Lines of Markdown, and pages made of templates."""

import pytest
from jinja2 import UndefinedError

from tools.support.markdown import link, provenance, render, table


def test_a_table_by_hand():
    assert table(["a", "b"], [(1, "x y"), ("", 0.5)]) == [
        "| a | b |",
        "|---|---|",
        "| 1 | x y |",
        "|  | 0.5 |",
    ]
    assert table(["a"], []) == ["| a |", "|---|"]


def test_where_a_result_is_from():
    environment = {"commit": "c0", "device": "cpu (2 threads)", "torch": "2.6", "python": "3.11"}
    assert provenance(environment) == "commit c0, cpu (2 threads), torch 2.6"
    assert link("results/a.json", "raw") == "[raw](../results/a.json)"


def test_a_value_that_a_template_lacks_is_an_error():
    with pytest.raises(UndefinedError, match="scales"):
        render("versus.md.jinja", headings=[])
    page = render("versus.md.jinja", scales=[{"name": "cpu", "settings": None}], headings=[])
    assert page.startswith("# Beside")
    assert page.endswith("- Scale cpu: not yet measured.\n")
