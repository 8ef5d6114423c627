"""How lmdeploy is started."""

import contextlib
import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bundle.checkpoints import Checkpoint, inspect_checkpoint
from bundle.config.model_files import EngineSettings
from bundle.errors import BundleError, CheckpointError, ServerError, UsageError
from bundle.serving.engine import Job, ServerSpec
from bundle.serving.lmdeploy.engine import LmdeployEngine
from bundle.serving.lmdeploy.support import sliding_window
from bundle.serving.machine import Machine
from bundle.serving.supervisor import Supervisor, activity_in
from tests.patience import PATIENCE_S
from tests.serving.stand_in import KEY, Launched
from tests.stand_ins.box import GPU, ROOT, gpu_box, without_servers_of_our_own


@pytest.fixture(scope="module")
def checkpoint(tiny: Path) -> Checkpoint:
    return inspect_checkpoint(tiny)


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    environment = gpu_box(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    without_servers_of_our_own(monkeypatch)
    return environment


def engine_for(
    checkpoint: Checkpoint, *arguments: str, settings: EngineSettings | None = None, gpu: str | None = None
) -> LmdeployEngine:
    settings = settings or EngineSettings()
    return LmdeployEngine(Job(checkpoint, settings=settings, arguments=arguments, trust_remote_code=True, gpu=gpu))


def prepared(checkpoint: Checkpoint, *arguments: str, settings: EngineSettings | None = None) -> ServerSpec:
    return engine_for(checkpoint, *arguments, settings=settings).prepare(lambda _: None)


def launched(checkpoint: Checkpoint, *arguments: str) -> Launched:
    settings = EngineSettings(args=("--session-len", "8192"))
    return Launched.of(prepared(checkpoint, *arguments, settings=settings))


def test_texts_are_scored_by_its_pytorch_engine(box: dict[str, str], checkpoint: Checkpoint) -> None:
    said: list[str] = []
    with pytest.raises(UsageError, match=r"--logprobs-mode: .* set by bundle"):
        engine_for(checkpoint, "--logprobs-mode", "raw_logits").prepare(said.append, scores=True)
    spec = engine_for(checkpoint).prepare(said.append, scores=True)
    command = " ".join(spec.command(23334, Path("/tmp/private")))
    assert "--backend pytorch --logprobs-mode raw_logprobs" in command
    assert "its TurboMind does not say how likely a text is: using its PyTorch engine (--backend pytorch)" in said


def test_it_serves_on_loopback_under_our_name_with_prefix_caching_and_abort_handling(
    box: dict[str, str], checkpoint: Checkpoint
) -> None:
    command = " ".join(launched(checkpoint).command)

    assert f"serve api_server {checkpoint.path}" in command
    assert "--server-name 127.0.0.1 --server-port 23334 --model-name=tiny" in command
    assert "--enable-prefix-caching --enable-abort-handling --log-level WARNING" in command


@pytest.mark.parametrize(
    ("settings", "arguments", "capability", "expected", "given"),
    [
        ({"torch_dtype": "bfloat16"}, (), "9.0", None, []),
        ({"dtype": "float16", "torch_dtype": None}, (), "9.0", None, []),
        ({"torch_dtype": "float32"}, (), "9.0", "bfloat16", ["bfloat16"]),
        ({"torch_dtype": None}, (), "9.0", "bfloat16", ["bfloat16"]),
        ({"torch_dtype": "float32"}, (), "7.5", "float16", ["float16"]),
        ({"torch_dtype": "bfloat16"}, (), "7.5", "float16", ["float16"]),
        ({"torch_dtype": "float16"}, (), "7.5", None, []),
        ({"torch_dtype": "float32"}, ("--dtype", "float16"), "9.0", "float16", ["float16"]),
        ({"torch_dtype": "float32"}, ("--dtype", "auto"), "9.0", None, ["auto"]),
    ],
)
def test_both_its_engines_compute_in_the_same_dtype_where_config_json_gives_none_that_they_have(
    box: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    checkpoint: Checkpoint,
    settings: dict[str, object],
    arguments: tuple[str, ...],
    capability: str,
    expected: str | None,
    given: list[str],
) -> None:
    monkeypatch.setenv("NVIDIA_SMI_STAND_IN", json.dumps({"gpus": [[*GPU, capability]]}))
    changed = replace(checkpoint, config={**checkpoint.config, **settings})
    spec = prepared(changed, *arguments)
    command = spec.command(23334, Path("/tmp/private"))
    assert spec.dtype == expected
    assert [after for before, after in itertools.pairwise(command) if before == "--dtype"] == given


@pytest.mark.parametrize(
    ("settings", "arguments", "given"),
    [
        ({"rope_scaling": None, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}, (), 1),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, (), 0),
        ({"rope_scaling": None, "rope_parameters": {"full_attention": {"rope_type": "default"}}}, (), 0),
        ({"rope_scaling": None, "rope_parameters": {"rope_theta": 1e6}}, ("--hf-overrides", "{}"), 1),
    ],
)
def test_positions_as_transformers_5_saves_them_are_also_given_under_the_older_name(
    box: dict[str, str], checkpoint: Checkpoint, settings: dict[str, object], arguments: tuple[str, ...], given: int
) -> None:
    changed = replace(checkpoint, config={**checkpoint.config, **settings})
    command = prepared(changed, *arguments).command(23334, Path("/tmp/private"))
    values = [after for before, after in itertools.pairwise(command) if before == "--hf-overrides"]
    assert len(values) == given
    if given and not arguments:
        assert json.loads(values[0]) == {"rope_scaling": settings["rope_parameters"]}


