"""The one habit of checkpoints with random weights: they reply with a letter, then end the turn.

A model of random weights alone never ends a turn, so every reply would run to its limit, while one that has learnt to
answer with a letter replies with two tokens. For the time a run takes that is all the difference, so the weights are
given this by hand: one of four letters, which one depends on the whole prompt, then the end of the turn.

How: the first two numbers of the residual stream are kept free of noise. The first is large for every token and pulls
towards the letters; the second is large for the letters only, and pulls harder still towards the end of the turn.
"""

from typing import Any, Final, NamedTuple

_CARRIER: Final = 8.0  # of the two numbers kept free of noise, where the embeddings' others spread by 1
_FAINT: Final = 0.02
SHARP: Final = 8.0
"""What queries and keys are multiplied by: attention looks at few tokens, so the letter depends on which these are."""
# In units of a logit's spread: the letters are above all others, and the end of the turn above the letters.
_LETTERS_SPREAD, _LETTERS_PULL, _END_PULL = 2.0, 10.0, 30.0


class Habit(NamedTuple):
    """The ids that the habit is about.

    Attributes:
        before_reply: The last tokens of prompts; their embeddings are faint, so that the rest of a prompt decides.
    """

    letters: list[int]
    end_of_turn: int
    before_reply: list[int]

    def give(self, name: str, weight: Any, spread: float) -> None:
        """Change one tensor of InternLM2, or of a model like Llama, in place: an array of numpy's or torch's.

        Embeddings must have a spread of 1. ``spread`` is that of a logit.
        """
        match name.split(".")[-2:]:
            case ["tok_embeddings" | "embed_tokens", "weight"]:
                weight[self.before_reply] *= _FAINT
                weight[:, 0] = _CARRIER
                weight[:, 1] = 0
                weight[self.letters, 1] = _CARRIER
            case ["output" | "lm_head", "weight"]:
                weight[self.letters] *= _LETTERS_SPREAD
                weight[:, :2] = 0
                weight[self.letters, 0] = _LETTERS_PULL * spread
                weight[self.end_of_turn, 1] = _END_PULL * spread
            case ["wo" | "w2" | "o_proj" | "down_proj", "weight"]:
                weight[:2] = 0
            case ["q_proj" | "k_proj", "weight"]:
                weight *= SHARP
