"""The rule ``likeliest``: no reply is searched; the model says how likely each option is in the answer's place."""

from dataclasses import dataclass
from typing import ClassVar

from bundle.tasks.answers.rule import AnswerRule, check_options


@dataclass(frozen=True, slots=True)
class Likeliest(AnswerRule):
    """The option with which the whole text has the lowest mean loss; of equal ones the first.

    OpenCompass's ``PPLInferencer`` (``opencompass/openicl/icl_inferencer/icl_ppl_inferencer.py``) with the loss of
    ``HuggingFaceBaseModel.get_ppl``. What is kept as the reply is that option.
    """

    name: ClassVar[str] = "likeliest"

    options: str = "ABCD"

    def __post_init__(self) -> None:
        check_options(self.options)

    def extract(self, reply: str) -> str:
        return reply if self.can_find(reply) else ""