def write_model(box: dict[str, str], architecture: str, source: str) -> None:
    """Give the stand-in's package a file with the source of an architecture's model."""
    (package,) = Path(box["PATH"].split(":")[0]).parent.glob("lib/*/site-packages/lmdeploy")
    models = package / "pytorch" / "models"
    models.mkdir(parents=True, exist_ok=True)
    name = f"'{architecture}':\nf'{{LMDEPLOY_PYTORCH_MODEL_PATH}}.one.{architecture}',\n"
    (models / "module_map.py").write_text(name)
    (models / "one.py").write_text(source)


def test_an_activation_that_its_model_does_not_ask_for_is_refused(box: dict[str, str], checkpoint: Checkpoint) -> None:
    write_model(box, checkpoint.architecture, "        self.act_fn = SiluAndMul(inplace=True)\n")
    other = replace(checkpoint, config={**checkpoint.config, "hidden_act": "gelu"})
    with pytest.raises(
        CheckpointError, match=r"computes InternLM2ForCausalLM with silu, although hidden_act in .*'gelu'"
    ):
        prepared(other)
    write_model(box, checkpoint.architecture, "act = config.hidden_act\nself.act_fn = SiluAndMul(inplace=True)\n")
    assert prepared(other).engine == "lmdeploy"


def test_an_output_projection_for_which_its_model_takes_the_embeddings_is_refused(
    box: dict[str, str], checkpoint: Checkpoint
) -> None:
    ties = "        self.lm_head.weight = self.model.embed_tokens.weight\n"
    own = replace(checkpoint, config={**checkpoint.config, "tie_word_embeddings": False})
    write_model(box, checkpoint.architecture, ties)
    with pytest.raises(CheckpointError, match="takes the embeddings of InternLM2ForCausalLM for its lm_head"):
        prepared(own)
    assert prepared(replace(own, config={**own.config, "tie_word_embeddings": True})).engine == "lmdeploy"
    write_model(box, checkpoint.architecture, f"if config.tie_word_embeddings:\n    {ties}")
    assert prepared(own).engine == "lmdeploy"


