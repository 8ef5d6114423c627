"""What can be wrong with the replies to a task, what is said of it, and what to do."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Fault(StrEnum):
    """What can be wrong with the replies to a task. The first seven are disjoint."""

    UNENDED_THINKING = "unended_thinking"
    EMPTY = "empty"
    REPEATED = "repeated"
    CUT = "cut_at_length"
    NOT_AN_OPTION = "not_an_option"
    NO_OPTION = "no_option"
    IN_A_WORD = "in_a_word"
    UNKNOWN_MARK = "unknown_mark"
    UNKNOWN_END = "unknown_end"
    ONE_LETTER = "one_letter"
    BELOW_GUESSING = "below_guessing"
    SEVERAL_MODELS = "several_models"
    OTHER_MODEL = "other_model"
    FEWER_EXAMPLES = "fewer_examples"
    CUT_PROMPTS = "cut_prompts"


MEANINGS: Final[Mapping[Fault, tuple[str, str]]] = {
    Fault.UNENDED_THINKING: (
        "{count} of {of} replies contain only unfinished thinking",
        "Raise --max-out-len, turn thinking off, or use --answer-from-thinking.",
    ),
    Fault.EMPTY: (
        "{count} of {of} replies are empty",
        "Check the server's log, its chat template, its stop words and the weights.",
    ),
    Fault.REPEATED: (
        "{count} of {of} replies are {text} over and over",
        "Weights or results that are not finite (NaN) end so: check the weights, and try another dtype than float16.",
    ),
    Fault.CUT: (
        "{count} of {of} replies ended at their length limit, {unparsed} of them without an option",
        "Raise --max-out-len.",
    ),
    Fault.NOT_AN_OPTION: (
        "{count} of {of} replies give an answer that is not an option, mostly {answer}",
        "Try another answer rule on the stored replies: bundle rescore RUN --rule first_option.",
    ),
    Fault.NO_OPTION: (
        "{count} of {of} replies contain no option",
        "Read some of them: does the prompt contain the question, and is the chat template the right one?",
    ),
    Fault.IN_A_WORD: (
        "{count} of {of} answers are a letter of a word, mostly {answer}",
        "Try another answer rule on the stored replies: bundle rescore RUN --rule first_option.",
    ),
    Fault.UNKNOWN_MARK: (
        "{count} of {of} replies begin with {mark}, which may start thinking",
        "If so, answers were extracted from the thinking: declare the marks under [thinking] in a model file.",
    ),
    Fault.UNKNOWN_END: (
        "the answers of {count} of {of} replies may come from text before {mark}, which may end thinking",
        "If it does: declare it as 'close' under [thinking] in a model file, or use an answer rule that reads past it.",
    ),
    Fault.ONE_LETTER: (
        "{count} of {of} answers are {answer}",
        "Check the chat template and the weights: a model that reads the questions gives different letters.",
    ),
    Fault.BELOW_GUESSING: (
        "{count} of {of} answers are correct, {percent} %; guessing gives {chance} %",
        "This is unlikely to be chance: check the answer rule, the prompt and the data.",
    ),
    Fault.SEVERAL_MODELS: (
        "{of} replies name {number} different models: {models}",
        "The score is that of none of them alone: ask for one by its full name, and keep the server from falling back.",
    ),
    Fault.OTHER_MODEL: (
        "{count} of {of} replies name the model {models}",
        "Check that this is the model you asked for.",
    ),
    Fault.FEWER_EXAMPLES: (
        "{count} of {of} questions were sent with fewer examples, to fit the context ({dropped})",
        "The score is not that of the full prompt: raise the context length or --max-seq-len, or lower --max-out-len.",
    ),
    Fault.CUT_PROMPTS: (
        "at least {count} of {of} prompts were cut by the server, which counts no more than {most} tokens in any",
        "Raise the server's context length (Ollama: num_ctx), or lower --max-seq-len, which drops examples instead.",
    ),
}
"""For each fault what it says, and what to do."""
