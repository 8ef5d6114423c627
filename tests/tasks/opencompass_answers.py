"""Make ``opencompass_answers.json`` anew: what OpenCompass's own functions find in replies of all sorts.

Run it where OpenCompass 0.3.3 is installed:

    python tests/tasks/opencompass_answers.py > tests/tasks/opencompass_answers.json

The replies are put together from `WORDS` at random, some for every pattern of ``first_option_postprocess``.
"""

import importlib
import json
import random
import sys
from collections import Counter
from typing import Any

from bundle.tasks.answers.first_option import searches

COT_PATTERN = r"(?i)答案\s*:\s*[\W]*([A-D])[\W]*"
"""The pattern of ``cmmlu_0shot_cot_gen``."""

WORDS = (
    *("答案", "答案是", "答案为", "答案应该是", "选项", "选", "择", "故", "即", "因此", "显然", "所以", "所有", "答"),
    *("是", "为", "应", "该", "只有", "项", "对", "错", "错误", "不", "正确", "说法", "的", "是正确的", "是正确答案"),
    *("答案选项", "应该", "故选A", "只有选项", "说法不对", "说法不正确", "说法错误", "选项的是", "正确的是"),
    *("：", ":", "，", ",", "。", ".", "$", "(", ")", "*", "_", " ", "  ", "\n", "\t", "\u3000", "\u2028", "\x1c"),
    *("A", "B", "C", "D", "E", "Ａ", "É", "a", "b", "ı", "字", "x", "1", "1.", "12"),
    *("ANSWER", "answer", "Answer", "The answer is", "the answer is", "The answer is option", "the correct answer is"),
    *("The correct answer is option", "The correct option is", "The correct answer option is", "boxed", "boxed{B}"),
    *("The answer to the question is", "boxed{", "{A}", "}", "答案 : ", "**答案:** "),
)
"""What the patterns of the rules are made of, and what nearly fits them."""

_OF_EACH = 12
_TRIES = 400_000


def _main() -> None:
    rules: Any = importlib.import_module("opencompass.utils.text_postprocessors")
    rnd = random.Random(0)
    patterns = searches("ABCD")
    taken: Counter[int] = Counter()
    rows = []
    for _ in range(_TRIES):
        reply = "".join(rnd.choices(WORDS, k=rnd.choice((2, 3, 4, 6, 9)))).strip()
        first = next((rank for rank, search in enumerate(patterns) if search(reply) is not None), -1)
        if taken[first] < _OF_EACH:
            taken[first] += 1
            rows.append(
                {
                    "reply": reply,
                    "first_capital": rules.first_capital_postprocess(reply),
                    "first_option": rules.first_option_postprocess(reply, "ABCD"),
                    "pattern": rules.match_answer_pattern(reply, COT_PATTERN),
                }
            )
    sys.stdout.write("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n")


if __name__ == "__main__":
    _main()