@pytest.mark.parametrize(
    ("config", "other"),
    [
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}, True),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}, True),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}}, False),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, False),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, False),
        ({"rope_theta": 1e6, "rope_parameters": {"rope_type": "default"}}, True),
        ({"rope_theta": 1e6, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, False),
        ({"rope_theta": 1e6}, False),
    ],
)
def test_where_turbomind_would_take_other_positions_the_pytorch_engine_is_used(
    box: dict[str, str], checkpoint: Checkpoint, config: dict[str, object], other: bool
) -> None:
    rest = {name: value for name, value in checkpoint.config.items() if not name.startswith("rope")}
    model = replace(checkpoint, config={**rest, "max_position_embeddings": 32768, **config})
    said: list[str] = []
    command = engine_for(model).prepare(said.append).command(23334, Path("/tmp/private"))
    assert ("--backend" in command) == other
    assert any("its TurboMind does not scale the model's positions" in line for line in said) == other
    with pytest.raises(CheckpointError, match="TurboMind does not") if other else contextlib.nullcontext():
        prepared(model, "--backend", "turbomind")


def test_a_model_without_weights_is_refused(box: dict[str, str], checkpoint: Checkpoint) -> None:
    with pytest.raises(UsageError, match="--empty-init serves a model without the checkpoint's weights"):
        prepared(checkpoint, "--empty")


@pytest.mark.parametrize(
    ("tokenizer", "eos", "why"),
    [
        ({"eos_token": None}, [1, 2], r"needs an eos_token .* is \[1, 2\]"),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, None, "needs an eos_token .* is not there"),
        ({"tokenizer_class": "Qwen2Tokenizer"}, [1, 2], None),  # which has one of its own
        ({"eos_token": None}, 1, None),
        ({"eos_token": "</s>"}, [1, 2], None),
    ],
)
def test_several_ends_beside_a_tokenizer_without_one_are_refused_before_the_start(
    box: dict[str, str], checkpoint: Checkpoint, tmp_path: Path, tokenizer: object, eos: object, why: str | None
) -> None:
    directory = tmp_path / "llama"
    directory.mkdir()
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (directory / "generation_config.json").write_text(json.dumps({} if eos is None else {"eos_token_id": eos}))
    config = {**checkpoint.config, "architectures": ["LlamaForCausalLM"]}
    llama = replace(checkpoint, path=directory, config=config, architecture="LlamaForCausalLM", remote_code=())
    with pytest.raises(CheckpointError, match=why) if why else contextlib.nullcontext():
        prepared(llama)


GB10 = [0, "GPU-b10", "NVIDIA GB10", "[N/A]", "[N/A]", "580.126.09", "12.1"]


@pytest.mark.parametrize(
    ("given", "backends"),
    [((), ["pytorch"]), (("--backend", "turbomind"), ["turbomind"]), (("--tp", "1"), ["pytorch"])],
)
def test_a_gpu_that_turbomind_has_no_code_for_is_served_on_by_the_pytorch_engine(
    box: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    checkpoint: Checkpoint,
    given: tuple[str, ...],
    backends: list[str],
) -> None:
    monkeypatch.setenv("NVIDIA_SMI_STAND_IN", json.dumps({"gpus": [GB10]}))
    command = launched(checkpoint, *given).command

    assert [after for before, after in itertools.pairwise(command) if before == "--backend"] == backends


def test_other_gpus_leave_the_choice_to_lmdeploy(box: dict[str, str], checkpoint: Checkpoint) -> None:
    assert "--backend" not in launched(checkpoint).command


def test_the_checkpoints_own_chat_template_is_used_whatever_its_path_is_called(
    box: dict[str, str], checkpoint: Checkpoint
) -> None:
    command = launched(checkpoint).command
    assert command[command.index("--chat-template") + 1] == "/tmp/private/chat_template.json"
    written = json.loads(prepared(checkpoint).files["chat_template.json"])
    assert written == {"model_name": "hf", "model_path": str(checkpoint.path)}


