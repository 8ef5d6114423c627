"""The merge list that makes a rank-ordered BPE (the ``tokenizers`` library) cut text exactly as sentencepiece does.

Sentencepiece has no merge list. It joins, over and over, the two neighbours whose joined text is the piece with the
highest score, the leftmost first. ``tokenizers`` joins the pair with the lowest rank in a list of pairs.

Suppose sentencepiece forms piece ``p`` somewhere in a text. Nothing inside ``p`` was joined across its border, for a
join is never undone; so inside that border it did exactly what it does on ``p`` alone. Hence a piece has one pair that
can form it, the last join made on its own text, and a piece that does not come out of its own text is never formed at
all. One pair a piece, ranked by score, is therefore not an approximation but the same algorithm; the other ways to
split a piece in two, which converters often list as well, are never used. Only pieces of equal score need more thought.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import groupby

from bundle.checkpoints.internlm2.sentencepiece_model import Piece, PieceType
from bundle.errors import CheckpointError

_REMEDY = "Evaluate this checkpoint with the lmdeploy engine, which runs its own tokenizer."


@dataclass(frozen=True, slots=True)
class Merge:
    """Two neighbours that are joined, and the score of the piece they form."""

    left: str
    right: str
    score: float


@dataclass(frozen=True, slots=True)
class Merges:
    """The result of ``derive_merges``.

    Attributes:
        ranked: The pairs, first joined first.
        inexpressible: Pieces that sentencepiece forms from a character that is itself no piece. ``tokenizers`` turns
            such a character into bytes before it joins anything, so it cannot form them.
    """

    ranked: tuple[Merge, ...]
    inexpressible: tuple[str, ...]


def derive_merges(pieces: Sequence[Piece]) -> Merges:
    """The merge list for a sentencepiece BPE vocabulary.

    Raises:
        CheckpointError: Pieces of equal score compete in a way that no ranking can express.
    """
    scores = {piece.text: piece.score for piece in pieces if piece.type is PieceType.NORMAL}
    known = {piece.text for piece in pieces}
    # User-defined pieces are cut out of the text before anything is joined, so nothing that holds one is ever formed.
    frozen = [re.escape(piece.text) for piece in pieces if piece.type is PieceType.USER_DEFINED and piece.text]
    holds_frozen = re.compile("|".join(frozen)).search if frozen else lambda _: None
    found: list[Merge] = []
    inexpressible: list[str] = []
    for text, score in scores.items():
        if len(text) < 2 or holds_frozen(text) or (pair := _last_join(text, scores)) is None:
            continue
        if pair[0] in known and pair[1] in known:
            found.append(Merge(*pair, score))
        else:
            inexpressible.append(text)
    return Merges(tuple(_ranked(found, scores)), tuple(inexpressible))


def _last_join(text: str, scores: Mapping[str, float]) -> tuple[str, str] | None:
    """The join by which sentencepiece turns ``text`` into one piece, or None if it does not."""
    symbols = list(text)
    while True:
        best, place = float("-inf"), -1
        for n in range(len(symbols) - 1):
            score = scores.get(symbols[n] + symbols[n + 1])
            if score is not None and (score > best or place < 0):
                best, place = score, n
        if place < 0:
            return None
        if len(symbols) == 2:
            return symbols[0], symbols[1]
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]


def _ranked(merges: Sequence[Merge], scores: Mapping[str, float]) -> list[Merge]:
    by_score = sorted(merges, key=lambda merge: -merge.score)
    tied: set[str] = set()
    ranked: list[Merge] = []
    for _, group in groupby(by_score, key=lambda merge: merge.score):
        members = list(group)
        if len(members) > 1:
            tied.update(member.left + member.right for member in members)
            members = _leftmost_first(members)
        ranked.extend(members)
    # Between equals the order of joins shows only where a join makes a better one possible beside it.
    for merge in merges:
        for part in (merge.left, merge.right):
            if part in tied and merge.score >= scores[part]:
                raise _inseparable([part, merge.left + merge.right])
    return ranked


def _leftmost_first(members: Sequence[Merge]) -> list[Merge]:
    """Order pairs of equal score so that, where two of them want the same symbol, the left one has it."""
    wants_on_left: dict[str, list[Merge]] = defaultdict(list)
    for member in members:
        wants_on_left[member.left].append(member)
    order: TopologicalSorter[Merge] = TopologicalSorter()
    for member in members:
        order.add(member)
        for rival in wants_on_left[member.right]:
            if rival != member:
                order.add(rival, member)
    try:
        return list(order.static_order())
    except CycleError as error:
        raise _inseparable([merge.left + merge.right for merge in error.args[1]]) from error


def _inseparable(texts: Sequence[str]) -> CheckpointError:
    return CheckpointError(
        f"tokenizer.model: pieces of equal score compete ({', '.join(map(repr, texts[:5]))}); "
        "no tokenizer.json can express which of them wins.",
        remedy=_REMEDY,
    )
