"""Compile, for one architecture and some kernel sizes, every program as the operators launch it.

Runs in a process of its own, where Triton does not interpret. Prints one JSON line a program: the
bytes of a thread that did not fit its registers, the bytes that its threads share, and what it
computes in less than float32.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import torch
import triton
from effconv_kernels.triton import assemble, gru
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

DTYPES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int64: "i64",
}
STATES = {  # one hidden size of each block, and the ends of each form
    torch.float32: (1, 24, 48, 64, 65, 128, 129, 300, 512),
    torch.bfloat16: (64, 128, 300),
    torch.float16: (64,),
}
MAPS = {  # hidden sizes and dtypes of the kernels
    torch.float32: ((1, torch.float32), (64, torch.bfloat16), (65, torch.float32)),
    torch.bfloat16: ((64, torch.bfloat16),),
    torch.float16: ((64, torch.float64),),
}
HOW = (  # and the sizes of kernels, since the backward program depends on the number of taps
    ("paper", False, "ieee", (3, 5, 7, 9)),
    ("aligned", True, "ieee", (3, 9)),
    ("paper", False, "tf32x3", (3, 5)),
)
SHORT = re.compile(r"\b((?:add|sub|mul|fma|mma|wgmma)\.\S*(?:bf16|\bf16|tf32)\S*)")


class Recorder:
    """Stands in for a program, and notes how it would be launched."""

    def __init__(self, name: str, program: JITFunction, launches: dict) -> None:
        self.name, self.program, self.launches = name, program, launches

    def __getitem__(self, grid):
        def launch(*arguments, num_warps, num_stages=3, **constants):
            signature = {
                name: f"*{DTYPES[value.dtype]}" if isinstance(value, torch.Tensor) else "i32"
                for name, value in zip(self.program.arg_names, arguments)
            }
            options = {"num_warps": num_warps, "num_stages": num_stages}
            key = json.dumps([self.name, signature, constants, options])
            self.launches[key] = self.program

        return launch


def record(wanted: set[int]) -> dict:
    """Call both operators at every kind of hidden size and dtype."""
    launches: dict = {}
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
        for H in sizes:
            gates, weight = (
                torch.zeros(1, 3 * H, dtype=dtype),
                torch.zeros(1, 3 * H, H, dtype=dtype),
            )
            states = gru.gru_unroll(gates, weight, gates, [9], None, False)
            gru.gru_unroll_backward(
                states, states, gates, weight, gates, [9], None, False, [True] * 3
            )
    for dtype, sizes in MAPS.items():
        for H, kernel_dtype in sizes:
            for centre, last, precision, size in (
                (*how, size) for *how, kernels in HOW for size in wanted.intersection(kernels)
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


def main() -> None:
    """Compile all launches."""
    architecture, folder = int(sys.argv[1]), Path(sys.argv[2])
    reader = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    for key, program in record(set(map(int, sys.argv[3:]))).items():
        name, signature, constants, options = json.loads(key)
        pointers = {
            (index,): [["tt.divisibility", 16]]
            for index, kind in enumerate(signature.values())
            if kind.startswith("*")
        }
        compiled = triton.compile(
            ASTSource(
                fn=program,
                signature={**signature, **dict.fromkeys(constants, "constexpr")},
                constexprs=constants,
                attrs=pointers,
            ),
            target=GPUTarget("cuda", architecture, 32),
            options=options,
        )
        cubin = folder / "program.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        used = subprocess.run([reader, "-res-usage", cubin], capture_output=True, text=True)
        line = {
            "name": name,
            "launch": [signature, constants, options],
            "stack": int(re.search(r"STACK:(\d+)", used.stdout).group(1)),
            "shared": compiled.metadata.shared,
            "short": sorted(set(SHORT.findall(compiled.asm["ptx"]))),
        }
        print(json.dumps(line))


if __name__ == "__main__":
    main()
