"""Which version of this package runs."""

import sys


def core_version() -> str:
    """Return the version of the effconv-core that runs.

    The installed metadata may be older, where the package is installed in place for development.
    """
    return sys.modules["effconv_core"].__version__
