"""Which model a reply says that it is from."""

from collections.abc import Mapping

from bundle.client._faults import AttemptError, Fate
from bundle.system.text import one_line


def require_model(body: object, name: str | None) -> None:
    """Check that a response, or one event of it, comes from the model ``name``; None accepts any.

    Raises:
        AttemptError: It names another model.
    """
    model = body.get("model") if name is not None and isinstance(body, Mapping) else None
    # transformers serve also names the revision, as in "local/tiny@main".
    if isinstance(model, str) and name not in (model, model.rpartition("@")[0]):
        raise AttemptError(
            f"the reply is from another model, {one_line(model, 80)!r}",
            Fate.REFUSED,
            remedy="Another server may have taken the port: check what listens there, and try again.",
        )


def other_model(named: object, asked: str) -> str | None:
    """The name that a reply gives of its model, if that is not the one asked for; case, owner and revision aside."""
    if not isinstance(named, str) or not named.strip() or _bare(named) == _bare(asked):
        return None
    return one_line(named, 80)


def _bare(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2].partition("@")[0].strip().casefold()
