"""A checkpoint's weight files: found as the engines find them, and checked without loading them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from shlex import quote
from typing import Final

from bundle.checkpoints._files import download_hint, list_names, listed, read_json_object, require_content, shown
from bundle.checkpoints._safetensors import FLOATS, Place, StoredTensor, Weights, read_safetensors_header
from bundle.checkpoints._training import deepspeed_shards, is_training_state, shards_above, training_state
from bundle.errors import CheckpointError

_SAFETENSORS: Final = "model.safetensors"
_PYTORCH: Final = "pytorch_model.bin"
SAFETENSORS_INDEX: Final = f"{_SAFETENSORS}.index.json"
_NUMBERED_SHARD: Final = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.\w+)")
ADAPTER_WEIGHTS: Final = ("adapter_model.safetensors", "adapter_model.bin")
"""What peft loads, the former first."""
_OTHER_FORMATS: Final = ("*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.bin")


def inspect_weights(directory: Path) -> Weights:
    """Find and check the weights in a directory, by the names under which every engine looks for them.

    Raises CheckpointError if it has none, some are missing, one is damaged, or engines would load different ones.
    """
    names = list_names(directory)
    for whole in (_SAFETENSORS, _PYTORCH):
        if f"{whole}.index.json" in names:
            return _indexed(directory, names, whole)
        # TurboMind loads all of these.
        found = [name for name in names if fnmatchcase(name, whole.replace(".", "*."))]
        if found == [whole]:
            return read_weights(directory / whole)
        if whole in found:
            found.remove(whole)
            raise _two_models(directory, whole, listed(found))
        if found:
            raise _unindexed(directory, found, whole)
    if named := [
        name
        for name in names
        if name.endswith(".safetensors") and name not in ADAPTER_WEIGHTS and not is_training_state(name)
    ]:
        raise _unindexed(directory, named, _SAFETENSORS)
    if any(name in ADAPTER_WEIGHTS for name in names):
        raise only_an_adapter(directory, directory)
    for state, where in ((training_state(directory, names), "it"), (shards_above(directory), "the directory above")):
        if state is not None:
            raise CheckpointError(
                f"{shown(directory)} has a config.json but no weights: {where} holds {state.what}.",
                remedy=download_hint(directory) or state.remedy,
            )
    found = [name for name in names if any(fnmatchcase(name, pattern) for pattern in _OTHER_FORMATS)]
    remedy = "Download or copy the weight files as well."
    if found:
        remedy = "Give the checkpoint that these were made from, or convert them to safetensors."
    raise CheckpointError(
        f"{shown(directory)} has a config.json but no weights ({_SAFETENSORS} or {_PYTORCH}, or an index of several)"
        + (f"; it holds {listed(found)}, which the engines do not load." if found else "."),
        remedy=download_hint(directory) or remedy,
    )


def only_an_adapter(directory: Path, adapter: Path) -> CheckpointError:
    """The error for an adapter that was given as a model."""
    return CheckpointError(
        f"{shown(directory)} holds a LoRA adapter, not a whole model.",
        remedy=f"Give the model that it was trained on, and this one as --adapter {quote(shown(adapter))}.",
    )


def _indexed(directory: Path, names: tuple[str, ...], whole: str) -> Weights:
    """Check the shards that an index lists, and that each holds the tensors the index says."""
    index_name = f"{whole}.index.json"
    index = directory / index_name
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{shown(index)} has no weight_map, so it does not say which file holds which tensor.",
            remedy="Download it again.",
        )
    tensors: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or Path(shard).suffix != Path(whole).suffix:
            raise CheckpointError(
                f"{shown(index)} puts tensor {shown(tensor)} into {shown(shard)}, which is not the name of a file like "
                f"{whole} beside it.",
                remedy="Download it again.",
            )
        tensors.setdefault(shard, set()).add(tensor)
    # What a copy over another model leaves, or a copy that lacks the newer index.
    alike = re.compile(r"([-_]\d+-of-\d+)?\.".join(map(re.escape, whole.split("."))))
    unlisted = [name for name in names if alike.fullmatch(name) and name not in tensors]
    if missing := sorted(tensors.keys() - set(names)):
        remedy = "Download the missing files."
        if whole in names:
            remedy = f"If {whole} holds the whole model, delete {index_name}; else download the missing files."
        elif hint := download_hint(directory):
            remedy = hint
        elif unlisted:
            remedy += f" If {listed(unlisted)} are the model, copy their own index."
        raise CheckpointError(
            f"{shown(directory)} lacks {len(missing)} of the {len(tensors)} weight files that {index_name} lists: "
            f"{listed(missing)}.",
            remedy=remedy,
        )
    if unlisted:
        raise _two_models(directory, listed(unlisted), f"{index_name} with files of its own")
    return _checked([directory / shard for shard in sorted(tensors)], tensors, index_name)


def _two_models(directory: Path, one: str, other: str) -> CheckpointError:
    """Of an index and a single file, transformers and lmdeploy's PyTorch engine load the latter, others the former."""
    return CheckpointError(
        f"{shown(directory)} holds {one}, and {other}: it is unclear which of the two is the model.",
        remedy="Delete or move away the weights that are not the model's, with their index.",
    )


