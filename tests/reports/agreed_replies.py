"""What the model replies in runs of the sample questions, to us and to the programs of which specimens are kept."""


def reply_to(last_message: str) -> str:
    """A bare letter or a sentence, depending on the length of the last message."""
    return "ABCD"[len(last_message) % 4] if len(last_message) % 3 else "答案是 B。\n因为"