@pytest.mark.parametrize("given", [("--chat-template", "vicuna"), ("--chat-templ=vicuna",)])
def test_a_chat_template_that_the_user_chose_is_used(
    box: dict[str, str], checkpoint: Checkpoint, given: tuple[str, ...]
) -> None:
    assert "/tmp/private/chat_template.json" not in launched(checkpoint, *given).command


def test_the_users_arguments_come_last_and_so_win_over_those_of_the_models_file(
    box: dict[str, str], checkpoint: Checkpoint
) -> None:
    command = launched(checkpoint, "--session-len", "4096").command
    assert command[-4:] == ("--session-len", "8192", "--session-len", "4096")


def test_the_server_has_as_many_slots_as_one_run_keeps_busy_and_some_requests_wait_for_one(
    box: dict[str, str], checkpoint: Checkpoint
) -> None:
    command = " ".join(launched(checkpoint).command)
    assert "--max-batch-size 256 --cudagraph-capture-batch-sizes 32 256" in command
    assert prepared(checkpoint).concurrency == 320


@pytest.mark.parametrize("given", [("--max-batch-size", "16"), ("--max-batch-size=16",)])
def test_slots_of_the_users_own_decide_how_many_requests_are_sent(
    box: dict[str, str], checkpoint: Checkpoint, given: tuple[str, ...]
) -> None:
    command = " ".join(launched(checkpoint, *given).command)
    assert command.count("--max-batch-size") == 1
    assert "--cudagraph-capture-batch-sizes 16 --" in command
    assert prepared(checkpoint, *given).concurrency == 20


def test_an_lmdeploy_that_captures_every_size_anyway_is_not_told_which(
    box: dict[str, str], checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Machine.installation
    monkeypatch.setattr(Machine, "installation", lambda *asked: replace(found(*asked), version="0.13.0"))
    assert "--cudagraph-capture-batch-sizes" not in launched(checkpoint).command


def test_a_model_file_can_say_how_many_requests_are_sent(box: dict[str, str], checkpoint: Checkpoint) -> None:
    assert prepared(checkpoint, settings=EngineSettings(concurrency=7)).concurrency == 7


def test_the_key_is_in_no_argument(box: dict[str, str], checkpoint: Checkpoint) -> None:
    launch = launched(checkpoint)
    assert not any(KEY in argument for argument in launch.command)
    assert KEY in launch.environment.values()


@pytest.mark.skipif(sys.platform != "linux", reason="reads argument lists and environments in /proc")
async def test_a_running_server_has_the_key_and_shows_it_to_nobody(
    box: dict[str, str], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    log = tmp_path / "server.log"
    async with Supervisor(prepared(checkpoint), log_path=log, start_timeout=PATIENCE_S, say=lambda _: None) as server:
        seen = json.loads((tmp_path / "record.json").read_text())

    assert seen["options"]["api_keys"] == [server.api_key]
    assert not any(server.api_key in argument for argument in seen["command_line"])
    assert server.api_key not in seen["environment"].values()  # what the server hands on to its own children
    assert server.api_key not in log.read_text()


@pytest.mark.parametrize("option", ["--api-keys", "--server-port=1", "--model-name", "--adapters"])
def test_what_this_program_sets_may_not_be_set_twice(box: dict[str, str], checkpoint: Checkpoint, option: str) -> None:
    with pytest.raises(UsageError, match=option.partition("=")[0]):
        engine_for(checkpoint, option, "x").prepare(lambda _: None)


def test_too_little_free_memory_is_an_error_that_names_who_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Checkpoint
) -> None:
    full = (*GPU[:4], 300, GPU[5])
    for name, value in gpu_box(tmp_path, gpus=[full], processes=[(GPU[1], 4242, "python train.py", 79000)]).items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ServerError, match=r"GPU 0 .* has 0\.3 GiB of 79\.6 GiB free") as caught:
        engine_for(checkpoint).prepare(lambda _: None)

    assert caught.value.details == ("  process 4242 (python train.py) uses 77.1 GiB",)


