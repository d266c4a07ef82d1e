"""Which version of this package runs."""

from importlib.metadata import PackageNotFoundError, version


def core_version() -> str:
    """Return the version of effconv-core as it was installed, "unknown" where it was not."""
    try:
        return version("effconv-core")
    except PackageNotFoundError:
        return "unknown"
