"""What counts as the answer in a reply.

A rule reads the reply piece by piece and says "not yet" or the answer. What it has said never changes, so a reply
whose answer is known need not be read, or generated, any further. A rule that needs the whole reply waits for its end.
White space around a reply belongs to no answer: rules see the reply without it, as OpenCompass's do.
"""

from bundle.tasks.answers.first_capital import FirstCapital
from bundle.tasks.answers.first_option import FirstOption
from bundle.tasks.answers.pattern import Pattern
from bundle.tasks.answers.rule import AnswerReader, AnswerRule

__all__ = ["AnswerReader", "AnswerRule", "FirstCapital", "FirstOption", "Pattern"]
