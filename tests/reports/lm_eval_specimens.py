"""Make the specimens of the LM Evaluation Harness's files anew: what version 0.4.13 itself writes.

Run it by the interpreter of an environment with it, from the repository's root:

    .venv-peers/lm_eval/bin/python -m tests.reports.lm_eval_specimens
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.remote_api import completion, remote_api
from tests.reports.agreed_replies import reply_to

SPECIMENS = Path(__file__).parent / "specimens"

_TASK = """
task: specimen-{name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: [], max_gen_toks: 2048, temperature: 0.0, do_sample: false}}
filter_list:
  - name: first_capital
    filter: [{{function: regex, regex_pattern: "([A-Z])"}}, {{function: take_first}}]
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
_GROUP = """
group: specimen
task: [specimen-law, specimen-logic]
aggregate_metric_list:
  - {metric: exact_match, aggregation: mean, weight_by_size: false, filter_list: [first_capital]}
metadata: {version: 1.0}
"""


def _main() -> None:
    with (
        tempfile.TemporaryDirectory() as scratch,
        remote_api(lambda body: completion(reply_to(body["messages"][-1]["content"]))) as api,
    ):
        work = Path(scratch)
        (work / "tasks").mkdir()
        (work / "tasks" / "group.yaml").write_text(_GROUP, encoding="utf-8")
        for name, questions in (("law", ("法学一", "法学二二")), ("logic", ("逻辑一", "逻辑二二"))):
            rows = (json.dumps({"question": text, "answer": "B"}, ensure_ascii=False) for text in questions)
            (work / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
            (work / "tasks" / f"{name}.yaml").write_text(_TASK.format(name=name), encoding="utf-8")
        url = f"{api.url}/chat/completions"
        subprocess.run(
            [
                Path(sys.executable).with_name("lm_eval"),
                *("run", "--model", "local-chat-completions", "--tasks", "specimen", "--include_path", "tasks"),
                *("--model_args", f"model=org/simulated,base_url={url},tokenized_requests=False"),
                *("--apply_chat_template", "--log_samples", "--output_path", "out"),
            ],
            cwd=work,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "none", "HF_HOME": str(work / "hf")},
            check=True,
        )
        (results,) = work.glob("out/*/results_*.json")
        (samples,) = work.glob("out/*/samples_specimen-law_*.jsonl")
        for path, name in ((results, "lm_eval_results.json"), (samples, "lm_eval_samples.jsonl")):
            text = path.read_text(encoding="utf-8").replace(api.url, "http://127.0.0.1:23333/v1")
            (SPECIMENS / name).write_text(text.rstrip("\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    _main()
