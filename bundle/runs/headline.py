"""The score a run is known by."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bundle.runs.recorded_task import RecordedTask, score_names
from bundle.runs.scoring import Score, mean


@dataclass(frozen=True, slots=True)
class Headline:
    """The mean over all subjects of a task's split that were asked.

    Attributes:
        task: The task's name.
        split: The split.
        name: The score's name, where all subjects of the task were asked; otherwise what it is a mean of.
        score: The score.
        whole: Whether all subjects of the task were asked.
    """

    task: str
    split: str
    name: str
    score: Score
    whole: bool


def headlines(tasks: Iterable[RecordedTask], scores: Mapping[str, Score]) -> list[Headline]:
    """One a task and split.

    Args:
        tasks: A run's tasks.
        scores: Its scores, by the names they have in ``results.json``.
    """
    tasks = tuple(tasks)
    found = []
    for task in tasks:
        names = score_names(tasks, task)
        for split, prefix in task.splits.items():
            parts = [names[task.score_name(split, subject.name)] for subject in task.subjects]
            asked = [scores[name] for name in parts if name in scores]
            if names.get(prefix) in scores:
                found.append(Headline(task.name, split, names[prefix], scores[names[prefix]], whole=True))
            elif asked:
                name = f"mean of {len(asked)} of {len(parts)} subjects"
                if len(tasks) > 1 or len(task.splits) > 1:
                    name = f"{prefix}, {name}"
                found.append(Headline(task.name, split, name, mean(asked), whole=False))
    return found
