"""results.json as a later version may write it."""

import pydantic
import pytest

from bundle.runs.scoring import Score
from bundle.runs.statistics import Interval


@pytest.mark.parametrize("where", ["score", "interval"])
def test_what_a_later_version_adds_to_a_score_is_passed_over(where: str) -> None:
    interval: dict[str, object] = {"low": 1.0, "high": 2.0}
    score: dict[str, object] = {"accuracy": 1.5, "stderr": None, "n": 2, "answered": 1, "interval": interval}
    (score if where == "score" else interval)["added"] = 3

    class Held(pydantic.BaseModel, extra="allow"):
        score: Score

    assert Held.model_validate({"score": score}).score == Score(1.5, None, 2, 1, Interval(1.0, 2.0))
