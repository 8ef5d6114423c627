"""What a trainer has left in place of a model, and the command that makes a model of it."""

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Final

from bundle.checkpoints._files import list_names, listed, shown
from bundle.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Files of a trainer that no engine loads: what wrote them, with their names; and how to make a model of them."""

    what: str
    remedy: str


_MERGE_VERL: Final = (
    "Gather them: `python -m verl.model_merger merge --backend {} --local_dir {} --target_dir {}-hf`; then give {}-hf."
)
# The special before the vague. {0} is the directory, {1} the first of the names that were recognised.
_KINDS: Final = {
    r"pytorch_model_fsdp_\d+": (
        "shards of FSDP",
        "Gather them: `accelerate merge-weights {0}/{1} {0}`; then give {0}.",
    ),
    r"model_world_size_\d+_rank_\d+\.pt": ("shards of verl", _MERGE_VERL.format("fsdp", "{0}", "{0}", "{0}")),
    r"global_step_\d+": ("shards of verl", _MERGE_VERL.format("fsdp", "{0}/{1}/actor", "{0}/{1}", "{0}/{1}")),
    r"dist_ckpt": ("shards of verl with Megatron", _MERGE_VERL.format("megatron", "{0}", "{0}", "{0}")),
    r"model(?:_[tw]p\d+)+_pp\d+\.pt": (
        "a checkpoint of InternEvo",
        "Convert it with the script of InternEvo: `python transformers/convert2hf_internlm2.py --src {0} --tgt {0}-hf "
        "--tokenizer TOKENIZER.model`; then give {0}-hf.",
    ),
    r"iter_\d+|mp_rank_\d+(?:_\d+)*|common\.pt|.*\.nemo": (
        "a checkpoint of Megatron-LM or NeMo",
        "Convert it to the Hugging Face format with your trainer's tool (Megatron-LM: tools/checkpoint/convert.py; "
        "Megatron-Bridge: AutoBridge.export_ckpt), and give the directory it writes.",
    ),
    r".*\.distcp": (
        "shards of torch.distributed.checkpoint",
        "Gather them: `python -m torch.distributed.checkpoint.format_utils dcp_to_torch {0} {0}/pytorch_model.bin`; it "
        "must hold the model's own tensor names, with its config.json and tokenizer beside it.",
    ),
    r"(?:iter|epoch)_\d+\.pth": (
        "a checkpoint of XTuner",
        "Convert it: `xtuner convert pth_to_hf CONFIG.py {0}/{1} {0}/hf`; then give {0}/hf.",
    ),
}
_STATE: Final = (
    r"trainer_state\.json|training_args\.bin|optimizer\..*|optimizer_\d+|(?:.*_)?optim_states.*|scheduler\.pt|"
    r"rng_state.*\.pth|random_states_\d+\.pkl|global_step\d+|zero_to_fp32\.py"
)
# What may be beside any model.
_VAGUE: Final = {
    _STATE: (
        "the state of a training run, without its model",
        "Save the model there too (transformers: `trainer.save_model(DIR)`), or give a checkpoint that has "
        "model.safetensors.",
    ),
    r".*\.(?:ckpt|pth|pt)": (
        "a checkpoint in its trainer's own format",
        "Convert it to the Hugging Face format with that trainer's tool (LitGPT: `litgpt convert_from_litgpt`), and "
        "give the directory it writes.",
    ),
}


def is_training_state(name: str) -> bool:
    """Whether a file is named as what trainers keep beside a model."""
    return re.fullmatch(_STATE, name) is not None


def training_state(directory: Path, names: Iterable[str], *, vague: bool = True) -> TrainingState | None:
    """What a trainer has left in a directory of these names, without a model in it; None if nothing looks like that.

    ``vague`` is whether what may be beside any model counts.
    """
    names = tuple(names)
    if (shards := deepspeed_shards(directory, names)) is not None:
        return shards
    for pattern, (what, remedy) in (_KINDS | _VAGUE if vague else _KINDS).items():
        if found := [name for name in names if re.fullmatch(pattern, name)]:
            return TrainingState(
                f"{what} ({listed(found)})", remedy.format(quote(shown(directory)), quote(shown(found[0])))
            )
    return None


def shards_above(directory: Path) -> TrainingState | None:
    """A trainer's shards in the directory above, beside which verl keeps a directory with all but the weights."""
    with contextlib.suppress(CheckpointError):
        return training_state(directory.parent, list_names(directory.parent), vague=False)
    return None


def deepspeed_shards(directory: Path, names: Iterable[str]) -> TrainingState | None:
    """DeepSpeed's shards of a model, here or in the directory of a step; None if there are none of its weights."""
    names = tuple(names)
    # accelerate's save_state calls its only one pytorch_model.
    found = (re.fullmatch(r"global_step(\d+)|pytorch_model", name) for name in names)
    steps = [step[0] for step in sorted(filter(None, found), key=lambda step: int(step[1] or -1))]
    with contextlib.suppress(CheckpointError):
        if not any(name.endswith("_model_states.pt") for name in list_names(directory / (steps or ["."])[-1])):
            return None
        where, step = (directory, steps[-1]) if steps else (directory.parent, directory.name)
        here, script = quote(shown(where)), where / "zero_to_fp32.py"
        # DeepSpeed writes its script beside the shards.
        program = quote(shown(script)) if script.is_file() else "-m deepspeed.utils.zero_to_fp32"
        shards = [name for name in names if name in (*steps, script.name) or name.endswith("_states.pt")]
        return TrainingState(
            f"shards of DeepSpeed ({listed(shards)})",
            f"Gather them: `python {program} {here} {here} --tag {quote(shown(step))} --safe_serialization`; "
            f"then give {here}.",
        )
    return None
