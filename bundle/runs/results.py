"""``results.json``: the scores of a run, and how it went."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError

from bundle.config.faults import first_fault
from bundle.errors import RunError
from bundle.runs.files import DAMAGED, PREDICTIONS, RECORD, RESULTS, read_json
from bundle.runs.health import Health
from bundle.runs.predictions import Prediction
from bundle.runs.scoring import Score, score_run
from bundle.runs.task_record import RecordPart, Text
from bundle.tasks.scores import Key, ScoredTask

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
    def of(
        cls,
        tasks: Sequence[ScoredTask],
        questions: Iterable[Key],
        predictions: Sequence[Prediction],
        *,
        timing: Mapping[str, float],
        server: Mapping[str, float],
        health: Health,
        scopes: Mapping[str, str],
        new_answers: int | None,
        earlier: "Results | None",
        request_changes: Sequence[str],
        repeat: Repeat | None,
        replicas: list[dict[str, int]] | None,
    ) -> Self:
        """Score and count what is known of a run.

        Args:
            new_answers: Replies of this session; None for all.
            scopes: What part of every task that is, by its name; "" for all of it.
        """
        asked = Counter(key.part for key in questions)
        answered = sum(one.error is None for one in predictions)
        timed = answered if new_answers is None else new_answers
        changes, restarts = list(request_changes), {}
        if earlier is not None:
            timed += earlier.coverage.answered if earlier.timed_answers is None else earlier.timed_answers
            timing = {
                phase: earlier.timing.get(phase, 0) + timing.get(phase, 0) for phase in {**earlier.timing, **timing}
            }
            changes = list(dict.fromkeys([*earlier.request_changes, *changes]))
            if count := earlier.server.get("restarts", 0) + server.get("restarts", 0):
                restarts = {"restarts": count}
        return cls(
            scores=score_run(tasks, asked, predictions),
            coverage=Coverage(total=asked.total(), answered=answered, failed=len(predictions) - answered),
            timing={phase: round(seconds, 3) for phase, seconds in timing.items()},
            tokens=_tokens(predictions),
            server=dict(server) | restarts,
            request_changes=changes,
            timed_answers=min(timed, answered),
            sessions=1 if earlier is None else earlier.sessions + 1,
            health=health.to_json(),
            partial={name: text for name, text in scopes.items() if text} or None,
            repeat=repeat,
            replicas=replicas,
        )

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """Read the results of the run in ``directory``; None where it has none. Raises RunError if they are damaged."""
        path = directory / RESULTS
        if not os.path.lexists(path):
            return None
        remedy = "Remove the file; `bundle report` needs only the replies."
        try:
            return cls.model_validate(read_json(path))
        except RunError as error:
            raise RunError(error.message, remedy=remedy) from None
        except ValidationError as error:
            raise RunError(f"{path} is damaged: {first_fault(error, cls)}", remedy=remedy) from None

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
        replies = [one for one in predictions if one.error is None]
        self.require_replies(directory, len(replies))
        asked = Counter(one.part for one in replies)
        parts = {(task.name, *member) for task in tasks for member in task.members()}
        if unknown := asked.keys() - parts:
            raise RunError(
                f"{directory / PREDICTIONS}: {RECORD} has no subject {'/'.join(min(unknown))}.", remedy=DAMAGED
            )
        if len(replies) > self.coverage.answered:
            return
        for name, score in score_run(tasks, asked, replies).items():
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


def _tokens(predictions: Iterable[Prediction]) -> dict[str, int]:
    answered = [one for one in predictions if one.error is None]
    tokens = {
        "prompt": sum(one.prompt_tokens or 0 for one in answered),
        "completion": sum(one.completion_tokens or 0 for one in answered),
        "cut_replies": sum(one.decided_early for one in answered),
        "uncounted_replies": sum(one.completion_tokens is None for one in answered),
    }
    if chunks := sum(one.chunks or 0 for one in answered):
        tokens["chunks_of_cut_replies"] = chunks
    cached = [one.cached_tokens for one in answered if one.cached_tokens is not None]
    return tokens | ({"cached": sum(cached)} if cached else {})