def _unindexed(directory: Path, found: list[str], whole: str) -> CheckpointError:
    """Files that only some engines find. The numbers in their names show whether one is missing."""
    for match in filter(None, map(_NUMBERED_SHARD.fullmatch, found)):
        stem, total, suffix = match[1], int(match[3]), match[4]
        present = sum(1 for name in found if re.fullmatch(rf"{re.escape(stem)}-\d{{5}}-of-{match[3]}\S*", name))
        if present < total:
            missing = (f"{stem}-{number:05}-of-{match[3]}{suffix}" for number in range(1, total + 1))
            absent = listed(name for name in missing if name not in found)
            return CheckpointError(
                f"{shown(directory)} lacks {total - present} of {total} weight files: {absent}.",
                remedy=download_hint(directory) or "Download the missing files, and the index that lists them.",
            )
    index = f"{whole}.index.json"
    rename = f"`mv {quote(shown(directory / found[0]))} {quote(shown(directory / whole))}`"
    return CheckpointError(
        f"{shown(directory)} holds {listed(found)}, but neither {whole} nor {index}, by which engines find a model.",
        remedy=f"If it holds the whole model, rename it: {rename}."
        if len(found) == 1
        else download_hint(directory) or f"Copy {index} from where these files come from, or save the model again.",
    )


def read_weights(file: Path) -> Weights:
    """The weights in one file. Raises CheckpointError if it is unreadable, damaged, or holds no tensors."""
    return _checked([file], {})


def _checked(files: list[Path], expected: Mapping[str, set[str]], index: str = "") -> Weights:
    """The weights in files of one kind, each with the tensors that the index lists for it."""
    require_content(files)
    read = map(read_safetensors_header, files) if files[0].suffix == ".safetensors" else _read_pytorch(files)
    size = 0
    tensors: dict[str, StoredTensor] = {}
    places: dict[str, Place] = {}
    for file, found in zip(files, read, strict=True):
        its = expected.get(file.name, set())
        if not found.tensors:
            raise CheckpointError(f"{shown(file)} holds no tensors.", remedy="Download or save it again.")
        if absent := sorted(its - found.tensors.keys()):
            raise CheckpointError(
                f"{shown(file)} lacks {len(absent)} of the {len(its)} tensors that {index} lists for it: "
                f"{listed(absent)}.",
                remedy="The index and the files are from different versions: download both again.",
            )
        if empty := [name for name, one in found.tensors.items() if 0 in one.shape and one.dtype in FLOATS]:
            shards = deepspeed_shards(file.parent, list_names(file.parent))
            raise CheckpointError(
                f"{shown(file)} holds no values of {listed(empty)}, as where DeepSpeed gathers no shards (ZeRO-3).",
                remedy=shards.remedy if shards else "Save it again, with stage3_gather_16bit_weights_on_model_save.",
            )
        if twice := sorted(tensors.keys() & found.tensors.keys()):
            raise CheckpointError(
                f"{shown(file)} holds {len(twice)} tensors that another weight file holds too: {listed(twice)}.",
                remedy="Keep only one set of weight files in the directory.",
            )
        size += found.size
        tensors |= found.tensors
        places |= found.places
    return Weights(tuple(files), size, tensors, places)


def _read_pytorch(files: Sequence[Path]) -> Iterator[Weights]:
    """Read what is not data, in a confined process: it is a program."""
    from bundle.checkpoints.confined import call_confined  # most checkpoints have no such file

    described = call_confined(
        "bundle.checkpoints._pytorch",
        "describe",
        list(map(str, files)),
        what=f"the weights in {shown(files[0].parent)}",
    )
    for path, tensors in zip(files, described, strict=True):
        stored = {name: StoredTensor(dtype, tuple(shape)) for name, (dtype, shape, _) in tensors.items()}
        places = {name: Place(path, *place) for name, (_, _, place) in tensors.items() if place}
        yield Weights((path,), path.stat().st_size, stored, places)
