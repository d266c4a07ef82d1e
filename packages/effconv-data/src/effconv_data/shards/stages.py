"""Stages of a `webdataset.DataPipeline` that read shards without trusting them.

`open_shards`, `expand_tars` and `check_members` take the places of WebDataset's `url_opener` and
`tar_file_expander`, whose items they give; its `group_by_keys` and all that follows go on as usual:

```python
import webdataset as wds
from effconv_data.shards.stages import check_members, expand_tars, open_shards

samples = wds.DataPipeline(
    wds.SimpleShardList("train-{000..099}.tar"),
    wds.shuffle(100),
    wds.split_by_node,
    wds.split_by_worker,
    open_shards,
    expand_tars,
    check_members,
    wds.tariterators.group_by_keys,
    wds.decode("pil"),
)
```

WebDataset's own opener runs programs for some addresses, and passes on a server's error page. Its
expander ends in silence where a tar is cut off between two members, and allocates what a header
claims. Its grouping leaves out in silence what has no key, and knows no limit for a sample.
"""

import hashlib
import io
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

from webdataset import DataPipeline, gopen
from webdataset.tariterators import group_by_keys

from effconv_data.io.addresses import check_address, is_http, is_remote
from effconv_data.io.hidden import is_hidden
from effconv_data.io.packed import LARGEST_RATIO, unpacked
from effconv_data.io.web import copy_from
from effconv_data.shards.index import Shard
from effconv_data.shards.problems import Sample, ShardError, unreadable
from effconv_data.shards.tar import BLOCK, LARGEST_MEMBER, tar_members

__all__ = [
    "check_members",
    "counted_samples",
    "expand_tars",
    "open_shards",
    "read_samples",
    "shard_pipeline",
    "split_name",
]

MOST_PARTS = 64
"""Of a sample."""
LARGEST_SAMPLE = 4 * LARGEST_MEMBER
"""Bytes of all parts of a sample."""
LARGEST_SHARD = 8 << 30
"""Bytes of a remote shard whose size the index does not give."""
IN_MEMORY = 1 << 24
"""Largest size in bytes of a remote shard kept in memory; larger ones go to a temporary file."""
NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)
META = re.compile(r"__[^/]*__(/|\Z)")
USUAL = (".jpg", ".jpeg", ".png", ".cls")
TEXTS = re.compile(r"(readme|licen[cs]e|copying|notice|authors|changelog)\.(md|txt|rst)\Z", re.I)
"""Texts about a set, which are not samples although they have a kind."""


