"""What servers really print, and what is made of it."""

import re
import signal
from collections.abc import Sequence

import pytest

from bundle.serving import diagnosis
from bundle.serving.diagnosis import Diagnosis, exit_in_words
from bundle.serving.engines import ENGINES
from bundle.serving.known_failures import COMMON_FAILURES

OF_ENGINES = tuple(failure for engine in ENGINES.values() for failure in engine.signs.failures)


def diagnose(lines: Sequence[str], returncode: int | None) -> Diagnosis:
    return diagnosis.diagnose(lines, returncode, OF_ENGINES)


def fatal(line: str) -> bool:
    return diagnosis.fatal(line, OF_ENGINES)


TRACEBACK = 'Traceback (most recent call last):\n  File "/venv/bin/lmdeploy", line 6, in <module>\n    sys.exit(run())'

# Lines after which no server comes up, and a part of the cause.
ENGINE_NEVER_CAME = "RuntimeError: PyTorch ZMQ engine process exited before publishing RPC server port."
FATAL = [
    (ENGINE_NEVER_CAME, "its engine's process ended without an error message"),
    (
        "(EngineCore pid=7) ERROR 11-27 09:59:35 [core.py:1510] Exception: WorkerProc initialization failed due to an "
        "exception in a background process. See stack trace for root cause.",
        "its engine's process ended without an error message",
    ),
    ("AssertionError: Torch not compiled with CUDA enabled", "CPU-only build"),
    ("RuntimeError: No CUDA GPUs are available", "no NVIDIA GPU"),
    (
        "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a "
        "driver from http://www.nvidia.com/Download/index.aspx",
        "no NVIDIA GPU",
    ),
    ("2025-03-19 04:28:52,017 - lmdeploy - ERROR - base.py:55 - <CUDA> check failed!", "no NVIDIA GPU"),
    ("cuda is not available.", "no NVIDIA GPU"),
    (
        "model.layers.{0, 1}.self_attn.q_proj.weight | MISSING | ",
        "no weights for model.layers.{0, 1}.self_attn.q_proj",
    ),
    (
        "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your driver",
        "driver is too old",
    ),
    (
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling "
        "NumCudaDevices() that might have already set an error? Error 804: forward compatibility was attempted on non "
        "supported HW",
        "driver is too old",
    ),
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 112.00 MiB. GPU 0 has a total capacity of 14.90 "
        "GiB of which 35.31 MiB is free.",
        "too little free memory",
    ),
    ("torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "too little free memory"),
    (
        "RuntimeError: [TM][ERROR] CUDA runtime error: out of memory /lmdeploy/src/turbomind/utils/memory_utils.cu:32",
        "too little free memory",
    ),
    (
        "  what():  [TM][ERROR] CUDA runtime error: out of memory /lmdeploy/src/turbomind/utils/allocator.h:233",
        "too little free memory",
    ),
    ("[TM][FATAL][memory.cc:41] CUDA error: out of memory", "too little free memory"),
    ("RuntimeError: No enough gpu memory for runtime.", "too little free memory"),
    (
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "too little free memory",
    ),
    (
        "AssertionError: No enough gpu memory for state cache. Please reduce max_batch_size.",
        "too little free memory",
    ),
    (
        "(RayWorkerWrapper pid=4711) RuntimeError: No enough gpu memory for kv cache.",
        "too little free memory",
    ),
    (
        "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 23333): address already in use",
        "is using its port",
    ),
    ("OSError: [Errno 98] Address already in use", "is using its port"),
    (
        "safetensors._safetensors_rust.SafetensorError: Error while deserializing header: header too large",
        "weights cannot be read: Error while deserializing header: header too large.",
    ),
    ("2025-03-19 04:28:52,017 - lmdeploy - ERROR - base.py:55 - <Triton> check failed!", "triton does not work"),
]

