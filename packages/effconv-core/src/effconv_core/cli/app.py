"""Dispatch of the subcommands of `effconv`."""

import importlib
from collections.abc import Sequence

from effconv_core.cli.errors import REFUSED, tell
from effconv_core.cli.plugins import brought, loaded
from effconv_core.io.terminal import make_outputs_total, write_output
from effconv_core.version import core_version

USAGE = """usage: effconv COMMAND ... [--help]

  search      Learn the kernel sizes of a CNN under a budget, then train it.
  train       Train the CNN of a plan, or a network as it is, from scratch.
  probe       Estimate in minutes whether sizes matter for a network and a set.
  frontier    Find plans of many costs after one search.
  evaluate    Test the network of a run, class by class.
  predict     Predict the classes of images by the network of a run.
  export      Write the network of a run as ONNX or for torch.export.
  check       Check that the CNNs of plans are the network that is searched.
  plan        show, diff, at, apply: print plans, compare them, build their CNN.
  report      Write the report of a run, or of several compared, as HTML.
  list        Print the runs of a folder, how far each is, its accuracy.
  models      Print the networks that a command can name.
  data        prepare, show, verify: image sets (the command of effconv-data).
  completion  Print the completion script of a shell: bash or zsh.

effconv COMMAND --help says more; effconv --version prints the version.

exit status: 0 done; 1 an error that nobody has foreseen, with a traceback (of
data verify: the set is not right); 2 refused, with one sentence that says why
and what to do; 3 the loss was not finite; 130, 143, 129 stopped by Ctrl-C,
SIGTERM or a closed terminal: the same command goes on"""

# Imported at need: a plan is shown without what draws figures. Other packages bring more.
COMMANDS = {
    "search": "effconv_core.cli.search_train:search_command",
    "train": "effconv_core.cli.search_train:train_command",
    "probe": "effconv_core.cli.probe:probe_command",
    "frontier": "effconv_core.cli.frontier:frontier_command",
    "plan": "effconv_core.cli.plans:plan_command",
    "evaluate": "effconv_core.cli.found.evaluate:evaluate_command",
    "predict": "effconv_core.cli.found.predict:predict_command",
    "export": "effconv_core.cli.found.export:export_command",
    "list": "effconv_core.cli.listing:list_command",
    "models": "effconv_core.cli.listing:models_command",
    "check": "effconv_core.cli.check:check_command",
    "report": "effconv_core.cli.plans:report_command",
    "completion": "effconv_core.cli.completion:completion_command",
}


def run(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit status, see `USAGE`."""
    make_outputs_total()
    name, *rest = arguments or ["--help"]
    if name in ("--help", "-h"):
        write_output(USAGE + "\n")
        return 0
    if name == "--version":
        write_output(f"effconv {core_version()}\n")
        return 0
    if name in COMMANDS:
        module, _, function = COMMANDS[name].partition(":")
        return getattr(importlib.import_module(module), function)(rest)
    others = brought("effconv.commands")
    command = loaded(others[name]) if name in others else None
    if command is not None:
        return command(rest)
    if name == "data":
        sentence = "image sets are prepared by effconv-data; pip install --upgrade effconv-data"
        return tell("effconv data", sentence, REFUSED)
    known = ", ".join(dict.fromkeys([*COMMANDS, "data", *others]))
    return tell("effconv", f"command {name!r} is unknown; pass one of {known}", REFUSED)
