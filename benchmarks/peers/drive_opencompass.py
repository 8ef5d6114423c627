"""The same questions through OpenCompass: its own ceval_gen on local files, its OpenAI client, 128 requests at once.

It is given what is best for it here: one process that asks and one that scores, where its defaults start a process a
subject for scoring. It counts tokens, and would download a tokenizer for that; so it gets one that knows bytes.
"""

import os
import sys
from pathlib import Path

_CONFIG = """
from mmengine.config import read_base
from opencompass.models import OpenAISDK
from opencompass.partitioners import NaivePartitioner, NumWorkerPartitioner
from opencompass.runners import LocalRunner
from opencompass.tasks import OpenICLEvalTask, OpenICLInferTask

with read_base():
    from opencompass.configs.datasets.ceval.ceval_gen_5f30c7 import ceval_datasets

datasets = ceval_datasets
for one in datasets:
    one["path"] = {data!r}
models = [
    dict(
        type=OpenAISDK,
        abbr="simulated",
        path="simulated",
        key="none",
        openai_api_base={base_url!r},
        meta_template=dict(
            round=[dict(role="HUMAN", api_role="HUMAN"), dict(role="BOT", api_role="BOT", generate=True)]
        ),
        query_per_second=100000,
        max_out_len=2048,
        max_seq_len=4096,
        batch_size=128,
        temperature=0,
        tokenizer_path={tokenizer!r},
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
"""


def _write_tokenizer(directory: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE(vocab={character: number for number, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(str(directory))


def main(base_url: str, data: Path, scratch: Path) -> None:
    """Ask everything."""
    config = scratch / "bench.py"
    tokenizer = scratch / "tokenizer"
    _write_tokenizer(tokenizer)
    config.write_text(_CONFIG.format(base_url=base_url, data=str(data), tokenizer=str(tokenizer)), encoding="utf-8")
    os.chdir(scratch)
    program = Path(sys.executable).parent / "opencompass"
    os.execv(program, [str(program), str(config), "-w", str(scratch / "outputs")])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
