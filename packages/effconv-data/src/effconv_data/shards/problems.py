"""What is wrong with a shard or with a sample of it."""

from typing import NamedTuple

__all__ = ["Problem", "Sample", "ShardError", "unreadable", "unusable"]


class Problem(NamedTuple):
    """A sample that cannot be used."""

    shard: str
    """URL of the shard."""
    key: str | None
    """Key of the sample; None if the shard is too damaged to tell."""
    sentence: str
    """The problem and the remedy."""


class ShardError(ValueError):
    """A shard or a sample of it cannot be used.

    Attributes:
        problem: which one, and why.
    """

    def __init__(self, problem: Problem) -> None:
        if not isinstance(problem, Problem):  # so that a DataLoader tells the text by another error
            raise TypeError(f"problem is {problem!r:.100}; pass a Problem")
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem.sentence

    def __reduce__(self) -> tuple[type, tuple[Problem]]:
        return type(self), (self.problem,)  # whatever others have put into its arguments


class Sample(NamedTuple):
    """One sample as stored in a shard."""

    key: str
    parts: dict[str, bytes]
    """Bytes by lower-case file extension, such as `jpg` and `cls`."""


def unreadable(url: str, what: str) -> ShardError:
    """Return the error of a shard."""
    return ShardError(Problem(url, None, f"shard {url} {what}"))


def unusable(url: str, key: str, what: str) -> ShardError:
    """Return the error of a sample."""
    return ShardError(Problem(url, key, f"sample {key} of shard {url} {what}"))