def test_without_a_gpu_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Checkpoint) -> None:
    for name, value in gpu_box(tmp_path, gpus=[]).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="needs an NVIDIA GPU"):
        engine_for(checkpoint).prepare(lambda _: None)


def test_an_lmdeploy_that_is_no_python_script_is_refused_because_its_key_could_be_read(
    box: dict[str, str], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    (tmp_path / "bin" / "lmdeploy").write_text('#!/bin/sh\nexec /opt/lmdeploy "$@"\n')
    with pytest.raises(BundleError, match="not a Python script"):
        engine_for(checkpoint).prepare(lambda _: None)


def test_it_uses_as_many_gpus_as_tensor_parallelism_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Checkpoint
) -> None:
    gpus = [(index, f"GPU-{index}", "H100", 80000, 10000 + index, "570") for index in range(4)]
    for name, value in gpu_box(tmp_path, gpus=gpus).items():
        monkeypatch.setenv(name, value)

    assert launched(checkpoint, "--tp", "2").environment["CUDA_VISIBLE_DEVICES"] == "3,2"


@pytest.mark.parametrize(
    ("line", "activity"),
    [
        ("Loading:  12%|#2        | 3/24 [00:01<00:09]", "loading weights 12 %"),
        ("Loading weights from safetensors:  50%|#####     | 1/2", "loading weights 50 %"),
        ("Convert to turbomind format:  12%|#", "converting weights 12 %"),
        ("HINT:    Please open http://127.0.0.1:1 in a browser", "the HTTP server is up"),
        ("2026-11-23 - lmdeploy - WARNING - something else", None),
    ],
)
def test_its_log_tells_what_it_is_doing(
    box: dict[str, str], checkpoint: Checkpoint, line: str, activity: str | None
) -> None:
    assert activity_in(line, prepared(checkpoint).signs.activities) == activity


def test_its_own_parser_takes_our_arguments(box: dict[str, str], checkpoint: Checkpoint) -> None:
    folder = _lmdeploy_folder()
    command = launched(checkpoint, "--backend", "pytorch").command
    arguments = list(command[command.index("serve") :])
    program = (
        f"import sys; sys.path.append({str(folder)!r})\n"
        "from lmdeploy.cli.cli import CLI\nfrom lmdeploy.cli.serve import SubCliServe\n"
        "CLI.add_parsers(); SubCliServe.add_parsers()\n"
        "options = CLI.parser.parse_args(sys.argv[1:])\n"
        "print('parsed', options.model_name, options.server_name, options.api_keys, options.session_len,"
        " options.enable_prefix_caching, options.generation_config, options.backend)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--api-keys", KEY], capture_output=True, text=True, check=False
    )
    assert f"parsed tiny 127.0.0.1 ['{KEY}'] 8192 True lmdeploy pytorch" in result.stdout, result.stderr


