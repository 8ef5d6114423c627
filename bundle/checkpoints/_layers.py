"""What can be checked in a model of unknown architecture: no layer is missing, or lacks what layers like it have.

They are the numbered list with the most parameters, as names have it: ``model.layers.7.…``, ``transformer.h.7.…``.
Layers of one model may be of several kinds (dense and sparse ones, attention and state spaces), which no list says for
all architectures. So a layer is held only against those of which it is a part: whose tensors it has, but not all.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from bundle.checkpoints._files import listed
from bundle.checkpoints._quantized import QuantizedLayout
from bundle.checkpoints._safetensors import StoredTensor
from bundle.checkpoints._settings import is_size, language_configs, vocab_size

_LAYERS: Final = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers")
_FURTHER: Final = ("num_nextn_predict_layers", "num_mtp_layers", "num_mtp_modules", "mtp_num_layers")
"""Layers that predict further tokens, which may be stored behind the others."""
_EXPERTS: Final = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts", "num_routed_experts")
_MOST: Final = 10_000  # of layers, or of experts in one
_NUMBERED: Final = re.compile(r"(.*?)\.(\d+)\.(.+)")
_EXPERT: Final = re.compile(r"(?:^|\.)experts\.(\d+)\.")

_Layer = dict[str, StoredTensor]


def examine_layers(
    config: Mapping[str, Any], stored: Mapping[str, StoredTensor], layout: QuantizedLayout
) -> tuple[list[str], str]:
    """What is wrong with layers, missing or without what their likes have; and what was compared, or may be wrong."""
    lists: dict[str, dict[int, _Layer]] = defaultdict(lambda: defaultdict(dict))
    rows = 0
    for name, tensor in stored.items():
        if match := _NUMBERED.fullmatch(name):
            lists[match[1]][int(match[2])][match[3]] = tensor
        elif len(tensor.shape) == 2:
            rows = max(rows, tensor.shape[0])
    counts = sorted(_numbers(config, _LAYERS))
    if not lists or not counts:
        return [], "how many layers it has is unknown"
    most = counts[-1] + max(_numbers(config, _FURTHER), default=0)
    name, count = _language_layers(lists, counts, most)
    layers = lists[name]
    if layers.keys() == set(range(len(layers))) and count > len(layers) > 1 and count % len(layers) == 0:
        # Some use each of their layers several times, and count every time.
        return [], f"its {len(layers)} layers may be all, or some of the {count} that config.json gives"
    if absent := [f"{name}.{number}" for number in range(count) if number not in layers]:
        return [f"missing layers ({len(absent)} of {count}): {listed(absent)}"], ""
    if len(layers) > most:
        return [f"they have {len(layers)} layers ({name}), config.json gives {count}"], ""
    layers = {number: layers[number] for number in range(count)}
    problems = list(_missing_experts(config, name, layers))
    tokens = vocab_size(config) or 0
    tables = [name for name, tensor in stored.items() if len(tensor.shape) == 2 and tensor.shape[0] >= tokens > 0]
    untied = [one["tie_word_embeddings"] for one in language_configs(config) if "tie_word_embeddings" in one]
    if layout.method is None and len(tables) == 1 and set(untied) == {False}:
        problems.append(f"tie_word_embeddings is false, and only {tables[0]} has {tokens} rows (vocab_size)")
    if rows * 2 < tokens and not any(tensor.dtype == "unknown" for tensor in stored.values()):
        problems.append(f"no embeddings of {tokens} tokens (vocab_size) among them")
    compared = f"only that its {count} layers are there"
    if layout.unknown is not None:
        return problems, compared
    lacking, doubts = _held_against_likes(name, layers, layout, list(_lists_of_layers(config, count)))
    return problems + lacking, "; ".join([f"{compared} and alike" if not doubts else compared, *doubts])


def _language_layers(lists: Mapping[str, Mapping[int, _Layer]], counts: list[int], most: int) -> tuple[str, int]:
    """The list of the language model's layers, beside which may be a larger one for images, and its right length."""
    sizes = {
        name: sum(math.prod(tensor.shape) for layer in layers.values() for tensor in layer.values())
        for name, layers in lists.items()
    }
    by_size = sorted((name for name in lists if len(lists[name]) <= most), key=lambda name: -sizes[name])
    for name in by_size:
        for count in reversed(counts):
            if set(range(count)) <= lists[name].keys():
                return name, count
    largest = max(lists, key=lambda name: sizes[name])
    return next((name for name in by_size if sizes[name] * 100 > sizes[largest]), largest), counts[0]


def _numbers(config: Mapping[str, Any], keys: tuple[str, ...]) -> set[int]:
    """The positive integers under some keys, as far as they can be."""
    values = (value for one in language_configs(config) for value in map(one.get, keys))
    return {value for value in values if is_size(value) and value <= _MOST}


def _missing_experts(config: Mapping[str, Any], name: str, layers: Mapping[int, _Layer]) -> Iterator[str]:
    expected = min(_numbers(config, _EXPERTS), default=0)
    absent: list[str] = []
    for number, layer in layers.items():
        found = {int(match[1]) for rest in layer if (match := _EXPERT.search(rest))}
        wanted = range(expected or min(max(found) + 1, _MOST)) if found else ()
        absent += [f"{name}.{number}, expert {one}" for one in wanted if one not in found]
    if absent:
        yield f"missing experts ({len(absent)}): {listed(absent)}"


def _lists_of_layers(config: Mapping[str, Any], count: int) -> Iterator[list[str]]:
    """What a config.json says of each layer: ``layer_types``, ``block_configs``, a pattern of letters and the like."""
    for value in (value for one in language_configs(config) for value in one.values()):
        if (isinstance(value, list) and len(value) >= count) or (isinstance(value, str) and len(value) == count):
            each = list(map(repr, value))
            if len(set(each)) <= count // 2:  # else every layer would be of a kind of its own
                yield each


def _held_against_likes(
    name: str, layers: Mapping[int, _Layer], layout: QuantizedLayout, given: list[list[str]]
) -> tuple[list[str], list[str]]:
    """What single layers lack that their likes have, and what may be a kind of its own.

    Layers of which config.json says different things (``given``, one list for each) are of different kinds.
    """
    kinds: dict[frozenset[str], list[int]] = defaultdict(list)
    for number, layer in layers.items():
        kinds[frozenset(_unquantized(layer, layout))].append(number)
    problems: list[str] = []
    doubts: list[str] = []
    for parts, numbers in kinds.items():
        likes = [
            other
            for other, others in kinds.items()
            if len(others) > len(numbers)
            and parts < other
            and not any({one[n] for n in numbers}.isdisjoint(one[n] for n in others) for one in given)
        ]
        if likes:
            like = max(likes, key=lambda one: len(kinds[one]))
            lacking = sorted(like - parts)
            where = f"{name}.{numbers[0]}" + f" and {len(numbers) - 1} more" * (len(numbers) > 1)
            told = f"{where} without what {len(kinds[like])} others have ({len(lacking)}): {listed(lacking)}"
            # The first layer of some has no norm or router of its own, and several that lack the same may be a kind.
            if len(numbers) == 1 and numbers != [0]:
                problems.append(told)
            else:
                doubts.append(f"{told}, which may be by design")
    return problems, doubts


def _unquantized(layer: _Layer, layout: QuantizedLayout) -> Iterator[str]:
    """The names of a layer's tensors as they are without quantization."""
    for name in layer:
        module, _, last = name.rpartition(".")
        if last == layout.packed:
            yield f"{module}.weight"
        elif last not in layout.beside and not name.endswith("rotary_emb.inv_freq"):
            yield name
