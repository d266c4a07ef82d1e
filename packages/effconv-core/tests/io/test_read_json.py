import json
import os
from typing import Annotated, Any

import pytest
from effconv_core.io.read_json import DEPTH, decode_json, read_json, read_lines
from msgspec import Meta

Sizes = dict[str, Annotated[int, Meta(ge=1, le=1000)]]


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "text",
    [
        nested(DEPTH + 2),
        nested(100_000),
        '{"a":' * 50 + "1" + "}" * 50,
        str(10**400),
        "1" * 5000,
        str(2**63),
        str(-(2**63)),
        "1e999",
        "NaN",
        "[-Infinity]",
        '"\\ud800"',
        '{"\\udfff": 1}',
        "",
        "{",
        "\x00",
        b"\xff\xfe",
    ],
)
def test_what_no_schema_can_hold_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011
        decode_json(text, Any)


@pytest.mark.parametrize("sizes", [{"a": 0}, {"a": 10**9}, {"a": True}, {"a": 3.0}, {"a": "3"}, []])
def test_values_out_of_the_schema_are_refused_with_their_place(sizes):
    with pytest.raises(ValueError, match=r"plan\.json"):
        decode_json(json.dumps(sizes), Sizes, what="plan.json")


def test_what_is_within_the_limits_is_read():
    assert decode_json('{"conv1": 3, "ü": 1000}', Sizes) == {"conv1": 3, "ü": 1000}
    assert decode_json(nested(DEPTH), Any)
    assert decode_json("[NaN, 1e999, 1]", Any, finite=False)[2] == 1
    assert decode_json(f"[{2**63 - 1}, {1 - 2**63}]", list[int]) == [2**63 - 1, 1 - 2**63]


def test_a_file_of_any_size_or_kind_is_refused_at_once(tmp_path):
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(1 << 36)  # 64 GiB of zeros that take no room
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (large, pipe, tmp_path, "/dev/zero"):
        with pytest.raises(ValueError, match="name a"):
            read_json(path, Any)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "missing", Any)


def test_lines_without_content_are_read_to_a_limit(tmp_path):
    path = tmp_path / "rows.jsonl"
    row, waste = b'{"a": 1}\n', b'{"a": [' + b"[]," * 300_000 + b"1]}\n"
    path.write_bytes((row + waste) * 30 + row)
    found = list(read_lines(path, dict[str, Any], least=dict[str, int]))
    good = [content for content in found if content == {"a": 1}]
    errors = [content for content in found if isinstance(content, ValueError)]
    assert 4 < len(good) < 7
    assert "line 10" in str(errors[-1])
    assert not any(error.__traceback__ for error in errors)


def test_a_name_that_stands_twice_is_refused_soon():
    names = ",".join(f'"layer{n}": 3' for n in range(100_000))
    with pytest.raises(ValueError, match="layer99999"):
        decode_json(f'{{"sizes": {{{names}, "layer99999": 5}}}}', Any)
