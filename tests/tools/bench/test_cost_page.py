"""The page on the scaling of searches."""

from pathlib import Path

from tools.bench import cost_page

ROOT = Path(__file__).parents[3]


def test_the_page_is_what_the_raw_results_give(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert cost_page.PAGE.read_text(encoding="utf-8") == cost_page.cost_page()
    assert "Not yet measured." in cost_page.cost_page(streamed=Path("none.json"))
