"""What the reproduction's tables and figures consist of."""

from tools.reproduce.rows import Row, name_of, rows_of, runs_of


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
