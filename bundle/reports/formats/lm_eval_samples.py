"""The rows of the LM Evaluation Harness's ``samples_TASK_DATE.jsonl``: one a question with a reply."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from bundle.reports.formats.lm_eval_tasks import METRIC, Scored, generation
from bundle.runs.recorded_run import RecordedRun


def samples_of(task: Scored, run: RecordedRun) -> list[dict[str, Any]]:
    """A subject's rows, with the keys of ``result_schema.SampleResult`` (lm-eval 0.4.13)."""
    assert run.prompts is not None
    arguments = generation(run.record, task.part[0])
    rows = []
    for one in run.predictions:
        if (one.task, one.split, one.subject) != task.part or one.error is not None:
            continue
        prompt = run.prompts[one.key]
        conversation = prompt.conversation
        question = conversation[-1]["content"] if conversation else ""
        doc = {"id": one.id, "split": one.split, "subject": one.subject, "question": question, "answer": one.gold}
        sent = json.dumps(conversation, ensure_ascii=False)
        rows.append(
            {
                "doc_id": one.id,
                "doc": doc,
                "target": one.gold,
                "arguments": {"gen_args_0": {"arg_0": [sent], "arg_1": arguments}},
                "resps": [[one.reply]],
                "filtered_resps": [one.answer],
                "filter": task.filter,
                "metrics": [METRIC],
                "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
                "prompt_hash": _hash(sent),
                "target_hash": _hash(one.gold),
                METRIC: float(one.correct is True),
            }
        )
    return rows


def task_hash(rows: Sequence[dict[str, Any]]) -> str:
    """What tells whether two results are of the same questions, asked in the same way."""
    return _hash("".join(row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in rows))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
