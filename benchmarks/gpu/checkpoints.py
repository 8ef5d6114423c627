"""The checkpoints that are served: one of the real shape that replies with a letter, and one that goes on after it."""

import json
from pathlib import Path

from bundle.checkpoints.internlm2 import make_checkpoint

_GENERATION_CONFIG, _TOKENIZER_CONFIG = "generation_config.json", "tokenizer_config.json"
_END_OF_TURN, _ANOTHER_MARK = "<|im_end|>", "<|action_end|>"


def made(work: Path) -> Path:
    """The made checkpoint in the shape of InternLM2.5 1.8B, made now (3.8 GB) or at an earlier time.

    Raises:
        CheckpointError: It cannot be written.
    """
    directory = work / "internlm2_5-1_8b"
    if not directory.is_dir():
        make_checkpoint(directory, like="internlm2_5-1_8b", say=lambda line: print(line, flush=True))
    return directory


def talkative(checkpoint: Path, directory: Path) -> Path:
    """Put a checkpoint into ``directory`` that is the same, but for which the end of a turn ends no reply.

    A made checkpoint then goes on with other letters, as a model does that explains what it chose. Its chat template
    ends turns with another mark, for requests would name the one that it ends them with. The weights are links.
    """
    directory.mkdir()
    for file in checkpoint.iterdir():
        if file.name not in (_GENERATION_CONFIG, _TOKENIZER_CONFIG):
            (directory / file.name).symlink_to(file.resolve())
    settings = json.loads((checkpoint / _GENERATION_CONFIG).read_text(encoding="utf-8"))
    settings["eos_token_id"] = settings["eos_token_id"][0]  # the end of a text, which it never writes
    (directory / _GENERATION_CONFIG).write_text(json.dumps(settings), encoding="utf-8")
    settings = json.loads((checkpoint / _TOKENIZER_CONFIG).read_text(encoding="utf-8"))
    settings["chat_template"] = settings["chat_template"].replace(_END_OF_TURN, _ANOTHER_MARK)
    (directory / _TOKENIZER_CONFIG).write_text(json.dumps(settings), encoding="utf-8")
    return directory
