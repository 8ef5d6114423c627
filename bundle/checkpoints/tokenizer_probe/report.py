"""What was checked, what did not hold, and how that is written."""

from __future__ import annotations

PROBLEM_LIMIT = 20


class TemplateError(Exception):
    """A chat template that does not make a prompt of a conversation."""


class Report:
    """What was checked, and what did not hold."""

    def __init__(self, vocab_size: int | None) -> None:
        self.vocab_size = vocab_size
        self.checked = 0
        self.failed = 0
        self.problems: list[str] = []
        self._highest = -1

    def check(self, problem: str | None) -> None:
        """Count one check, failed if there is a ``problem``."""
        self.checked += 1
        if problem is not None:
            self.failed += 1
            if len(self.problems) < PROBLEM_LIMIT:
                self.problems.append(problem)

    def see(self, ids: list[int], source: str) -> None:
        """Note token ids; each new highest one beyond the model's is a problem."""
        highest = max(ids, default=-1)
        if highest <= self._highest:
            return
        self._highest = highest
        if self.vocab_size is not None and highest >= self.vocab_size:
            self.check(f"{source} has token id {highest}, but the model's vocab_size is {self.vocab_size}")


def shown(text: object, limit: int = 60) -> str:
    """Text in quotes, escaped where it does not print, and cut to a length."""
    plain = str(text)
    return repr(plain if len(plain) <= limit else plain[: limit - 1] + "…")


def common(text: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    shorter = min(len(text), len(other))
    return next((i for i in range(shorter) if text[i] != other[i]), shorter)


def told(error: Exception) -> str:
    """An error as one line."""
    if type(error).__name__ == "TemplateSyntaxError":
        error = TemplateError(f"line {getattr(error, 'lineno', '?')}: {getattr(error, 'message', error)}")
    text = "more than it may use" if isinstance(error, MemoryError) else " ".join(str(error).split())
    text = text[:600].rstrip(".")
    return text if isinstance(error, TemplateError) else f"{type(error).__name__}: {text}"
