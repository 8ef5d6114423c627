"""Make ``opencompass_digests.json`` anew: what OpenCompass's own code sends for every task, shape and subject.

Run it where OpenCompass 0.3.3 is installed, with a folder that holds ``ceval/`` and ``cmmlu/`` in their own layouts:

    python tests/tasks/opencompass_digests.py ../shared/data > tests/tasks/opencompass_digests.json

The file holds a digest of all messages of a subject (see `digest`), not the questions, whose licence is not ours.
"""

import hashlib
import importlib
import json
import sys
from collections.abc import Sequence
from typing import Any

TASKS = {
    "ceval_gen": ("ceval", "ceval_gen_5f30c7"),
    "ceval_gen_2daf24": ("ceval", "ceval_gen_2daf24"),
    "ceval_zero_shot_gen": ("ceval", "ceval_zero_shot_gen_bd40ef"),
    "cmmlu_gen": ("cmmlu", "cmmlu_gen_c13365"),
    "cmmlu_0shot_cot_gen": ("cmmlu", "cmmlu_0shot_cot_gen_305931"),
    "demo_cmmlu_chat_gen": ("cmmlu", "cmmlu_gen_c13365"),
    "ceval_ppl": ("ceval", "ceval_ppl_578f8d"),
    "cmmlu_ppl": ("cmmlu", "cmmlu_ppl_8b9c76"),
}
"""Our name for a task -> OpenCompass's folder and config."""

SHORT = 900
"""With prompts of at most this many characters, some questions keep all their examples and some keep none."""


def digest(messages: Sequence[Sequence[Any]]) -> str:
    """SHA-256, in hex, of the messages of all questions of a subject, as JSON with sorted keys and without spaces."""
    text = json.dumps(messages, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _record(task: str, data: str, shape: str, max_seq_len: int | None) -> dict[str, str]:
    """Score name of every subject -> digest of what OpenCompass sends."""
    base_api: Any = importlib.import_module("opencompass.models.base_api")
    templates: Any = importlib.import_module("opencompass.openicl.icl_prompt_template")
    inferencers: Any = importlib.import_module("opencompass.openicl.icl_inferencer")

    class Model(base_api.BaseAPIModel):  # type: ignore[misc]
        def get_token_len(self, prompt: str) -> int:
            return len(prompt)

    roles = [{"role": "HUMAN", "api_role": "user"}, {"role": "BOT", "api_role": "assistant", "generate": True}]
    model = Model(path="none", meta_template={"round": roles} if shape == "turns" else None)
    if shape == "plain":
        base: Any = importlib.import_module("opencompass.models.base")
        model.template_parser = base.LMTemplateParser()
    inferencer = inferencers.GenInferencer(model, max_out_len=1)
    benchmark, name = TASKS[task]
    module: Any = importlib.import_module(f"opencompass.configs.datasets.{benchmark}.{name}")
    digests = {}
    for config in getattr(module, f"{benchmark}_datasets"):
        reader, how, abbr = dict(config["reader_cfg"]), dict(config["infer_cfg"]), config["abbr"]
        if task == "demo_cmmlu_chat_gen":
            reader["test_range"], abbr = "[0:4]", f"demo_{abbr}"
        dataset = config["type"](reader_cfg=reader, path=f"{data}/{benchmark}", name=config["name"])
        retriever = {**how["retriever"], "dataset": dataset}
        retriever = retriever.pop("type")(**retriever)
        templates_given = {
            key: templates.PromptTemplate(**{name: value for name, value in how[key].items() if name != "type"})
            for key in ("ice_template", "prompt_template")
            if key in how
        }
        if task.endswith("_ppl"):
            digests[abbr] = digest(_texts(model, retriever, templates_given["ice_template"]))
            continue
        prompts = inferencer.get_generation_prompt_list_from_retriever_indices(
            retriever.retrieve(), retriever, "", max_seq_len=max_seq_len, **templates_given
        )
        digests[abbr] = digest([_messages(model.parse_template(prompt, mode="gen"), shape) for prompt in prompts])
    return digests


def _texts(model: Any, retriever: Any, template: Any) -> list[list[dict[str, str]]]:
    """The texts of every question, one a label, whose losses ``PPLInferencer.inference`` compares."""
    questions = []
    for number, examples in enumerate(retriever.retrieve()):
        ice = retriever.generate_ice(examples, ice_template=template)
        prompts = [
            retriever.generate_label_prompt(number, ice, label, ice_template=template)
            for label in retriever.get_labels(ice_template=template)
        ]
        questions.append(
            [message for one in prompts for message in _messages(model.parse_template(one, mode="ppl"), "plain")]
        )
    return questions


def _messages(parsed: Any, shape: str) -> list[dict[str, str]]:
    """As ``opencompass/models/openai_api.py`` sends them; as models take the text without a chat template."""
    if isinstance(parsed, str):
        return [{"role": "text" if shape == "plain" else "user", "content": parsed}]
    return [{"role": item["role"], "content": item["prompt"]} for item in parsed]


def _main(data: str) -> None:
    digests: dict[str, dict[str, str]] = {}
    for task in TASKS:
        for shape in ("plain",) if task.endswith("_ppl") else ("turns", "flat", "plain"):
            digests[f"{task}, {shape}"] = _record(task, data, shape, None)
            if task in ("ceval_gen", "cmmlu_gen"):
                digests[f"{task}, {shape}, short"] = _record(task, data, shape, SHORT)
    json.dump(digests, sys.stdout, indent=0)


if __name__ == "__main__":
    _main(sys.argv[1])
