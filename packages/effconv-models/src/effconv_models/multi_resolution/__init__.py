"""Networks that compute at several resolutions, and learn which (multi-resolution)."""

from effconv_models.multi_resolution.network import (
    BlockKind,
    MultiResolutionNet,
    pooled_cnn,
    predefined_resolutions,
)

__all__ = ["BlockKind", "MultiResolutionNet", "pooled_cnn", "predefined_resolutions"]
