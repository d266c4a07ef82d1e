"""Settings on other grids than the paper's."""

import pytest
from effconv_models import FlexConvConfig


@pytest.mark.parametrize(("taps", "coarser"), [(33, 1), (17, 2), (9, 4), (3, 16), (65, 0.5)])
def test_a_coarser_grid_has_wider_masks_and_lower_frequencies(taps, coarser):
    usual = FlexConvConfig(hidden=16)
    found = usual.on_grid(taps)
    assert found.mask_width == pytest.approx(usual.mask_width * coarser)
    assert found.input_scale == pytest.approx(usual.input_scale / coarser)
    assert found.omega_0 == pytest.approx(usual.omega_0 / coarser)
    assert (found.hidden, found.threshold) == (16, usual.threshold)


@pytest.mark.parametrize(("taps", "kind"), [(1, ValueError), (0, ValueError), (9.0, TypeError)])
def test_a_grid_that_cannot_be_is_refused(taps, kind):
    with pytest.raises(kind, match="taps is"):
        FlexConvConfig().on_grid(taps)
