"""How the outcome of every question changed from one run to another."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bundle.errors import RunError
from bundle.reports.comparison.rows import Pair, Row, task_rows
from bundle.runs.record import RunRecord
from bundle.runs.recorded_run import RecordedRun
from bundle.runs.same_settings import leaves, short
from bundle.runs.task_record import TaskRecord
from bundle.tasks.scores import Key, Part

_PROMPT = ("user", "assistant", "examples", "place_for_examples", "example_split", "shape")
_SAME: Sequence[tuple[str, tuple[str, ...]]] = (
    ("different benchmarks", ("benchmark",)),
    ("different splits", ("splits",)),
    ("different prompts", _PROMPT),
    ("different answer rules", ("answer",)),
)
_PARTS: Sequence[tuple[str, tuple[str, ...]]] = (
    ("different subjects", ("subjects",)),
    ("different numbers of questions per subject", ("limit", "first", "sample")),
)
"""What may differ where only the common questions are compared."""

_SHOWN = ("model", "engine", "sampling", "template")
# Of the template only the note matters: whether the server put special tokens before it, or built other prompts.
_NOT_SHOWN = frozenset({"model.path", "model.base_url", "model.weight_bytes", "template.checked", "template.equal"})


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting in which two comparable runs differ, such as the temperature."""

    name: str
    base: Any
    new: Any


def require_comparable(base: RunRecord, new: RunRecord | Sequence[TaskRecord], *, common: bool = False) -> bool:
    """Refuse to compare runs that did not ask the same; of a planned run there are only its tasks.

    The model, its server and how replies are sampled may differ: that is what is compared. So may a task's description.
    Raises RunError if they cannot be compared; the message says why. With ``common``, tasks, subjects and their
    numbers of questions may differ. Returns whether the runs have all their questions in common.
    """
    tasks, origins = (
        (new.tasks, f": {base.data.origin} and {new.data.origin}") if isinstance(new, RunRecord) else (new, "")
    )
    before, now = ({one.name: one.asked for one in of_run} for of_run in (base.tasks, tasks))
    shared = [name for name in before if name in now]
    reasons: list[str] = []
    parts: list[str] = []
    if before.keys() != now.keys():
        (parts if shared else reasons).append(f"different tasks: {', '.join(before)} and {', '.join(now)}")
    for name in shared:
        one, other = before[name], now[name]
        where = "" if len(shared) == 1 else f" in {name}"
        reasons += _differences(_SAME, one, other, where)
        parts += _differences(_PARTS, one, other, where)
        # Other subjects make for another fingerprint; their questions are then compared one by one.
        prints = one["data_fingerprint"], other["data_fingerprint"]
        if one["subjects"] == other["subjects"] and None not in prints and prints[0] != prints[1]:
            reasons.append(f"different questions{where}{origins}")
    if reasons or (parts and not common):
        first, *others = [*reasons, *parts]
        raise RunError(
            f"The runs cannot be compared: they used {first}.",
            details=[f"also {other}" for other in others],
            remedy="Start a run with the same task, data and prompt as the other."
            if reasons
            else "Use --common to compare only the questions they have in common.",
        )
    return not parts


def _differing_settings(base: RunRecord, new: RunRecord) -> tuple[Setting, ...]:
    """The settings of two comparable runs that differ and can matter: model, engine, sampling and template."""
    before, now = (
        dict(leaves({key: value for key, value in record.to_json().items() if key in _SHOWN})) for record in (base, new)
    )
    names = [name for name in (before | now) if name not in _NOT_SHOWN]
    return tuple(Setting(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name))


def _differences(
    kinds: Sequence[tuple[str, tuple[str, ...]]], one: Mapping[str, Any], other: Mapping[str, Any], where: str
) -> list[str]:
    found = []
    for what, keys in kinds:
        if key := next((key for key in keys if one[key] != other[key]), None):
            values = (short(run[key], "all" if run[key] is None else "", 100) for run in (one, other))
            found.append(f"{what}{where}: {key} {' and '.join(values)}")
    return found


@dataclass(frozen=True, slots=True)
class Flip:
    """A question that one run answered correctly and the other did not.

    Attributes:
        name: Its subject's score name.
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
        flips: Lost questions first; in the order of the tasks.
        only_base: Common questions that only the base answered.
        only_new: Common questions that only the new run answered.
        neither: Common questions that neither answered.
        not_common: Questions that only one of the runs has.
        other_messages: Questions compared although their messages differ, as with fewer examples.
        secret: Questions excluded because their gold answers are secret.
        unparsed: Replies to the questions compared whose answer is not an option, in the base and in the new run.
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

    Raises RunError if they cannot be compared, or no question was answered in both; the message says why. With
    ``common``, tasks, subjects and their numbers of questions may differ: the common questions are compared.
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
        if keys and not known:
            raise RunError(
                "The runs cannot be compared: the gold answers of their questions are secret.",
                remedy="Compare runs on a split with public answers, such as C-Eval's val.",
            )
        raise RunError(
            "The runs cannot be compared: they have no answered question in common.",
            remedy="Finish the run with `bundle resume`, then compare again.",
        )
    _require_same_questions(base, new, pairs)
    return Comparison(
        base=base,
        new=new,
        rows=tuple(
            row
            for task in tasks
            for row in task_rows(task, base.score_names(task), pairs, new.unparsed, several=len(tasks) > 1)
        ),
        flips=_flips(base.part_names, pairs),
        settings=_differing_settings(base.record, new.record),
        only_base=len(answered[0] - answered[1]),
        only_new=len(answered[1] - answered[0]),
        neither=len(known) - len(answered[0] | answered[1]),
        not_common=0 if same_asked else len(base.prompts.keys() ^ new.prompts.keys()),
        other_messages=sum(base.prompts[one.key].conversation != new.prompts[one.key].conversation for one, _ in pairs),
        secret=len(keys) - len(known),
        unparsed=(sum(one.key in base.unparsed for one, _ in pairs), sum(one.key in new.unparsed for one, _ in pairs)),
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
