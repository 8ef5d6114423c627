"""Real tokenizers, trained on the spot, in directories laid out as checkpoints are."""

import io
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

from tests.checkpoints.checkpoints import write_json
from tests.patience import PATIENCE_S

MARKS = ("<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = (
    "以下是中国关于会计考试的单项选择题，请选出其中的正确答案。",
    "某企业的营业收入为1,000万元，则下列说法正确的是____。",
    "A. 甲 B. 乙 C. 丙 D. 丁 答案: A",
    "def tokens(text): return text  # two  spaces",
)
BPE_SIZE = 400
SENTENCEPIECE_SIZE = 420

# Does to every text what InternLM2.5's own tokenizer code does to it under transformers 5.
_LOSSY_TOKENIZER = """
from transformers import PreTrainedTokenizerFast

class Lossy(PreTrainedTokenizerFast):
    def encode(self, text, **options):
        return super().encode(text.translate({table}), **options)
"""


def added_token(content: str, **flags: bool) -> dict[str, object]:
    """An entry of ``added_tokens_decoder``."""
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {"content": content, **plain, **flags}


@cache
def _bpe_json() -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=BPE_SIZE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", *MARKS],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    return str(tokenizer.to_str())


@cache
def _sentencepiece_model(dummy_prefix: bool) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 3),
        model_writer=model,
        model_type="bpe",
        vocab_size=SENTENCEPIECE_SIZE,
        hard_vocab_limit=False,
        byte_fallback=True,
        add_dummy_prefix=dummy_prefix,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return model.getvalue()


def write_bpe(directory: Path, *, vocab_size: int = BPE_SIZE, **settings: object) -> Path:
    """A byte-level BPE ``tokenizer.json``, as Qwen's; ``settings`` go into ``tokenizer_config.json``."""
    directory.mkdir(parents=True)
    (directory / "tokenizer.json").write_text(_bpe_json(), encoding="utf-8")
    write_json(directory / "config.json", {"vocab_size": vocab_size, "transformers_version": "4.41.0"})
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": CHAT_TEMPLATE, **settings}
    write_json(directory / "tokenizer_config.json", config)
    return directory


def write_sentencepiece(directory: Path, *, dummy_prefix: bool) -> Path:
    """A sentencepiece ``tokenizer.model`` with chat marks after its pieces, as fine-tuned Llamas have."""
    import sentencepiece

    directory.mkdir(parents=True)
    model = _sentencepiece_model(dummy_prefix)
    (directory / "tokenizer.model").write_bytes(model)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()
    contents = {0: "<unk>", 1: "<s>", 2: "</s>", pieces: MARKS[0], pieces + 1: MARKS[1]}
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "added_tokens_decoder": {str(token): added_token(content) for token, content in contents.items()},
        "chat_template": "{{ bos_token }}" + CHAT_TEMPLATE,
    }
    write_json(directory / "tokenizer_config.json", settings)
    write_json(directory / "config.json", {"model_type": "llama", "vocab_size": pieces + 2})
    return directory


def write_lossy(directory: Path, lost: str) -> Path:
    """A tokenizer in Python code of the checkpoint's own, which loses characters without an error."""
    auto_map = {"AutoTokenizer": [None, "tokenization_lossy.Lossy"]}
    write_bpe(directory, tokenizer_class="Lossy", auto_map=auto_map)
    source = _LOSSY_TOKENIZER.format(table=dict.fromkeys(map(ord, lost)))
    (directory / "tokenization_lossy.py").write_text(source, encoding="utf-8")
    return directory


class Prober:
    """One process that probes any number of directories, so that transformers is imported once."""

    _LOOP = (
        "import json, os, sys\n"
        "from bundle.checkpoints.tokenizer_probe.probe import probe\n"
        "answers = os.fdopen(os.dup(1), 'w'); os.dup2(2, 1)\n"
        "for line in sys.stdin:\n"
        "    question = json.loads(line)\n"
        "    print(json.dumps(probe(question.pop('directory'), **question)), file=answers, flush=True)\n"
    )

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._LOOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Code of the same name and size, written in the same second, would be taken for what was compiled before.
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=PATIENCE_S)

    def probe(
        self,
        directory: Path,
        *,
        vocab_size: int | None = BPE_SIZE,
        trust_remote_code: bool = False,
        conversations: Sequence[Sequence[Mapping[str, str]]] = (),
        template_arguments: Mapping[str, Any] | None = None,
        template: str | None = None,
    ) -> dict[str, Any]:
        """What the probe reports of one directory."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        question = {
            "directory": str(directory),
            "vocab_size": vocab_size,
            "trust_remote_code": trust_remote_code,
            "conversations": conversations,
            "template_arguments": template_arguments,
            "template": template,
        }
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer
