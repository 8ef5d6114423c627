"""TurboMind's C++ extension, which is not there: all Python of lmdeploy's TurboMind road stays lmdeploy's own.

The engine here has ``max_batch_size`` slots and gives each running request a token a step: a letter drawn from the
prompt, LMDEPLOY_ON_CPU_REPLY_LENGTH times, then the end of the turn.
"""

import os
import threading
import time
import types
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faults

_STEP_S = 0.01
_TOKENS = int(os.environ.get("LMDEPLOY_ON_CPU_REPLY_LENGTH", "1"))
# lmdeploy's own numbers for a request's status.
_RUNNING, _FAILED, _TOO_LONG, _FINISHED, _CANCELLED, _NO_MEMORY = 0, 5, 6, 7, 8, 11


@dataclass(frozen=True)
class _Status:
    status: int
    seq_len: int


class _SharedState:
    def __init__(self, seq_len: int) -> None:
        self._state = _Status(_RUNNING, seq_len)

    def consume(self) -> _Status:
        return self._state

    def publish(self, status: int, seq_len: int) -> None:
        self._state = _Status(status, seq_len)


class _Job:
    def __init__(self, prompt: list[int], settings: Any, callback: Callable[[], None], output: Any, room: int) -> None:
        self.prompt, self.callback, self.output = prompt, callback, output
        self.ends = list(getattr(settings, "eos_ids", None) or [2])
        self.most = min(settings.max_new_tokens, room)
        self.state = _SharedState(len(prompt))
        self.metrics = types.SimpleNamespace(enqueue_time=_microseconds(), scheduled_time=0, cached_tokens=0)
        self.made = 0
        self.cancelled = False


class _Engine:
    def __init__(self, slots: int, session_len: int, letters: list[int]) -> None:
        self._slots, self.session_len, self._letters = slots, session_len, letters
        self.waiting: list[_Job] = []
        self.running: list[_Job] = []
        self.ticks = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, job: _Job) -> None:
        with self._changed:
            self.waiting.append(job)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.waiting or self.running)
                while self.waiting and len(self.running) < self._slots:
                    job = self.waiting.pop(0)
                    job.metrics.scheduled_time = _microseconds()
                    self.running.append(job)
            time.sleep(_STEP_S)
            self.ticks += 1
            fault = faults.take(sum(job.made == 0 for job in self.running))
            if fault not in (None, "oom", "raise"):
                faults.happen(fault, None)
            ended = [job for job in self.running if self._step(job, fault)]
            with self._changed:
                self.running = [job for job in self.running if job not in ended]

    def _step(self, job: _Job, fault: str | None) -> bool:
        """Make a token of a request's; whether it has ended."""
        status = _RUNNING
        if fault is not None:
            status = _NO_MEMORY if fault == "oom" else _FAILED
        elif job.cancelled:
            status = _CANCELLED
        elif len(job.prompt) >= self.session_len:
            status = _TOO_LONG
        else:
            letter = self._letters[zlib.crc32(str(job.prompt).encode()) % len(self._letters)]
            token = letter if job.made < _TOKENS else max(job.ends)
            job.output[len(job.prompt) + job.made] = token
            job.made += 1
            if token in job.ends or job.made >= job.most:
                status = _FINISHED
        job.state.publish(status, len(job.prompt) + job.made)
        job.callback()
        return status != _RUNNING


class _Tensor:
    type = "int32"

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def view(self, _: Any) -> "_Tensor":
        return self

    def __dlpack__(self, *_: Any, **__: Any) -> Any:
        return self._tensor.__dlpack__()

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


class _Request:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._job: _Job | None = None

    def forward(
        self, inputs: Any, mm_inputs: Any, session: Any, cfg: Any, stream_output: Any, metrics: Any, cb: Any
    ) -> tuple[dict[str, _Tensor], _SharedState, Any]:
        import torch

        prompt = inputs["input_ids"].tolist()
        output = torch.zeros(len(prompt) + cfg.max_new_tokens + 1, dtype=torch.int32)
        self._job = _Job(prompt, cfg, cb, output, self._engine.session_len - len(prompt))
        self._engine.submit(self._job)
        return {"output_ids": _Tensor(output)}, self._job.state, self._job.metrics

    def cancel(self) -> None:
        if self._job is not None:
            self._job.cancelled = True

    def set_grammar(self, grammar: Any) -> None: ...


class _Communicator:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine

    def create_request(self) -> _Request:
        return _Request(self._engine)

    def is_dummy_node(self) -> bool:
        return False

    def process_weight(self, _: Any) -> None: ...
    def create_engine(self, _: Any) -> None: ...

    def get_schedule_metrics(self, _: Any) -> Any:
        return types.SimpleNamespace(
            active_seqs=len(self._engine.running),
            waiting_seqs=len(self._engine.waiting),
            cache_usage=0.1,
            prefix_cache_hit_rate=0.5,
            scheduler_tick=self._engine.ticks,
        )


class _AnythingType(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Anything(metaclass=_AnythingType):
    """A class of the extension's of which only names and fields are used."""

    def __init__(self, *_: Any, **fields: Any) -> None:
        self.__dict__.update(fields)


def _lookup(name: str) -> type[_Anything]:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Anything


def _microseconds() -> int:
    return int(time.time() * 1e6)


module: Any = types.ModuleType("lmdeploy.turbomind._turbomind")
module.TensorMap = dict
module.from_dlpack = lambda tensor: tensor
module.DataType = _Anything
module.__getattr__ = _lookup


def patch(turbomind: Any) -> None:
    """Make ``lmdeploy.turbomind.turbomind``, which has just been imported, load this engine instead of weights."""

    def from_hf(self: Any, model_path: str, engine_config: Any, trust_remote_code: bool = False) -> Any:
        from transformers import AutoTokenizer

        assert turbomind.is_supported(model_path, trust_remote_code=trust_remote_code)
        self._vocab_size = 0
        self.engine_config = engine_config
        engine_config.dtype = "bfloat16"
        tokenizer = AutoTokenizer.from_pretrained(model_path, trust_remote_code=trust_remote_code)
        letters = [tokenizer.encode(letter, add_special_tokens=False)[-1] for letter in "ABCD"]
        engine = _Engine(engine_config.max_batch_size, engine_config.session_len, letters)
        loader = types.SimpleNamespace(model=types.SimpleNamespace(), export=lambda: None)
        return _Communicator(engine), loader

    turbomind.TurboMind._from_hf = from_hf
