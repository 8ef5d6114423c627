"""The HTTP stack is imported late, so that a local server starts first."""

import json
import subprocess
import sys

HTTP_STACK = ["aiohttp", "httpx", "httpx2", "openai"]


def imported_by(statement: str) -> set[str]:
    shown = "import json, sys; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", f"{statement}; {shown}"], check=True, stdout=subprocess.PIPE).stdout
    return set(json.loads(output))


def test_client_and_evaluation_are_imported_without_the_http_stack() -> None:
    assert not imported_by("import bundle.client, bundle.evaluation").intersection(HTTP_STACK)


def test_the_client_itself_brings_it() -> None:
    assert "openai" in imported_by("from bundle.client import ChatClient")
