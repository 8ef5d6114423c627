"""Quantized checkpoints: what takes them is told before anything is started.

The settings are those of published checkpoints.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from bundle.checkpoints import inspect_checkpoint
from bundle.config.model_files import ModelFile
from bundle.errors import CheckpointError
from bundle.serving.engine import Job
from bundle.serving.engines import ENGINES, choose_engine
from bundle.serving.machine import Machine
from tests.checkpoints.checkpoints import CONFIG, QUANTIZED, write_checkpoint, write_json, write_safetensors
from tests.serving.machines import MadeMachine, installed

AWQ = {"bits": 4, "group_size": 128, "modules_to_not_convert": None, "version": "gemm", "zero_point": True}
GPTQ = {"bits": 4, "damp_percent": 0.01, "desc_act": False, "group_size": 128, "static_groups": False, "sym": True}
FP8 = {"activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [128, 128]}
BITSANDBYTES = {"_load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16", "load_in_4bit": True}


def compressed(stored: str, bits: int, kind: str, *, each_group_says: bool = True) -> dict[str, Any]:
    weights = {"group_size": 128, "num_bits": bits, "strategy": "group", "symmetric": True, "type": kind}
    group: dict[str, Any] = {"input_activations": None, "targets": ["Linear"], "weights": weights}
    if each_group_says:
        group["format"] = stored
    return {"config_groups": {"group_0": group}, "format": stored, "ignore": ["lm_head"]}


def box(**packages: Path) -> MadeMachine:
    """A machine with these engines in environments of their own, and none besides."""
    return MadeMachine(None, *(installed(name, "0.18.0", package) for name, package in packages.items()))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def lmdeploy(tmp_path: Path) -> Path:
    """The lines of lmdeploy's source that say what it takes. tests/real_lmdeploy reads the whole of it."""
    package = tmp_path / "lmdeploy"
    internlm2 = "'InternLM2ForCausalLM':\nf'{LMDEPLOY_PYTORCH_MODEL_PATH}.internlm2.InternLM2ForCausalLM',\n"
    glm = "'GlmForCausalLM': f'{LMDEPLOY_PYTORCH_MODEL_PATH}.glm',\n"
    write(package / "pytorch/models/module_map.py", internlm2 + glm)
    write(package / "pytorch/models/internlm2.py", "param.weight_spliter(loaded_weight, layout='hgd')\n")
    write(package / "pytorch/nn/linear/blocked_fp8.py", "        assert layout == 'default'\n")
    write(
        package / "turbomind/supported_models.py",
        "SUPPORTED_ARCHS = dict(\n    InternLM2ForCausalLM='internlm2',\n)\n",
    )
    asks = "if quant_method == '{}':\n    pass\n".format
    write(package / "pytorch/nn/linear/__init__.py", "".join(map(asks, ("awq", "smooth_quant", "fp8"))))
    write(package / "turbomind/converter.py", "".join(map(asks, ("awq", "gptq", "fp8", "compressed-tensors"))))
    return package


@pytest.fixture
def vllm(tmp_path: Path) -> Path:
    package = tmp_path / "vllm"
    known = "".join(f'    "{method}",\n' for method in ("awq", "fp8", "gptq", "compressed-tensors", "inc"))
    write(package / "model_executor/layers/quantization/__init__.py", f"QuantizationMethods = Literal[\n{known}]\n")
    for file in ("utils/gptq_utils.py", "compressed_tensors/compressed_tensors.py"):
        write(package / "model_executor/layers/quantization" / file, '"activation ordering is no longer supported"\n')
    return package


def choose(
    directory: Path, machine: Machine, engine: str, method: str, settings: dict[str, Any], *arguments: str, **more: Any
) -> None:
    config = {**CONFIG, "quantization_config": {"quant_method": method, **settings}, **more}
    checkpoint = inspect_checkpoint(write_checkpoint(directory, config=config))
    choose_engine(engine, ModelFile(description="any"), Job(checkpoint, machine=machine, arguments=arguments))


