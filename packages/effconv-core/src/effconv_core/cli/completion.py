"""The command `effconv completion`: shell completion for `effconv`."""

import contextlib
import importlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, make_dataclass
from typing import Annotated, Any, Literal, Union

import tyro

from effconv_core.cli import check, frontier, listing, plans, probe, search_train
from effconv_core.cli.found.evaluate import EvaluateOptions
from effconv_core.cli.found.export import ExportOptions
from effconv_core.cli.found.predict import PredictOptions
from effconv_core.cli.plugins import brought, loaded
from effconv_core.io.console import parsed
from effconv_core.io.terminal import write_output

FILES = """
# File names where nothing else matches.
_effconv_or_files() {
  _tyro_effconv "$@"
  if [ -z "${COMPREPLY[*]}" ]; then
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
  fi
}
complete -F _effconv_or_files effconv"""


@dataclass(frozen=True)
class Completion:
    """Print the completion script of a shell.

    Save that of bash as ~/.local/share/bash-completion/completions/effconv

    Save that of zsh as _effconv in a folder of $fpath.
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh"]]


def completion_command(arguments: Sequence[str]) -> int:
    """Print the completion script of a shell; return the exit status."""
    shell = parsed(Completion, arguments, prog="effconv completion").shell
    script = io.StringIO()
    # tyro prints the script and exits.
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        tyro.cli(
            words(),
            args=["--tyro-print-completion", shell],
            prog="effconv",
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    # Help of two lines would otherwise become two words that the shell offers.
    lines = [
        line.replace("\\n", " ") if line.startswith("COMPLETION_SPEC") else line
        for line in script.getvalue().splitlines(keepends=True)
    ]
    write_output("".join(lines) + (FILES + "\n" if shell == "bash" else ""))
    return 0


def words() -> Any:
    """Return all commands as one type, from which tyro derives the completions."""
    searching = search_train.Search(**search_train.search_defaults("bank"))
    training = search_train.Train(**search_train.train_defaults("bank"))
    commands = [
        Annotated[search_train.Search, tyro.conf.subcommand("search", default=searching)],
        Annotated[search_train.Train, tyro.conf.subcommand("train", default=training)],
        Annotated[probe.ProbeOptions, tyro.conf.subcommand("probe")],
        Annotated[frontier.FrontierOptions, tyro.conf.subcommand("frontier")],
        _group("plan", plans.Command),
        Annotated[EvaluateOptions, tyro.conf.subcommand("evaluate")],
        Annotated[PredictOptions, tyro.conf.subcommand("predict")],
        Annotated[ExportOptions, tyro.conf.subcommand("export")],
        Annotated[listing.List, tyro.conf.subcommand("list")],
        Annotated[listing.Models, tyro.conf.subcommand("models")],
        Annotated[check.Command, tyro.conf.subcommand("check")],
        Annotated[plans.Report, tyro.conf.subcommand("report")],
        Annotated[Completion, tyro.conf.subcommand("completion")],
    ]
    for name, entry in brought("effconv.commands").items():
        if loaded(entry) is not None:
            kinds = getattr(importlib.import_module(entry.module), "Command", None)
            commands += [] if kinds is None else [_group(name, kinds)]
    return Union[tuple(commands)]  # noqa: UP007, of a list


def _group(name: str, commands: Any) -> Any:
    """Return the type of a command with subcommands."""
    field = Annotated[commands, tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes]
    return Annotated[make_dataclass(name, [("command", field)]), tyro.conf.subcommand(name)]
