"""The command `effconv export`: the network of a run for ONNX or `torch.export`."""

import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from effconv_core.cli.errors import check_output, run_command
from effconv_core.cli.found.network import Found, found_in
from effconv_core.io.atomic import written_whole
from effconv_core.io.console import PlainConsole, parsed
from effconv_core.runs.options import option

BATCHES = (1, 3)
"""Batch sizes on which what was written is compared with the network."""
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write the network of a run for other programs, for batches of any size.

    What was written is read back and compared with the network.
    """

    run: option(Path, metavar="DIR")
    """Folder of the run."""
    onnx: option(Path | None, metavar="FILE") = None
    """ONNX file; needs pip install 'effconv-core[onnx]'."""
    pt2: option(Path | None, metavar="FILE") = None
    """File of `torch.export`, which `torch.export.load` reads."""
    overwrite: bool = False
    """Replace the files if they exist."""


def export_command(arguments: Sequence[str]) -> int:
    """Run `effconv export`; return the exit status."""
    name, config = "effconv export", (tyro.conf.FlagCreatePairsOff,)
    return run_command(
        name, lambda: _run(parsed(ExportOptions, arguments, prog=name, config=config))
    )


def _run(options: ExportOptions) -> None:
    paths = [path for path in (options.onnx, options.pt2) if path is not None]
    if not paths:
        raise ValueError("there is nothing to write; pass --onnx FILE, --pt2 FILE or both")
    if len(set(map(os.path.abspath, paths))) < len(paths):
        raise ValueError(f"--onnx and --pt2 are both {paths[0]}; pass two names")
    for path in paths:
        check_output(path, options.overwrite)
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if options.onnx is not None and missing:
        raise ValueError(
            f"ONNX needs {' and '.join(missing)}; pip install 'effconv-core[onnx]', or pass --pt2"
        )
    found, console = found_in(options.run, "cpu"), PlainConsole()
    program = torch.export.export(
        found.cnn,
        (_images(found, 2),),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
    )
    if options.onnx is not None:
        checked = write_onnx(found, program, options.onnx)
        console.print(f"wrote {options.onnx}, {checked}", soft_wrap=True)
    if options.pt2 is not None:
        with written_whole(options.pt2) as temporary:
            extra = {"inputs.json": _inputs(found)}
            # By an open file, since torch takes no name that does not end with .pt2.
            with temporary.open("r+b") as file:
                torch.export.save(program, file, extra_files=extra)
            with temporary.open("rb") as file:
                _compare(found, torch.export.load(file).module(), "torch.export")
        console.print(f"wrote {options.pt2}, the same as the network", soft_wrap=True)
    shape = ", ".join(map(str, found.inputs.shape))
    console.print(f"It takes float32 (batch, {shape}), {_normalised(found)}.", soft_wrap=True)


def write_onnx(found: Found, program: torch.export.ExportedProgram, path: Path) -> str:
    """Write a network as ONNX, whole or not at all, and say how it was checked.

    Its metadata `inputs` is what the network takes, as JSON.

    Raises:
        ValueError: if onnxruntime gives other scores than the network.
    """
    exported = torch.onnx.export(program, dynamo=True, verbose=False)
    exported.model.metadata_props["inputs"] = _inputs(found)
    with written_whole(path) as temporary:
        exported.save(temporary, external_data=False)
        if importlib.util.find_spec("onnxruntime") is None:
            return "not compared with the network: that needs pip install onnxruntime"
        import onnxruntime

        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        (entry,) = session.get_inputs()

        def run(images: Tensor) -> Tensor:
            return torch.from_numpy(session.run(None, {entry.name: images.numpy()})[0])

        _compare(found, run, "onnxruntime")
    return "the same as the network in onnxruntime"


def _compare(found: Found, other: Callable[[Tensor], Tensor], name: str) -> None:
    """Raise where what was written gives other scores than the network."""
    for batch in BATCHES:
        images = _images(found, batch)
        with torch.no_grad():
            difference = (other(images) - found.cnn(images)).abs().max().item()
            near = torch.allclose(other(images), found.cnn(images), **CLOSE)
        if not near:
            raise ValueError(
                f"{name} gives scores that differ by up to {difference:.3g} from the network's for "
                f"a batch of {batch}, so nothing was written; report this to its makers"
            )


def _images(found: Found, batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, *found.inputs.shape, generator=generator)


def _inputs(found: Found) -> str:
    inputs = found.inputs
    return json.dumps({name: getattr(inputs, name) for name in ("shape", "classes", "mean", "std")})


def _normalised(found: Found) -> str:
    mean, std = found.inputs.mean, found.inputs.std
    if mean is None or std is None:
        return "normalised as the run's data were"
    words = (", ".join(f"{value:.4f}" for value in values) for values in (mean, std))
    return "scaled to 0..1, less {}, divided by {}".format(*words)
