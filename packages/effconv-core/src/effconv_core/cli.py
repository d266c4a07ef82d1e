"""The command `effconv`; its libraries come with `pip install 'effconv-core[cli]'`."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give the exit code: 0, or 2 with a sentence that says what is wrong.

    Args:
        arguments: the words after `effconv`; those of this process when None.
    """
    try:
        from effconv_core.commands import run
    except ModuleNotFoundError as error:
        if error.name not in ("tyro", "rich"):
            raise
        needed = f"effconv: the command line needs {error.name}"
        sys.stderr.write(f"{needed}; pip install 'effconv-core[cli]'\n")
        return 2
    return run(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
