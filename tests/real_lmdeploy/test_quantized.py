"""What the source of each lmdeploy says of quantized weights, as it is read before a start."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bundle.serving.lmdeploy import support
from tests.real_lmdeploy.box import VERSIONS
from tests.real_lmdeploy.conftest import INSTALLED

AWQ = {"quant_method": "awq", "version": "gemm", "group_size": 128, "bits": 4}
GPTQ = {"quant_method": "gptq", "group_size": 128, "bits": 4, "sym": True, "desc_act": False}
EXPECTED: list[tuple[Mapping[str, Any], str | None, str | None]] = [
    (AWQ, None, None),
    (AWQ, "pytorch", None),
    (GPTQ, None, None),
    (GPTQ, "pytorch", "its PyTorch backend takes"),
    (GPTQ | {"desc_act": True}, None, "only symmetric GPTQ weights without desc_act"),
    ({"quant_method": "fp8", "weight_block_size": [128, 128]}, None, None),
    ({"quant_method": "smooth_quant"}, None, None),
    (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        None,
        "its TurboMind backend takes weights quantized by awq, compressed",
    ),
]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_says_which_it_takes(version: str) -> None:
    package = next((Path(INSTALLED or "") / version).glob("lib/python3*/site-packages/lmdeploy"), None)
    if package is None:
        pytest.skip(f"lmdeploy {version} could not be installed")
    said = [
        support.refused_quantization(package, settings, "Qwen2ForCausalLM", backend)
        for settings, backend, _ in EXPECTED
    ]
    for (settings, backend, expected), why in zip(EXPECTED, said, strict=True):
        assert why is None if expected is None else why is not None and expected in why, (settings, backend, why)
    assert {"InternLM2ForCausalLM", "Qwen3ForCausalLM"} <= (support.architectures(package) or set())
    fp8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    assert support.refused_quantization(package, fp8, "InternLM2ForCausalLM", "turbomind") is None
    assert "of this architecture" in (
        support.refused_quantization(package, fp8, "InternLM2ForCausalLM", "pytorch") or ""
    )
