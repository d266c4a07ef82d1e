"""How often verdicts are right: the counts by hand, and cases where there is nothing to find."""

import json

import pytest
import torch
from effconv_core import apply_plan
from torch.nn import functional as F

from tools.studies.small_spaces import SPACES
from tools.studies.verdict import CASES, gains, judged, known_rows, nothing_rows

ORIGINAL = {"see": 3, "mix1": 3, "mix2": 3, "mix3": 3}


@pytest.fixture
def folders(tmp_path):
    """Return folders of a table in which the second seed adds 0.01, and of four searches."""
    plans = SPACES["planted-5"].plans()
    others = [plan for plan in plans if plan != ORIGINAL]
    reached = {json.dumps(plan): 0.6 for plan in plans} | {json.dumps(others[0]): 0.9}
    reached[json.dumps(others[1])] = 0.3
    rows = [
        {"plan": plan, "seed": seed, "accuracy": reached[json.dumps(plan)] + 0.01 * seed}
        for plan in plans
        for seed in (0, 1)
    ]
    tables, searches = tmp_path / "tables", tmp_path / "searches"
    for folder in (tables, searches):
        folder.mkdir()
    lines = [{"table": "planted-5"}, *rows]
    (tables / "planted-5.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    cases = [("better", others[0]), ("better", others[1]), ("worse", others[1])]
    cases += [("no difference shown", others[0])]
    lines = [
        {"recipe": "bank", "seed": s, "evidence": {"verdict": verdict, "found": plan}}
        for s, (verdict, plan) in enumerate(cases)
    ]
    lines.append(lines[0] | {"recipe": "another"})
    (searches / "planted-5.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    return tables, searches


def test_gains_are_those_of_the_table(folders):
    found, floor = gains("planted-5", *folders)
    assert [(verdict, round(gain, 6)) for verdict, gain in found] == [
        ("better", 30.0),
        ("better", -30.0),
        ("worse", -30.0),
        ("no difference shown", 30.0),
    ]
    assert floor == pytest.approx(0, abs=1e-6)  # the seeds differ by the same in all plans


def test_wrong_and_missed_verdicts_are_counted(folders, monkeypatch):
    monkeypatch.setattr("tools.studies.verdict.SPACES", {"planted-5": SPACES["planted-5"]})
    space, total = known_rows(*folders)
    # Searches; better and worse: right, within the noise, wrong; large gains, of these missed.
    assert space[1:5] == total[1:5] == ["4", "1/0/1", "1/0/0", "2/1"]


@pytest.mark.parametrize(
    ("verdict", "gain", "expected"),
    [
        ("better", 1.5, "right"),
        ("better", -1.5, "wrong"),
        ("worse", 1.5, "wrong"),
        ("worse", -1.5, "right"),
        ("better", 0.9, "within the noise"),
        ("worse", 0.9, "within the noise"),
    ],
)
def test_a_verdict_is_right_where_the_gain_is_beyond_the_noise(verdict, gain, expected):
    assert judged(verdict, gain, floor=1.0) == expected


def made(case, seed):
    """Return a case's batches; skip the test where its photographs are missing."""
    space, make = CASES[case]
    try:
        return make(space, seed)
    except FileNotFoundError:
        pytest.skip("EFFCONV_DATA has no CIFAR-10")


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("shuffled")])
def test_shuffled_labels_stay_with_their_samples_and_are_even(case):
    batches = made(case, 3)
    seen = []
    for epoch in (0, 1):
        batches.set_epoch(epoch)
        seen.append({x.sum().item(): y.item() for xs, ys in batches for x, y in zip(xs, ys)})
    both = seen[0].keys() & seen[1].keys()
    assert len(both) > 0.9 * len(seen[0])
    assert all(seen[0][key] == seen[1][key] for key in both)
    counts = torch.bincount(torch.tensor(list(seen[0].values())), minlength=batches.num_classes)
    assert (counts / counts.sum() - 1 / batches.num_classes).abs().max() < 0.05


def test_of_one_pixel_all_plans_are_one_function():
    space, _ = CASES["one pixel, ResNet-8"]
    images, _ = next(iter(made("one pixel, ResNet-8", 0)))
    assert images.shape[2:] == (1, 1)
    small = space.network(0).eval()
    large = apply_plan(small, dict.fromkeys(space.searchable().layers, 5)).eval()
    state, wider = small.state_dict(), large.state_dict()
    for name, tensor in state.items():
        rim = (wider[name].shape[-1] - tensor.shape[-1]) // 2 if tensor.dim() == 4 else 0
        state[name] = F.pad(tensor, 4 * (rim,)) if rim else tensor
    large.load_state_dict(state)
    assert torch.allclose(small(images), large(images), atol=1e-5)


def test_rows_of_nothing_are_counted(tmp_path):
    case = next(iter(CASES))
    rows = [
        {"case": case, "evidence": {"verdict": verdict, "kept": kept}}
        for verdict, kept in [("better", "found"), ("no difference shown", "original")] * 2
    ]
    path = tmp_path / "nothing.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert nothing_rows(path)[0] == [case, "4", "2", "2", "0", "2"]
