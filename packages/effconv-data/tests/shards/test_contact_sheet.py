"""Names of classes on a sheet of samples."""

import numpy as np
import pytest
from effconv_data.shards import contact_sheet
from effconv_data.shards.contact_sheet import draw_sheet
from effconv_data.shards.index import read_index


def drawn(small_set, name):
    made = small_set(f"set-{name.encode().hex()[:40]}", classes=(name, "dog", "eel"))
    sheet = draw_sheet(read_index(made.write()), "train", columns=1)
    return np.asarray(sheet.convert("L"))[: sheet.height // 3, : contact_sheet.NAME_WIDTH]


def test_letters_beyond_ascii_are_drawn_where_a_font_has_them(small_set):
    if all(not contact_sheet._has(contact_sheet._font(c), c) for c in "üж"):
        pytest.skip("no font of this system has them")
    umlaut, plain, missing = (
        drawn(small_set, f"bl{c}te") for c in ("ü", "u", contact_sheet.MISSING)
    )
    assert not np.array_equal(umlaut, plain)
    assert not np.array_equal(umlaut, missing)
    assert not np.array_equal(drawn(small_set, "жук"), drawn(small_set, "кук"))


def test_without_such_a_font_a_letter_loses_its_accent_and_no_box_is_drawn(small_set, monkeypatch):
    monkeypatch.setattr(contact_sheet, "FONTS", ())
    monkeypatch.setattr(contact_sheet.importlib.util, "find_spec", lambda name: None)
    assert np.array_equal(drawn(small_set, "blüte"), drawn(small_set, "blute"))
    assert np.array_equal(drawn(small_set, "é"), drawn(small_set, "e"))
    assert np.array_equal(drawn(small_set, "花"), drawn(small_set, "?"))
