"""Make the specimens of OpenCompass's files anew: what version 0.3.3 itself writes for the sample questions.

Run it by the interpreter of an environment with OpenCompass, from the repository's root; it takes two minutes:

    .venv-peers/opencompass/bin/python -m tests.reports.opencompass_specimens
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.openai_api import Call, completion, remote_api
from tests.reports.agreed_replies import reply_to

SPECIMENS = Path(__file__).parent / "specimens"
STAMP = "20260102_030405"
"""The time that stands in the specimens."""

_SAMPLE = Path(__file__).parents[2] / "bundle" / "tasks" / "sample" / "ceval"
_CONFIG = """
from mmengine.config import read_base
from opencompass.models import OpenAISDK
from opencompass.partitioners import NaivePartitioner, NumWorkerPartitioner
from opencompass.runners import LocalRunner
from opencompass.tasks import OpenICLEvalTask, OpenICLInferTask

with read_base():
    from opencompass.configs.datasets.ceval.ceval_gen_5f30c7 import ceval_datasets
    from opencompass.configs.summarizers.groups.ceval import ceval_summary_groups

datasets = [one for one in ceval_datasets if one["name"] in {subjects!r}]
for one in datasets:
    one["path"] = {data!r}
models = [
    dict(
        type=OpenAISDK, abbr="simulated", path="simulated", key="none", openai_api_base={url!r},
        query_per_second=100000, max_out_len=2048, max_seq_len=4096, batch_size=128, temperature=0,
        tokenizer_path={tokenizer!r}, **{shape!r},
    )
]
infer = dict(
    partitioner=dict(type=NumWorkerPartitioner, num_worker=1),
    runner=dict(type=LocalRunner, max_num_workers=1, task=dict(type=OpenICLInferTask)),
)
eval = dict(
    partitioner=dict(type=NaivePartitioner, n=len(datasets)),
    runner=dict(type=LocalRunner, max_num_workers=1, task=dict(type=OpenICLEvalTask)),
)
summarizer = dict(summary_groups=ceval_summary_groups)
"""
_TURNS = {
    "meta_template": {
        "round": [{"role": "HUMAN", "api_role": "HUMAN"}, {"role": "BOT", "api_role": "BOT", "generate": True}]
    }
}
_TASKS = {
    "ceval_gen": "ceval.ceval_gen_5f30c7",
    "ceval_gen_2daf24": "ceval.ceval_gen_2daf24",
    "ceval_zero_shot_gen": "ceval.ceval_zero_shot_gen_bd40ef",
    "cmmlu_gen": "cmmlu.cmmlu_gen_c13365",
    "cmmlu_0shot_cot_gen": "cmmlu.cmmlu_0shot_cot_gen_305931",
    "demo_cmmlu_chat_gen": "demo.demo_cmmlu_chat_gen",
}


def _run(scratch: Path, subjects: list[str], shape: dict[str, Any]) -> Path:
    """Evaluate the sample questions, and return the working directory."""
    data = scratch / "data"
    if not data.exists():
        shutil.copytree(_SAMPLE, data)
        (data / "test").mkdir()
        for path in (data / "val").iterdir():  # its loader wants the file, and nothing is read of it
            shutil.copy(path, data / "test" / path.name.replace("_val", "_test"))
    benchmark: Any = importlib.import_module("benchmarks.peers.drive_opencompass")
    benchmark._write_tokenizer(scratch / "tokenizer")
    work = scratch / f"work-{len(subjects)}"
    work.mkdir()

    async def reply(call: Call) -> web.Response:
        return completion(reply_to(call.body["messages"][-1]["content"]))

    with remote_api(reply) as api:
        values = {"url": api.url, "data": str(data), "tokenizer": str(scratch / "tokenizer")}
        (work / "config.py").write_text(_CONFIG.format(subjects=subjects, shape=shape, **values), encoding="utf-8")
        program = Path(sys.executable).with_name("opencompass")
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "none"}
        subprocess.run([program, "config.py", "-w", "outputs"], cwd=work, env=environment, check=True)
    (outputs,) = (work / "outputs").iterdir()
    return outputs


def _versions(scratch: Path) -> dict[str, dict[str, str]]:
    """Task -> data set -> what stands in the column "version", of the first, the last and one between."""
    config: Any = importlib.import_module("mmengine.config").Config
    prompt: Any = importlib.import_module("opencompass.utils.prompt")
    versions = {}
    for task, module in _TASKS.items():
        name = "cmmlu_datasets" if "cmmlu" in task else "ceval_datasets"
        path = scratch / f"{task}.py"
        path.write_text(
            "from mmengine.config import read_base\nwith read_base():\n"
            f"    from opencompass.configs.datasets.{module} import {name}\ndatasets = {name}\n",
            encoding="utf-8",
        )
        # Written out and read again, as its command line does: only then are types the names that are hashed.
        config.fromfile(path, format_python_code=False).dump(path.with_suffix(".dumped.py"))
        datasets = config.fromfile(path.with_suffix(".dumped.py"), format_python_code=False)["datasets"]
        hashes = {one["abbr"]: prompt.get_prompt_hash(one)[:6] for one in datasets}
        names = list(hashes)
        versions[task] = {name: hashes[name] for name in (names[0], names[len(names) // 2], names[-1])}
    return versions


def _main() -> None:
    subjects = sorted(path.name.removesuffix("_val.csv") for path in (_SAMPLE / "val").iterdir())
    with tempfile.TemporaryDirectory() as scratch:
        turns, flat = _run(Path(scratch), subjects, _TURNS), _run(Path(scratch), ["law"], {})
        for suffix in ("txt", "csv"):
            (path,) = turns.glob(f"summary/*.{suffix}")
            text = path.read_text(encoding="utf-8").replace(turns.name, STAMP)
            (SPECIMENS / f"opencompass_summary.{suffix}").write_text(text, encoding="utf-8")
        law = "simulated/ceval-law.json"
        shutil.copy(turns / "predictions" / law, SPECIMENS / "opencompass_predictions_turns.json")
        shutil.copy(flat / "predictions" / law, SPECIMENS / "opencompass_predictions_flat.json")
        shutil.copy(turns / "results" / law, SPECIMENS / "opencompass_results.json")
        versions = json.dumps(_versions(Path(scratch)), indent=1)
        (SPECIMENS / "opencompass_versions.json").write_text(versions + "\n", encoding="utf-8")


if __name__ == "__main__":
    _main()
