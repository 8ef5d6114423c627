"""From rows to messages, character by character as OpenCompass 0.3.3 does it."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict


class Message(TypedDict):
    """One message of a chat completion request."""

    role: Literal["user", "assistant"]
    content: str


def fill(template: str, row: Mapping[str, str]) -> str:
    """Put a row's cells in the place of ``{column}``.

    The columns are replaced one after the other, in text that an earlier one brought in too: a question that holds
    ``{A}``, as LaTeX often does, has its option A put there. This is what OpenCompass does
    (``opencompass/utils/prompt.py``, ``safe_format``), and scores would differ from its otherwise.
    """
    for column, cell in row.items():
        if "{" not in template:
            break
        template = template.replace(f"{{{column}}}", cell)
    return template


def chat_turns(
    user: str, assistant: str, examples: Sequence[Mapping[str, str]], question: Mapping[str, str]
) -> list[Message]:
    """The examples as turns of a conversation whose last turn asks the question.

    Args:
        user: Template of what the user says; ``{column}`` stands for a cell of the row.
        assistant: Template of what the assistant replies in an example.
        examples: Rows shown with their answers.
        question: The row asked, with its answer left out.

    The question's cells are put into the examples as well, where a ``{column}`` is still left in these: OpenCompass
    fills the examples first and then the whole conversation (``PromptTemplate.generate_item``).
    """
    messages: list[Message] = []
    for row in examples:
        messages.append({"role": "user", "content": fill(fill(user, row), question)})
        messages.append({"role": "assistant", "content": fill(fill(assistant, row), question)})
    messages.append({"role": "user", "content": fill(user, question)})
    return messages
