"""Settings of FlexConv layers."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from effconv_models._validation import check_positive

__all__ = ["FlexConvConfig"]

KernelNetwork = Literal["magnet", "gabor", "siren"]


@dataclass(frozen=True)
class FlexConvConfig:
    """Settings shared by the FlexConv layers of a network; the defaults are the paper's."""

    hidden: int = 32
    """Channels of the network that generates a kernel."""
    layers: int = 3
    """Hidden linear maps of that network; of a SIREN all linear maps, at least 2."""
    input_scale: float = 25.6
    """Scale of the initial frequencies of `magnet` and `gabor`."""
    mask_width: float = 0.075
    """Initial standard deviation of the mask on an axis that goes from -1 to 1."""
    threshold: float = 0.1
    """Taps where the mask on an axis is below this are cropped; 0 keeps all."""
    fft_taps: int | None = 169
    """Kernels of at least this many taps are applied by Fourier transform; None for never. The
    crossover depends on device, channels and images: `hatch run bench:fft` of the repository
    measures it."""
    kernel: KernelNetwork = "magnet"
    """The network that generates a kernel: MAGNet, its isotropic form `gabor`, or a SIREN."""
    omega_0: float = 30.0
    """Frequency of a SIREN's sines."""
    masked: bool = True
    """Whether there is a mask. Without one the kernel is the whole grid, of fixed size; with a
    SIREN that is CKConv."""

    def __post_init__(self) -> None:
        check_positive("hidden", self.hidden)
        check_positive("layers", self.layers)
        if self.fft_taps is not None:
            check_positive("fft_taps", self.fft_taps)
        if self.kernel not in get_args(KernelNetwork):
            choices = ", ".join(get_args(KernelNetwork))
            raise ValueError(f"kernel is {self.kernel!r}; pass one of {choices}")
        if self.kernel == "siren" and self.layers < 2:
            raise ValueError(
                f"layers is {self.layers}; a SIREN has a first and a last, so pass 2 up"
            )
        for name in ("input_scale", "mask_width", "omega_0"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0 and finite")
        if not 0 <= self.threshold < 1:
            raise ValueError(
                f"threshold is {self.threshold}; the mask goes from 0 to 1, so pass 0 to keep all "
                "taps, or a number below 1"
            )

    def on_grid(self, taps: int) -> "FlexConvConfig":
        """Return settings whose initial kernels look on `taps` as these do on the paper's 33.

        Mask and frequencies are measured on an axis from -1 to 1, so that on a smaller grid the
        same numbers make masks of fewer taps and frequencies that it cannot hold. This widens the
        masks and lowers the frequencies in proportion. A SIREN's last weights go by 1 / `omega_0`,
        so that its kernels start larger, by 1.6 on 9 taps; a batch norm behind the layer undoes
        that. Without a mask the errors of `resolution_errors` hardly shrink, since the kernel ends
        abruptly at the edge of its grid.

        Args:
            taps: of the grid, an odd number from 3 up.
        """
        if check_positive("taps", taps) < 3:
            raise ValueError(f"taps is {taps}; the smallest grid has 3, so pass that or more")
        coarser = 32 / (taps - 1)
        return replace(
            self,
            mask_width=self.mask_width * coarser,
            input_scale=self.input_scale / coarser,
            omega_0=self.omega_0 / coarser,
        )
