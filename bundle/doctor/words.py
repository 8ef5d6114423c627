"""Amounts as people read them."""


def size(count: float) -> str:
    """Bytes, in the largest unit that leaves a number above one: ``3.6 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def gib(mib: float) -> str:
    """MiB of GPU memory, in GiB."""
    return f"{mib / 1024:.1f} GiB"


def duration(seconds: float) -> str:
    """A length of time, in the unit that fits: ``3 min``, ``5 h``, ``40 days``."""
    minutes = seconds / 60
    if minutes < 120:
        return f"{minutes:.0f} min"
    hours = minutes / 60
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def things(count: int, singular: str, plural: str | None = None) -> str:
    """``1 file``, ``2 files``."""
    return f"{count} {singular if count == 1 else plural or singular + 's'}"
