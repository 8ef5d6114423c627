"""How vLLM is started."""

import contextlib
import json
import os
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from bundle.checkpoints import Checkpoint, inspect_checkpoint
from bundle.config.model_files import EngineSettings, ModelFile
from bundle.errors import CheckpointError, ServerError, UsageError
from bundle.serving import conversion
from bundle.serving.engine import Job, ServerSpec
from bundle.serving.engines import ENGINES, choose_engine
from bundle.serving.gpus import Gpu, Nvidia
from bundle.serving.machine import Machine
from bundle.serving.supervisor import activity_in
from bundle.serving.vllm.checks import check_vllm
from bundle.serving.vllm.engine import VllmEngine
from bundle.system.findings import Status
from tests.serving.machines import MadeMachine, installed
from tests.serving.stand_in import KEY, Launched

FREE = Gpu(0, "GPU-0", "H100", 81559, 81000, "570")
USED = Gpu(1, "GPU-1", "H100", 81559, 40000, "570")


def box(version: str, *gpus: Gpu) -> MadeMachine:
    """A machine with one vLLM and these GPUs."""
    return MadeMachine(Nvidia(installed=bool(gpus), gpus=gpus), installed("vllm", version))


CPU = box("0.32.0+cpu")
GPUS = box("0.32.0", FREE, USED)


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUNDLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    processor(tmp_path, monkeypatch, "avx2")


