"""Refusals of a content filter, told from other refusals."""

from typing import Any

import pytest

from bundle.client._faults import Fate, fault_of_status

FILTERS = [
    {"error": {"message": "inappropriate content", "code": "data_inspection_failed"}},
    {"error": {"message": "The response was filtered", "code": "content_filter"}},
    {"error": {"message": "系统检测到输入或生成内容可能包含不安全或敏感内容", "code": "1301"}},
    {"error": {"message": "Your request was rejected as a result of our content policy."}},
    {"error": {"message": "m requires moderation on Y. Your input was flagged for violence."}},  # OpenRouter
    {"error": {"message": "high risk", "type": "SensitiveContentDetected"}},
]


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize("body", FILTERS)
def test_a_content_filters_refusal_says_so_and_ends_only_its_question(status: int, body: dict[str, Any]) -> None:
    fault = fault_of_status(status, body, {})
    assert fault.fate is Fate.UNANSWERED
    assert fault.reason.startswith(f"the content filter refused the question: HTTP {status}: ")
