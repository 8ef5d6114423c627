"""Asking the same again: how many replies and answers of a model change although nothing was changed."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Final

from bundle.evaluation._asking import Asking, AskingOptions, FirstRefusals, Workers
from bundle.evaluation._leases import Pool
from bundle.runs.predictions import Prediction
from bundle.runs.results import Repeat
from bundle.tasks.catalog import Question
from bundle.tasks.scores import Part

if TYPE_CHECKING:  # imported late: slow, and a local server should start first
    from bundle.client import Client

_SAMPLE: Final = 100


def spread_over_subjects(questions: Iterable[Question]) -> list[Question]:
    """A sample of the questions: the first of every subject, then the second, and so on, in the order of the run."""
    subjects: dict[Part, list[Question]] = {}
    asked = list(questions)
    for question in asked:
        subjects.setdefault(question.key.part, []).append(question)
    in_turn = [one for one in chain.from_iterable(zip_longest(*subjects.values())) if one is not None]
    chosen = {question.key for question in in_turn[:_SAMPLE]}
    return [question for question in asked if question.key in chosen]


async def ask_again(
    client: "Client", how: Mapping[str, Asking], options: AskingOptions, questions: Sequence[Question]
) -> Sequence[Prediction]:
    """Ask questions whose outcomes are written nowhere.

    Raises RefusedError if the server refuses every question, FailingServerError if too many in a row failed.
    """
    pool = Pool(1)
    pool.add(questions, prefix_order=options.prefix_order)
    outcomes: list[Prediction] = []
    await Workers(
        pool,
        0,
        client,
        how,
        window=options.window(),
        first=FirstRefusals(count_transient=True),
        record=outcomes.append,
    ).ask_all()
    return outcomes


def compare(first: Sequence[Prediction], passes: Sequence[Sequence[Prediction]]) -> Repeat:
    """Compare replies with the first ones, to the same questions; passes may be in any order."""
    before = {one.key: one for one in first}
    again = [(before[one.key], one) for one in chain.from_iterable(passes)]
    answered = [(one, other) for one, other in again if other.error is None]
    return Repeat(
        questions=len(before),
        times=1 + len(passes),
        answers_changed=len({one.key for one, other in answered if one.answer != other.answer}),
        replies_changed=len({one.key for one, other in answered if not _same(one, other)}),
        failed=len(again) - len(answered),
    )


def _same(one: Prediction, other: Prediction) -> bool:
    """Whether two replies are the same as far as both were read: where one is stopped early depends on its pieces."""
    mine, theirs = one.reply or "", other.reply or ""
    if one.decided_early or other.decided_early:
        length = min(len(mine), len(theirs))
        return mine[:length] == theirs[:length]
    return mine == theirs
