"""Which card a program is launched on."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton has no wheel for this platform")

from effconv_kernels.triton import cards
from effconv_kernels.triton.cards import card_of


def test_a_card_is_its_compute_capability_and_is_asked_for_once(monkeypatch):
    asked = []

    def capability(device):
        asked.append(device)
        return (12, 0) if device.index else (8, 6)

    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    card_of.cache_clear()
    devices = [torch.device("cuda", index) for index in (0, 1, 0, 1)]
    assert [card_of(device) for device in devices] == [86, 120, 86, 120]
    assert asked == devices[:2]
    card_of.cache_clear()


def test_the_interpreter_stands_for_one_of_them():
    assert card_of(torch.device("cpu")) == 90


def test_two_cards_have_room_unless_triton_is_old(monkeypatch):
    monkeypatch.setattr(cards, "OLD", False)
    known = (70, 75, 80, 86, 89, 90, 100, 120)
    assert [card for card in known if not cards.is_tight(card)] == [80, 90]
    assert [card for card in known if cards.is_narrow(card)] == [120]
    monkeypatch.setattr(cards, "OLD", True)
    assert all(map(cards.is_tight, known))
    assert all(map(cards.is_narrow, known))
