"""`hatch run bench:faults-page` writes docs/faults.md from the raw results of the fault drill."""

from pathlib import Path
from typing import Any

from tools.faults.drill import RESULTS
from tools.faults.events import RESULTS as EVENTS
from tools.support.markdown import link, provenance
from tools.support.rows import read_rows

PAGE = Path("docs/faults.md")
WHAT = {
    "search": "a search of three epochs, from its beginning to the report",
    "training": "the same command where the search is done",
    "report": "the same command where search and training are done: test, figure, weights, report",
    "preparation": "`effconv-data prepare folder`, 40 shards, two processes that encode",
    "list of runs": "three searches and trainings by two workers: one is killed, or all of them",
}
# Each is a test; the sentence says what it checks.
FAULTS = {
    "the disk is full": (
        "the command stops: `PATH cannot be written: No space left on device; free some room,"
        " and give the same command again, which goes on from the last checkpoint`; it does"
    ),
    "a checkpoint is cut off or has a flipped bit": (
        "`PATH is not a readable training state (...); going on from the state before it`; "
        "the search ends as it would have"
    ),
    "both checkpoints are damaged": (
        "`PATH is not a readable training state (...); delete it to start again`"
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
        "`PATH is held by process 4711 on HOST; wait for it or stop it`; the lock is the "
        "system's, so it ends with its process, and no file keeps anybody out"
    ),
    "a worker dies": (
        "its run is begun again, three times at most, and goes on from its last checkpoint; "
        "the other runs are done meanwhile"
    ),
    "the command of a list is killed": (
        "its workers end within a second; the same command goes on"
    ),
    "a run of a list raises": ("it is reported, and the others are done"),
    "the folder is read-only": (
        "`PATH cannot be written: Read-only file system; name a folder that can be written, ...`"
    ),
    "SIGINT or SIGTERM": (
        "`stopped by SIGINT; the same command goes on from the last checkpoint`; the second "
        "ends the process at once, and loses nothing either"
    ),
    "the terminal is closed": (
        "`stopped by SIGHUP; the same command goes on from the last checkpoint`, where it can "
        "still be told, and status 129; under `nohup` or in the background it goes on in silence"
    ),
}


def faults_page(
    rows: list[dict[str, Any]] | None = None, events: list[dict[str, Any]] | None = None
) -> str:
    """Make the page.

    Args:
        rows: of the kills at random moments, the header first; the committed ones when None.
        events: of the kills at file events, alike.
    """
    rows = read_rows(RESULTS) if rows is None else rows
    events = read_rows(EVENTS) if events is None else events
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
    parts += ["## A kill at each file event", ""]
    parts += file_events(events) if events else ["Not yet measured.", ""]
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
    """Return the lines on the drill's results."""
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


def file_events(rows: list[dict[str, Any]]) -> list[str]:
    """Return what the kills at file events found."""
    header, *killed = rows
    counts = {recipe: len(events) for recipe, events in header["events"].items()}
    lost = [row for row in killed if row["losses"]]
    parts = [
        "The smallest run, a search of two epochs and a training of two, was watched: its process "
        "opens files in its folder for writing, writes them, changes their mode, brings them to "
        "the disk, renames, links and deletes them in a fixed order. It was begun again for each "
        "of these events and sent SIGKILL just before it, before a write when half of it was on "
        "the disk, and the same command was given once more. Then all that a run promises was "
        "compared with a run that was never killed: result, plan, weights, both states, metrics, "
        "figure, both reports (report.html too, but for its times), which files there are and "
        "their modes, and that the result is the last file written. "
        f"**Kills after which something was missing or different: {len(lost)} of {len(killed)}.**",
        "",
        "| recipe | file events | kills | lost |",
        "|---|---|---|---|",
    ]
    for recipe, count in counts.items():
        mine = [row for row in killed if row["recipe"] == recipe]
        failed = sum(bool(row["losses"]) for row in mine)
        parts.append(f"| {recipe} | {count} | {len(mine)} | {failed} |")
    parts += ["", "| event | times in a run, by recipe |", "|---|---|"]
    kinds = dict.fromkeys(kind for events in header["events"].values() for kind, _ in events)
    for kind in kinds:
        each = [sum(k == kind for k, _ in events) for events in header["events"].values()]
        parts.append(f"| {kind} | {', '.join(map(str, each))} |")
    parts += [f"- {row['recipe']}, event {row['number']}: {row['losses']}" for row in lost]
    environment = header["environment"]
    source = f"[raw rows](../{EVENTS})"
    return [
        *parts,
        "",
        f"`hatch run bench:fault-events`, commit {environment['commit']}, {environment['device']}, "
        f"torch {environment['torch']}, {source}.",
        "",
    ]
