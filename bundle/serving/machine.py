"""What this machine has to serve with. Other programs tell, and that takes time, so they can be asked ahead."""

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from bundle.serving.gpus import Gpu, Nvidia, ask_for_gpus
from bundle.serving.installation import Installation, find_installation
from bundle.system.findings import SLOW

if TYPE_CHECKING:
    from bundle.serving.environments import Environment

T = TypeVar("T")

_INSTALL: Final = {
    "lmdeploy": "Install it with `pip install '.[gpu]'` in a checkout of this project.",
    "vllm": "Install it in an environment of its own (see docs/engines.md), and put its bin directory on PATH.",
}
"""How to install a program."""


class Once(Generic[T]):
    """A call that is made once: when its result is first wanted, or ahead of that in a thread."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._results: list[T] = []
        self._error: Exception | None = None

    def begin(self) -> None:
        """Make the call in a thread, and return at once."""
        threading.Thread(target=self._settle, daemon=True).start()

    def __call__(self) -> T:
        """The result; whatever the call raised is raised again."""
        self._settle()
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _settle(self) -> None:
        with self._lock:
            if self._results or self._error is not None:
                return
            try:
                self._results.append(self._call())
            except Exception as error:
                self._error = error


class Machine:
    """The GPUs and the installed servers of this machine; each is looked for once.

    Args:
        limit_s: How long a program that is asked may take to answer.
    """

    def __init__(self, limit_s: float = 30.0) -> None:
        self.limit_s = limit_s
        self._lock = threading.Lock()
        self._nvidia = Once(partial(ask_for_gpus, limit_s))
        self._facts: dict[tuple[str, str], Once[Any]] = {}

    def look(self, program: str) -> None:
        """Begin to look for GPUs and an installed program, and return at once."""
        self._nvidia.begin()
        self._installation(program).begin()

    @property
    def nvidia(self) -> Nvidia:
        """What ``nvidia-smi`` says."""
        return self._nvidia()

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs in PCI order, also those that CUDA_VISIBLE_DEVICES hides; none without a working driver."""
        return self.nvidia.gpus

    def installation(self, name: str) -> Installation:
        """The installed program of this name.

        Raises:
            ServerError: It is not installed, or cannot be used.
        """
        return self._installation(name)()

    def environment(self, interpreter: str) -> "Environment":
        """What is installed next to an interpreter.

        Raises:
            ProbeError: It does not tell.
        """
        from bundle.serving.environments import describe_environment  # 30 ms, which a server need not wait for

        describe = partial(describe_environment, interpreter, limit_s=self.limit_s)
        return self._fact("environment", interpreter, describe)()

    def torch(self, interpreter: str) -> dict[str, Any]:
        """What the torch next to an interpreter says of the GPUs: see ``environment_probe``.

        Raises:
            ProbeError: It does not tell.
        """
        from bundle.serving.environments import look_at_torch  # as above

        return self._fact("torch", interpreter, partial(look_at_torch, interpreter, limit_s=SLOW * self.limit_s))()

    def _installation(self, name: str) -> Once[Installation]:
        install = _INSTALL.get(name, f"Install it with `pip install {name}`.")
        return self._fact("installation", name, partial(find_installation, name, install))

    def _fact(self, kind: str, name: str, find: Callable[[], T]) -> Once[T]:
        with self._lock:
            return self._facts.setdefault((kind, name), Once(find))
