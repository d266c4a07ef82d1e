"""The page of the drills."""

from pathlib import Path

from tools.faults import page

ROOT = Path(__file__).parents[3]


def test_the_page_counts_events_kills_and_losses():
    row = {"recipe": "paper", "number": 1, "event": [["open", "a"]], "losses": []}
    header = {"environment": {"commit": "c", "device": "d", "torch": "t"}}
    header["events"] = {"paper": [["open", "a"], ["rename", "a"], ["open", "b"]]}
    text = page.faults_page([], [header, row, {**row, "number": 2, "losses": ["a plan"]}])
    assert "different: 1 of 2." in text
    assert "| paper | 3 | 2 | 1 |" in text
    assert "| open | 2 |" in text
    assert "- paper, event 2: ['a plan']" in text


def test_the_page_is_what_the_raw_rows_give():
    assert (ROOT / page.PAGE).read_text(encoding="utf-8") == page.faults_page()


def test_the_page_counts_kills_and_shows_losses():
    row = {"operation": "search", "seed": 7, "kills": [{"done": {"search": 1}}], "losses": []}
    header = {"environment": {"commit": "c", "device": "d", "torch": "t"}, "seconds": {}}
    text = page.faults_page(
        [header, row, {**row, "losses": ["a plan"], "kills": row["kills"] * 2}], []
    )
    assert "3 times a process" in text
    assert "something was lost: 1." in text
    assert "| 2 | 3 | 3 | 1 |" in text
    assert "- search, seed 7: ['a plan']" in text