# Lines that explain a death, but that a living server may print as well.
TELLING = [
    ("the driver reports CUDA_ERROR_OUT_OF_MEMORY", "too little free memory"),
    ("EOFError", "a race in lmdeploy"),
    ("EOFError", "a race in lmdeploy"),
    (
        "ValueError: Try apply_chat_template failed: Cannot use chat template functions because it is not set",
        "own chat template does not work: Cannot use chat template functions because it is not set.",
    ),
    ("RuntimeError: no executable data type for this device", "not built for this GPU"),
    ("AssertionError: turbomind does not support /m. Plz try pytorch engine instead.", "know the architecture /m."),
    (
        "AssertionError: Attempted to load weight (torch.Size([64])) into parameter (torch.Size([32]))",
        "do not match config.json",
    ),
    ("MemoryError", "too little memory"),
    ("MemoryError: Unable to allocate 3.1 GiB for an array", "too little memory"),
    ("lmdeploy: error: unrecognized arguments: --no-such-option", "unrecognized arguments: --no-such-option."),
    ("api_server: error: argument --tp: invalid int value: 'two'", "argument --tp: invalid int value: 'two'."),
    ("│ No such option: --no-such-option │", "No such option: --no-such-option."),
    ("Error: No such option '--no-such-option'.", "No such option '--no-such-option'."),
    ("ValueError: Port 23333 is not available", "is using its port"),
    (
        "RuntimeError: CUDA error: no kernel image is available for execution on the device",
        "not built for this GPU",
    ),
    (
        "RuntimeError: CUDA error: an illegal memory access was encountered",
        "reported an error: an illegal memory access was encountered.",
    ),
    (
        "RuntimeError: [TM][ERROR] CUDA runtime error: operation not supported /lmdeploy/src/turbomind/allocator.h:197",
        "reported an error: operation not supported.",
    ),
    (
        "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1970, unhandled cuda error",
        "cannot communicate",
    ),
    ("RuntimeError: Failed to find C compiler. Please specify via CC environment variable.", "needs a C compiler"),
    ("/build/main.c:5:10: fatal error: Python.h: No such file or directory", "C headers"),
    (
        "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory",
        "a library is missing: libcudart.so.12.",
    ),
    (
        "ImportError: /venv/lib/_turbomind.so: undefined symbol: _ZN3c10",
        "incompatible: undefined symbol: _ZN3c10.",
    ),
    (
        "Please pass the argument `trust_remote_code=True` to allow custom code to be run.",
        "may not run without --trust-remote-code",
    ),
    (
        "ImportError: This modeling file requires the following packages that were not found in your environment: "
        "einops, timm. Run `pip install einops timm`",
        "einops, timm.",
    ),
    (
        "(Worker pid=6423) ERROR 11-27 19:24:50 [multiproc_executor.py:953] ValueError: Following weights were not "
        "initialized from checkpoint: {'model.norm.weight'}",
        "no weights for 'model.norm.weight'.",
    ),
    (
        "ImportError: Missing dependencies for serving. Install with `pip install transformers[serving]`",
        "packages for serving",
    ),
    (
        "ValueError: The checkpoint you are trying to load has model type `newmodel` but Transformers does not "
        "recognize this architecture.",
        "does not know the architecture newmodel.",
    ),
    (
        "RuntimeError: Can not found rewrite for architectures: ['NewForCausalLM']",
        "does not know the architecture NewForCausalLM.",
    ),
    ("TypeError: Unsupported quant method: gptq", "does not take weights quantized as config.json says: gptq."),
    ("RuntimeError: Unsupported quant method: hqq", "does not take weights quantized as config.json says: hqq."),
    (
        "AssertionError: unsupported quant config: {'quant_method': 'gptq', 'desc_act': True}",
        "config.json says: {'quant_method': 'gptq', 'desc_act': True}.",
    ),
    (
        'ValueError: Unsupported group_size=32 for model_format="awq". The expected group_size is 128.',
        'config.json says: Unsupported group_size=32 for model_format="awq".',
    ),
    (
        "ValueError: Unrecognized configuration class <class 'transformers_modules.m-1.configuration_new.NewConfig'> "
        "for this kind of AutoModel: AutoModelForCausalLM.",
        "does not know the architecture NewConfig.",
    ),
    (
        "ImportError: cannot import name 'is_torch_fx_available' from 'transformers.utils.import_utils' (/venv/x.py)",
        "cannot import name 'is_torch_fx_available' from 'transformers.utils.import_utils'.",
    ),
    (
        "AttributeError: 'InternLM2Tokenizer' object has no attribute 'sp_model'",
        "'InternLM2Tokenizer' object has no attribute 'sp_model'.",
    ),
    (
        "OSError: Error no file named model.safetensors, or pytorch_model.bin, found in directory /m.",
        "weights cannot be read",
    ),
    (
        "RuntimeError: Failed to find valid checkpoint under '/m'",
        "weights cannot be read",
    ),
    (
        "\tsize mismatch for model.norm.weight: copying a param with shape torch.Size([64]) from checkpoint",
        "do not match config.json: size mismatch for model.norm.weight.",
    ),
    ("KeyError: 'model.layers.3.attention.wqkv.weight'", "needs: model.layers.3.attention"),
    ("OSError: [Errno 28] No space left on device", "is full"),
    (
        "RuntimeError: [enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 34359738368 bytes.",
        "the machine has too little memory",
    ),
    ("OSError: [Errno 24] Too many open files", "limit of open files"),
    ("ModuleNotFoundError: No module named 'transformers.onnx'", "incompatible with the installed transformers"),
    ("ModuleNotFoundError: No module named 'sentencepiece'", "the Python module sentencepiece is not installed."),
]

