"""Read safetensors files that anybody may have written."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open


@contextmanager
def opened_tensors(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a safetensors file, as `safetensors.safe_open` does for PyTorch.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it cannot be read.
        ValueError: if it is not a regular file (a pipe would be waited for), or no such file; also
            where a tensor that is asked for is missing.
    """
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise ValueError(f"{path} is not a regular file; name a file")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a readable safetensors file ({str(error)[:300]}); pass one that "
            "effconv wrote, or make it again"
        ) from None
