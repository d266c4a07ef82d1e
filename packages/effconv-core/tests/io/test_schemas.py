"""The limits of what files of a run hold: what is at one is read, what is beyond it refused."""

import pytest
from effconv_core.io import schemas
from effconv_core.io.read_json import conform

LAYER = {"channels": [2, 4], "groups": 2, "kernel_size": [3, 1000]}
READING = {"phase": "search", "global_step": 10**12}
BUDGET = {"counts": "parameters", "amount": 2.5, "at_most": False, "weight": 0.0, "cost": 3}


@pytest.mark.parametrize(
    ("schema", "content"),
    [
        (schemas.LayerShape, LAYER),
        (schemas.LayerShape, {**LAYER, "kernel_size": [1, 1, 1]}),
        (schemas.Reading, READING),
        (schemas.Reading, {**READING, "loss": None, "accuracy": 0.5, "soft_sizes": []}),
        (schemas.Reading, {**READING, "epoch": 10**9, "of a later version": [1]}),
        (schemas.ResultFile, {"networks": {"learned": {"parameters": 0, "test_accuracy": 1.0}}}),
        (schemas.BudgetRecords, [BUDGET] * 100),
        (schemas.BudgetRecords, [{**BUDGET, "rounded": 0}]),
        (schemas.Progress, {"config": {}, "epoch": 0, "plan": None, "choice": {}}),
        (schemas.ChoiceFile, {"proposals": [[[3, 5]], [0.5], 4], "pair 99": [[0.5, None]]}),
        (schemas.ChoiceFile, {"first": [[0.5, 0.9, 0.7]], "children": [[[1]], [1.0]]}),
        (schemas.SpreadOfTheRest, {"median": -1.0}),
        (schemas.ParameterGroups, [{"params": [0, 10**7], "lr": 0.1}]),
    ],
)
def test_what_is_within_the_limits_is_read(schema, content):
    conform(content, schema, what="it")


@pytest.mark.parametrize(
    ("schema", "content", "place"),
    [
        (schemas.LayerShape, {**LAYER, "kernel_size": [3, 1001]}, "kernel_size"),
        (schemas.LayerShape, {**LAYER, "kernel_size": [3] * 4}, "kernel_size"),
        (schemas.LayerShape, {**LAYER, "kernel_size": []}, "kernel_size"),
        (schemas.LayerShape, {**LAYER, "channels": [2]}, "channels"),
        (schemas.LayerShape, {**LAYER, "groups": 0}, "groups"),
        (schemas.Reading, {"phase": "search"}, "global_step"),
        (schemas.Reading, {**READING, "global_step": -1}, "global_step"),
        (schemas.Reading, {**READING, "phase": "x" * 501}, "phase"),
        (schemas.Reading, {**READING, "epoch": 0.5}, "epoch"),
        (schemas.Reading, {**READING, "loss": "low"}, "loss"),
        (schemas.ResultFile, {"networks": {"a": {"test_accuracy": 1.01}}}, "test_accuracy"),
        (schemas.ResultFile, {"networks": {"a": {"parameters": -1}}}, "parameters"),
        (schemas.BudgetRecords, [BUDGET] * 101, "100"),
        (schemas.BudgetRecords, [{**BUDGET, "amount": -1}], "amount"),
        (schemas.BudgetRecords, [{k: v for k, v in BUDGET.items() if k != "cost"}], "cost"),
        (schemas.Begun, {"epoch": 0}, "config"),
        (schemas.Begun, {"config": {}, "epoch": -1}, "epoch"),
        (schemas.ChoiceFile, {"proposals": [[[0]], [0.5], 4]}, "proposals"),
        (schemas.ChoiceFile, {"first": [[0.5]]}, "first"),
        (schemas.Spread, {"median": 0}, "median"),
        (schemas.ParameterGroups, [], "1"),
        (schemas.ParameterGroups, [{"params": [-1]}], "params"),
    ],
)
def test_what_is_beyond_them_is_refused_with_its_place(schema, content, place):
    with pytest.raises(ValueError, match=place):
        conform(content, schema, what="it")
