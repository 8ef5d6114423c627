"""A server that fails one request in twenty and is killed every other second; ``make soak`` runs fifty thousand."""

from pathlib import Path

from benchmarks.soak import soak


def test_every_question_is_answered_once_whatever_the_server_does(tmp_path: Path) -> None:
    outcome = soak(tmp_path, questions=2000, kill_every_s=2.0, seed=7)

    assert list(outcome.wrong) == []
    assert outcome.figures["rows with a reply, one a question"] == "2,000"
    assert int(outcome.figures["server killed"].split()[0]) >= 1
