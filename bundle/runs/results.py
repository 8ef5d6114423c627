"""``results.json``: the scores of a run, and how it went."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from bundle.errors import RunError
from bundle.runs.cut_prompts import Sent
from bundle.runs.files import DAMAGED, PREDICTIONS, RECORD, RESULTS
from bundle.runs.health import Examination, Health
from bundle.runs.predictions import Prediction
from bundle.runs.scoring import Score, Tally, score_run
from bundle.runs.task_record import RecordPart, Text
from bundle.tasks.scores import ScoredTask

_Count = Annotated[int, Field(ge=0, strict=True)]
_Seconds = Annotated[float, Field(ge=0, le=1e9, strict=True)]


class Coverage(RecordPart):
    """How many questions a run has, and how many of them have a reply.

    ``failed``: questions that were asked and got no reply; the rest was never asked.
    """

    total: _Count
    answered: _Count
    failed: _Count


class Repeat(RecordPart):
    """What asking a sample of the questions again has shown. No score depends on it.

    Attributes:
        times: How many times they were asked in all.
        answers_changed: Of how many the answer was not always the same.
        replies_changed: Of how many the reply was not, as far as it was read.
        failed: Requests of this kind without a reply.
    """

    questions: _Count
    times: _Count
    answers_changed: _Count
    replies_changed: _Count
    failed: _Count


class Results(RecordPart):
    """The content of ``results.json``.

    Attributes:
        tokens: Prompt and completion tokens as counted by the server, and prompt tokens found in its prefix cache; also
            replies that were stopped early, how many chunks of these had come, and replies whose tokens were not
            counted, for that or another reason.
        request_changes: How requests had to be changed for the server, such as "temperature left out".
        health: What was found out about the measurement, see `bundle.runs.health`; None in older files. Readers examine
            the replies again.
        timed_answers: Replies of the sessions that `timing` sums up: a session that was killed left no times. None in
            older files: all.
        sessions: How many these are.
        replicas: Where several servers were asked, how many replies of this session came from each, and how many were
            correct.
        partial: By task, what part of it was asked and answered, as in "first 5 of each subject: 260 of 1,346"; None
            where all was.
    """

    scores: dict[Text, Score]
    coverage: Coverage
    timing: dict[str, _Seconds]
    tokens: dict[str, _Count]
    server: dict[str, float]
    request_changes: list[str] = Field(default_factory=list)
    health: dict[str, Any] | None = None
    partial: dict[Text, Text] | None = None
    repeat: Repeat | None = None
    timed_answers: _Count | None = None
    sessions: _Count = 1
    replicas: list[dict[str, _Count]] | None = None

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """Read the results of the run in ``directory``; None where it has none. Raises RunError if they are damaged."""
        path = directory / RESULTS
        if not os.path.lexists(path):
            return None
        return cls.from_file(path, "Remove the file; `bundle report` needs only the replies.")

    def is_repeated(self, times: int) -> bool:
        """Whether questions were asked so many times in all, if that is more than once."""
        return times == 1 or (self.repeat is not None and self.repeat.times >= times and not self.repeat.failed)

    def require_replies(self, directory: Path, replies: int) -> None:
        """Refuse a run that has lost replies since: what is left scores something else than what was measured.

        More replies are those of a later session that was killed. Raises RunError if they are fewer than were counted.
        """
        if replies < self.coverage.answered:
            raise _disagree(directory, f"has {replies:,} of the {self.coverage.answered:,} replies", "counts")

    def require_same(self, directory: Path, tasks: Sequence[ScoredTask], predictions: Iterable[Prediction]) -> None:
        """Refuse a run whose replies are not those that were scored.

        Raises RunError if they are fewer, of other tasks, or as many with other scores.
        """
        tally = Tally(one for one in predictions if one.error is None)
        asked, replies = tally.answered, tally.answered.total()
        self.require_replies(directory, replies)
        parts = {(task.name, *member) for task in tasks for member in task.members()}
        if unknown := asked.keys() - parts:
            raise RunError(
                f"{directory / PREDICTIONS}: {RECORD} has no subject {'/'.join(min(unknown))}.", remedy=DAMAGED
            )
        if replies > self.coverage.answered:
            return
        for name, score in score_run(tasks, asked, tally).items():
            then = self.scores.get(name)
            if then is not None and then.percent != score.percent and then.accuracy is not None:
                raise _disagree(directory, f"scores {score.percent} in {name}, not the {then.percent}", "says")

    def to_json(self) -> dict[str, Any]:
        absent = {
            name for name in ("request_changes", "health", "partial", "repeat", "replicas") if not getattr(self, name)
        }
        if self.sessions == 1 and self.timed_answers in (None, self.coverage.answered):
            absent |= {"sessions", "timed_answers"}  # as they always are without --resume
        return self.model_dump(exclude=absent)


def _disagree(directory: Path, found: str, verb: str) -> RunError:
    return RunError(
        f"{directory / PREDICTIONS} {found} that {RESULTS} {verb}.",
        remedy=f"Restore it from a copy. Or remove {RESULTS}: reports then show what there is, and `bundle resume` "
        "asks the rest again.",
    )


@dataclass(frozen=True, slots=True)
class Review:
    """What the outcomes of a run come to, read one by one and kept nowhere."""

    tally: Tally
    tokens: "Tokens"
    health: Health

    @classmethod
    def of(cls, options: Mapping[str, str], predictions: Iterable[Prediction], sent: Sent) -> Self:
        """Args: as `bundle.runs.health.Examination`."""
        tally, tokens, examination = Tally(), Tokens(), Examination(options)
        for one in predictions:
            for part in (tally, tokens, examination):
                part.add(one)
        return cls(tally, tokens, examination.health(sent))


class Tokens:
    """Counts the tokens of replies, as `Results` has them."""

    def __init__(self) -> None:
        self._counts = Counter(prompt=0, completion=0, cut_replies=0, uncounted_replies=0)

    def add(self, one: Prediction) -> None:
        if one.error is not None:
            return
        self._counts["prompt"] += one.prompt_tokens or 0
        self._counts["completion"] += one.completion_tokens or 0
        self._counts["cut_replies"] += one.decided_early
        self._counts["uncounted_replies"] += one.completion_tokens is None
        if one.chunks:
            self._counts["chunks_of_cut_replies"] += one.chunks
        if one.cached_tokens is not None:
            self._counts["cached"] += one.cached_tokens

    def to_json(self) -> dict[str, int]:
        return dict(self._counts)
