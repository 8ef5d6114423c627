"""A cache of prompt prefixes, block by block, as inference engines keep them."""

from collections.abc import Sequence


def block_keys(prompt: str, characters_per_block: int) -> tuple[int, ...]:
    """A key for every whole block of a prompt; equal keys mean that everything up to the block's end is equal."""
    keys: list[int] = []
    key = 0
    for end in range(characters_per_block, len(prompt) + 1, characters_per_block):
        key = hash((key, prompt[end - characters_per_block : end]))
        keys.append(key)
    return tuple(keys)


class PrefixCache:
    """Holds the most recently used blocks.

    Args:
        blocks: How many.
        tokens_per_block: Tokens in each.

    Attributes:
        tokens_per_block: As given.
        hits: Blocks that were looked up and found.
        misses: Blocks that were looked up and had to be computed.
        distinct: Different blocks looked up, which is how many a cache without limit would miss.
    """

    def __init__(self, blocks: int, tokens_per_block: int = 64) -> None:
        self.tokens_per_block = tokens_per_block
        self._blocks = blocks
        self._held: dict[int, None] = {}  # the least recently used first
        self._seen: set[int] = set()
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def distinct(self) -> int:
        return len(self._seen)

    def look_up(self, keys: Sequence[int]) -> int:
        """How many of a prompt's blocks, from its beginning, are held."""
        found = 0
        for key in keys:
            if key not in self._held:
                break
            found += 1
        self._touch(keys[:found])
        self._seen.update(keys)
        self.hits += found
        self.misses += len(keys) - found
        return found

    def insert(self, keys: Sequence[int]) -> None:
        """Hold a prompt's blocks, for which the least recently used ones go."""
        self._touch(keys)
        while len(self._held) > self._blocks:
            del self._held[next(iter(self._held))]

    def _touch(self, keys: Sequence[int]) -> None:
        # From the end: a block is of no use without those before it, so the later ones are the first to go.
        for key in reversed(keys):
            self._held.pop(key, None)
            self._held[key] = None