# What servers print that come up all the same.

# vLLM 0.32.0's own, and as it words them for GPUs.
ENGINE_DEAD = (
    "(APIServer pid=6036) ERROR 11-26 06:36:44 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: "
    "EngineCore encountered an issue. See stack trace (above) for the root cause."
)
OF_VLLM = [
    ("api_server.py: error: unrecognized arguments: --bogus", "rejects its options"),
    (
        "(EngineCore pid=7) ERROR 11-26 06:21:15 [core.py:1510] ValueError: Free memory on device cuda:0 "
        "(10.2/79.6 GiB) on startup is less than desired GPU memory utilization (0.9, 71.6 GiB). Decrease GPU memory "
        "utilization or reduce GPU memory used by other processes.",
        "the GPU has less free memory than it is configured to use: (10.2/79.6 GiB)",
    ),
    (
        "(EngineCore pid=7) ERROR 11-26 06:21:15 [core.py:1510] ValueError: To serve at least one request with the "
        "model's max seq len (65536), (0.25 GiB KV cache is needed, which is larger than the available KV cache memory "
        "(0.02 GiB). Based on the available memory, the estimated maximum model length is 5120. Try increasing",
        "too small for the context length (65536 tokens)",
    ),
    ("ValueError: No available memory for the cache blocks. Try increasing", "no memory is left for its KV cache"),
    ("ValueError: Cannot auto-fit max_model_len: not enough GPU memory available", "no memory is left for its KV"),
    (
        "(EngineCore pid=26626) ERROR 11-26 06:21:15 [core.py:1510] RuntimeError: Worker failed with error 'Available "
        "memory on node 0 (11.08/14.59 GiB) on kv cache allocation is less than requested memory for kv (900.0 GiB). "
        "Decrease --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or reduce CPU memory used by other processes.', "
        "please check the stack trace above for the root cause",
        "too little free memory for its KV cache: (11.08/14.59 GiB)",
    ),
    (
        "  Value error, User-specified max_model_len (999999) is greater than the derived max_model_len "
        "(max_position_embeddings=65536.0 or model_max_length=None in model's config.json). To allow overriding",
        "a longer context than the model's: User-specified max_model_len (999999)",
    ),
    (
        "  Value error, Model architectures ['FooBarForCausalLM'] are not supported for now. Supported architectures: "
        "dict_keys(['ApertusForCausalLM'])",
        "does not know the architecture FooBarForCausalLM",
    ),
    (
        "ValueError: FooBarForCausalLM has no vLLM implementation and the Transformers implementation is not "
        "compatible with vLLM.",
        "does not know the architecture FooBarForCausalLM",
    ),
    (
        "  Value error, The checkpoint you are trying to load has model type `foobar` but Transformers does not "
        "recognize this architecture.",
        "does not know the architecture foobar",
    ),
    (
        'zmq.error.ZMQError: ipc path "/a/long/path/7701f75f-c621-4d2b-ad77-068da5eb0abc" is longer than 107 '
        "characters (sizeof(sockaddr_un.sun_path)).",
        "too long for a socket",
    ),
    ("RuntimeError: Failed to infer device type, please set the environment variable", "no NVIDIA GPU"),
    (
        "(EngineCore pid=7) ERROR 11-26 06:36:44 [multiproc_executor.py:316] Worker proc VllmWorker-0 died "
        "unexpectedly (exit code: -9), shutting down executor.",
        "a worker of its engine was killed",
    ),
    (ENGINE_DEAD, "its engine's process ended without an error message"),
    (
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
        "its engine's process ended without an error message",
    ),
    (
        "(Worker pid=26775) ERROR 11-27 10:07:01 [multiproc_executor.py:953] RuntimeError: "
        "_C::static_scaled_fp8_quant() expected at most 0 argument(s) but received 4 argument(s). Declaration: …",
        "has no code for weights quantized in this way (static_scaled_fp8_quant)",
    ),
    ("torch._inductor.exc.InvalidCxxCompiler: No working C++ compiler found in", "needs a compiler"),
]
TELLING += OF_VLLM