TAKEN = [
    pytest.param("awq", AWQ, (), id="awq"),
    pytest.param("gptq", GPTQ, (), id="gptq"),
    pytest.param("fp8", FP8, (), id="fp8"),
    pytest.param("compressed-tensors", compressed("pack-quantized", 4, "int"), (), id="w4a16"),
    pytest.param("smooth_quant", {}, (), id="smooth-quant"),
    pytest.param("awq", AWQ | {"group_size": 64}, ("--backend", "pytorch"), id="awq-64-pytorch"),
]


@pytest.mark.parametrize(("method", "settings", "arguments"), TAKEN)
def test_lmdeploy_is_started_with_weights_that_it_takes(
    tmp_path: Path, lmdeploy: Path, method: str, settings: dict[str, Any], arguments: tuple[str, ...]
) -> None:
    choose(tmp_path / "model", box(lmdeploy=lmdeploy), "lmdeploy", method, settings, *arguments)


REFUSED = [
    pytest.param("bitsandbytes", BITSANDBYTES, (), "takes weights quantized by .*, not by bitsandbytes", id="nf4"),
    pytest.param("hqq", {}, (), "not by hqq", id="hqq"),
    pytest.param("gptq", GPTQ | {"checkpoint_format": "gptq_v2"}, (), "as those of the older format", id="gptq-v2"),
    pytest.param(
        "gptq", GPTQ | {"desc_act": True}, (), "only symmetric GPTQ weights without desc_act", id="gptq-act-order"
    ),
    pytest.param(
        "gptq", GPTQ, ("--backend", "pytorch"), "its PyTorch backend takes .*, not by gptq", id="gptq-pytorch"
    ),
    pytest.param("fp8", FP8, ("--backend", "pytorch"), "no fp8 weights of this architecture", id="fp8-pytorch"),
    pytest.param("awq", AWQ | {"version": "gemv"}, (), "'gemv'; its other backend may", id="awq-gemv"),
    pytest.param("awq", AWQ | {"group_size": 64}, (), "in groups of 128, not of 64; its other", id="awq-64"),
    pytest.param(
        "compressed-tensors", compressed("float-quantized", 8, "float"), (), "not float-quantized", id="w8a8-fp8"
    ),
    pytest.param(
        "compressed-tensors",
        compressed("pack-quantized", 4, "int", each_group_says=False),
        (),
        r"cannot read this compressed-tensors configuration \(KeyError\('format'\)",
        id="w4a16-of-old-llm-compressor",
    ),
]


@pytest.mark.parametrize(("method", "settings", "arguments", "told"), REFUSED)
def test_weights_that_lmdeploy_would_end_in_a_traceback_with_are_refused(
    tmp_path: Path, lmdeploy: Path, method: str, settings: dict[str, Any], arguments: tuple[str, ...], told: str
) -> None:
    with pytest.raises(CheckpointError, match=told):
        choose(tmp_path / "model", box(lmdeploy=lmdeploy), "lmdeploy", method, settings, *arguments)


def test_what_turbomind_does_not_serve_is_held_against_the_pytorch_engine(tmp_path: Path, lmdeploy: Path) -> None:
    with pytest.raises(
        CheckpointError, match="its PyTorch backend takes weights quantized by awq, fp8, smooth_quant, not by gptq"
    ):
        choose(
            tmp_path / "model",
            box(lmdeploy=lmdeploy),
            "lmdeploy",
            "gptq",
            GPTQ,
            architectures=["GlmForCausalLM"],
            model_type="glm",
        )


def test_another_engine_of_the_machine_that_takes_them_is_named(tmp_path: Path, lmdeploy: Path, vllm: Path) -> None:
    settings = compressed("float-quantized", 8, "float")
    with pytest.raises(CheckpointError) as caught:
        choose(
            tmp_path / "model",
            box(lmdeploy=lmdeploy, vllm=vllm),
            "lmdeploy",
            "compressed-tensors",
            settings,
            architectures=["GlmForCausalLM"],
            model_type="glm",
        )
    assert caught.value.remedy is not None
    assert caught.value.remedy.startswith("Use --engine vllm")


