"""Sound inputs for every one of `targets`, for others to damage."""

import io
import json
import tempfile
import zipfile
from pathlib import Path

from tests.checkpoints.checkpoints import CONFIG, describe, safetensors_bytes
from tests.reports.run_directories import write_run
from tests.tasks.source_files import ceval_files, ceval_rows

_ROOT = Path(__file__).parents[2]


def _zip(folder: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in ceval_files(ceval_rows()).items():
            archive.writestr(folder + name, data)
    return file.getvalue()


_HEADER, _SIZE = describe({"a": ("F32", [2, 2]), "b": ("BF16", [3])})
_CSV = ceval_files(ceval_rows())["val/law_val.csv"]
_TASK = (
    b'description = "x"\n[rows]\nfile = "rows.csv"\n[prompt]\nuser = "{question}"\n[answer]\nrule = "first_option"\n'
)
with tempfile.TemporaryDirectory() as _directory:
    _RUN = {
        path.name: path.read_bytes()
        for path in write_run(Path(_directory) / "run", {"law": "10", "logic": "1x"}).iterdir()
    }
SEEDS: dict[str, list[bytes]] = {
    "model_file": [path.read_bytes() for path in sorted((_ROOT / "models").glob("*.toml"))],
    "task_file": [_TASK, *(path.read_bytes() for path in sorted((_ROOT / "configs").glob("*.toml")))],
    "ceval_csv": [_CSV],
    "cmmlu_csv": [b",Question,A,B,C,D,Answer\n0,q,1,2,3,4,A\n"],
    "own_csv": [b"question,answer,subject\nq,A,law\n"],
    "own_jsonl": [b'{"question": "q", "answer": "A", "subject": "law"}\n'],
    "archive": [_zip(""), _zip("数据/")],
    "safetensors": [safetensors_bytes(_HEADER, bytes(_SIZE))],
    "sentencepiece": [b"\x0a\x0c\x0a\x03abc\x15\x00\x00\x80?\x18\x01"],
    "base_url": [b"https://[::1]:8000/v1/chat/completions", "http://例子.中国:80/v4".encode()],
    "reply": [
        b'{"choices": [{"message": {"content": "<think>a</think>A"}, "finish_reason": "stop"}]}',
        b'{"choices": null, "base_resp": {"status_code": 1004, "status_msg": "login fail"}}',
        b'{"success": false, "code": 1302, "msg": "slow down", "data": null, "error": {"code": 0}}',
    ],
    "stream": [
        b'data: {"choices": [], "status": "error", "detail": "token expired"}\n\n',
        b"\xef\xbb\xbf: hi\n\nevent: ping\ndata: 1\r\n\r\n"
        b'data: {"choices": [{"index": 0, "delta": {"content": "A"}}]}\n\n'
        b'data: {"choices": [{"delta": {"content": [{"type": "text", "text": "B"}]}, "finish_reason": "stop"}]}\n\n'
        b'data: {"choices": [], "usage": {"prompt_tokens": 3}}\n\ndata: [DONE]\n\n',
    ],
    "server_log": [b"\x1b[31mRuntimeError: CUDA out of memory\x1b[0m\r\nModuleNotFoundError: No module named 'x'\n"],
    "config_json": [json.dumps({**CONFIG, "auto_map": {"AutoModel": "m.X"}, "text_config": {}}).encode()],
    "tokenizer_config_json": [b'{"auto_map": {"AutoTokenizer": ["m.X", null]}, "bos_token": {"content": "<s>"}}'],
    "generation_config_json": [b'{"eos_token_id": [1, 2]}'],
    "run_json": [_RUN["run.json"]],
    "prompts_jsonl": [_RUN["prompts.jsonl"]],
    "predictions_jsonl": [_RUN["predictions.jsonl"]],
    "results_json": [_RUN["results.json"]],
    "index_json": [b'{"weight_map": {"embed": "model.safetensors", "norm": "model.safetensors"}}'],
}