HARMLESS = [
    "starting",
    "2025-03-19 04:28:52,017 - lmdeploy - WARNING - base.py:382 - No enough memory. Update max_prefill_token_num=4096",
    "/venv/lib/python3.11/site-packages/torch/cuda/__init__.py:129: UserWarning: CUDA initialization: Found no NVIDIA "
    "driver on your system.",
    "/venv/torch/cuda/__init__.py:129: UserWarning: CUDA initialization: The NVIDIA driver on your system is too old",
    "[W socket.cpp:464] The server socket has failed to bind to [::]:29500 (errno: 98 - Address already in use).",
    '    raise RuntimeError("No CUDA GPUs are available")',
    "2025-03-19 04:28:52,017 - lmdeploy - WARNING - Fallback to pytorch engine because '/m' not supported by turbomind",
    "input backend=turbomind, backend_config=TurbomindEngineConfig(dtype='auto'), trust_remote_code=True",
    "HINT:    Please open http://127.0.0.1:23333 in a browser for detailed api usage!!!",
    "(EngineCore pid=71) WARNING 11-23 12:00:00 [utils.py:12] Found ulimit of 1024 and failed to increase. "
    "This can cause fd limit errors like `OSError: [Errno 24] Too many open files`. Consider increasing with ulimit -n",
]


@pytest.mark.parametrize(("line", "cause"), FATAL + TELLING)
def test_a_known_failure_is_told_from_its_line(line: str, cause: str) -> None:
    found = diagnose([*TRACEBACK.splitlines(), line, "shutting down"], 1)
    assert cause in found.cause
    assert found.remedy


@pytest.mark.parametrize("line", [line for line, _ in FATAL])
def test_some_lines_are_the_end_of_every_start(line: str) -> None:
    assert fatal(line)


@pytest.mark.parametrize("line", [*(line for line, _ in TELLING), *HARMLESS, *TRACEBACK.splitlines()])
def test_other_lines_are_not(line: str) -> None:
    assert not fatal(line)


@pytest.mark.parametrize("line", HARMLESS)
def test_a_warning_is_not_the_cause_when_something_else_was_the_end(line: str) -> None:
    found = diagnose([line, "ValueError: the moon is in the wrong phase"], 1)
    assert found.cause == "its last output was 'ValueError: the moon is in the wrong phase'."


@pytest.mark.parametrize(("line", "cause"), OF_VLLM)
def test_vllms_own_list_alone_explains_its_lines(line: str, cause: str) -> None:
    last = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    assert cause in diagnosis.diagnose([line, last], 1, ENGINES["vllm"].signs.failures).cause


def test_what_is_vague_does_not_hide_an_exception_that_may_be_the_cause() -> None:
    cause = "(EngineCore pid=7) ERROR 11-26 06:21:15 [core.py:1510] TypeError: the moon is in the wrong phase"
    assert "the moon" in diagnose([cause, ENGINE_DEAD], 0).cause


def test_lines_that_only_point_to_the_cause_are_not_quoted_as_the_cause() -> None:
    engine = "(EngineCore pid=7) ERROR 11-27 10:07:06 [core.py:1510]"
    lines = [
        "(Worker pid=8) ERROR 11-26 06:21:15 [multiproc_executor.py:953] TypeError: the moon is in the wrong phase",
        f"{engine}     raise e from None",
        f"{engine} Exception: WorkerProc initialization failed due to an exception in a background process. See stack "
        "trace for root cause.",
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
    ]
    assert "the moon" in diagnose(lines, 1).cause


def test_of_a_configuration_that_pydantic_refuses_the_reason_is_quoted() -> None:
    lines = [
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig",
        "  Value error, No moon.",
    ]
    assert "No moon" in diagnose([*lines, "    For further information visit https://errors.pydantic.dev"], 1).cause


