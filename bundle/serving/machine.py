"""What this machine has to serve with. Other programs tell, and that takes time, so they can be asked ahead."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Final, Generic, TypeVar

from bundle.serving.gpus import Gpu, Nvidia, ask_for_gpus
from bundle.serving.installation import Installation, find_installation

T = TypeVar("T")

_EXTRAS: Final = {"lmdeploy": "gpu"}
"""The extra of our package that installs a program, where it isn't called like the program."""


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
        limit_s: How long ``nvidia-smi`` may take to answer.
    """

    def __init__(self, limit_s: float = 30.0) -> None:
        self._nvidia = Once(partial(ask_for_gpus, limit_s))
        self._installations: dict[str, Once[Installation]] = {}

    def look(self) -> None:
        """Begin to look for GPUs and lmdeploy, and return at once."""
        self._nvidia.begin()
        self._installation("lmdeploy").begin()

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

    def _installation(self, name: str) -> Once[Installation]:
        if name not in self._installations:
            install = f"Install it with `pip install '.[{_EXTRAS.get(name, name)}]'` in a checkout of this project."
            self._installations[name] = Once(lambda: find_installation(name, install))
        return self._installations[name]
