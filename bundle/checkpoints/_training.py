"""What a trainer has left in place of a model, and the command that makes a model of it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Final

from bundle.checkpoints._files import listed, shown


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Files of a trainer that no engine loads.

    Attributes:
        what: What wrote them, with their names.
        remedy: How to make a model of them.
    """

    what: str
    remedy: str


# The special before the vague. {0} is the directory, {1} the first of the names that were recognised.
_KINDS: Final = (
    (
        r"global_step\d+|zero_to_fp32\.py|(?:bf16_)?zero_pp_rank_.*",
        "shards of DeepSpeed",
        "Gather them: `python {0}/zero_to_fp32.py {0} {0} --safe_serialization` (DeepSpeed's own script, which it "
        "writes there); then give {0}.",
    ),
    (
        r"pytorch_model_fsdp_\d+",
        "shards of FSDP",
        "Gather them: `accelerate merge-weights {0}/{1} {0}`; then give {0}.",
    ),
    (
        r"model_world_size_\d+_rank_\d+\.pt",
        "shards of verl",
        "Gather them: `python -m verl.model_merger merge --backend fsdp --local_dir {0} --target_dir {0}-hf`; then "
        "give {0}-hf.",
    ),
    (
        r".*\.distcp",
        "shards of torch.distributed.checkpoint",
        "Gather them: `python -m torch.distributed.checkpoint.format_utils dcp_to_torch {0} {0}/pytorch_model.bin`; it "
        "must hold the model's own tensor names, with its config.json and tokenizer beside it.",
    ),
    (
        r"(?:iter|epoch)_\d+\.pth",
        "a checkpoint of XTuner",
        "Convert it: `xtuner convert pth_to_hf CONFIG.py {0}/{1} {0}/hf`; then give {0}/hf.",
    ),
    (
        r"latest_checkpointed_iteration\.txt|iter_\d+|mp_rank_\d+(?:_\d+)*",
        "a checkpoint of Megatron-LM",
        "Convert it to the Hugging Face format with your trainer's tool (Megatron-LM: tools/checkpoint/convert.py; "
        "Megatron-Bridge: AutoBridge.export_ckpt), and give the directory it writes.",
    ),
    (
        r"trainer_state\.json|training_args\.bin|optimizer\..*|optimizer_\d+|optim_states.*|scheduler\.pt|"
        r"rng_state.*\.pth|random_states_\d+\.pkl",
        "the state of a training run, without its model",
        "Save the model there too (transformers: `trainer.save_model(DIR)`), or give a checkpoint that has "
        "model.safetensors.",
    ),
)


def training_state(directory: Path, names: Iterable[str]) -> TrainingState | None:
    """What a trainer has left in a directory without a model in it; None if nothing looks like that.

    Args:
        directory: The directory.
        names: What it holds.
    """
    for pattern, what, remedy in _KINDS:
        if found := [name for name in names if re.fullmatch(pattern, name)]:
            return TrainingState(
                f"{what} ({listed(found)})", remedy.format(quote(shown(directory)), quote(shown(found[0])))
            )
    return None
