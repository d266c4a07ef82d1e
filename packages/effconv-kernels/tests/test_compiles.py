"""Every Triton program compiles ahead of time, so that no error waits for somebody with a GPU."""

import inspect
import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton has no wheel for this platform")

CONSTANTS = {
    "gru._forward_on_chip": [{"H": 48, "B": 64}, {"H": 64, "B": 64}, {"H": 128, "B": 128}],
    "gru._backward_on_chip": [{"H": 48, "B": 64}, {"H": 64, "B": 64}, {"H": 128, "B": 128}],
    "gru._forward_streamed": [{"H": 512, "BO": 64, "BK": 64}],
    "gru._backward_streamed": [{"H": 512, "BO": 64, "BK": 64}],
    "gru._grad_parameters": [{"H": 64, "BM": 32, "BN": 32, "BT": 16}],
    "assemble._forward": [
        {"H": 64, "BM": 64, "BT": 16, "BH": 64, "ALIGNED": aligned, "LAST": last}
        for aligned in (False, True)
        for last in (False, True)
    ],
    "assemble._grad_map": [
        {"H": 65, "BM": 64, "BT": 16, "BH": 64, "ALIGNED": False, "LAST": last}
        for last in (False, True)
    ],
    "assemble._sum_chunk": [
        {"H": 64, "BM": 64, "BT": 16, "BH": 64, "CHUNK": 16, "LAST": last} for last in (False, True)
    ],
    "assemble._grad_states": [{"H": 64, "BT": 16, "BH": 64, "ROWS": 1024, "ALIGNED": True}],
}
TABLES = ("starts", "layers", "blocks", "chunks")


def compile_all(constants, architecture):
    """Compile each program for float32 and bfloat16 arguments."""
    import triton
    from effconv_kernels.triton import assemble, gru
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    modules = {"gru": gru, "assemble": assemble}
    float32 = {"slopes", "carry", "sums"}
    for name, cases in constants.items():
        module, function = name.split(".")
        program = getattr(modules[module], function)
        for case in cases:
            for dtype in ("*fp32", "*bf16"):
                signature = {
                    argument: "constexpr"
                    if argument in case
                    else "*i64"
                    if argument in TABLES
                    else "*fp32"
                    if argument in float32
                    else dtype
                    for argument in program.arg_names
                }
                compiled = triton.compile(
                    ASTSource(fn=program, signature=signature, constexprs=case),
                    target=GPUTarget("cuda", architecture, 32),
                    options={"num_warps": 8},
                )
                print(name, len(compiled.asm["cubin"]) > 0, flush=True)  # noqa: T201


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90])
def test_every_program_compiles_without_a_gpu(architecture, tmp_path):
    source = (
        f"import json\nTABLES = {TABLES!r}\n{inspect.getsource(compile_all)}\n"
        f"compile_all(json.loads({json.dumps(json.dumps(CONSTANTS))}), {architecture})\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    result = subprocess.run(
        [sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("True") == 2 * sum(map(len, CONSTANTS.values()))


def test_no_program_is_left_out():
    from effconv_kernels.triton import assemble, gru

    launched = {
        f"{module.__name__.rsplit('.', 1)[1]}.{name}"
        for module in (gru, assemble)
        for name in vars(module)
        if f"\n    {name}[" in inspect.getsource(module)
        or f"\n        {name}[" in inspect.getsource(module)
    }
    assert launched == set(CONSTANTS)
