"""The same questions through the LM Evaluation Harness: a generation task on a local file, 128 requests at once.

Its chat model cannot do the C-Eval it ships, which compares likelihoods; so the task is one of its own format that
sends the finished prompt as one message.
"""

import json
import sys
from pathlib import Path

from lm_eval.__main__ import cli_evaluate  # type: ignore[import-not-found]

_TASK = """
task: bench_ceval
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: [], max_gen_toks: 2048, temperature: 0, do_sample: false}}
filter_list:
  - name: letter
    filter:
      - {{function: regex, regex_pattern: "([ABCD])"}}
      - {{function: take_first}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""


def main(base_url: str, data: Path, scratch: Path) -> None:
    """Ask everything."""
    questions = scratch / "questions.jsonl"
    with (data / "prompts.jsonl").open(encoding="utf-8") as source, questions.open("w", encoding="utf-8") as file:
        for line in source:
            one = json.loads(line)
            prompt = "\n".join(message["content"] for message in one["messages"])
            file.write(json.dumps({"prompt": prompt, "answer": one["answer"]}, ensure_ascii=False) + "\n")
    (scratch / "bench_ceval.yaml").write_text(_TASK.format(file=questions), encoding="utf-8")
    url = f"{base_url}/chat/completions"
    sys.argv = [
        "lm_eval",
        *("run", "--model", "local-chat-completions", "--tasks", "bench_ceval", "--include_path", str(scratch)),
        *("--model_args", f"model=simulated,base_url={url},num_concurrent=128,max_retries=3,tokenized_requests=False"),
        *("--apply_chat_template", "--output_path", str(scratch / "out")),
    ]
    cli_evaluate()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