def processor(directory: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    file = directory / "cpuinfo"
    file.write_text(f"processor : 0\nflags\t\t: fpu {' '.join(flags)}\n\nprocessor : 1\nflags\t\t: fpu\n")
    monkeypatch.setattr(conversion, "_CPU_INFO", file)


@pytest.fixture(scope="module")
def internlm2(tiny: Path) -> Checkpoint:
    return inspect_checkpoint(tiny)


@pytest.fixture(scope="module")
def llama(internlm2: Checkpoint) -> Checkpoint:
    """Looks like a Llama to everything that does not read its weights."""
    config = {**internlm2.config, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "rope_scaling": None}
    return replace(internlm2, config=config)


def prepared(checkpoint: Checkpoint, *arguments: str, machine: Machine = CPU, **job: object) -> ServerSpec:
    return VllmEngine(Job(checkpoint, machine, arguments=arguments, **job)).prepare(lambda _: None)  # type: ignore[arg-type]


def launched(checkpoint: Checkpoint, *arguments: str, machine: Machine = CPU, **job: object) -> Launched:
    return Launched.of(prepared(checkpoint, *arguments, machine=machine, **job))


def following(command: Sequence[str], option: str) -> str:
    """The last value of an option."""
    return command[len(command) - 1 - command[::-1].index(option) + 1]


def test_it_runs_the_module_of_the_interpreter_on_loopback_under_our_name(llama: Checkpoint) -> None:
    command = launched(llama).command
    assert command[:3] == ("/opt/vllm/bin/python", "-m", "vllm.entrypoints.openai.api_server")
    line = " ".join(command)
    assert f"--model {llama.path} --host 127.0.0.1 --port 23334 --served-model-name=tiny" in line
    assert "--max-num-seqs 64 --enable-prefix-caching" in line
    assert "--generation-config vllm" in line
    assert "--trust-remote-code" not in line


def test_the_key_is_in_the_environment_and_in_no_argument(llama: Checkpoint) -> None:
    launch = launched(llama)
    assert launch.environment["VLLM_API_KEY"] == KEY
    assert not any(KEY in argument for argument in launch.command)


def test_it_is_offline_tells_nobody_and_keeps_its_sockets_in_the_directory_that_is_removed(llama: Checkpoint) -> None:
    environment = launched(llama).environment
    assert environment["HF_HUB_OFFLINE"] == environment["VLLM_NO_USAGE_STATS"] == "1"
    assert environment["TMPDIR"] == "/tmp/private"


def test_its_own_environments_programs_come_first(llama: Checkpoint) -> None:
    assert launched(llama).environment["PATH"].startswith(f"/opt/vllm/bin{os.pathsep}")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1"])
def test_it_listens_on_loopback_alone_because_invocations_need_no_key(llama: Checkpoint, host: str) -> None:
    with pytest.raises(UsageError, match="without its API key"):
        prepared(llama, host=host)


@pytest.mark.parametrize(
    "option",
    [
        *("--api-key", "--api_key=x", "--served-model-name", "--port=1", "--model"),
        *("--hos=0.0.0.0", "--served_model", "--config", "--api", "--lora-modules=a=b"),
    ],
)
def test_what_this_program_sets_may_not_be_set_twice(llama: Checkpoint, option: str) -> None:
    with pytest.raises(UsageError, match="set by bundle"):
        prepared(llama, option, "x")


def test_internlm2_is_served_as_the_llama_it_is_converted_to_without_its_code(internlm2: Checkpoint) -> None:
    spec = prepared(internlm2, trust_remote_code=True)
    command = spec.command(1, Path("/tmp/private"))
    served = Path(following(command, "--model"))
    assert served == spec.model.directory != internlm2.path
    assert json.loads((served / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    assert "--trust-remote-code" not in command
    assert spec.model.keep is not None


@pytest.mark.parametrize(
    ("name", "indexed", "taken"),
    [
        ("consolidated.safetensors", False, True),
        ("consolidated.safetensors", True, False),
        ("adapter_model.safetensors", False, True),
        ("adapter_model.safetensors", True, False),
        ("adapter_model.bin", False, False),
        ("optimizer.pt", False, False),
    ],
)
def test_weights_that_it_would_load_instead_of_those_inspected_are_refused(
    tmp_path: Path, llama: Checkpoint, name: str, *, indexed: bool, taken: bool
) -> None:
    (tmp_path / name).touch()
    if indexed:
        (tmp_path / "model.safetensors.index.json").touch()
    beside = replace(llama, path=tmp_path)
    if taken:
        with pytest.raises(CheckpointError, match=f"vLLM would load {name} from"):
            prepared(beside)
        prepared(beside, "--load-format", "safetensors")
    else:
        prepared(beside)


def test_a_checkpoint_that_is_there_in_mistrals_format_too_is_served_as_it_was_inspected(
    tmp_path: Path, llama: Checkpoint
) -> None:
    beside = replace(llama, path=tmp_path)
    (tmp_path / "model.safetensors.index.json").touch()
    chosen = {"--load-format=safetensors", "--config-format=hf", "--tokenizer-mode=hf"}
    assert chosen.isdisjoint(prepared(beside).command(1, tmp_path))
    (tmp_path / "consolidated.safetensors").touch()
    assert chosen <= set(prepared(beside).command(1, tmp_path))
    command = prepared(beside, "--tokenizer_mode", "mistral").command(1, tmp_path)
    assert "--config-format=hf" in command
    assert "--tokenizer-mode=hf" not in command


@pytest.mark.parametrize(("name", "taken"), [("value_head.bin", True), ("training_args.bin", False)])
def test_it_loads_every_bin_file_where_the_weights_are_one(
    tmp_path: Path, llama: Checkpoint, name: str, taken: bool
) -> None:
    weights = replace(llama.weights, files=(tmp_path / "pytorch_model.bin",))
    for file in ("pytorch_model.bin", name):
        (tmp_path / file).touch()
    beside = replace(llama, path=tmp_path, weights=weights)
    with pytest.raises(CheckpointError, match=f"would load {name}") if taken else nullcontext():
        prepared(beside)


def test_another_checkpoints_code_runs_with_permission_only(llama: Checkpoint) -> None:
    assert "--trust-remote-code" in launched(llama, trust_remote_code=True).command


def test_the_slots_follow_the_device_or_the_user_and_a_quarter_more_requests_wait(llama: Checkpoint) -> None:
    assert prepared(llama).concurrency == 80
    assert prepared(llama, machine=GPUS).concurrency == 320
    assert prepared(llama, "--max-num-seqs", "16").concurrency == 20
    assert prepared(llama, "--max_num_seqs=16").concurrency == 20
    assert prepared(llama, settings=EngineSettings(concurrency=7)).concurrency == 7


@pytest.mark.parametrize(
    ("flags", "stored", "dtype"),
    [
        (["avx2"], "bfloat16", "float32"),
        (["avx512_bf16"], "bfloat16", "bfloat16"),
        (["amx_bf16"], "bfloat16", "bfloat16"),
        (["avx512_bf16"], "float16", "float32"),
        (["avx512_bf16"], "float32", "float32"),
    ],
)
def test_the_cpu_computes_in_bfloat16_where_it_can_and_the_weights_are(
    llama: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], stored: str, dtype: str
) -> None:
    processor(tmp_path, monkeypatch, *flags)
    checkpoint = replace(llama, config={**llama.config, "torch_dtype": stored})
    spec = prepared(checkpoint)
    assert spec.dtype == dtype
    assert f"--dtype={dtype}" in spec.command(1, Path("/x"))


def test_the_users_dtype_is_the_one_on_record(llama: Checkpoint) -> None:
    assert prepared(llama, "--dtype", "bfloat16").dtype == "bfloat16"
    assert prepared(llama, machine=GPUS).dtype == "auto"


def test_on_the_cpu_cache_and_length_fit_the_memory_and_nothing_is_compiled(llama: Checkpoint) -> None:
    launch = launched(llama)
    # 2 layers of 2 heads of 128 float32 keys and values: 4 KiB a token, and 64 slots of 4,096 tokens.
    assert launch.environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert "--enforce-eager" in launch.command
    assert following(launch.command, "--max-model-len") == "32768"
    assert "CUDA_VISIBLE_DEVICES" not in launch.environment


def test_a_cache_that_holds_less_than_the_models_length_limits_it(llama: Checkpoint) -> None:
    wide = {"num_hidden_layers": 24, "num_key_value_heads": 64, "num_attention_heads": 64, "hidden_size": 8192}
    huge = replace(llama, config={**llama.config, **wide}, weights=replace(llama.weights, size=2**60))
    launch = launched(huge)
    assert launch.environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert int(following(launch.command, "--max-model-len")) == 2**30 // (2 * 24 * 64 * 128 * 4)


def test_on_a_gpu_the_length_is_what_fits_and_the_share_what_is_free(llama: Checkpoint) -> None:
    launch = launched(llama, machine=GPUS)
    assert launch.environment["CUDA_VISIBLE_DEVICES"] == "0"
    assert following(launch.command, "--max-model-len") == "auto"
    assert "--gpu-memory-utilization" not in launch.command
    assert "--enforce-eager" not in launch.command
    assert "VLLM_CPU_KVCACHE_SPACE" not in launch.environment
    shared = launched(llama, machine=GPUS, gpu="1")
    assert following(shared.command, "--gpu-memory-utilization") == "0.48"


def test_where_scaling_is_dynamic_the_length_ends_with_the_trained_positions(internlm2: Checkpoint) -> None:
    assert following(launched(internlm2, machine=GPUS).command, "--max-model-len") == "32768"


@pytest.mark.parametrize("machine", [CPU, GPUS])
@pytest.mark.parametrize("in_scaling", [True, False])
def test_with_longrope_the_length_ends_where_long_texts_begin(
    llama: Checkpoint, machine: Machine, in_scaling: bool
) -> None:
    original = {"original_max_position_embeddings": 4096}
    scaling = {"type": "longrope", "short_factor": [1.0], "long_factor": [8.0], **(original if in_scaling else {})}
    config = {**llama.config, "rope_scaling": scaling, **({} if in_scaling else original)}
    phi = replace(llama, config=config)
    assert following(launched(phi, machine=machine).command, "--max-model-len") == "4096"
    assert VllmEngine(Job(phi, machine=machine)).context_options == {"--max-model-len": 4096}
    with pytest.raises(UsageError, match="--max-model-len 8000 is more than the 4096 tokens up to which"):
        prepared(phi, "--max-model-len", "8k", machine=machine)


def test_a_chat_template_that_is_given_is_the_one_that_prompts_are_compared_with(
    llama: Checkpoint, tmp_path: Path
) -> None:
    file = tmp_path / "own.jinja"
    file.write_text("{{ messages }}", encoding="utf-8")
    for given in (str(file), "{{ messages }}"):
        spec = prepared(llama, "--chat_template", given)
        assert (spec.template, spec.chosen_template) == ("{{ messages }}", None)
    of_vllm = prepared(llama, "--chat-template", "template_chatml.jinja")
    assert (of_vllm.template, of_vllm.chosen_template) == (None, "--chat-template")


@pytest.mark.parametrize("option", ["--load-format=Dummy", "--load_format=dummy"])
def test_a_model_without_weights_is_refused(llama: Checkpoint, option: str) -> None:
    with pytest.raises(UsageError, match="serves a model without the checkpoint's weights"):
        prepared(llama, option)


@pytest.mark.parametrize("option", ["-tp", "--tensor-parallel-size"])
def test_it_uses_as_many_gpus_as_tensor_parallelism_needs(llama: Checkpoint, option: str) -> None:
    assert launched(llama, option, "2", machine=GPUS).environment["CUDA_VISIBLE_DEVICES"] == "0,1"


@pytest.mark.parametrize(
    ("arguments", "ignored"),
    [
        (["--hf-overrides", '{"rope_theta": 1e6, "rope_scaling": null}'], "rope_scaling, rope_theta"),
        (["--hf_overrides.rope_theta", "1e6"], "rope_theta"),
        (["--hf-overrides", '{"rope_theta": 1e6, "rope_parameters": {"rope_type": "default"}}'], None),
        (["--hf-overrides", '{"num_hidden_layers": 1}'], None),
        (["--hf-overrides", "{not JSON"], None),
    ],
)
def test_overrides_that_it_ignores_without_a_word_are_refused(
    llama: Checkpoint, arguments: list[str], ignored: str | None
) -> None:
    with pytest.raises(UsageError, match=f"ignores {ignored} in --hf") if ignored else contextlib.nullcontext():
        prepared(llama, *arguments)
    prepared(llama, *arguments, machine=box("0.31.0+cpu"))


def test_a_name_that_it_takes_for_none_is_not_given_to_it(llama: Checkpoint) -> None:
    spec = prepared(replace(llama, name="None"))
    assert spec.served_name == "model"
    assert "--served-model-name=model" in spec.command(23334, Path("/tmp/private"))


def test_a_build_for_cuda_without_a_gpu_is_refused(llama: Checkpoint) -> None:
    with pytest.raises(UsageError, match="needs an NVIDIA GPU"):
        prepared(llama, machine=box("0.32.0"))


def test_a_build_for_the_cpu_has_no_use_for_a_gpu(llama: Checkpoint) -> None:
    with pytest.raises(UsageError, match="build for the CPU"):
        prepared(llama, machine=box("0.32.0+cpu", FREE), gpu="0")


def test_a_version_that_lacks_an_option_is_refused_and_an_untried_one_is_named(llama: Checkpoint) -> None:
    with pytest.raises(ServerError, match="too old"):
        prepared(llama, machine=box("0.11.2+cpu"))
    said: list[str] = []
    VllmEngine(Job(llama, box("0.33.1+cpu"))).prepare(said.append)
    assert any("not the version tested" in line for line in said)


@pytest.mark.parametrize(
    ("line", "activity"),
    [
        ("(EngineCore pid=6854) INFO 11-26 06:02:17 [core.py:133] Initializing a V1 LLM engine", "starting its engine"),
        ("(Worker pid=7608) INFO 11-26 [cpu_model_runner.py:1] Starting to load model /m...", "loading the model"),
        ("Loading safetensors checkpoint shards: 100% Completed | 1/1 [00:00<00:00]", "loading weights 100 %"),
        ("(Worker pid=7608) INFO [cpu_model_runner.py:1] Warming up model for the compilation...", "warming up"),
        ("INFO:     Application startup complete.", "the HTTP server is up"),
        ("(APIServer pid=5777) WARNING [vllm.py:1703] Enforce eager set, disabling torch.compile", None),
    ],
)
def test_its_log_says_what_it_is_doing(llama: Checkpoint, line: str, activity: str | None) -> None:
    assert activity_in(line, prepared(llama).signs.activities) == activity


def test_it_is_chosen_by_name_with_the_settings_of_its_table_and_never_by_itself(llama: Checkpoint) -> None:
    model = ModelFile(description="x", vllm=EngineSettings(args=("--seed", "1")))
    engine = choose_engine("vllm", model, Job(llama, CPU))
    assert engine.prepare(lambda _: None).command(1, Path("/x"))[-2:] == ("--seed", "1")
    assert choose_engine("auto", model, Job(llama, CPU)).name == "transformers"


def test_positions_scaled_as_ntk_are_for_vllm_alone(llama: Checkpoint) -> None:
    ntk = replace(llama, config={**llama.config, "rope_scaling": {"type": "ntk", "factor": 2.0}})
    job = Job(ntk, MadeMachine(None, installed("vllm", "0.32.0+cpu"), installed("lmdeploy", "0.18.0")))
    assert choose_engine("vllm", ModelFile(description="x"), job).name == "vllm"
    for engine in ("lmdeploy", "transformers", "auto"):
        with pytest.raises(CheckpointError, match="its positions are scaled as 'ntk', which only vLLM knows") as caught:
            choose_engine(engine, ModelFile(description="x"), job)
        assert "--engine vllm" in str(caught.value.remedy)


def test_every_engine_has_a_table_in_model_files() -> None:
    for name in ENGINES:
        assert isinstance(getattr(ModelFile(description="x"), name), EngineSettings)


def test_the_doctor_needs_no_vllm_and_says_which_there_is() -> None:
    (absent,) = check_vllm(MadeMachine())
    assert absent.status is Status.OK
    assert "Only --engine vllm needs it" in absent.text
    (useless,) = check_vllm(box("0.32.0"))
    assert useless.status is Status.WARNING
    assert "no GPU" in useless.text


@pytest.mark.parametrize(
    ("arguments", "tokens"),
    [
        ((), None),
        (("--max-model-len", "700"), 700),
        (("--max_model_len=4k",), 4000),
        (("--max-model-len", "4K"), 4096),
        (("--max-model-len", "1.5K"), 1536),
        (("--max-model-len", "auto"), None),
        (("--max-model-len", "-1"), None),
    ],
)
def test_the_servers_context_length_is_what_counts_of_the_arguments(
    llama: Checkpoint, arguments: tuple[str, ...], tokens: int | None
) -> None:
    engine = VllmEngine(Job(llama, machine=CPU, arguments=arguments))
    assert engine.context_options == {"--max-model-len": tokens}


@pytest.mark.parametrize("title", ["VLLM::EngineCore", "VLLM::EngineCore_DP0", "VLLM::Worker", "VLLM::Worker_TP1"])
def test_neither_its_engine_nor_a_worker_of_that_may_end(llama: Checkpoint, title: str) -> None:
    vital = prepared(llama).signs.vital
    assert vital is not None
    assert re.search(vital, title)
