"""`hatch run bench:faults-page` writes docs/faults.md from the raw results of the fault drill."""

from pathlib import Path
from typing import Any

from tools.faults.drill import RESULTS
from tools.support.markdown import link, provenance
from tools.support.rows import read_rows

PAGE = Path("docs/faults.md")
WHAT = {
    "search": "a search of three epochs, from its beginning to the report",
    "training": "the same command where the search is done",
    "report": "the same command where search and training are done: test, figure, weights, report",
    "preparation": "`effconv-data prepare folder`, 40 shards, two processes that encode",
    "list of runs": "three searches and trainings by two workers, of which one or both are killed",
}
# Each is a test; the sentence is what the test looks for.
FAULTS = {
    "the disk is full": (
        "the command stops: `PATH cannot be written: No space left on device; free some room,"
        " and give the same command again, which goes on from the last checkpoint`; it does"
    ),
    "a checkpoint is cut off or has a flipped bit": (
        "`PATH is no readable training state (...); going on from the state before it`; "
        "the search ends as it would have"
    ),
    "both checkpoints are damaged": (
        "`PATH is no readable training state (...); delete it to start again`"
    ),
    "the loader raises": ("its error comes through; the same command goes on from the last epoch"),
    "the loader hangs": (
        "the log says each minute: `the loader has given nothing for 60 s, at batch 3 of "
        "epoch 1`; a process that reads shards counts as hung after ten minutes, which is an "
        "error"
    ),
    "the loader gives NaN": (
        "`the loss is nan in step 3 of epoch 1: the loader gave inputs that are not finite, "
        "so check the data; no state was written before it`"
    ),
    "the loss is NaN or infinite": (
        "`the loss is nan in step 2 of epoch 2: the first outputs that are not finite are "
        "those of layer 'model.2'; lower the rates; the last good state is PATH, of 1 "
        "epoch(s)`; no such value ever reaches a checkpoint"
    ),
    "the clock goes backwards, or is years off": ("nothing: no decision rests on it"),
    "two processes take one run": (
        "`PATH is held by process 4711 on HOST; wait for it or stop it, and if that machine "
        "is gone, delete PATH`"
    ),
    "a worker dies": (
        "another takes its run over: at once on the same machine, after five minutes of "
        "silence from another one"
    ),
    "a worker was silent for so long that another took its run": ("it stops working on it"),
    "a run of a list raises": ("it is reported, and the others are done"),
    "the folder is read-only": (
        "`PATH cannot be written: Read-only file system; name a folder that can be written, ...`"
    ),
    "SIGINT or SIGTERM": (
        "`stopped by SIGINT; the same command goes on from the last checkpoint`; the second "
        "ends the process at once, and loses nothing either"
    ),
}


def faults_page(rows: list[dict[str, Any]] | None = None) -> str:
    """Make the page; rows are those of the drill, by default the committed ones."""
    rows = read_rows(RESULTS) if rows is None else rows
    parts = [
        "# What happens when something goes wrong",
        "",
        "Files appear whole or not at all, a search and a training keep their last two states, and "
        "a run's folder belongs to one process at a time. So a command that was ended by whatever "
        "it may be goes on when it is given again, and ends as if nothing had happened: `hatch run "
        "test:faults` runs the tests of everything below.",
        "",
        "## Kills at random moments",
        "",
    ]
    parts += kills(rows) if rows else ["Not yet measured.", ""]
    parts += [
        "## Everything else",
        "",
        "| what goes wrong | what happens, and what is said |",
        "|---|---|",
    ]
    parts += [f"| {what} | {then} |" for what, then in FAULTS.items()]
    parts.append("")
    return "\n".join(parts)


def kills(rows: list[dict[str, Any]]) -> list[str]:
    """Tell what the drill found."""
    header, *drills = rows
    count = sum(len(row["kills"]) for row in drills)
    lost = [row for row in drills if row["losses"]]
    parts = [
        f"{count} times a process or several were sent SIGKILL at a moment drawn over the length "
        f"of what they did, and {count} times the same command was given again, which was killed "
        f"again in part. At the end of all {len(drills)} operations the figures, plans, weights, "
        "states, metrics and shards were compared with those of one that was never killed, bit "
        "for bit, and it was looked for epochs that were done again though their state was on the "
        f"disk. **Operations in which something was lost: {len(lost)}.**",
        "",
        "| killed | what it is | operations | kills | with something complete before | lost |",
        "|---|---|---|---|---|---|",
    ]
    for name, what in WHAT.items():
        mine = [row for row in drills if row["operation"] == name]
        all_kills = [kill for row in mine for kill in row["kills"]]
        begun = sum(any(kill["done"].values()) for kill in all_kills)
        failed = sum(bool(row["losses"]) for row in mine)
        parts.append(f"| {name} | {what} | {len(mine)} | {len(all_kills)} | {begun} | {failed} |")
    parts += [f"- {row['operation']}, seed {row['seed']}: {row['losses']}" for row in lost]
    environment = header["environment"]
    return [
        *parts,
        "",
        f"`hatch run bench:faults`, {provenance(environment)}, {link(RESULTS, 'raw rows')}. "
        "Without kills: "
        + ", ".join(f"{name} {seconds} s" for name, seconds in header["seconds"].items())
        + " (other work ran beside it).",
        "",
    ]
