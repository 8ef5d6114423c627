"""What can be wrong with the replies to a task, what is said of it, and what to do."""

from enum import StrEnum
from typing import Self


class Fault(StrEnum):
    """What can be wrong with the replies to a task. The first seven are disjoint.

    Attributes:
        says: What is wrong, with ``{name}`` for what it names.
        remedy: What to do about it.
    """

    says: str
    remedy: str

    def __new__(cls, value: str, says: str, remedy: str) -> Self:
        one = str.__new__(cls, value)
        one._value_, one.says, one.remedy = value, says, remedy
        return one

    UNENDED_THINKING = (
        "unended_thinking",
        "{count} of {of} replies contain only unfinished thinking",
        "Raise --max-out-len, turn thinking off, or use --answer-from-thinking.",
    )
    EMPTY = (
        "empty",
        "{count} of {of} replies are empty",
        "Check the server's log, its chat template, its stop words and the weights.",
    )
    REPEATED = (
        "repeated",
        "{count} of {of} replies are {answer} over and over",
        "Weights or results that are not finite (NaN) end so: check the weights, and try another dtype than float16.",
    )
    CUT = (
        "cut_at_length",
        "{count} of {of} replies ended at their length limit, {unparsed} of them without an option",
        "Raise --max-out-len.",
    )
    NOT_AN_OPTION = (
        "not_an_option",
        "{count} of {of} replies give an answer that is not an option, mostly {answer}",
        "Try another answer rule on the stored replies: bundle rescore RUN --rule first_option.",
    )
    NO_OPTION = (
        "no_option",
        "{count} of {of} replies contain no option",
        "Read some of them: does the prompt contain the question, and is the chat template the right one?",
    )
    IN_A_WORD = (
        "in_a_word",
        "{count} of {of} answers are a letter of a word, mostly {answer}",
        "Try another answer rule on the stored replies: bundle rescore RUN --rule first_option.",
    )
    WRITTEN_OTHERWISE = (
        "written_otherwise",
        "{count} of {of} answers are the right one written otherwise, such as {answer}",
        "They count as wrong: let the answer rule's pattern find what the file has, or write the file's answers so.",
    )
    UNKNOWN_MARK = (
        "unknown_mark",
        "{count} of {of} replies begin with {mark}, which may start thinking",
        "If so, answers were extracted from the thinking: declare the marks under [thinking] in a model file.",
    )
    UNKNOWN_END = (
        "unknown_end",
        "the answers of {count} of {of} replies may come from text before {mark}, which may end thinking",
        "If it does: declare it as 'close' under [thinking] in a model file, or use an answer rule that reads past it.",
    )
    ONE_LETTER = (
        "one_letter",
        "{count} of {of} answers are {answer}",
        "Check the chat template and the weights: a model that reads the questions gives different letters.",
    )
    ONE_GOLD = (
        "one_gold",
        "all {count} right answers are {answer}",
        "A model that prefers one option scores so without reading: put the right options in different places.",
    )
    BELOW_GUESSING = (
        "below_guessing",
        "{count} of {of} answers are correct, {percent} %; guessing gives {chance} %",
        "This is unlikely to be chance: check the answer rule, the prompt and the data.",
    )
    SEVERAL_MODELS = (
        "several_models",
        "{of} replies name {number} different models: {models}",
        "The score is that of none of them alone: ask for one by its full name, and keep the server from falling back.",
    )
    OTHER_MODEL = (
        "other_model",
        "{count} of {of} replies name the model {models}",
        "Check that this is the model you asked for.",
    )
    FEWER_EXAMPLES = (
        "fewer_examples",
        "{count} of {of} questions were sent with fewer examples, to fit the context ({dropped})",
        "The score is not that of the full prompt: raise the context length or --max-seq-len, or lower --max-out-len.",
    )
    CUT_PROMPTS = (
        "cut_prompts",
        "at least {count} of {of} prompts were cut by the server, which counts no more than {most} tokens in any",
        "Raise the server's context length (Ollama: num_ctx), or lower --max-seq-len, which drops examples instead.",
    )
