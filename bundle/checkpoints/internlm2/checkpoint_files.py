"""Which files of a checkpoint directory hold its weights, its tokenizer and its settings."""

from pathlib import Path

from bundle.checkpoints.internlm2.tokenizer_config import read_json
from bundle.errors import CheckpointError

INDEX = "model.safetensors.index.json"
_SETTINGS = (
    "config.json",
    "generation_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


def setting_files(directory: Path) -> list[Path]:
    """The files beside the weights that the rewritten checkpoint depends on, as far as they are there."""
    return [directory / name for name in _SETTINGS if (directory / name).is_file()]


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint: those its index names, else ``model.safetensors``.

    Raises:
        CheckpointError: There are none, some of them are missing, or the weights are in another format.
    """
    index = directory / INDEX
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{index}: has no weight_map.", remedy="Download the file again.")
        names = sorted({str(name) for name in weight_map.values()})
        if strays := [name for name in names if Path(name).name != name]:
            raise CheckpointError(f"{index}: {strays[0]!r} is not a file beside it.", remedy="Download it again.")
        if missing := [name for name in names if not (directory / name).is_file()]:
            raise CheckpointError(
                f"{directory}: {len(missing)} of {len(names)} weight files are missing: {', '.join(missing[:5])}.",
                remedy="Download the checkpoint again; a download that went on would fetch only these.",
            )
        return [directory / name for name in names]
    if (directory / "model.safetensors").is_file():
        return [directory / "model.safetensors"]
    if any(directory.glob("*.bin")):
        raise CheckpointError(
            f"{directory}: its weights are PyTorch .bin files; only safetensors can be rewritten.",
            remedy="Download the safetensors version, or save the model again with safe_serialization=True.",
        )
    raise CheckpointError(
        f"{directory}: holds no weights (model.safetensors or {INDEX}).", remedy="Download the whole checkpoint."
    )
