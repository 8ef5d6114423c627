"""Weights of the right names and shapes whose values no model can have are found before a server loads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.checkpoints import inspect_checkpoint
from bundle.checkpoints._safetensors import Weights
from bundle.checkpoints._values import is_finite, is_zero, read_values, require_values
from bundle.checkpoints._weights import inspect_weights
from bundle.errors import CheckpointError
from tests.checkpoints.checkpoints import CONFIG, write_checkpoint, write_json, write_pytorch
from tests.late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")
safetensors = late("safetensors.torch")

DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


@given(
    dtype=st.sampled_from(sorted(DTYPES)),
    values=st.lists(st.floats(1e-3, 1e30) | st.floats(-1e30, -1e-3) | st.sampled_from([0.0, -0.0]), min_size=1),
    strange=st.none() | st.sampled_from([float("nan"), float("inf"), float("-inf")]),
    place=st.integers(0),
)
def test_values_are_judged_by_their_bytes_as_torch_judges_them(
    dtype: str, values: list[float], strange: float | None, place: int
) -> None:
    if strange is not None:
        values[place % len(values)] = strange
    tensor = torch.tensor(values, dtype=torch.float64).to(getattr(torch, DTYPES[dtype]))
    data = bytes(tensor.view(torch.uint8).tolist())

    assert is_finite(dtype, data) == bool(tensor.isfinite().all())
    assert is_zero(data) == bool((tensor == 0).all())


def save(directory: Path, **tensors: torch.Tensor) -> Weights:
    file = directory / "model.safetensors"
    safetensors.save_file({name.replace("__", "."): one for name, one in tensors.items()}, file)
    return inspect_weights(directory)


NAN = float("nan")


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        (lambda wide: {"head__weight": wide * NAN}, "not finite (NaN or infinite), in head.weight"),
        (
            lambda wide: {"head__weight": wide, "norm__weight": torch.ones(8) * NAN},
            "not finite (NaN or infinite), in norm.weight",
        ),
        (lambda wide: {"head__weight": wide.to(torch.bfloat16) / 0}, "not finite (NaN or infinite), in head.weight"),
        (
            lambda wide: {"head__weight": wide * 0, "norm__weight": torch.ones(8)},
            "are zeros, or another number throughout",
        ),
        (
            lambda wide: {"head__weight": wide * 0 + 0.01, "up__weight": wide * 0 + 1},
            "throughout (2 tensors looked at)",
        ),
        # A norm may be an offset from one, biases start at zero, and buffers hold what they like.
        (lambda wide: {"head__weight": wide, "norm__weight": torch.zeros(8)}, None),
        (lambda wide: {"head__weight": wide, "head__bias": torch.zeros(8), "mask": wide * float("-inf")}, None),
        (lambda wide: {"head__weight": (wide * 0).to(torch.int8), "head__scales": wide}, None),
        (lambda wide: {"norm__weight": torch.zeros(8)}, None),
        # What quantized weights are multiplied by; of activations, what was not calibrated has no scale.
        (lambda wide: {"head__scales": wide.half() * 1e9}, "not finite (NaN or infinite), in head.scales"),
        (lambda wide: {"head__weight_scale_inv": wide * NAN}, "not finite (NaN or infinite), in head.weight_scale_inv"),
        (lambda wide: {"head__weight": wide, "up__scales": wide * 0}, "The scales in"),
        (lambda wide: {"head__weight": wide, "head__input_scale": torch.ones(1) * NAN}, None),
    ],
)
def test_what_no_model_can_reply_with_is_refused(
    tmp_path: Path, tensors: Callable[[torch.Tensor], dict[str, torch.Tensor]], told: str | None
) -> None:
    weights = save(tmp_path, **tensors(torch.rand(64, 64) + 1))
    if told is None:
        assert require_values(weights) is None
        return
    with pytest.raises(CheckpointError) as caught:
        require_values(weights)
    assert told in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before torch 1.6"])
def test_values_in_pytorch_files_are_looked_at_where_they_are(tmp_path: Path, *, legacy: bool) -> None:
    both = torch.arange(64.0).reshape(2, 4, 8)
    made = {"one.weight": both[0], "two.weight": both[1], "strewn.weight": both[0].T, "norm.weight": torch.ones(8)}
    write_pytorch(tmp_path / "pytorch_model.bin", made, legacy=legacy)
    weights = inspect_weights(tmp_path)

    require_values(weights)
    assert weights.places.keys() == made.keys() - {"strewn.weight"}
    for name in weights.places:
        assert read_values(weights, name) == bytes(made[name].contiguous().view(torch.uint8).flatten().tolist())
    both[1] = NAN
    write_pytorch(tmp_path / "pytorch_model.bin", made, legacy=legacy)
    with pytest.raises(CheckpointError, match=r"not finite .* in two\.weight"):
        require_values(inspect_weights(tmp_path))


@pytest.mark.parametrize(
    ("desc_act", "groups", "is_right"),
    [
        (False, [0, 0, 1, 1, 2, 2], True),
        (False, [0] * 6, True),
        (False, [2, 0, 1, 0, 1, 2], False),
        (True, [2, 0, 1, 0, 1, 2], True),
    ],
)
def test_columns_in_the_order_of_their_activations_must_be_said_to_be(
    tmp_path: Path, groups: list[int], *, desc_act: bool, is_right: bool
) -> None:
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 2, "desc_act": desc_act}
    config = {**CONFIG, "architectures": ["UnknownForCausalLM"], "quantization_config": settings}
    index = torch.tensor(groups, dtype=torch.int32)
    save(write_checkpoint(tmp_path, config=config), up__qweight=index, up__g_idx=index.clone())
    if is_right:
        inspect_checkpoint(tmp_path)
        return
    with pytest.raises(CheckpointError, match=r"it says desc_act false, but up\.g_idx") as caught:
        inspect_checkpoint(tmp_path)
    assert '"desc_act": true' in str(caught.value.remedy)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("stored", ["gptq", "gptq_v2"])
def test_the_zeros_of_symmetric_weights_must_be_in_the_format_that_is_said(
    tmp_path: Path, bits: int, stored: str
) -> None:
    zero = 2 ** (bits - 1) - (stored == "gptq")
    packed = int.from_bytes(
        sum(zero << shift for shift in range(0, 32, bits)).to_bytes(4, "little"), "little", signed=True
    )
    settings = {"quant_method": "gptq", "bits": bits, "group_size": 128, "desc_act": False}
    config = {**CONFIG, "architectures": ["UnknownForCausalLM"]}
    zeros = torch.full((4, 16), packed, dtype=torch.int32)
    for said in ("gptq", "gptq_v2"):
        for sym in (True, False):
            settings |= {"checkpoint_format": said, "sym": sym}
            write_checkpoint(tmp_path, config={**config, "quantization_config": settings})
            save(tmp_path, up__qweight=zeros, up__qzeros=zeros.clone())
            if said == stored or not sym:  # where they are not symmetric, any zero may be right
                inspect_checkpoint(tmp_path)
                continue
            with pytest.raises(
                CheckpointError, match=f"they are {said}, but their zeros are those of {stored}"
            ) as caught:
                inspect_checkpoint(tmp_path)
            assert f'"checkpoint_format": "{stored}"' in str(caught.value.remedy)


LAYERS = {f"layers.{number:02}.weight": (48, 64) for number in range(9)} | {"norm.weight": (64,)}


def save_layers(directory: Path) -> Path:
    torch.manual_seed(0)
    made = {name: torch.rand(shape) + 1 for name, shape in LAYERS.items()}
    safetensors.save_file(made, directory / "model.safetensors")
    return directory / "model.safetensors"


@pytest.mark.parametrize(("begin", "end"), [(0.3, 1.0), (0.3, 0.6), (0.0, 0.6)])
def test_a_file_that_was_not_written_to_its_end_has_a_hole(tmp_path: Path, begin: float, end: float) -> None:
    file = save_layers(tmp_path)
    places = inspect_weights(tmp_path).places.values()
    first, size = min(place.begin for place in places), file.stat().st_size
    start, stop = max(first, int(size * begin)), int(size * end)
    with file.open("r+b") as stream:
        stream.seek(start)
        stream.write(bytes(stop - start))

    with pytest.raises(
        CheckpointError, match=r"model\.safetensors has a hole: 0\.\d of its 0\.1 MB are zeros"
    ) as caught:
        require_values(inspect_weights(tmp_path))
    assert "checksum" in str(caught.value.remedy)


@pytest.mark.parametrize("value", [0.0, -0.0])
@pytest.mark.parametrize("rows", [slice(None), slice(10, 40)], ids=["the whole tensor", "rows of it"])
def test_weights_that_were_made_zero_are_told_of(tmp_path: Path, rows: slice, value: float) -> None:
    made = safetensors.load_file(save_layers(tmp_path))
    made["layers.03.weight"][rows] = value
    made["layers.04.weight"][rows] = value
    note = require_values(save(tmp_path, **made))
    assert note == "2 of 9 weights looked at are zeros: layers.03.weight, layers.04.weight"


def test_of_many_files_the_first_and_the_last_are_looked_at(tmp_path: Path) -> None:
    wide = torch.rand(64, 64)

    def save_shards(strange: int | None) -> Weights:
        for shard in range(12):
            values = wide * NAN if shard == strange else wide
            safetensors.save_file({f"layer{shard}.weight": values}, tmp_path / f"model-{shard:02}.safetensors")
        index = {f"layer{shard}.weight": f"model-{shard:02}.safetensors" for shard in range(12)}
        write_json(tmp_path / "model.safetensors.index.json", {"weight_map": index})
        return inspect_weights(tmp_path)

    require_values(save_shards(None))
    for strange in (0, 11):
        with pytest.raises(CheckpointError, match="not finite"):
            require_values(save_shards(strange))


def test_weights_that_are_those_of_another_layer_are_told_of(tmp_path: Path) -> None:
    made = safetensors.load_file(save_layers(tmp_path))
    made["layers.05.weight"] = made["layers.02.weight"].clone()
    made["head.weight"] = made["layers.04.weight"].clone()  # which is no layer, as tied embeddings are none
    assert require_values(save(tmp_path, **made)) == (
        "1 of 10 weights looked at are those of another layer too, as a merge or a faulty conversion makes them: "
        "layers.05.weight (as layers.02.weight)"
    )