def test_buffers_that_follow_from_config_json_need_not_be_stored() -> None:
    assert not fatal("model.layers.{0, 1}.self_attn.rotary_emb.inv_freq | MISSING | ")


def test_every_known_failure_is_tried_here() -> None:
    tried = [line for line, _ in FATAL + TELLING]
    for failure in (*OF_ENGINES, *COMMON_FAILURES):
        for pattern in (*failure.fatal, *failure.telling):
            assert any(re.search(pattern, line) for line in tried), pattern


def test_the_port_is_recognised_so_that_another_can_be_tried() -> None:
    found = diagnose(["ERROR: [Errno 48] error while attempting to bind on address ('127.0.0.1', 1)"], 1)
    (taken,) = (one for one in COMMON_FAILURES if one.passing)
    assert found == Diagnosis(taken.cause, taken.remedy, passing=True)
    assert "port" in taken.cause


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("einops", "`pip install einops`"),
        ("google.protobuf", "`pip install protobuf`"),
        ("PIL", "`pip install pillow`"),
        ("lmdeploy", "`pip install '.[gpu]'`"),
        ("torch", "`pip install '.[gpu]'` or `pip install '.[cpu]'`"),
    ],
)
def test_a_missing_module_comes_with_the_command_that_installs_it(module: str, command: str) -> None:
    found = diagnose([f"ModuleNotFoundError: No module named '{module}'"], 1)
    assert found == Diagnosis(f"the Python module {module} is not installed.", f"Install it: {command}.")


def test_an_engine_process_that_said_why_it_ended_was_not_killed() -> None:
    lines = ["TypeError: the moon is in the wrong phase", ENGINE_NEVER_CAME]
    assert "the moon" in diagnosis.diagnose(lines, 1, ENGINES["lmdeploy"].signs.failures).cause


def test_a_module_that_was_missed_long_before_the_end_is_not_its_cause() -> None:
    lines = ["ModuleNotFoundError: No module named 'cloudpickle'", *(f"request {n} done" for n in range(20))]
    assert "crashed in compiled code" in diagnosis.diagnose(lines, -signal.SIGSEGV, was_ready=True).cause


def test_nor_is_one_that_only_a_warning_names_the_cause_of_a_signal() -> None:
    lines = [
        "2026-11-27 12:46:40,991 - lmdeploy - WARNING - utils.py:141 - Unable to register remote classes used by "
        "trust_remote_code with by-value serialization. This may lead to a later error.",
        "Traceback (most recent call last):",
        "    import cloudpickle",
        "ModuleNotFoundError: No module named 'cloudpickle'",
    ]
    assert "it was killed" in diagnosis.diagnose(lines, -signal.SIGKILL, ENGINES["lmdeploy"].signs.failures).cause


def test_an_end_of_the_engine_that_nobody_explains_is_the_cause_and_one_with_an_exception_is_not() -> None:
    lines = ["(APIServer pid=1) INFO 11-27 12:44:25 [compilation.py:317] Enabled custom fusions: norm_quant"]
    gone = diagnosis.diagnose(lines, None, ENGINES["vllm"].signs.failures, engine_gone=True)
    assert "its engine's process ended without an error message" in gone.cause
    lines.append("TypeError: the moon is in the wrong phase")
    assert "the moon" in diagnosis.diagnose(lines, None, ENGINES["vllm"].signs.failures, engine_gone=True).cause


def test_an_engine_process_that_ended_of_a_missing_module_was_not_cut_off_by_a_race() -> None:
    lines = [
        *WARNED,
        "Process mp_engine_proc:",
        "Traceback (most recent call last):",
        "    import triton",
        "ModuleNotFoundError: No module named 'triton'",
        "2026-11-26 07:33:09,918 - lmdeploy - ERROR - zmq_rpc.py:62 - PyTorch ZMQ engine process is not alive.",
        "Traceback (most recent call last):",
        *["  File x"] * 20,
        "lmdeploy.pytorch.engine.mp_engine.zmq_rpc.RPCServerDeadError: PyTorch ZMQ engine process is not alive.",
    ]
    found = diagnosis.diagnose(lines, 1, ENGINES["lmdeploy"].signs.failures)
    assert found.cause == "the Python module triton is not installed."
    assert not found.passing


