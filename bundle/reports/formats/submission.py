"""``submission.json`` for the benchmark's official site, made again from a run's directory."""

from bundle.errors import RunError
from bundle.reports.formats.export import Export, to_json
from bundle.reports.formats.submission_files import submissions
from bundle.runs.recorded_run import RecordedRun

FILE = "submission.json"


def export_submission(run: RecordedRun) -> Export:
    """The answers to the questions of a secret split.

    Raises:
        RunError: The run has none.
    """
    # Of every subject the first rows are asked, so their numbers are known even where a question has left no trace.
    questions = [(*part, number) for part, n in run.questions.items() for number in range(n)]
    found = submissions(run.tasks, questions, run.predictions)
    if not found:
        raise RunError(
            f"{run.name} has no questions whose answers are secret.",
            remedy="A submission is made of C-Eval's test split: run --task ceval_gen_2daf24.",
        )
    files = {one.file: to_json(one.answers, indent=1) + "\n" for one in found}
    return Export(files, tuple(one.describe() for one in found))
