"""What this machine has to serve with. Other programs tell, and that takes time, so they can be asked ahead."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from bundle.serving.gpus import Gpu, list_gpus
from bundle.serving.lmdeploy.installation import LmdeployInstallation, find_lmdeploy

T = TypeVar("T")


class Machine:
    """The GPUs and the lmdeploy of this machine; each is looked for once."""

    def __init__(self) -> None:
        self._gpus = _Once(list_gpus)
        self._lmdeploy = _Once(find_lmdeploy)

    def look(self) -> None:
        """Begin to look, and return at once."""
        for search in (self._gpus, self._lmdeploy):
            search.begin()

    @property
    def gpus(self) -> list[Gpu]:
        """The GPUs, as ``list_gpus`` returns them."""
        return self._gpus.result()

    @property
    def lmdeploy(self) -> LmdeployInstallation:
        """The lmdeploy that is used.

        Raises:
            ServerError: There is none, or it cannot be used.
        """
        return self._lmdeploy.result()


class _Once(Generic[T]):
    """A call that is made once: when its result is first wanted, or ahead of that in a thread."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._results: list[T] = []
        self._error: Exception | None = None

    def begin(self) -> None:
        threading.Thread(target=self._settle, daemon=True).start()

    def result(self) -> T:
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
