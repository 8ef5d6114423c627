"""One request to an OpenAI-compatible server: sent, retried where that helps, and read as it arrives.

`ChatClient` is the way in. It and the functions that ask a server for its models are imported on first use: the HTTP
stack takes most of a second to load, and a local server should be started first.
"""

import importlib
from typing import TYPE_CHECKING, Any

from bundle.client._addresses import insecure, is_loopback, normalise_base_url
from bundle.client._early_decisions import EarlyDecisions
from bundle.client._keys import KeyRing
from bundle.client._pace import LastMinute
from bundle.client._replies import NoReplyError, RefusedError, Reply
from bundle.client._settings import SCORING, ClientSettings, Endpoint, Scoring, ScoringRoad

if TYPE_CHECKING:
    from bundle.client._client import ChatClient
    from bundle.client._interface import Client
    from bundle.client._server_info import listed, only_model, served_models

__all__ = [
    "SCORING",
    "ChatClient",
    "Client",
    "ClientSettings",
    "EarlyDecisions",
    "Endpoint",
    "KeyRing",
    "LastMinute",
    "NoReplyError",
    "RefusedError",
    "Reply",
    "Scoring",
    "ScoringRoad",
    "insecure",
    "is_loopback",
    "listed",
    "normalise_base_url",
    "only_model",
    "served_models",
]

_IMPORTED_LATE = {"ChatClient": "_client", "Client": "_interface"} | dict.fromkeys(
    ("listed", "only_model", "served_models"), "_server_info"
)


def __getattr__(name: str) -> Any:
    if name not in _IMPORTED_LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_IMPORTED_LATE[name]}"), name)
