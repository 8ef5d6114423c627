"""Has a checkpoint the same score on every engine of this machine? One is trained here, whose replies are no near ties.

    python -m benchmarks.gpu.agreement WORK [--data DIRECTORY] [--tokenizer DIRECTORY]

A model with random weights chooses each letter among near ties, so two engines, and one engine twice, choose
differently. This trains a small InternLM2 model on the very prompts of the benchmark until it gives each question the
letter it is to give, the right one for about 60 % of them; says which letters it gives in plain PyTorch; and then has
``bundle eval-local`` evaluate it with every backend of lmdeploy that loads here, as it is and quantized.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.gpu.configurations import has_metrics, loads_turbomind
from benchmarks.gpu.quantized import quantized
from benchmarks.questions import write_questions
from bundle.checkpoints.internlm2 import make_checkpoint
from bundle.checkpoints.internlm2.sentencepiece import build_tokenizer, read_model
from bundle.checkpoints.internlm2.tokenizer_config import read_tokenizer_config
from bundle.config.model_files import ModelFile
from bundle.pipeline.options import EvaluationOptions
from bundle.pipeline.plan import plan_tasks
from bundle.runs.predictions import read_predictions
from bundle.serving.machine import Machine
from bundle.tasks.prompts import Message

_LETTERS: Final = "ABCD"
_END_OF_TURN: Final = "<|im_end|>"
_RIGHT: Final = 0.6
_RATE, _WARM_UP, _LAST_RATE = 5e-4, 60, 0.05  # of AdamW: at most, steps to it, and share of it at the end
_SMALL_LOSS: Final = 0.003
_CONFIG: Final = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("vocab_size", "rope_theta", "rms_norm_eps", "max_position_embeddings"),
)
_LAYER: Final = {
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}


@dataclass(frozen=True, slots=True)
class Item:
    """A question and the letter that the model is trained to give.

    Attributes:
        name: ``SUBJECT/ID``.
        alone: Tokens of its own turn …
        prompt: … and of the whole prompt.
        letter: From 0.
    """

    name: str
    alone: Sequence[int]
    prompt: Sequence[int]
    letter: int


@dataclass(frozen=True, slots=True)
class Given:
    """What the model gives for a question in plain PyTorch: a token, and by how much its logit is above the next."""

    token: str
    margin: float


def main() -> None:
    """Parse the command line, train, evaluate and print."""
    parser = argparse.ArgumentParser(description="Compare the engines' letters for a trained checkpoint.")
    parser.add_argument("work", type=Path, help="where checkpoints and runs are kept; must not exist")
    parser.add_argument("--data", type=Path, help="C-Eval in its own layout; by default random questions")
    parser.add_argument("--tokenizer", type=Path, help="InternLM2's tokenizer.model and tokenizer_config.json")
    passes = "times that the training goes through the questions: alone, then with their examples"
    parser.add_argument("--passes", type=int, nargs=2, default=(15, 12), help=passes)
    parser.add_argument("--subjects", help="only these")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=1024, help="a multiple of 256")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--engine", default="lmdeploy", help="transformers, to try this without a GPU")
    arguments = parser.parse_args()
    work = arguments.work
    work.mkdir(parents=True)
    if arguments.data is None:
        write_questions(work / "questions")
    data = str(arguments.data or work / "questions")
    options = [f"--data={data}", *([f"--subjects={arguments.subjects}"] if arguments.subjects else [])]

    checkpoint = work / "trained"
    _make(checkpoint, arguments.tokenizer, arguments.hidden, arguments.layers)
    items, texts = _items(checkpoint, data, arguments.subjects)
    model = _trained(items, texts, checkpoint, arguments.passes, arguments.device)
    given = {str(dtype): _given(model.to(dtype), items, texts) for dtype in (torch.bfloat16, torch.float32)}
    for dtype, by_name in given.items():
        margins = sorted(one.margin for one in by_name.values())
        print(f"{dtype}: margins at least {margins[0]:.1f}, median {margins[len(margins) // 2]:.1f}", flush=True)
    _write_weights(model.to(torch.bfloat16), checkpoint)
    if arguments.engine != "lmdeploy":
        _evaluate("trained", checkpoint, options, ["--engine", arguments.engine], given)
        return
    lmdeploy = Machine().installation("lmdeploy")
    backends = ["turbomind", "pytorch"] if loads_turbomind(lmdeploy) else ["pytorch"]
    awq, fp8 = (quantized(checkpoint, work / f"trained-{method}", method) for method in ("awq", "fp8"))
    for backend in backends:
        # lmdeploy's PyTorch engine cannot load FP8 of InternLM2.
        for one in (checkpoint, awq, fp8) if backend == "turbomind" else (checkpoint, awq):
            server = ["--", "--backend", backend, *([] if has_metrics(lmdeploy) else ["--disable-metrics"])]
            _evaluate(f"{one.name}, {backend}", one, options, ["--engine=lmdeploy", "--repeat=2", *server], given)


def _make(directory: Path, tokenizer: Path | None, hidden: int, layers: int) -> None:
    """A checkpoint but for its weights: a made one's files, of these sizes, and the tokenizer if there is another."""
    make_checkpoint(directory, like="tiny")
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    heads = hidden // 128
    config |= {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_hidden_layers": layers}
    config |= {"num_attention_heads": heads, "num_key_value_heads": heads // 2}
    if tokenizer is not None:
        shutil.copy(tokenizer / "tokenizer.model", directory)
        settings = json.loads((tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
        del settings["auto_map"]  # its code is not here, and what it does stands in tokenizer.json
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        (directory / "special_tokens_map.json").unlink()
        built = _tokenizer(directory)
        built.save(str(directory / "tokenizer.json"))
        config["vocab_size"] = built.get_vocab_size()
        ends = {"bos_token_id": 1, "eos_token_id": [2, built.token_to_id(_END_OF_TURN)], "pad_token_id": 2}
        (directory / "generation_config.json").write_text(json.dumps(ends), encoding="utf-8")
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _tokenizer(directory: Path) -> Any:
    return build_tokenizer(read_model(directory / "tokenizer.model"), read_tokenizer_config(directory))[0]


def _items(checkpoint: Path, data: str, subjects: str | None) -> tuple[list[Item], Any]:
    """The benchmark's questions as tokens, and the tokenizer."""
    tokenizer = _tokenizer(checkpoint)

    def tokens(messages: Sequence[Message]) -> list[int]:
        turns = "".join(f"<|im_start|>{one['role']}\n{one['content']}{_END_OF_TURN}\n" for one in messages)
        text = f"{turns}<|im_start|>assistant\n"
        return [1, *tokenizer.encode(text, add_special_tokens=False).ids]

    options = EvaluationOptions(data={"": data}, subjects=subjects.split(",") if subjects else None)
    plan = plan_tasks(options, ModelFile(description="trained"))
    items = []
    for question in plan.load(lambda line: None, lambda: None).questions:
        name = f"{question.subject}/{question.id}"
        drawn = hashlib.sha256(name.encode()).digest()
        gold = _LETTERS.index(question.gold)
        letter = gold if drawn[0] < 256 * _RIGHT else (gold + 1 + drawn[1] % 3) % 4
        items.append(Item(name, tokens(question.messages[-1:]), tokens(question.messages), letter))
    return items, tokenizer


def _batches(items: Sequence[Item], *, alone: bool, tokens: int) -> Iterator[list[tuple[Item, Sequence[int]]]]:
    """The items with what is shown of them, like lengths together, at most so many tokens at once."""
    batch: list[tuple[Item, Sequence[int]]] = []
    for item in sorted(items, key=lambda item: len(item.alone if alone else item.prompt)):
        shown = item.alone if alone else item.prompt
        if batch and (len(shown) + 1) * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append((item, shown))
    yield batch


def _logits(model: Any, batch: Sequence[tuple[Item, Sequence[int]]], letters: Sequence[int]) -> tuple[Any, Any]:
    """Of the token after each prompt, and of the one after the letter."""
    width = max(len(shown) for _, shown in batch) + 1
    rows = [[*shown, letters[item.letter]] for item, shown in batch]
    ids = torch.tensor([row + [2] * (width - len(row)) for row in rows], device=model.device)  # causal: no mask
    ends = torch.tensor([len(row) - 2 for row in rows], device=model.device)
    hidden = model.model(input_ids=ids).last_hidden_state
    each = torch.arange(len(rows), device=model.device)
    return model.lm_head(hidden[each, ends]), model.lm_head(hidden[each, ends + 1])


def _trained(items: Sequence[Item], tokenizer: Any, checkpoint: Path, passes: Sequence[int], device: str) -> Any:
    """Train: with the questions alone first, which is fast, then with their examples."""
    torch.manual_seed(0)
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    llama = LlamaConfig(**{name: config[name] for name in _CONFIG}, use_cache=False)
    model: Any = LlamaForCausalLM(llama).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, betas=(0.9, 0.95), weight_decay=0)
    letters = [tokenizer.token_to_id(letter) for letter in _LETTERS]
    step = 0
    for alone, count, tokens in ((True, passes[0], 8192), (False, passes[1], 16384)):
        batches = list(_batches(items, alone=alone, tokens=tokens))
        began, loss_sum, right = time.monotonic(), 0.0, 0
        for number in range(count):
            loss_sum, right = 0.0, 0
            for n in torch.randperm(len(batches)).tolist():
                step += 1
                rate = _RATE * min(1, step / _WARM_UP) * (1 if alone else max(_LAST_RATE, 1 - number / count))
                for group in optimizer.param_groups:
                    group["lr"] = rate
                wanted = torch.tensor([letters[item.letter] for item, _ in batches[n]], device=device)
                with torch.autocast(device, dtype=torch.bfloat16, enabled=device != "cpu"):
                    letter, end = _logits(model, batches[n], letters)
                ends = torch.full_like(wanted, tokenizer.token_to_id(_END_OF_TURN))
                cross_entropy = torch.nn.functional.cross_entropy
                loss = cross_entropy(letter.float(), wanted) + 0.3 * cross_entropy(end.float(), ends)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                loss_sum += loss.item()
                right += int((letter.argmax(-1) == wanted).sum())
            if loss_sum / len(batches) < _SMALL_LOSS:
                break
        what = "questions alone" if alone else "with examples"
        took = time.monotonic() - began
        print(f"{what}: {right} of {len(items)} as wanted in the last pass, after {took:.0f} s", flush=True)
    return model.eval()


def _given(model: Any, items: Sequence[Item], tokenizer: Any) -> dict[str, Given]:
    letters = [tokenizer.token_to_id(letter) for letter in _LETTERS]
    given = {}
    with torch.inference_mode():
        for batch in _batches(items, alone=False, tokens=32768):
            best = _logits(model, batch, letters)[0].float().topk(2)
            for (item, _), values, ids in zip(batch, best.values.tolist(), best.indices.tolist(), strict=True):
                given[item.name] = Given(tokenizer.decode(ids[:1]), values[0] - values[1])
    return given


def _write_weights(model: Any, directory: Path) -> None:
    """In InternLM2's layout: queries, keys and values of a layer are one matrix, by key/value heads."""
    tensors: dict[str, Any] = {}
    state = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    heads, hidden = model.config.num_key_value_heads, model.config.hidden_size
    for n in range(model.config.num_hidden_layers):
        layer = f"model.layers.{n}."
        parts = [
            state[f"{layer}self_attn.{kind}_proj.weight"].view(heads, -1, model.config.head_dim, hidden)
            for kind in "qkv"
        ]
        tensors[f"{layer}attention.wqkv.weight"] = torch.cat(parts, 1).reshape(-1, hidden)
        for theirs, ours in _LAYER.items():
            tensors[f"{layer}{ours}.weight"] = state[f"{layer}{theirs}.weight"]
    tensors["model.tok_embeddings.weight"] = state["model.embed_tokens.weight"]
    tensors["model.norm.weight"] = state["model.norm.weight"]
    tensors["output.weight"] = state["lm_head.weight"]
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors")


def _evaluate(
    name: str,
    checkpoint: Path,
    options: Sequence[str],
    engine: Sequence[str],
    given: Mapping[str, Mapping[str, Given]],
) -> None:
    """Run ``bundle eval-local`` and print how many letters are those of plain PyTorch."""
    out = checkpoint.with_name("runs") / name.replace(", ", "-")
    before, _, after = " ".join(engine).partition(" -- ")
    command = [sys.executable, "-m", "bundle", "eval-local", str(checkpoint), f"--out={out}", *options, *before.split()]
    code = subprocess.run([*command, *(["--", *after.split()] if after else [])], stdin=subprocess.DEVNULL).returncode
    found = list(out.glob("*/results.json"))
    if code != 0 or not found:
        print(f"{name}: exit code {code}", flush=True)
        return
    results = json.loads(found[0].read_text(encoding="utf-8"))
    answers = {f"{row.key.subject}/{row.key.id}": row.answer for row in read_predictions(found[0].parent)}
    for dtype, by_name in given.items():
        same = sum(answers.get(one) == letter.token for one, letter in by_name.items())
        print(f"{name}: {same} of {len(by_name)} letters as in plain PyTorch, {dtype}", flush=True)
    accuracy = results["scores"].get("ceval", {}).get("accuracy")
    print(f"{name}: score {accuracy}, repeated {results.get('repeat')}", flush=True)


if __name__ == "__main__":
    main()
