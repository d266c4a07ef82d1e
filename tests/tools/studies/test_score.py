"""Where found plans stand among all plans."""

import json

import pytest

from tools.studies.score import ScoreOptions, plan_now, reversed_plan, summary, truth
from tools.studies.small_spaces import SPACES


def table(path, accuracies):
    """Write a table of the first plans of planted-5, and of one that is not near its budget."""
    plans = SPACES["planted-5"].plans()
    far = {"see": 7, "mix1": 7, "mix2": 7, "mix3": 7}
    rows = [{"table": "planted-5"}]
    for plan, values in zip([far, *plans], accuracies):
        rows += [
            {"plan": plan, "seed": s, "accuracy": value, "cpu_seconds": 4.0}
            for s, value in enumerate(values)
        ]
    path.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows[1:])))
    path.write_text(json.dumps(rows[0]) + "\n" + path.read_text())
    return plans


def test_truth_gathers_the_trainings_of_each_plan_near_the_budget(tmp_path):
    values = [[0.99, 0.99]] + [[0.01 * i, 0.02 * i] for i in range(22)]
    plans = table(tmp_path / "planted-5.jsonl", values)
    found, accuracies = truth("planted-5", tmp_path)
    assert found == plans
    assert accuracies.tolist() == values[1:]
    table(tmp_path / "planted-5.jsonl", [*values[:-1], [0.5]])
    with pytest.raises(ValueError, match="run bench:ground-truth to its end"):
        truth("planted-5", tmp_path)
    table(tmp_path / "planted-5.jsonl", values[:-1])
    with pytest.raises(ValueError, match="run bench:ground-truth to its end"):
        truth("planted-5", tmp_path)


def test_the_summary_ranks_found_plans_against_the_table(tmp_path):
    values = [[0.99] * 2] + [[0.60] * 2] * 22
    uniform = SPACES["planted-5"].plans().index({"see": 3, "mix1": 3, "mix2": 3, "mix3": 3})
    values[1 + uniform], best, worst = [0.7] * 2, 0, 1
    values[1 + best], values[1 + worst] = [0.8] * 2, [0.5] * 2
    plans = table(tmp_path / "planted-5.jsonl", values)
    found = tmp_path / "found"
    found.mkdir()
    rows = [
        {"recipe": "paper", "seed": s, "plan": plans[p], "cpu_seconds": 3.0}
        for s, p in enumerate((best, worst))
    ]
    (found / "planted-5.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = summary("planted-5", ScoreOptions(recipes=("paper",), tables=tmp_path, out=found))
    by_name = {line[1]: line[2:] for line in lines}
    # The table's mean is (0.8 + 0.7 + 0.5 + 19 * 0.6) / 22 = 0.6091.
    assert by_name["random (expected)"][2] == "19.09"
    assert by_name["uniform"][1].startswith("95 ")  # better than 20 of 21
    assert by_name["uniform"][2] == "10.00"
    # The best of either training is that of the other too.
    assert by_name["all trained once"] == [
        "2",
        "100 [100, 100]",
        "0.00",
        "+19.09 [+19.09, +19.09]",
        "22.00",
    ]
    assert by_name["paper"][0] == "2"
    assert by_name["paper"][1].startswith("50 ")
    assert by_name["paper"][2] == "15.00"
    assert by_name["paper"][3].startswith("+4.09 ")
    assert by_name["paper"][4] == "0.75"


def test_a_reversed_plan_is_the_nearest_within_the_budget():
    space = SPACES["every-5"]
    plan = {"see": 7, "mix1": 5, "mix2": 4}
    found = reversed_plan("every-5", plan)
    distances = [
        abs(other["see"] - 4) + abs(other["mix1"] - 5) + abs(other["mix2"] - 7)
        for other in space.plans()
    ]
    assert distances[space.plans().index(found)] == min(distances)


@pytest.mark.parametrize(
    ("space", "loss", "ends_with"),
    [
        ("planted-5", -0.3, "found"),  # better
        ("planted-5", 0.3, "original"),  # worse, and sizes 3 are within the budget
        ("every-5", 0.3, "found"),  # worse, and sizes 3 are not
    ],
)
def test_a_searchs_plan_is_that_of_the_present_rule(space, loss, ends_with):
    found = SPACES[space].plans()[0]
    original = dict.fromkeys(found, 3)
    assert found != original
    evidence = {"verdict": "no difference shown", "found": found, "pairs": 4, "original_loss": 1.0}
    evidence |= {"loss": loss, "loss_interval": [loss - 0.1, loss + 0.1], "level": 0.95}
    evidence |= {"accuracy": -loss, "accuracy_interval": [-loss - 0.1, -loss + 0.1]}
    expected = {"found": found, "original": original}[ends_with]
    assert plan_now(space, {"plan": original, "evidence": evidence}) == expected
    assert plan_now(space, {"plan": found, "evidence": None}) == found
