"""What the reproduction's tables and figures consist of."""

import pytest
from effconv_models import create_model

from tools.reproduce import page, tables
from tools.reproduce.rows import CLAIMS, EQUAL_COST, Row, name_of, rows_of, runs_of
from tools.reproduce.run import needed_by


def test_table2_holds_the_papers_networks_and_the_controls():
    rows = rows_of("table2", "paper")
    learned = {(name_of(row), row.budget) for row in rows if row.sizes == "paper"}
    assert {budget for label, budget in learned if label == "EffConv-20"} == {
        0.10e6,
        0.20e6,
        0.27e6,
        0.50e6,
        0.66e6,
    }
    assert {label for label, _ in learned} == {
        "EffConv-20",
        "EffConv-32",
        "EffConv-44",
        "EffConv-56",
        "Wide-EffConv-28-1",
    }
    at_066 = [row.sizes for row in rows if row.model == "cifar_resnet20" and row.budget == 0.66e6]
    assert sum(sizes.startswith("random") for sizes in at_066) == 10
    assert {"uniform", "reversed", "other seed", "found", "paper"} <= set(at_066)
    assert {"reversed paper", "other seed paper"} <= set(at_066)


def test_tables_and_figures_share_their_runs():
    at_066 = Row("cifar10", "cifar_resnet20", 0.66e6, "paper")
    for name in ("table2", "figure2", "figure3"):
        assert at_066 in rows_of(name, "paper")
    depths = {row.model for row in rows_of("figure3", "paper") if row.budget == 0.66e6}
    assert depths == {f"cifar_resnet{depth}" for depth in (20, 26, 32, 38, 44, 50, 56)}
    budgets = {row.budget for row in rows_of("figure3", "paper")} - {0.66e6}
    assert budgets == {0.1e6, 0.2e6, 0.3e6, 0.4e6, 0.5e6}


def test_what_others_need_is_run_first():
    kinds = [row.sizes for row, seed in runs_of("table2", "cpu") if seed == 0]
    assert kinds.index("found") < kinds.index("reversed") < kinds.index("paper")
    runs = [(row.sizes, seed) for row, seed in runs_of("table2", "cpu")]
    assert ("other seed", 1) in runs
    assert ("other seed", 2) not in runs  # there is no seed 3 to take a plan from
    assert kinds.index("paper") < kinds.index("reversed paper")
    assert ("other seed paper", 1) in runs
    assert ("other seed paper", 2) not in runs


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("table1", {"FlexNet-16"}),
        ("table2", {"FlexNet-3", "FlexNet-5", "FlexNet-16", "FlexNet-Gabor-16", "CKCNN-16",
                    "CKCNN-MAGNet-16", "CIFARResNet-44 w/ FlexConv",
                    "CIFARResNet-44 w/ CKConv (k=3)", "N-JetNet-CIFARResNet32"}),
        ("table3", {"FlexNet-16"}),
        ("table4", {"FlexNet-5"}),
    ],
)  # fmt: skip
def test_networks_that_learn_in_training_stand_beside_the_papers_figures(table, names):
    rows = [row for row in rows_of(table, "paper") if row.sizes == "trained"]
    assert {name_of(row) for row in rows} == names
    for row in rows:
        assert tables.papers_figure(row)
        model = create_model(row.model)
        count = sum(parameter.numel() for parameter in model.parameters())
        assert count == pytest.approx(row.budget, rel=0.035)


def test_every_row_of_the_paper_is_run_or_quoted():
    for name, number in (("table1", 3), ("table2", 3), ("table3", 0), ("table4", 0)):
        rows = rows_of(name, "paper")
        ours = {name_of(row) for row in rows} | {row["model"] for row in tables.quoted(name)}
        assert {stated["model"] for stated in tables.STATED[rows[0].data]} <= ours
        assert len(tables.quoted(name)) == number
    assert "| Table 1: MNIST | VGG-5 | 3.65 M | *99.72* |" in page.as_stated()


@pytest.mark.parametrize("name", CLAIMS)
def test_the_claim_is_made_at_the_papers_budget_with_four_random_plans_and_three_seeds(name):
    runs = runs_of(name, "cpu")
    assert {(row.sizes, seed) for row, seed in runs} == {
        (kind, seed) for kind in ("paper", *EQUAL_COST) for seed in range(3)
    }
    assert {row.budget for row, _ in runs} == {0.66e6}
    kinds = [row.sizes for row, _ in runs]
    assert kinds[:3] == ["paper"] * 3  # what the others need comes first
    assert all(needed_by(row, seed) for row, seed in runs[3:])
