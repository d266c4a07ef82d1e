"""The tables of the reproduction: what each row tells."""

from tests.tools.reproduce.made_up_result import measured
from tools.reproduce import tables
from tools.reproduce.rows import rows_of


def test_each_row_tells_its_device_and_what_was_reduced():
    row, other = (rows_of("table2", "cpu")[n] for n in (0, 1))
    two = {"device": "cuda", "torch": "3"}
    found = [measured(row), measured(row, 1, environment=two), measured(other)]
    lines = tables.section("table2", "cpu", found, "raw.jsonl")
    first, second = (line for line in lines if line.startswith(("| CIFARResNet", "| EffConv")))
    assert "| cpu, cuda | 12,000 training pictures, 10 of 350 epochs |" in first
    assert "| cpu | 12,000 training pictures, 10 of 350 epochs |" in second
    assert any("c0, cpu, cuda, torch 2, 3." in line for line in lines)
    small = measured(other, scale="smoke")
    assert tables.reduced_to(small).endswith(
        "1 of 350 epochs, 2 of 8 finalists, 4 of 195 steps of each finalist"
    )
    whole = measured(other)
    whole["search"] |= {"finalists": 8, "race_steps": 60}  # as the recipe was before 0.9.0
    assert "finalist" not in tables.reduced_to(whole)
    stl10 = rows_of("table3", "gpu")[0]
    assert "the paper trains for 100" in tables.scale_in_words(
        "table3", "gpu", measured(stl10, scale="gpu")
    )
    assert tables.reduced_to(measured(stl10, scale="paper")) == "not reduced"


def test_runs_of_the_same_plan_and_seed_are_compared():
    row, other = (rows_of("table2", "cpu")[n] for n in (0, 1))
    alike = [measured(row), measured(other, accuracy=0.4877)]
    (sentence, _) = tables.repeated([*alike, measured(row, 1, accuracy=0.9)])
    assert "more than once (1 of them), the accuracies differ by up to 1.23 points" in sentence
    assert tables.repeated([alike[0], measured(other, sizes={"a": 3, "b": 4})]) == []


def test_a_run_of_several_starts_is_told_whole():
    row = rows_of("table1", "cpu")[0]
    once, twice = measured(row), measured(row, 1, seconds_before=30.0)
    assert "25.0" in tables.cells(row, [once, twice])


def test_the_papers_figures_stand_beside_the_rows_of_figure_3_too():
    at = {(row.model, row.budget): row for row in rows_of("figure3", "paper")}
    assert tables.papers_figure(at["cifar_resnet20", 0.1e6]) == "*90.24 ± 0.05*"
    assert tables.papers_figure(at["cifar_resnet56", 0.66e6]) == "*31 s an epoch*"
    assert tables.papers_figure(at["cifar_resnet32", 0.66e6]) == "*92.99 ± 0.02, 23.82 s an epoch*"
    assert tables.papers_figure(at["cifar_resnet26", 0.66e6]) == ""
    table4 = {row.model: row for row in rows_of("table4", "paper")}
    assert tables.papers_figure(table4["wide_resnet28_1"]) == "*32.03, top-5 57.51*"
