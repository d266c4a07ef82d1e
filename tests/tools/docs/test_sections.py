"""Sections that state figures must link to raw results."""

from tools.docs.sections import without_results


def test_figures_without_results_are_found(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.json").write_text("{}")
    document = tmp_path / "a.md"
    document.write_text(
        "# None\n\nWith Python 3.10, PyTorch 2.6, `0.5` and v1.2.3 of [it](https://x.org/1.5).\n\n"
        "## Linked\n\n93.5 % ([rows](results/a.json))\n\n"
        "## Lost\n\n93.5 points ([rows](results/b.json))\n\n"
        "## Bare\n\nIt won by 40 %.\n\n"
        "## Code\n\n```\n1.5\n```\n\n"
        "## Units\n\nAn epoch takes 17 s.\n\n"
        "## List\n\n- Rows [here](results/a.json): 5 %.\n- It takes 48 times\n  as much.\n\n"
        "## Beside a list\n\n- Rows [here](results/a.json): 5 %.\n\nIt won by 2 points.\n\n"
        "## Prose of a list\n\nIn [these](results/a.json):\n\n- 5 %\n- 6 %\n\n"
        "## No measurement\n\nIt has 0.27 M parameters in 20 layers, Section 4.2, Apache-2.0.\n"
    )
    assert without_results(document) == ["Lost", "Bare", "Units", "List", "Beside a list"]
