"""How sure each score of a run is."""

from bundle.runs.headline import headlines
from bundle.runs.recorded_run import RecordedRun
from bundle.runs.scoring import Score
from bundle.runs.statistics import Counts, Interval, accuracy_interval


def intervals(run: RecordedRun) -> dict[str, Interval]:
    """The 95 % interval of every score that has an accuracy, in percent, by its name; those of `headlines`, too."""
    found: dict[str, Interval] = {}
    for task in run.tasks:
        names = run.score_names(task)
        of_task = {
            (split, subject.name): names[task.score_name(split, subject.name)]
            for split in task.splits
            for subject in task.subjects
        }
        asked = {member: run.scores[name] for member, name in of_task.items() if name in run.scores}
        for member, score in asked.items():
            if score.accuracy is not None:
                found[of_task[member]] = accuracy_interval([_counts(score)]) * 100
        for group, members in task.groups.items():
            if names[group] in run.scores and run.scores[names[group]].accuracy is not None:
                found[names[group]] = accuracy_interval([_counts(asked[member]) for member in members]) * 100
        for headline in headlines(run.tasks, run.scores):
            parts = [score for (split, _), score in asked.items() if split == headline.split]
            if headline.task == task.name and headline.score.accuracy is not None:
                found.setdefault(headline.name, accuracy_interval([_counts(score) for score in parts]) * 100)
    return found


def _counts(score: Score) -> Counts:
    return Counts(round((score.accuracy or 0) * score.answered / 100), score.answered)
