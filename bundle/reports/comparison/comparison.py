"""How the outcome of every question changed from one run to another."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bundle.errors import RunError
from bundle.reports.comparison.comparable import Setting, differing_settings, require_comparable
from bundle.reports.comparison.rows import Pair, Row, task_rows
from bundle.runs.health import unparsed
from bundle.runs.recorded_run import RecordedRun
from bundle.tasks.scores import Key, Part


@dataclass(frozen=True, slots=True)
class Flip:
    """A question that one run answered correctly and the other did not.

    Attributes:
        name: Its subject's score name.
        key: Identifies it within the run.
        gold: The gold answer.
        base: The base's answer; "" for a reply without one.
        new: Likewise.
        base_reply: The base's reply.
        new_reply: Likewise.
        lost: Whether it was correct in the base.
    """

    name: str
    key: Key
    gold: str
    base: str
    new: str
    base_reply: str
    new_reply: str
    lost: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run compared with a base.

    Attributes:
        base: The base.
        new: The other run.
        rows: For each task first the mean over all subjects, then the groups, then the subjects.
        flips: Lost questions first; in the order of the tasks.
        settings: Settings in which the runs differ.
        only_base: Common questions that only the base answered.
        only_new: Common questions that only the new run answered.
        neither: Common questions that neither answered.
        not_common: Questions that only one of the runs has.
        other_messages: Questions compared although their messages differ, as with fewer examples.
        secret: Questions excluded because their gold answers are secret.
        unparsed: Replies to the questions compared whose answer is no option, in the base and in the new run.
    """

    base: RecordedRun
    new: RecordedRun
    rows: tuple[Row, ...]
    flips: tuple[Flip, ...]
    settings: tuple[Setting, ...]
    only_base: int
    only_new: int
    neither: int
    not_common: int
    other_messages: int
    secret: int
    unparsed: tuple[int, int]

    @property
    def overall(self) -> list[Row]:
        """The mean over all subjects, of each task and split."""
        return [row for row in self.rows if row.kind == "overall"]


def compare(base: RecordedRun, new: RecordedRun, *, common: bool = False) -> Comparison:
    """Compare two runs on the questions that both have answered.

    Args:
        base: The base.
        new: The other run.
        common: Whether the common questions are enough, where tasks, subjects or their number of questions differ.

    Raises:
        RunError: They cannot be compared, or no question was answered in both; the message says why.
    """
    same_asked = require_comparable(base.record, new.record, common=common)
    before, now = ({one.key: one for one in run.predictions} for run in (base, new))
    keys = [key for key in base.prompts if key in new.prompts]
    tasks = [task for task in base.tasks if any(task.name == other.name for other in new.tasks)]
    secret = {(task.name, split) for task in tasks for split in task.secret_splits}
    known = [key for key in keys if (key.task, key.split) not in secret]
    answered = [{key for key in known if key in one and one[key].error is None} for one in (before, now)]
    pairs = [(before[key], now[key]) for key in known if key in answered[0] and key in answered[1]]
    if not pairs:
        raise _nothing_to_compare(secret=bool(keys) and not known)
    _require_same_questions(base, new, pairs)
    without = [{one.key for one in unparsed(run.options, run.predictions)} for run in (base, new)]
    return Comparison(
        base=base,
        new=new,
        rows=tuple(row for task in tasks for row in task_rows(task, base.score_names(task), pairs, without[1])),
        flips=_flips(base.part_names, pairs),
        settings=differing_settings(base.record, new.record),
        only_base=len(answered[0] - answered[1]),
        only_new=len(answered[1] - answered[0]),
        neither=len(known) - len(answered[0] | answered[1]),
        not_common=0 if same_asked else len(base.prompts.keys() ^ new.prompts.keys()),
        other_messages=sum(_messages_differ(base, new, one.key) for one, _ in pairs),
        secret=len(keys) - len(known),
        unparsed=(sum(one.key in without[0] for one, _ in pairs), sum(one.key in without[1] for one, _ in pairs)),
    )


def _nothing_to_compare(*, secret: bool) -> RunError:
    if secret:
        return RunError(
            "The runs cannot be compared: the gold answers of their questions are secret.",
            remedy="Compare runs on a split with public answers, such as C-Eval's val.",
        )
    return RunError(
        "The runs cannot be compared: they have no answered question in common.",
        remedy="Resume the unfinished run with --resume, then compare again.",
    )


def _require_same_questions(base: RecordedRun, new: RecordedRun, pairs: Sequence[Pair]) -> None:
    """Compare the questions themselves where subjects differ: then fingerprints cannot."""
    other_subjects = [task.subjects for task in base.record.tasks] != [task.subjects for task in new.record.tasks]
    for one, other in pairs:
        asked, asked_now = (run.prompts[one.key].conversation[-1:] for run in (base, new))
        if one.gold != other.gold or (other_subjects and asked != asked_now):
            raise RunError(
                f"The runs cannot be compared: they used different questions; question {one.id} of {one.subject} "
                "is not the same in both.",
                remedy="Start a run with the same data as the other.",
            )


def _messages_differ(base: RecordedRun, new: RecordedRun, key: Key) -> bool:
    one, other = base.prompts[key], new.prompts[key]
    if one.prefix == other.prefix and one.own == other.own:
        return False
    return one.conversation != other.conversation


def _flips(names: Mapping[Part, str], pairs: Iterable[Pair]) -> tuple[Flip, ...]:
    flips = [
        Flip(
            name=names[one.part],
            key=one.key,
            gold=one.gold,
            base=one.answer or "",
            new=other.answer or "",
            base_reply=one.reply or "",
            new_reply=other.reply or "",
            lost=one.correct is True,
        )
        for one, other in pairs
        if one.correct != other.correct
    ]
    return tuple(sorted(flips, key=lambda flip: not flip.lost))
