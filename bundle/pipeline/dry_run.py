"""What a run would ask and how long that would take at least, without a server and without a request."""

from collections.abc import Iterator

from bundle.checkpoints import TokenCounter, estimating_counter
from bundle.pipeline.plan import Plan
from bundle.pipeline.targets import Target
from bundle.reports.screen.console import Screen
from bundle.system.background import in_thread
from bundle.system.text import duration, plural


async def dry_run(plan: Plan, target: Target, screen: Screen) -> None:
    """Load the questions, and show how many there are, their tokens, and the time that a rate limit makes of them.

    Raises BundleError if they cannot be loaded, or a run is not possible.
    """
    lines = await in_thread(lambda: list(_lines(plan, target, screen)))
    for line in lines:
        screen.note(line)


def _lines(plan: Plan, target: Target, screen: Screen) -> Iterator[str]:
    target.require_possible(plan)
    counter = target.token_counter() or estimating_counter()
    loaded = plan.load(screen.say, lambda: counter, target.context_limits())
    target.require_possible(plan, loaded.questions)
    texts = {message["content"]: 0 for question in loaded.questions for message in question.messages}
    texts.update(zip(texts, counter.of_texts(list(texts)), strict=True))
    requests = prompts = longest = replies = 0
    for one in plan.planned:
        task = one.task
        questions = [question for question in loaded.questions if question.task == task.name]
        lengths = [
            TokenCounter.total([texts[message["content"]] for message in question.messages]) for question in questions
        ]
        requests += task.requests_each * len(questions)
        prompts += task.requests_each * sum(lengths)
        longest = max(longest, *lengths)
        replies += task.requests_each * sum(question.max_reply or one.max_out_len for question in questions)
        several = f", {task.requests_each} requests each" if task.requests_each > 1 else ""
        yield f"{task.name}: {plural(len(questions), 'question')}{several}; data {one.source}"
    how = counter.source if counter.is_estimate else f"counted with {counter.source}"
    yield f"prompts: at most {prompts:,} tokens, the longest {longest:,}; {how}"
    yield f"replies: at most {replies:,} tokens, and far fewer where replies stop at their answer"
    if loaded.context is not None:
        yield from loaded.context.says(plan.shortened(loaded.questions), len(loaded.questions))
    if (qps := plan.options.qps or target.qps) is not None:
        yield f"time: at least {duration((requests - 1) / qps)} at {qps:g} requests/s"
    yield "nothing was started: --dry-run"
