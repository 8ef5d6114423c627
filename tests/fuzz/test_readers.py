"""Whatever bytes a file, a server or a user gives: it is read, or there is an error that can be acted on."""

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS, outcome

FOUND = sorted((Path(__file__).parent / "found").glob("*/*"))


# What the readers look for, and what has broken readers before.
_PIECES = st.sampled_from(
    (
        *(b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"\r", b"\n" * 50, b'"', b"'", b",", b"%", b"@", b"[::", b"\x1b[2J"),
        *(
            b"[" * 2000,
            b"{" * 2000,
            b'{"a":' * 500,
            b"a." * 500,
            b"9" * 5000,
            b"-1",
            b"1e999",
            b"NaN",
            b"null",
            b"true",
        ),
        *(b'"\\ud800"', "\u202e\u2028".encode(), b"../../x", b"~nobody/x", b"</think>"),
        *(b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"\xff" * 8),
    )
)


@st.composite
def damaged(draw: st.DrawFn, name: str) -> bytes:
    """One of a reader's sound inputs, with a few parts of it cut out, repeated or replaced; or bytes at random."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(draw(st.sampled_from(SEEDS[name])))
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.sampled_from([0, 1, 2, 4, 16, 10**6])))
        data[begin:end] = draw(_PIECES | st.binary(max_size=8))
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_are_read_or_refused_with_a_remedy_in_bounded_time(
    name: str, data: st.DataObject, tmp_path: Path
) -> None:
    damaged_bytes = data.draw(damaged(name))
    started = time.process_time()
    error = outcome(name, damaged_bytes, tmp_path)
    assert time.process_time() - started < 5
    assert error is None or (error.message and error.remedy)


@pytest.mark.parametrize("path", FOUND, ids=[f"{path.parent.name}/{path.name}" for path in FOUND])
def test_earlier_findings_are_refused_with_a_remedy(path: Path, tmp_path: Path) -> None:
    error = outcome(path.parent.name, path.read_bytes(), tmp_path)
    assert error is not None
    assert error.message
    assert error.remedy


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_are_read(name: str, tmp_path: Path) -> None:
    assert [outcome(name, seed, tmp_path) for seed in SEEDS[name]] == [None] * len(SEEDS[name])
