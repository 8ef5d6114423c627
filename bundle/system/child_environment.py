"""What of our environment a process that we start may see."""

import re
from collections.abc import Mapping

# Names of variables that hold a key to something, and values that are an address with a password in it. What is started
# here works on this machine with what is on it, and needs none of them.
_HOLDS_A_KEY = re.compile(
    r"(^|_)(API_?KEYS?|KEYS?|ACCESS_KEY(_ID)?|SECRETS?(_KEY)?|TOKENS?|PASSWORD|PASSWD|PASS|PAT|CREDENTIALS?)$", re.I
)
_LOGIN = re.compile(r"://[^/@\s]*:[^/@\s]*@")


def without_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` without the variables that hold keys and passwords."""
    return {
        name: value for name, value in environment.items() if not _HOLDS_A_KEY.search(name) and not _LOGIN.search(value)
    }
