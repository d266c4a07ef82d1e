"""Other searches, at an allowance of training steps."""

import pytest

from tools.studies.baselines import Trial, halving, steps_allowed, tpe
from tools.studies.small_spaces import SPACES


@pytest.mark.slow
@pytest.mark.parametrize("peer", [tpe, halving])
def test_a_peer_finds_a_plan_near_the_budget_at_a_fifth_of_a_training(peer, monkeypatch):
    steps = 0

    def counted(trial, allowed, train=Trial.train):
        nonlocal steps
        steps += allowed
        return train(trial, allowed)

    monkeypatch.setattr(Trial, "train", counted)
    space = SPACES["every-4"]
    assert peer(space, steps_allowed(space), 0) in space.plans()
    # 20 epochs of 31 steps, divided by 5; what does not divide evenly is not used.
    assert steps_allowed(space) == 124
    assert 0.9 * 124 <= steps <= 124