def _lmdeploy_folder() -> Path:
    """Where the real lmdeploy is installed: with its dependencies in our environment, or alone as `make test` does."""
    alone = Path(sys.prefix) / "lmdeploy-cli"
    beside = Path(sys.prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for folder in (alone, beside):
        if (folder / "lmdeploy").is_dir():
            return folder
    pytest.skip(f"lmdeploy is not installed in {ROOT}'s environment; `make test` does that")


@pytest.mark.parametrize(
    ("arguments", "tokens"),
    [
        ((), 8192),
        (("--session-len", "4096"), 4096),
        (("--session-len=2048",), 2048),
        (("--session", "1024"), 1024),
        (("--ses", "1024", "--session-len", "512"), 512),
        (("--server-name", "700"), 8192),
    ],
)
def test_the_servers_context_length_is_what_counts_of_the_arguments(
    box: dict[str, str], checkpoint: Checkpoint, arguments: tuple[str, ...], tokens: int
) -> None:
    settings = EngineSettings(args=("--session-len", "8192"))
    assert engine_for(checkpoint, *arguments, settings=settings).context_options == {"--session-len": tokens}


SLIDING = {"model_type": "mistral", "sliding_window": 64}


def with_window(checkpoint: Checkpoint, architecture: str = "MistralForCausalLM", **config: object) -> Checkpoint:
    return replace(
        checkpoint,
        architecture=architecture,
        config={**checkpoint.config, **SLIDING, **config},
        max_position_embeddings=256,
    )


@pytest.mark.parametrize(
    ("file_arguments", "arguments"), [((), ()), (("--session-len", "128"), ()), ((), ("--session-len", "128"))]
)
def test_the_context_ends_at_the_sliding_window_whatever_is_asked_for(
    box: dict[str, str], checkpoint: Checkpoint, file_arguments: tuple[str, ...], arguments: tuple[str, ...]
) -> None:
    said: list[str] = []
    engine = engine_for(with_window(checkpoint), *arguments, settings=EngineSettings(args=file_arguments))
    assert engine.context_options == {"--session-len": 64}
    command = engine.prepare(said.append).command(23334, Path("/tmp/private"))
    assert command[-2:] == ("--session-len", "64")
    assert [line for line in said if "prompt and reply end at the model's sliding window of 64 tokens" in line]


def test_a_context_within_the_sliding_window_needs_no_word(box: dict[str, str], checkpoint: Checkpoint) -> None:
    said: list[str] = []
    engine = engine_for(with_window(checkpoint), settings=EngineSettings(args=("--session-len", "32")))
    assert engine.context_options == {"--session-len": 32}
    engine.prepare(said.append)
    assert "sliding" not in " ".join(said)


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({"model_type": "mistral", "sliding_window": 4096}, 4096),
        ({"model_type": "mistral"}, 4096),
        ({"model_type": "mistral", "sliding_window": None}, None),
        ({"model_type": "phi3", "sliding_window": 2047}, 2047),
        ({"model_type": "phi3"}, None),
        ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 32768, "max_window_layers": 28}, 32768),
        ({"model_type": "qwen2", "use_sliding_window": True}, 4096),
        ({"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 32768}, None),
        ({"model_type": "qwen2_moe", "sliding_window": 32768}, None),
        ({"model_type": "qwen2_moe", "use_sliding_window": False, "sliding_window": 0}, None),
        ({"model_type": "llava", "text_config": {"model_type": "mistral", "sliding_window": 4096}}, 4096),
        ({"model_type": "deepseek_v4", "sliding_window": 128}, None),
        ({"model_type": "llama"}, None),
    ],
)
def test_a_sliding_window_is_read_as_transformers_reads_it(config: dict[str, object], tokens: int | None) -> None:
    assert sliding_window(config) == tokens


def test_a_window_as_wide_as_the_context_ends_nothing(box: dict[str, str], checkpoint: Checkpoint) -> None:
    assert engine_for(with_window(checkpoint, sliding_window=256)).context_options == {"--session-len": None}


def test_windows_that_lmdeploy_applies_layer_by_layer_end_no_context(
    box: dict[str, str], checkpoint: Checkpoint
) -> None:
    said: list[str] = []
    engine = engine_for(with_window(checkpoint, "GptOssForCausalLM", model_type="gpt_oss"))
    assert engine.context_options == {"--session-len": None}
    engine.prepare(said.append)
    assert [line for line in said if "one token more than the model's sliding window of 64" in line]


def test_an_abbreviated_dtype_is_recorded_like_a_whole_one(box: dict[str, str], checkpoint: Checkpoint) -> None:
    assert prepared(checkpoint, "--dt=float16").dtype == "float16"
