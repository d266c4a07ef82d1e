"""`hatch run bench:faults`, see `drill`."""

import sys

from effconv_core.cli.errors import run_command

from tools.faults.drill import main

sys.exit(run_command("faults", main))
