"""A server that fails one request in twenty and is killed again and again; ``make soak`` runs fifty thousand."""

from pathlib import Path

import pytest

from tests.soak.soak import soak


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2])
def test_every_question_is_answered_once_whatever_the_server_does(tmp_path: Path, replicas: int) -> None:
    outcome = soak(tmp_path, questions=2000, kill_every=400, seed=7, replicas=replicas)

    assert list(outcome.wrong) == []
    assert outcome.figures["rows with a reply, one a question"] == "2,000"
    assert outcome.harms >= 1
