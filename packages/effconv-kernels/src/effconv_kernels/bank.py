"""Many independent `torch.nn.GRU`s as one module."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from effconv_kernels.gru import gru_unroll


class GRUBank(nn.Module):
    """L independent GRUs of one layer, each of which reads its own series.

    Parameters have the names of `torch.nn.GRU` and a leading dimension L: `weight_ih_l0`
    `(L, 3H, I)`, `weight_hh_l0` `(L, 3H, H)`, `bias_ih_l0` and `bias_hh_l0` `(L, 3H)`; and its
    initial values, uniform within 1 / sqrt(H) of zero.

    Args:
        count: L.
        input_size: I.
        hidden_size: H.
        bias: whether the GRUs have biases.
        device: of the parameters.
        dtype: of the parameters.
    """

    def __init__(
        self,
        count: int,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("count", count), ("input_size", input_size), ("hidden", hidden_size)):
            if value < 1:
                raise ValueError(f"GRUBank: {name} is {value}; it must be at least 1, so pass that")
        self.count, self.input_size, self.hidden_size = count, input_size, hidden_size
        self.bias = bias

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(count, *shape, device=device, dtype=dtype))

        self.weight_ih_l0 = parameter(3 * hidden_size, input_size)
        self.weight_hh_l0 = parameter(3 * hidden_size, hidden_size)
        self.bias_ih_l0 = parameter(3 * hidden_size) if bias else None
        self.bias_hh_l0 = parameter(3 * hidden_size) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values of `torch.nn.GRU` from the global generator."""
        bound = self.hidden_size**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(
        self, inputs: Tensor, lengths: Sequence[int], initial_state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run every GRU on its series.

        Args:
            inputs: `(sum T, I)`, the L series of T timesteps each, one below the other, or
                `(L, I)`, a constant input of each; with a leading dimension B, B series of each.
            lengths: L numbers of timesteps T.
            initial_state: `(L, H)` or `(B, L, H)`; None is zero.

        Returns:
            The states after all timesteps, `(sum T, H)`, and after the last, `(L, H)`; with a
            leading B if the inputs have one.

        Raises:
            ValueError: if the shapes do not fit together.
        """
        rows = inputs.shape[-2] if inputs.dim() in (2, 3) else -1
        lengths = [int(length) for length in lengths]
        if rows not in (self.count, sum(lengths)) or inputs.shape[-1] != self.input_size:
            raise ValueError(
                f"GRUBank: inputs has shape {tuple(inputs.shape)}; pass (L, I) = "
                f"{(self.count, self.input_size)} or (sum T, I) = "
                f"{(sum(lengths), self.input_size)}, if need be with a leading batch"
            )
        counts = [1] * self.count if rows == self.count else lengths
        series = inputs if inputs.dim() == 3 else inputs.unsqueeze(0)
        gates = [
            torch.matmul(part, weight.t())
            for part, weight in zip(series.split(counts, 1), self.weight_ih_l0, strict=True)
        ]
        gates = torch.cat(gates, 1)
        if self.bias_ih_l0 is not None:
            layer = [index for index, count in enumerate(counts) for _ in range(count)]
            gates = gates + self.bias_ih_l0[layer]
        return gru_unroll(
            gates if inputs.dim() == 3 else gates.squeeze(0),
            self.weight_hh_l0,
            self.bias_hh_l0,
            lengths,
            initial_state=initial_state,
            return_last=True,
        )

    @classmethod
    def from_grus(cls, grus: Sequence[nn.GRU]) -> "GRUBank":
        """Return a bank with copies of the weights of GRUs of one layer and one direction.

        Raises:
            ValueError: if there are none, or they have different sizes, or more than a bank has.
        """
        shapes = {
            (
                g.input_size,
                g.hidden_size,
                g.bias,
                g.num_layers,
                g.bidirectional,
                g.weight_hh_l0.dtype,
            )
            for g in grus
        }
        if len(shapes) != 1 or next(iter(shapes))[3:5] != (1, False):
            raise ValueError(
                "GRUBank: the GRUs have (input size, hidden size, bias, layers, bidirectional, "
                f"dtype) {sorted(map(str, shapes))}; pass at least one, all alike, with 1 layer in "
                "one direction"
            )
        first = grus[0]
        bank = cls(
            len(grus),
            first.input_size,
            first.hidden_size,
            bias=first.bias,
            device=first.weight_hh_l0.device,
            dtype=first.weight_hh_l0.dtype,
        )
        with torch.no_grad():
            for name, parameter in bank.named_parameters():
                parameter.copy_(torch.stack([getattr(gru, name) for gru in grus]))
        return bank

    def to_grus(self) -> list[nn.GRU]:
        """Return L `torch.nn.GRU`s with copies of the weights."""
        like = self.weight_hh_l0
        grus = []
        for index in range(self.count):
            gru = nn.GRU(
                self.input_size,
                self.hidden_size,
                bias=self.bias,
                device=like.device,
                dtype=like.dtype,
            )
            with torch.no_grad():
                for name, parameter in self.named_parameters():
                    getattr(gru, name).copy_(parameter[index])
            grus.append(gru)
        return grus

    def extra_repr(self) -> str:
        """Return the sizes, for `repr`."""
        return f"{self.count}, {self.input_size}, {self.hidden_size}, bias={self.bias}"
