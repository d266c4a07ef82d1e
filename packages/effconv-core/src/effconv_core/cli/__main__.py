"""`python -m effconv_core.cli`, the command `effconv`."""

import sys

from effconv_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
