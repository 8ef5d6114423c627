"""Other families on real lmdeploy reply as transformers does in this process."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bundle.checkpoints.families import make_family_checkpoint
from bundle.runs.prompts import read_prompts
from tests.late import late
from tests.real_lmdeploy.box import FEW, NEWEST, OLDEST
from tests.real_lmdeploy.conftest import MakeBox

safetensors = late("safetensors.torch")
torch = late("torch")
transformers = late("transformers")

WINDOW = 256
NEAR_TIE = 0.02
"""Two logits that bfloat16, rounded in another order, may swap; the largest ones are 0.2 to 0.4."""


def without_habit(directory: Path, like: str, config: Mapping[str, Any]) -> Path:
    """A checkpoint of a family whose next token depends on all that it sees, and on where that stands."""
    make_family_checkpoint(directory, like)
    path = directory / "model.safetensors"
    weights = safetensors.load_file(path)
    weights["lm_head.weight"][:, :2] = 0  # which favoured letters
    safetensors.save_file(weights, path, metadata={"format": "pt"})
    settings = json.loads((directory / "config.json").read_text(encoding="utf-8")) | config
    kept = {name: value for name, value in settings.items() if value is not None}
    (directory / "config.json").write_text(json.dumps(kept), encoding="utf-8")
    return directory


@pytest.mark.parametrize(
    ("version", "like", "config"),
    [
        pytest.param(OLDEST, "mistral", {"sliding_window": WINDOW}, id="a window narrower than the prompts"),
        pytest.param(
            NEWEST,
            "qwen2.5",
            {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
            id="positions as transformers 5 writes them",
        ),
    ],
)
def test_its_first_token_is_that_of_transformers(
    make_box: MakeBox, tmp_path: Path, version: str, like: str, config: Mapping[str, Any]
) -> None:
    directory, box = without_habit(tmp_path / "model", like, config), make_box(version)
    ran = box.run(directory, *FEW, "--max-out-len", 1, "--", "--backend", "pytorch")
    assert ran.returncode == 0, ran.stderr

    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    (run,) = box.out.glob("*-ceval_gen-*")
    rows = box.by_question("reply", "prompt_tokens")
    assert len(rows) == 6
    for key, prompt in read_prompts(run).items():
        reply, tokens = rows[key.subject, key.id]
        ids = tokenizer.apply_chat_template(
            list(prompt.conversation), add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )["input_ids"]
        assert tokens == ids.shape[1]
        assert like != "mistral" or tokens < WINDOW
        with torch.no_grad():
            best = model(ids).logits[0, -1].float().topk(10)
        likely = [tokenizer.decode(one).strip() for one in best.indices[best.values > best.values[0] - NEAR_TIE]]
        assert reply.strip() in likely