def open_shards(shards: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield each shard with an open stream of its unpacked content.

    A shard's sha256 and size are checked first where they are known. gzip, bzip2 and xz are
    unpacked, and zstd from Python 3.14 on.

    Args:
        shards: dicts with `url`, as of `webdataset.SimpleShardList`, and optionally `shard`, the
            `Shard` of an index; without it only files and http(s) addresses are opened.

    Yields:
        The dict with a binary `stream`, which is closed when the next one is asked for.

    Raises:
        ShardError: if a shard cannot be opened.
    """
    for source in shards:
        shard = source.get("shard") or Shard(source["url"], 0, None)
        with _named(shard.url), _opened(shard) as stream:
            yield {**source, "stream": stream}


def expand_tars(shards: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the regular files of each opened tar, and an empty dict behind the last of each.

    Args:
        shards: dicts with `url` and `stream`.

    Yields:
        Dicts of `fname`, `data` and `__url__`, as of `webdataset.tariterators.tar_file_expander`.

    Raises:
        ShardError: if a tar is damaged, cut off or too large in some respect, see `tar_members`.
    """
    for source in shards:
        with _named(source["url"]):
            for name, data in tar_members(source["stream"]):
                yield {"fname": name, "data": data, "__url__": source["url"]}
        yield {}


def check_members(members: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the members that belong to samples, after a check of names and sizes.

    Passed over are names without a dot such as `README`, texts about the set such as `README.md`,
    WebDataset's own `__meta__` names, and what systems leave behind, see `is_hidden`.

    Args:
        members: as of `expand_tars`.

    Raises:
        ShardError: if a name cannot be cut into key and part, a sample has a part twice, more than
            64 parts or more than 64 MiB; or if all members of a shard were passed over.
    """
    key, parts, size, kept, passed_over = None, set(), 0, False, None
    for member in members:
        if not member:
            if passed_over is not None and not kept:
                raise unreadable(
                    passed_over["__url__"],
                    f"has no member of a sample, only such as {passed_over['fname']!r:.200}; a "
                    "name is a key, a dot and the kind of its content, so write the shard again",
                )
            key, kept, passed_over = None, False, None
            yield member
            continue
        name, url = member["fname"], member["__url__"]
        if _is_no_sample(name):
            passed_over = passed_over or {**member, "data": None}
            continue
        own, part = split_name(name)
        if own is None or part is None or part.startswith("__"):  # WebDataset's own entries
            raise unreadable(
                url,
                f"has the member {name!r}, which belongs to no sample; a name is a key, a dot and "
                "the kind of its content, so write the shard again",
            )
        if own != key:
            key, parts, size = own, set(), 0
        part = part.lower()
        if part in parts:
            raise unreadable(
                url, f"has the member {name!r} twice; write the shard again{told_cut(key, part)}"
            )
        parts.add(part)
        size += len(member["data"])
        if len(parts) > MOST_PARTS or size > LARGEST_SAMPLE:
            raise unreadable(
                url,
                f"has the sample {key!r:.100} of more than {MOST_PARTS} parts or {LARGEST_SAMPLE} "
                f"bytes, which none may have; write the shard again{told_cut(key, part)}",
            )
        kept = True
        yield member


@lru_cache(maxsize=8)  # the check asks, then the grouping
def split_name(name: str) -> tuple[str | None, str | None]:
    """Return a member's key and part, cut at the first dot of the base name as in WebDataset.

    Returns:
        Both None if there is no such dot, or nothing before or behind it.
    """
    match = NAME.fullmatch(name)
    return (None, None) if match is None else (match[1], match[2])


def told_cut(key: str, part: str) -> str:
    """Return where a name with several dots was cut, as the end of a sentence; else nothing."""
    if "." not in part:
        return ""
    return (
        f" (the key {key!r:.100} was cut at the first dot of {f'{key}.{part}'!r:.200}, as "
        "WebDataset does; name the members without dots in their keys)"
    )


def shard_pipeline(shard: Shard) -> DataPipeline:
    """Return the pipeline of one shard's samples, undecoded, as WebDataset's dicts.

    Iterating it raises ShardError where the shard is missing, its sum is not the index's, it is
    damaged or holds a member that belongs to no sample.
    """
    return DataPipeline(
        lambda: iter([{"url": shard.url, "shard": shard}]),
        open_shards,
        expand_tars,
        check_members,
        partial(group_by_keys, keys=split_name),
    )


def read_samples(shard: Shard) -> Iterator[Sample]:
    """Yield the samples of a shard in order, undecoded; see `shard_pipeline` for its errors."""
    for sample in shard_pipeline(shard):
        yield Sample(sample["__key__"], {k: v for k, v in sample.items() if not k.startswith("__")})


def counted_samples(shard: Shard, stop: int | None = None) -> Iterator[Sample]:
    """Yield the first samples of a shard, which must be as many as its index says.

    Args:
        shard: the shard; it is not read on when there are more samples than it may have.
        stop: how many; None gives all.

    Raises:
        ShardError: as `shard_pipeline` does, or if there are fewer, or more than there may be.
    """
    stop = shard.samples if stop is None else stop
    at, samples = 0, read_samples(shard)
    for at, sample in enumerate(samples, 1):
        if at == stop == shard.samples and next(samples, None) is not None:
            raise unreadable(shard.url, _miscounted(shard, f"more than {shard.samples}"))
        yield sample
        if at == stop:
            samples.close()
            return
    raise unreadable(shard.url, _miscounted(shard, f"only {at}"))


def _is_no_sample(name: str) -> bool:
    if "/" not in name and name[:1] not in "._" and name.endswith(USUAL):  # most names
        return False
    parts = name.split("/")
    return (
        "." not in parts[-1]
        or META.match(name) is not None
        or TEXTS.match(parts[-1]) is not None
        or is_hidden(parts)
    )


@contextmanager
def _named(url: str) -> Iterator[None]:
    """Raise whatever cannot be read as an error that names the shard."""
    try:
        yield
    except ShardError:
        raise
    except Exception as error:  # tar, gzip and the network each raise their own types
        reason = str(error) or type(error).__name__
        raise unreadable(url, f"cannot be read ({reason}); copy the set again") from error


def _miscounted(shard: Shard, found: str) -> str:
    return (
        f"holds {found} samples but the index says {shard.samples}; copy the set again or write "
        "its index again"
    )


@contextmanager
def _opened(shard: Shard) -> Iterator[BinaryIO]:
    """Open a shard after a check of its sum and of what the index claims of it, decompressed."""
    with _local_copy(shard) as file:
        if shard.sha256 is not None and _sha256(file) != shard.sha256:
            raise unreadable(
                shard.url, "does not have the sha256 that the index gives; copy the set again"
            )
        size = file.seek(0, io.SEEK_END)
        kind, stream = unpacked(file)
        room = size * LARGEST_RATIO.get(kind, 1 << 20) // BLOCK
        if shard.samples > room >= 2:  # what is too short for a tar is told when it is read
            found = f"at most {room} (it has {size} bytes)"
            raise unreadable(shard.url, _miscounted(shard, found))
        yield stream


@contextmanager
def _local_copy(shard: Shard) -> Iterator[BinaryIO]:
    """Yield a seekable file, whatever the source."""
    check_address(shard.url, allow_commands=shard.allow_commands)
    if not is_remote(shard.url):
        path = Path(shard.url)
        if path.exists() and not path.is_file():  # the opening of a pipe would wait for a writer
            raise OSError("it is not a regular file")
        with path.open("rb") as file:
            yield file
        return
    limit = LARGEST_SHARD if shard.size is None else shard.size
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as copy:
        # Not with WebDataset, whose curl passes on a server's error page as if it were the shard.
        if is_http(shard.url):
            copy_from(shard.url, copy, limit)
        else:
            with gopen(shard.url) as source:
                while block := source.read(1 << 20):
                    copy.write(block)
                    if copy.tell() > limit:
                        raise OSError(f"its program gives more than {limit} bytes")
        copy.seek(0)
        yield copy


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    file.seek(0)
    return digest.hexdigest()
