"""Compile every program for one card as the operators launch it: `compile_launches.py CARD [SIZE]`.

A card is its compute capability, such as 90. With a kernel size, only that one, the first hidden
size of each dtype, and one kind of kernels of each short dtype. Runs in a process of its own, where
Triton does not interpret. Prints one JSON line a program: its registers, the bytes of a thread that
did not fit them, the bytes that its threads share, and what it computes in less than float32.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import triton
from effconv_kernels.triton import assemble, gru
from triton.backends import compiler as backends
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

DTYPES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int64: "i64",
}
STATES = {  # one hidden size of each block, and the ends of each form, of which 300 is streamed
    torch.float32: (128, 300, 1, 24, 48, 64, 65, 129, 512),
    torch.bfloat16: (300, 128, 64),
    torch.float16: (64,),
}
MAPS = {  # hidden sizes and dtypes of the kernels
    torch.float32: ((65, torch.float32), (1, torch.float32), (64, torch.bfloat16)),
    torch.bfloat16: ((64, torch.bfloat16),),
    torch.float16: ((64, torch.float64),),
}
HOW = (  # and the sizes of kernels, since the backward program depends on the number of taps
    ("paper", False, "ieee", (3, 5, 7, 9)),
    ("aligned", True, "ieee", (3, 9)),
    ("paper", False, "tf32x3", (3, 5)),
)
# Sums of a short number and a float32 one, which newer cards have, are float32.
SHORT = re.compile(
    r"\b((?!(?:add|sub|fma)\.rn\.f32\.)(?:add|sub|mul|fma|mma|wgmma)\.\S*(?:bf16|\bf16|tf32)\S*)"
)


class Recorder:
    """Stands in for a program, and notes how it would be launched."""

    def __init__(self, name: str, program: JITFunction, launches: dict) -> None:
        self.name, self.program, self.launches = name, program, launches

    def __getitem__(self, grid):
        def launch(*arguments, num_warps, num_stages=3, maxnreg=None, **constants):
            signature = {
                name: f"*{DTYPES[value.dtype]}" if isinstance(value, torch.Tensor) else "i32"
                for name, value in zip(self.program.arg_names, arguments)
            }
            options = {"num_warps": num_warps, "num_stages": num_stages, "maxnreg": maxnreg}
            key = json.dumps([self.name, signature, constants, options])
            self.launches[key] = self.program

        return launch


def record(card: int, wanted: int | None) -> dict:
    """Call both operators at every kind of hidden size and dtype, as on a card."""
    launches: dict = {}
    gru.card_of = assemble.card_of = lambda device: card
    programs = [
        (module, name, value)
        for module in (gru, assemble)
        for name, value in vars(module).items()
        if isinstance(value, JITFunction)
    ]
    for module, name, value in programs:
        short = module.__name__.rsplit(".", 1)[1]
        setattr(module, name, Recorder(f"{short}.{name}", value, launches))
    for dtype, sizes in STATES.items():
        for H in sizes[: 1 if wanted else None]:
            gates, weight = (
                torch.zeros(1, 3 * H, dtype=dtype),
                torch.zeros(1, 3 * H, H, dtype=dtype),
            )
            states = gru.gru_unroll(gates, weight, gates, [9], None, False)
            gru.gru_unroll_backward(
                states, states, gates, weight, gates, [9], None, False, [True] * 3
            )
    for place, (dtype, sizes) in enumerate(MAPS.items()):
        forms = HOW[place - 1 : place] if wanted and place else HOW
        for H, kernel_dtype in sizes[: 1 if wanted else None]:
            for centre, last, precision, size in (
                (*how, size)
                for *how, kernels in forms
                for size in kernels
                if wanted in (size, None)
            ):
                maps, soft = torch.zeros(6, H, dtype=dtype), torch.ones(1, dtype=dtype)
                which = [1, size, size], [6], [3], [-1, 0, 0], centre, last
                tensors = torch.zeros(size * size, H, dtype=dtype), maps, maps[:, 0], soft
                kernels = assemble.assemble_kernels(*tensors, *which, kernel_dtype, precision)
                needs = [True] * 4, precision
                assemble.assemble_kernels_backward(kernels, *tensors, *which, *needs)
    for module, name, value in programs:
        setattr(module, name, value)
    return launches


def source_of(program: JITFunction, signature: dict, constants: dict) -> ASTSource:
    """Return a program with its arguments, all pointers aligned, as each version of Triton says."""
    pointers = [index for index, kind in enumerate(signature.values()) if kind.startswith("*")]
    signature = {**signature, **dict.fromkeys(constants, "constexpr")}
    if hasattr(backends, "AttrsDescriptor"):  # Triton 3.2
        attributes = backends.AttrsDescriptor.from_hints(dict.fromkeys(pointers, 16))
    else:
        attributes = {(index,): [["tt.divisibility", 16]] for index in pointers}
    return ASTSource(program, signature, constants, attributes)


def main() -> None:
    """Compile all launches."""
    card, *wanted = map(int, sys.argv[1:])
    reader = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    for key, program in record(card, *(wanted or [None])).items():
        name, signature, constants, options = json.loads(key)
        compiled = triton.compile(
            source_of(program, signature, constants),
            target=backends.GPUTarget("cuda", card, 32),
            options=options,
        )
        with TemporaryDirectory() as folder:
            cubin = Path(folder, "program.cubin")
            cubin.write_bytes(compiled.asm["cubin"])
            command = [reader, "-res-usage", cubin]
            used = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        line = {
            "name": name,
            "launch": [signature, constants, options],
            "registers": int(re.search(r"REG:(\d+)", used).group(1)),
            "stack": int(re.search(r"STACK:(\d+)", used).group(1)),
            "shared": compiled.metadata.shared,
            "short": sorted(set(SHORT.findall(compiled.asm["ptx"]))),
        }
        print(json.dumps(line))


if __name__ == "__main__":
    main()