def test_vllm_refuses_what_it_does_not_know_unless_the_user_names_the_method(tmp_path: Path, vllm: Path) -> None:
    vllms, llama = box(vllm=vllm), {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    choose(tmp_path / "awq", vllms, "vllm", "awq", AWQ, **llama)
    choose(tmp_path / "auto-round", vllms, "vllm", "auto-round", {"bits": 4}, **llama)
    with pytest.raises(CheckpointError, match=r"vLLM 0\.18\.0 does not know bitsandbytes"):
        choose(tmp_path / "nf4", vllms, "vllm", "bitsandbytes", BITSANDBYTES, **llama)
    choose(tmp_path / "plugin", vllms, "vllm", "bitsandbytes", BITSANDBYTES, "--quantization", "bitsandbytes", **llama)


def test_vllm_refuses_columns_in_another_order_where_its_source_says_so(tmp_path: Path, vllm: Path) -> None:
    llama = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    packed = compressed("pack-quantized", 4, "int")
    ordered = compressed("pack-quantized", 4, "int")
    ordered["config_groups"]["group_0"]["weights"]["actorder"] = "group"
    cases: list[tuple[str, dict[str, Any], str | None]] = [
        ("gptq", GPTQ, None),
        ("gptq", GPTQ | {"desc_act": True}, "gptq weights with desc_act"),
        ("gptq", GPTQ | {"desc_act": True, "group_size": -1}, None),
        ("gptq", GPTQ | {"dynamic": {"+:.*up_proj": {"desc_act": True}, "-:.*down_proj": {}}}, "with desc_act"),
        ("compressed-tensors", packed, None),
        ("compressed-tensors", ordered, "compressed-tensors weights with actorder group"),
    ]
    for number, (method, settings, told) in enumerate(cases):
        with nullcontext() if told is None else pytest.raises(CheckpointError, match=told):
            choose(tmp_path / str(number), box(vllm=vllm), "vllm", method, settings, **llama)
    for file in (vllm / "model_executor/layers/quantization").glob("*/*.py"):
        file.unlink()  # as before 0.32
    choose(tmp_path / "older", box(vllm=vllm), "vllm", "gptq", GPTQ | {"desc_act": True}, **llama)


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_internlm2_that_is_quantized_is_not_converted(tmp_path: Path, vllm: Path, engine: str) -> None:
    with pytest.raises(CheckpointError, match="InternLM2's weights are converted"):
        choose(tmp_path / "model", box(vllm=vllm), engine, "awq", AWQ)


def test_the_cpu_engine_names_the_packages_that_it_would_need(tmp_path: Path) -> None:
    pytest.importorskip("transformers", minversion="5")
    pytest.importorskip("accelerate")
    llama = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    choose(tmp_path / "fp8", box(), "transformers", "fp8", FP8, **llama)
    with pytest.raises(CheckpointError, match="does not load weights quantized by exl2"):
        choose(tmp_path / "exl2", box(), "transformers", "exl2", {}, **llama)
    with pytest.raises(CheckpointError, match=r"with packages that are missing .*-m pip install gptqmodel"):
        choose(tmp_path / "awq", box(), "transformers", "awq", AWQ, **llama)


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_that_are_not_quantized_are_no_question(
    tmp_path: Path, lmdeploy: Path, vllm: Path, engine: str
) -> None:
    checkpoint = inspect_checkpoint(write_checkpoint(tmp_path / "model"))
    choose_engine(engine, ModelFile(description="any"), Job(checkpoint, machine=box(lmdeploy=lmdeploy, vllm=vllm)))


def test_how_they_are_quantized_is_found_wherever_it_is_written(tmp_path: Path) -> None:
    nested = write_checkpoint(
        tmp_path / "nested", config={**CONFIG, "text_config": {"quantization_config": {"quant_method": "fp8", **FP8}}}
    )
    assert inspect_checkpoint(nested).quantization == "fp8"
    beside = write_checkpoint(tmp_path / "beside")
    write_safetensors(beside / "model.safetensors", QUANTIZED)
    write_json(
        beside / "hf_quant_config.json", {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}
    )
    assert inspect_checkpoint(beside).quantization == "modelopt"


def test_the_format_of_mlx_is_named(tmp_path: Path) -> None:
    settings = {"group_size": 64, "bits": 4, "mode": "affine"}
    directory = write_checkpoint(
        tmp_path / "mlx", config={**CONFIG, "quantization": settings, "quantization_config": settings}
    )
    with pytest.raises(CheckpointError, match="format of MLX"):
        inspect_checkpoint(directory)
