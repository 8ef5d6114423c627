"""Scoring stored replies again, under another answer rule; nothing is asked and nothing is written."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bundle.errors import AnswerError, UsageError
from bundle.runs.health import Health, examine
from bundle.runs.predictions import Prediction
from bundle.runs.recorded_run import RecordedRun
from bundle.runs.scoring import Score, Tally, score_run
from bundle.system.text import did_you_mean
from bundle.tasks.answers import RULES, AnswerRule, make_rule
from bundle.tasks.answers.likeliest import Likeliest
from bundle.tasks.answers.rule import settings_of

_SEARCHING = [name for name in RULES if name != Likeliest.name]
"""The rules that search a reply."""
_ONE_SETTING = {"pattern": "pattern", "labelled": "label"}


@dataclass(frozen=True, slots=True)
class Rescored:
    """What another rule makes of a run's replies.

    Attributes:
        recorded: What the same replies score on record: a part of the replies has another score than all of them,
            because how a model replies depends on the question.
        cut: Replies left out because they were stopped early: what would have followed is not known.
        unsearched: Replies left out because the rule did not come to an end in time.
    """

    scores: dict[str, Score]
    recorded: dict[str, Score]
    health: Health
    whole: int
    cut: int
    unsearched: int


def parse_rule(value: str, options: str) -> AnswerRule:
    """Read ``--rule``: a rule's name, ``pattern=REGEX`` or ``labelled=LABEL``.

    Raises UsageError if there is no such rule; ConfigError if it cannot be used with these settings.
    """
    name, equals, setting = value.partition("=")
    if name not in _SEARCHING:
        known = f"The rules are {', '.join(_SEARCHING)}."
        raise UsageError(f"--rule {name}: no such rule.", remedy=did_you_mean(name, _SEARCHING, known))
    settings = {_ONE_SETTING[name]: setting} if equals and name in _ONE_SETTING else {}
    if (equals != "") != (name in _ONE_SETTING):
        usage = f"--rule {name}={_ONE_SETTING[name].upper()}" if name in _ONE_SETTING else f"--rule {name}"
        raise UsageError(f"--rule {value} cannot be used as given.", remedy=f"Use {usage}.")
    if options and any(field.name == "options" for field in settings_of(RULES[name])):
        settings["options"] = options
    return make_rule(name, settings)


def rescore(run: RecordedRun, rule: str | None = None) -> Rescored:
    """Score the whole replies of a run again.

    Raises UsageError if there is no such rule; ConfigError if it cannot be used with these settings.
    """
    found: list[Prediction] = []
    cut = unsearched = 0
    for task in run.record.tasks:
        replies = [one for one in run.predictions if one.task == task.name and one.error is None]
        settings = {key: value for key, value in task.answer.items() if key != "rule"}
        chosen = make_rule(task.answer["rule"], settings) if rule is None else parse_rule(rule, run.options[task.name])
        whole = [one for one in replies if not one.decided_early]
        cut += len(replies) - len(whole)
        answers = list(_answers(chosen, whole))
        unsearched += len(whole) - len(answers)
        found += answers
    keys = {one.key for one in found}
    recorded = [one for one in run.predictions if one.key in keys]
    return Rescored(
        score_run(run.tasks, run.questions, Tally(found)),
        score_run(run.tasks, run.questions, Tally(recorded)),
        examine(run.options, found, run.sent),
        len(found),
        cut,
        unsearched,
    )


def _answers(rule: AnswerRule, replies: Iterable[Prediction]) -> Iterable[Prediction]:
    for one in replies:
        try:
            answer = rule.extract(one.reply or "")
        except AnswerError:
            continue
        yield replace(one, answer=answer, correct=answer == one.gold if one.gold else None)
