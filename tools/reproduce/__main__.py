"""`hatch run reproduce:table1` and so on: run what a table or figure lacks, and write it."""

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from effconv_core import figures
from effconv_core.cli.errors import check_device, run_command
from effconv_core.io.atomic import write_bytes, write_text
from effconv_core.io.console import PlainConsole
from effconv_core.runs.owner import mark
from effconv_core.runs.reader import read_result
from effconv_core.runs.writer import RESULT, write_result

from tools.queue.launchers import Launch, launch
from tools.queue.run_list import Run, failure, state
from tools.reproduce.pictures import pictures_of, shown
from tools.reproduce.rows import ALL, Row, runs_of
from tools.reproduce.run import KERNELS, check_settings, needed_by, run_name
from tools.reproduce.tables import results_of, section
from tools.support.rows import read_rows


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions(Launch):
    """Run the rows of a table or figure: finished ones are kept, an interrupted one is resumed."""

    name: tyro.conf.Positional[Literal[tuple(ALL)]]
    scale: Literal["smoke", "cpu", "cpu-bfloat16", "gpu", "paper"] = "cpu"
    """smoke and both of cpu reduce images and epochs, and say so in each row; cpu-bfloat16 searches
    and trains in that precision."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    runs: Path = Path("runs/reproduce")
    """Folder of the runs, one each."""
    out: Path = Path("results/reproduce")
    """Folder of the raw results; a run whose result is there is not repeated."""
    dry_run: bool = False
    """Print the names of the runs and stop."""


def main() -> int:
    """Run the command line; the exit status is 1 if a run failed."""
    options, console = tyro.cli(ReproduceOptions, prog="reproduce"), PlainConsole()
    pairs, folder = runs_of(options.name, options.scale), options.runs / options.scale
    if options.dry_run:
        for number, (row, seed) in enumerate(pairs, 1):
            console.print(f"{number}/{len(pairs)} {run_name(row, seed)}")
        return 0
    if options.launcher == "local":  # elsewhere the workers' machines have what this one lacks
        check_device(options.device)
    out = options.out / f"{pairs[0][0].data}-{options.scale}.jsonl"
    results = _read(out)
    for row, seed in pairs:
        name = run_name(row, seed)
        if name in results:
            check_settings(results[name], row, seed, options.scale, out)
            if not (folder / name / RESULT).exists():
                mark(folder / name)
                write_result(folder / name, results[name])

    def keep(ended: Run) -> None:
        """Write all results, and a run's kernels if it has some, where the page reads them."""
        if not (folder / ended.name / RESULT).exists():
            return
        result = results[ended.name] = read_result(folder / ended.name)
        # Before the row, which marks the run as collected.
        if (kernels := folder / ended.name / KERNELS).exists():
            place = out.parent / "kernels" / out.stem / f"{ended.name}.safetensors"
            place.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(place, kernels.read_bytes())
        _write(out, results)
        sizes = " ".join(map(str, result["sizes"].values()))
        console.print(f"    test accuracy {result['accuracy']:.2%}, sizes {sizes}")

    given = {"scale": options.scale, "device": options.device}
    runs = [
        Run(
            run_name(row, seed),
            "tools.reproduce.run:run_row",
            {"row": asdict(row), "seed": seed, **given},
            tuple(needed_by(row, seed)),
        )
        for row, seed in pairs
    ]
    for run, (row, seed) in zip(runs, pairs, strict=True):  # runs that nothing collected
        place = folder / run.name
        if run.name not in results and (place / RESULT).exists():
            check_settings(read_result(place), row, seed, options.scale, place)
            keep(run)
    path = folder / f"{options.name}.json"
    beside = [path.with_suffix(".md").name]
    status = launch(path, runs, options, console, on_end=keep, beside=beside)
    page = _table(options, path, runs, results, out)
    console.print(f"{page} written", soft_wrap=True)
    return status


def _read(out: Path) -> dict[str, dict[str, Any]]:
    """Return the results in a file of raw results, by the names of their runs."""
    return {run_name(Row(**row["row"]), row["seed"]): row for row in read_rows(out)}


def _write(out: Path, results: dict[str, dict[str, Any]]) -> None:
    """Merge results with those that another command has written since; figures share files."""
    results |= _read(out) | results
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, "".join(json.dumps(results[name]) + "\n" for name in sorted(results)))


def _table(
    options: ReproduceOptions,
    path: Path,
    runs: list[Run],
    results: dict[str, dict[str, Any]],
    out: Path,
) -> Path:
    """Write the current table or figure, beside the list of its runs."""
    found = results_of(options.name, options.scale, results.values())
    drawn = pictures_of(options.name, options.scale, found, options.out)
    for picture, _, draw in drawn:
        figures.save_figure(draw(), path.parent / picture)
    parts = []
    if found:
        raw = Path(os.path.relpath(out, path.parent)).as_posix()
        parts += section(options.name, options.scale, found, raw, shown(options.name, drawn))
    left = [run for run in runs if run.name not in results]
    why = [f": {failure(path, run)}" if state(path, run) == "failed" else "" for run in left]
    parts += ["## Not run or failed", ""] if left else []
    parts += [f"- `{run.name}`{each}" for run, each in zip(left, why, strict=True)]
    page = path.with_suffix(".md")
    write_text(page, "\n".join([*parts, ""]))
    return page


if __name__ == "__main__":
    sys.exit(run_command("reproduce", main))
