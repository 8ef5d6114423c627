"""The exit code of several runs."""

import pytest

from bundle.errors import ExitCode, gravest


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([], ExitCode.DONE),
        ([0, 0], ExitCode.DONE),
        ([0, 1], ExitCode.GATE_NOT_MET),
        ([4, 1], ExitCode.UNANSWERED),
        ([4, 2, 0], ExitCode.USAGE),
        ([2, 3], ExitCode.SERVER),
        ([3, 70], ExitCode.UNEXPECTED),
        ([70, 130, 3], ExitCode.INTERRUPTED),
    ],
)
def test_it_is_that_of_the_run_that_needs_attention_most(codes: list[int], expected: ExitCode) -> None:
    assert gravest(codes) == expected
