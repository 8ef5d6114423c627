"""A ModelScope on loopback: files of data sets by plain HTTP."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from tests.tasks.loopback import Answer, Loopback


class FakeModelScope(Loopback):
    """Serves ``/datasets/OWNER/NAME/resolve/master/FILE``.

    Attributes:
        files: Path -> contents.
        failures: Statuses the next requests are refused with, one each.
        cut: Announce this many bytes more than are sent.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(self._answer)
        self.files = dict(files)
        self.failures: list[int] = []
        self.cut = 0

    def _answer(self, target: str) -> Answer:
        if self.failures:
            return self.failures.pop(0), {}, b""
        data = self.files.get(urlsplit(target).path)
        if data is None:
            return 404, {}, b""
        return 200, ({"Content-Length": str(len(data) + self.cut)} if self.cut else {}), data
