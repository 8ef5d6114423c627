"""Random InternLM2 weights, with one habit: the model answers with one of four letters and ends its turn.

A model of random weights alone never ends a turn, so that every reply would run to its limit; one that has learnt to
answer questions with a letter replies with two tokens. For the time a run takes that is all the difference, so the
random weights are given this one habit by hand. Which letter it is depends on the whole prompt, by chance.

How: the first two numbers of the residual stream are kept free of noise. The first is large for every token and pulls
towards the letters; the second is large for the letters only, and pulls harder still towards the end of the turn.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundle.checkpoints.internlm2.architecture import Architecture
from bundle.checkpoints.internlm2.safetensors_file import Tensor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_ELEMENTS = 4 * 2**20

_CARRIER = 8.0  # of the two numbers, where the embeddings' others spread by 1
_FAINT = 0.02
_SHARP = 8.0  # attention looks at few tokens, so that the letter depends on which these are
# In units of what a logit spreads by: the letters are above all others, and end_of_turn above the letters.
_LETTERS_SPREAD, _LETTERS_PULL, _END_PULL = 2.0, 10.0, 30.0


@dataclass(frozen=True, slots=True)
class Habit:
    """The ids that the habit is about.

    Attributes:
        letters: The tokens it answers with.
        end_of_turn: The token that ends a turn.
        before_reply: The last token of a prompt; its embedding is faint, so that the rest of the prompt decides.
    """

    letters: tuple[int, ...]
    end_of_turn: int
    before_reply: int


def random_tensor(tensor: Tensor, seed: int, std: float, shape: Architecture, habit: Habit) -> Iterator[bytes]:
    """The bytes of a BF16 tensor, in blocks of whole rows: ones for a norm, zeros for a bias, else normal around 0.

    They depend on the seed and the tensor's name alone, not on which other tensors are made.

    Args:
        tensor: Name and shape, as in ``tensor_table``.
        seed: What is drawn from.
        std: Spread of the weights.
        shape: The model's sizes.
        habit: What the model does instead of rambling on.
    """
    import numpy as np

    if tensor.dtype != "BF16":
        raise ValueError(f"{tensor.name}: random weights are BF16, not {tensor.dtype}")
    if tensor.name.endswith(("norm.weight", ".bias")):
        one = 0x3F80 if tensor.name.endswith("norm.weight") else 0
        yield np.full(tensor.nbytes // 2, one, dtype="<u2").tobytes()
        return
    generator = np.random.Generator(np.random.SFC64([seed, zlib.crc32(tensor.name.encode())]))
    rows, width = tensor.shape
    step = max(1, _ELEMENTS // width)
    for first in range(0, rows, step):
        values = generator.standard_normal((min(step, rows - first), width), dtype=np.float32)
        _form(tensor.name, np.arange(first, first + len(values)), values, std, shape, habit)
        bits = values.view(np.uint32)
        # BF16 is the upper half of float32; round half to even, as every converter does.
        bits += ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)
        yield (bits >> np.uint32(16)).astype("<u2").tobytes()


def _form(
    name: str,
    rows: "npt.NDArray[np.int64]",
    values: "npt.NDArray[np.float32]",
    std: float,
    shape: Architecture,
    habit: Habit,
) -> None:
    """Give the rows of a tensor, drawn with spread 1, their spread and what the habit takes."""
    import numpy as np

    letters = np.isin(rows, habit.letters)
    match name.removesuffix(".weight").rpartition(".")[2]:
        case "tok_embeddings":
            values[rows == habit.before_reply] *= _FAINT
            values[:, 0] = _CARRIER
            values[:, 1] = np.where(letters, _CARRIER, 0)
        case "output":
            spread = std * shape.hidden_size**0.5
            values *= std
            values[letters] *= _LETTERS_SPREAD
            values[:, 0] = np.where(letters, _LETTERS_PULL * spread, 0)
            values[:, 1] = np.where(rows == habit.end_of_turn, _END_PULL * spread, 0)
        case "wqkv":
            values *= std
            group = shape.heads // shape.kv_heads + 2
            is_value = rows // shape.head_dim % group == group - 1
            values[~is_value] *= _SHARP
        case "wo" | "w2":
            values *= std
            values[rows < 2] = 0
        case _:
            values *= std
