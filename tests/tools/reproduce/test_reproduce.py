"""The reproduction: what its tables consist of, and what its page says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from effconv_core import SearchableCNN
from effconv_models import create_model
from safetensors.torch import save_file

from tests.tools.reproduce.made_up_result import measured
from tools.reproduce import page, pictures, tables
from tools.reproduce.answer import answer, random_ones
from tools.reproduce.rows import ALL, CLAIMS, EQUAL_COST, SCALES, Row, name_of, rows_of, runs_of
from tools.reproduce.run import (
    check_settings,
    given_plan,
    made_with,
    needed_by,
    run_name,
)

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("table", ALL)
def test_every_run_has_a_folder_of_its_own(table, scale):
    rows = rows_of(table, scale)
    assert rows
    assert len({run_name(row, 0) for row in rows}) == len(rows)


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


@pytest.mark.parametrize("recipe", ["found", "paper"])
def test_controls_take_the_plan_of_their_own_recipe(recipe):
    model = create_model("cifar_resnet20")
    searchable = SearchableCNN(model)
    plan = dict(zip(searchable.layers, [5, 4, 2] * 6, strict=True))
    budget = searchable.cost([2, 4, 5] * 6)
    suffix = " paper" if recipe == "paper" else ""
    back, other = (
        Row("cifar10", "cifar_resnet20", budget, kind + suffix)
        for kind in ("reversed", "other seed")
    )
    assert needed_by(back, 4) == [run_name(Row("cifar10", "cifar_resnet20", budget, recipe), 4)]
    assert needed_by(other, 4) == [run_name(Row("cifar10", "cifar_resnet20", budget, recipe), 5)]
    assert list(given_plan(back, model, plan).values()) == [2, 4, 5] * 6
    assert given_plan(other, model, plan) == plan


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


@pytest.mark.parametrize("found", [[5, 4, 2] * 6, [3] * 18, [7, 1, 6, 2, 3, 4] * 3])
def test_controls_of_equal_cost_cost_what_the_found_plan_does(found):
    model = create_model("cifar_resnet20")
    searchable = SearchableCNN(model)
    plan, cost = dict(zip(searchable.layers, found, strict=True)), searchable.cost(found)
    made = {}
    for kind in EQUAL_COST:
        row = Row("cifar10", "cifar_resnet20", 0.66e6, kind)
        made[kind] = list(given_plan(row, model, plan).values())
        assert searchable.cost(made[kind]) == pytest.approx(cost, rel=0.005)
        assert made[kind] == list(given_plan(row, model, plan).values())
    assert len({tuple(sizes) for sizes in made.values()}) == len(EQUAL_COST)
    assert max(made["even paper"]) - min(made["even paper"]) <= 2


def test_a_recipe_is_compared_with_the_random_plans_of_its_own_cost():
    rows = {kind: {"row": {"sizes": kind}} for kind in ("random 0", "random 1", "random 0 paper")}
    assert random_ones(rows, "paper") == [rows["random 0 paper"]]
    assert random_ones(rows, "found") == [rows["random 0"], rows["random 1"]]
    del rows["random 0 paper"]
    assert random_ones(rows, "paper") == [rows["random 0"], rows["random 1"]]


def test_a_result_of_other_settings_is_refused():
    row = Row("cifar10", "cifar_resnet20", 0.27e6, "found")
    before = json.loads(json.dumps(made_with(row, 0, "cpu")))
    check_settings(before, row, 0, "cpu", Path("x.jsonl"))
    del before["train"]["precision"]  # which came later
    check_settings(before, row, 0, "cpu", Path("x.jsonl"))
    before["train"]["lr"] *= 2
    with pytest.raises(
        ValueError, match=r"x\.jsonl holds .* with other settings \(train\); delete"
    ):
        check_settings(before, row, 0, "cpu", Path("x.jsonl"))


def made_up(sizes, accuracy, seed):
    row = {"data": "cifar10", "model": "cifar_resnet20", "budget": 0.66e6, "sizes": sizes}
    learned = sizes == "found"
    return {
        "row": row,
        "seed": seed,
        "accuracy": accuracy,
        "seconds_per_epoch": 1.0 + seed,
        "sizes": {"a": 3, "b": 4 if seed else 3},
        "parameters": 660_000 if learned else 600_000,
    }


def test_the_answer_is_a_paired_test():
    rows = []
    for seed, found in enumerate((0.80, 0.84, 0.82)):
        rows += [made_up("found", found, seed)]
        rows += [made_up(f"random {i}", 0.79 + 0.02 * i, seed) for i in range(2)]
    said = answer({("cifar10", "gpu"): rows})
    # Differences 0, 4 and 2 points: mean 2, standard error 2 / sqrt(3), t of two degrees 4.303.
    assert (
        "no difference can be told: +2.00 points (paired t, 95 % interval -2.97 to +6.97, 3 pairs"
        in said
    )

    def moved(points):
        return [
            {**row, "accuracy": row["accuracy"] + points * (row["row"]["sizes"] == "found") / 100}
            for row in rows
        ]

    assert "The learned networks have 10.0 % more parameters than the random ones." in said
    assert "In 1 of 3 the learned plan is 3x3 in all layers" in said
    assert "yes: +12.00 points" in answer({("cifar10", "gpu"): moved(10)})
    assert "no: -18.00 points" in answer({("cifar10", "gpu"): moved(-20)})
    one = answer({("cifar10", "cpu"): rows[:3]})
    assert "+0.00 points against the mean of 2 random plans" in one
    assert "no interval" in one
    assert "Not measured yet" in answer({("cifar10", "cpu"): []})


def test_the_page_changes_with_a_result(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    path = page.RESULTS / "cifar10-cpu.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["accuracy"] += 0.01
    (tmp_path / path.name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    assert page.results_page()[0] != page.PAGE.read_text(encoding="utf-8")


def test_accuracy_is_drawn_over_depth_and_budget():
    def result(model, budget, accuracy, seed=0):
        made = made_up("found", accuracy, seed)
        made["row"] |= {"model": model, "budget": budget}
        return made

    deep = [result(f"cifar_resnet{depth}", 0.66e6, depth / 100) for depth in (20, 32)]
    wide = [result("cifar_resnet20", 0.1e6, 0.1, seed) for seed in (0, 1)]
    drawn = list(pictures.course_pictures("gpu", deep + wide))
    assert len(drawn) == 2
    over_budget, over_depth = (draw() for _, _, draw in drawn)
    accuracies, seconds = over_budget.axes
    assert accuracies.lines[0].get_xydata().tolist() == pytest.approx(
        np.array([[0.1, 10], [0.66, 20]])
    )
    assert seconds.lines[0].get_xydata().tolist() == pytest.approx(
        np.array([[0.1, 1.5], [0.66, 1]])
    )
    assert over_depth.axes[0].lines[0].get_xydata()[:, 0].tolist() == [20, 32]
    assert not list(pictures.course_pictures("gpu", deep[:1]))
    moved = pictures.course_pictures("gpu", [*deep, *wide[:1]])
    assert {name for name, _, _ in moved} != {name for name, _, _ in drawn}


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
        "1 of 350 epochs, 2 of 10 finalists, 4 of 64 steps of each finalist"
    )
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


def test_what_only_a_figure_holds_is_on_the_page_with_its_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    rows = [row for row in rows_of("figure3", "gpu") if row.model == "cifar_resnet26"]
    text = "".join(json.dumps(measured(row, scale="gpu")) + "\n" for row in rows)
    (tmp_path / "cifar10-gpu.jsonl").write_text(text)
    text, _ = page.results_page()
    (section,) = [
        s for s in text.split("\n## ") if s.startswith("Figure 3: depth and budget, scale")
    ]
    assert section.count("EffConv-26 |") == 2
    assert "Not drawn yet" in section
    assert "cifar_resnet26 0.66 M  learned, the paper's recipe  seed 0  3 5" in section
    assert "`hatch run reproduce:figure3 --scale gpu`, commit c0, cpu" in section


def test_kernels_are_drawn_from_the_first_seed(tmp_path):
    rows = [made_up("found", 0.5, seed) for seed in (0, 1)]
    for row in rows:
        row["row"]["budget"] = SCALES["gpu"]["cifar10"].kernels_of
        row["sizes"] = {"b": 3, "a": 2}
        place = tmp_path / "kernels" / "cifar10-gpu"
        place.mkdir(parents=True, exist_ok=True)
        kernels = {"a": torch.ones(10, 1, 2, 2), "b": torch.ones(10, 1, 3, 3)}
        save_file(kernels, place / f"{run_name(Row(**row['row']), row['seed'])}.safetensors")
    ((name, caption, draw),) = pictures.kernel_pictures(tmp_path, "cifar10", "gpu", rows)
    assert name.startswith("kernels-gpu-found-")
    assert "EffConv-20" in caption
    labels = [text.get_text() for cell in draw().axes for text in cell.texts]
    assert labels == ["b\n3x3", "a\n2x2"]
