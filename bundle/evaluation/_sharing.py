"""What an evaluation keeps for each of the servers that it has asked at once."""

from collections.abc import Sequence

from bundle.evaluation._leases import Pool, Queue
from bundle.evaluation._suspects import Suspects
from bundle.evaluation._window import Window
from bundle.runs.predictions import Prediction
from bundle.tasks.scores import Key


class Sharing:
    """Who is asked what, who fails what, and who has answered how much. Server 0 is that of `Evaluation.ask`.

    Attributes:
        pool: The questions.
        suspects: What each of the further servers has in flight.
    """

    def __init__(self, servers: int) -> None:
        self.pool = Pool(servers)
        self.suspects = {number: Suspects() for number in range(1, servers)}
        self._counts = [[0, 0] for _ in range(servers)]

    def queue(self, server: int, window: Window) -> Queue:
        """The questions of one server, as many at once as its window allows."""
        return self.pool.queue(server, lambda: window.limit)

    @property
    def in_flight(self) -> int:
        """How many questions the further servers have in flight."""
        return sum(one.in_flight for one in self.suspects.values())

    def recorded(self, server: int, outcome: Prediction) -> None:
        """Note an outcome."""
        self._counts[server][0] += outcome.error is None
        self._counts[server][1] += outcome.correct is True

    def lost(self, server: int) -> tuple[Sequence[Key], frozenset[Key]]:
        """Note the loss of a further server; return what it had in flight, and what failed since it began to fail."""
        failed = self.suspects[server].server_died(0).failed
        self.suspects[server] = Suspects()
        return [question.key for question in self.pool.lost(server)], failed

    @property
    def several(self) -> bool:
        """Whether there are further servers."""
        return len(self._counts) > 1

    def to_json(self) -> list[dict[str, int]]:
        """Replies and correct ones by server."""
        return [{"answered": answered, "correct": correct} for answered, correct in self._counts]