@pytest.mark.parametrize(
    ("returncode", "cause"),
    [
        (-signal.SIGKILL, "killed, probably by the kernel"),
        (137, "killed, probably by the kernel"),
        (-signal.SIGSEGV, "crashed in compiled code"),
        (-signal.SIGBUS, "shared memory is full"),
        (-signal.SIGILL, "this CPU lacks instructions"),
    ],
)
def test_a_signal_tells_something_where_the_log_does_not(returncode: int, cause: str) -> None:
    assert cause in diagnose(["INFO: serving"], returncode).cause


def test_what_was_printed_long_before_a_sigkill_has_nothing_to_do_with_it() -> None:
    lines = ["OSError: [Errno 28] No space left on device", *(f"request {n} done" for n in range(50))]
    assert "probably by the kernel" in diagnose(lines, -signal.SIGKILL).cause
    assert "is full" in diagnose(lines[:3], -signal.SIGKILL).cause


def test_what_is_unknown_is_quoted_and_an_error_sooner_than_a_farewell() -> None:
    lines = ["loading", "ValueError: the moon is in the wrong phase", "bye", ""]
    assert diagnose(lines, 1).cause == "its last output was 'ValueError: the moon is in the wrong phase'."
    assert diagnose(["loading", "bye"], 1).cause == "its last output was 'bye'."
    assert diagnose([], 0).cause == "it printed nothing that explains it."


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (1, "exit code 1"),
        (0, "exit code 0"),
        (-9, "killed by SIGKILL"),
        (137, "killed by SIGKILL"),
        (255, "exit code 255"),
    ],
)
def test_how_it_ended_in_words(returncode: int, words: str) -> None:
    assert exit_in_words(returncode) == words


WARNED = [
    "2026-11-26 06:29:32,480 - lmdeploy - WARNING - utils.py:141 - Unable to register remote classes",
    "Traceback (most recent call last):",
    '  File "lmdeploy/pytorch/utils.py", line 114, in maybe_register_config_serialize_by_value',
    "    import cloudpickle",
    "ModuleNotFoundError: No module named 'cloudpickle'",
]


def test_a_traceback_that_was_logged_with_a_warning_is_not_the_cause() -> None:
    dead = ["ERROR - engine.py:671 - Engine main loop failed.", "Traceback (most recent call last):", "  File x"]
    lines = [*WARNED, *dead, "RuntimeError: injected failure in the engine"]
    assert diagnosis.last_exception(lines) == "RuntimeError: injected failure in the engine"
    assert diagnosis.last_exception(WARNED) is None
    assert "injected failure" in diagnosis.diagnose(lines, 1).cause


def test_a_crash_right_after_a_warning_is_the_cause() -> None:
    lines = [WARNED[0], WARNED[1], "  File x", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"]
    assert diagnosis.diagnose(lines, 1).cause == "the GPU has too little free memory."
    assert "cloudpickle" in diagnosis.diagnose(WARNED, 1).cause


def test_the_end_of_an_engine_process_is_explained_by_what_it_printed() -> None:
    """As lmdeploy 0.18 printed it for fp8 weights of InternLM2."""
    lines = [
        "Process mp_engine_proc:",
        "Traceback (most recent call last):",
        '  File "/site/lmdeploy/pytorch/nn/linear/blocked_fp8.py", line 382, in weight_spliter',
        "    assert layout == 'default'",
        "           ^^^^^^^^^^^^^^^^^^^",
        "AssertionError",
        "2026-11-26 17:14:32,815 - lmdeploy - ERROR - zmq_rpc.py:62 - PyTorch ZMQ engine process is not alive.",
        "Traceback (most recent call last):",
        *["  File x"] * 20,
        "lmdeploy.pytorch.engine.mp_engine.zmq_rpc.RPCServerDeadError: PyTorch ZMQ engine process is not alive.",
    ]
    found = diagnosis.diagnose(lines, 1, ENGINES["lmdeploy"].signs.failures)
    assert found.cause == "its last output was \"AssertionError: assert layout == 'default'\"."


def test_a_server_that_was_ready_did_not_fail_to_start() -> None:
    lines = ["lmdeploy.zmq_rpc.RPCServerDeadError: PyTorch ZMQ engine process is not alive.", "EOFError"]
    failures = ENGINES["lmdeploy"].signs.failures
    assert "race" in diagnosis.diagnose(lines, 1, failures).cause
    assert "race" not in diagnosis.diagnose(lines, 1, failures, was_ready=True).cause
    assert diagnosis.known_failure(lines, failures, was_ready=True) is None
