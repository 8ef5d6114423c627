"""What counts as the answer in a reply.

A rule reads the reply piece by piece and returns "not yet" or the answer. What it has returned never changes, so a
reply whose answer is known need not be read, or generated, any further. A rule that needs the whole reply waits for it.
White space around a reply belongs to no answer: rules see the reply without it, as OpenCompass's do.

A new rule is a module here and a line in `RULES`.
"""

from collections.abc import Mapping
from dataclasses import MISSING

from bundle.errors import ConfigError
from bundle.system.text import did_you_mean
from bundle.tasks.answers.all_options import AllOptions
from bundle.tasks.answers.first_capital import FirstCapital
from bundle.tasks.answers.first_option import FirstOption
from bundle.tasks.answers.labelled import Labelled
from bundle.tasks.answers.likeliest import Likeliest
from bundle.tasks.answers.pattern import Pattern
from bundle.tasks.answers.rule import AnswerReader, AnswerRule, settings_of

__all__ = [
    "RULES",
    "AllOptions",
    "AnswerReader",
    "AnswerRule",
    "FirstCapital",
    "FirstOption",
    "Labelled",
    "Likeliest",
    "Pattern",
    "for_several_answers",
    "make_rule",
]

RULES: Mapping[str, type[AnswerRule]] = {
    rule.name: rule for rule in (FirstCapital, FirstOption, Labelled, Pattern, AllOptions, Likeliest)
}
"""The rules by name."""


def make_rule(name: str, settings: Mapping[str, object]) -> AnswerRule:
    """The rule that a task file asks for. Raises ConfigError if there is none, or it cannot use the settings."""
    rule = RULES.get(name)
    if rule is None:
        known = f"The rules are {', '.join(RULES)}."
        raise ConfigError(f"key 'answer.rule': unknown rule {name!r}.", remedy=did_you_mean(name, RULES, known))
    fields = {field.name: field for field in settings_of(rule)}
    for key, value in settings.items():
        if key not in fields:
            others = f"It has {', '.join(map(repr, fields))}." if fields else "It has no settings."
            raise ConfigError(f"the rule {name} has no {key!r}.", remedy=did_you_mean(key, fields, others))
        if type(value) is not fields[key].type:
            kind = "true or false" if fields[key].type is bool else "a string"
            raise ConfigError(f"key 'answer.{key}': must be {kind}.", remedy="Fix the file.")
    for key, field in fields.items():
        if key not in settings and field.default is MISSING:
            raise ConfigError(f"the rule {name} needs the key {key!r}.", remedy="Add it under [answer].")
    return rule(**settings)


def for_several_answers(rule: AnswerRule, options: str) -> AllOptions:
    """The rule that looks where another does, for questions with several right answers.

    ``options``: what the answers may be, where the other rule does not say it.
    """
    match rule:
        case AllOptions():
            return rule
        case FirstOption():
            return AllOptions(rule.options)
        case Labelled():
            return AllOptions(rule.options, rule.expression)
        case Pattern():
            return AllOptions(options, rule.pattern)
        case _:
            return AllOptions(options)
