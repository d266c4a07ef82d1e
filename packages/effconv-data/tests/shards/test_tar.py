"""tar_members against the standard library's tarfile, which is the slow form."""

import io
import tarfile

import pytest
from effconv_data.shards.tar import LARGEST_MEMBER, TarError, tar_members
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = st.text(
    st.characters(exclude_characters="\0/", exclude_categories=("Cs",)), min_size=1, max_size=130
).filter(lambda name: name not in (".", ".."))
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def written(members, format=tarfile.PAX_FORMAT, mtime=0, **changes):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), mtime
            for key, value in changes.items():
                setattr(info, key, value)
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


def by_tarfile(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        return [(m.name, file.extractfile(m).read()) for m in file if m.isfile()]


def read(data):
    return list(tar_members(io.BytesIO(data)))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=6),
    st.sampled_from(FORMATS),
    st.sampled_from([0, 1.5]),
)
def test_reads_what_tarfile_reads(members, format, mtime):
    try:
        data = written(members, format, mtime)
    except ValueError:  # a name that ustar cannot hold
        return
    assert read(data) == by_tarfile(data)


def test_names_of_every_length_and_format():
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        for length in (1, 99, 100, 101, 155, 256, 600):
            members = [("n" * length, b"a"), ("next", b"b")]
            assert read(written(members, format)) == members
    folders = ["f" * 60, "g" * 60]
    name = "/".join([*folders, "name.png"])
    assert read(written([(name, b"x")], tarfile.USTAR_FORMAT)) == [(name, b"x")]


def test_folders_are_passed_over_and_the_rest_is_refused():
    folder = written([("folder", b"")], type=tarfile.DIRTYPE)[:512]
    assert read(folder + written([("a.cls", b"1")])) == [("a.cls", b"1")]
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        with pytest.raises(TarError, match="'away.png' is a link, a device or sparse"):
            read(written([("away.png", b"")], type=kind, linkname="/etc/passwd"))


@pytest.mark.parametrize("length", [*range(0, 2600, 100), 511, 512, 513, 1023, 1024, 2047])
def test_every_cut_is_seen(length):
    whole = written([("a.png", b"x" * 700), ("a.cls", b"1")])
    assert len(read(whole)) == 2
    with pytest.raises(TarError, match="cut off"):
        read(whole[: min(length, 2047 + 512)])


def test_a_changed_header_is_seen():
    whole = written([("a.png", b"x" * 10)])
    for at in (0, 50, 124, 130, 150, 156, 257, 345):
        changed = bytearray(whole)
        changed[at] ^= 0x41
        with pytest.raises(TarError):
            read(bytes(changed))


def test_a_huge_declared_size_reserves_nothing():
    for size in (LARGEST_MEMBER + 1, 1 << 40, 1 << 70):
        info = tarfile.TarInfo("a.png")
        info.size = size
        header = info.tobuf(tarfile.GNU_FORMAT)
        with pytest.raises(TarError, match="'a.png' is declared to be"):
            read(header + bytes(2048))
    info = tarfile.TarInfo("a.png")
    info.size = LARGEST_MEMBER
    with pytest.raises(TarError, match="'a.png' is cut off"):
        read(info.tobuf() + b"only this")
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    with pytest.raises(TarError, match="which none is"):
        read(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))


@pytest.mark.parametrize(
    "records",
    [b"x", b"99 path=a\n", b"8 path=a", b"-1 path=a\n", b"9 path:ab\n", b"18 size=12a4567890\n"],
)
def test_malformed_extended_headers_are_refused(records):
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    head = info.tobuf(tarfile.USTAR_FORMAT) + records.ljust(512, b"\0")
    with pytest.raises(TarError):
        read(head + written([("a.png", b"x")], tarfile.USTAR_FORMAT))


def test_a_folders_long_name_is_not_given_to_the_next_file():
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        folder = written([("größe" * 30, b"")], format, type=tarfile.DIRTYPE)
        end = len(folder.rstrip(b"\0"))
        headers = folder[: -(-end // 512) * 512]  # without the end mark
        assert read(headers + written([("a.png", b"x")])) == [("a.png", b"x")]


def test_what_lies_behind_the_end_mark_is_refused():
    whole = written([("a.png", b"x")])
    with pytest.raises(TarError, match="has data behind it"):
        read(whole + whole)
    zeroed = bytearray(written([("a.png", b"x"), ("b.png", b"y")]))
    zeroed[1024 : 1024 + 512] = bytes(512)
    with pytest.raises(TarError, match="has data behind it"):
        read(bytes(zeroed))
    assert read(whole + bytes(1 << 20)) == [("a.png", b"x")]
