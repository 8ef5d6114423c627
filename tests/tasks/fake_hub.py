"""A Hugging Face hub on loopback, as far as downloading files of a data set needs one."""

import hashlib
import json
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from tests.tasks.loopback import Answer, Loopback


class FakeHub(Loopback):
    """Serves data sets over the hub's HTTP API: repository info, and files with their commit and ETag.

    Attributes:
        repos: Data set -> file name -> contents. May be changed while it runs; the commit changes along.
        renamed: Old name of a data set -> new one; answered by a redirect, as the hub does.
        refusal: When set, the status and X-Error-Code every request is refused with.
        gate: When set, the same for files only, as for a data set that wants a login.
        portal: While set, every request is answered by a login page, as in a hotel's network.
    """

    def __init__(self, repos: Mapping[str, Mapping[str, bytes]]) -> None:
        super().__init__(self._answer)
        self.repos = {repo: dict(files) for repo, files in repos.items()}
        self.renamed: dict[str, str] = {}
        self.refusal: tuple[int, str] | None = None
        self.gate: tuple[int, str] | None = None
        self.portal = False

    def commit(self, repo: str) -> str:
        """The data set's present commit."""
        digest = hashlib.sha1(usedforsecurity=False)
        for name, data in sorted(self.repos[repo].items()):
            digest.update(name.encode() + b"\0" + data)
        return digest.hexdigest()

    def _answer(self, target: str) -> Answer:
        if self.refusal is not None:
            status, code = self.refusal
            return status, {"X-Error-Code": code}, b'{"error": "no"}'
        if self.portal:
            return 200, {"Content-Type": "text/html"}, b"<html>Please log in to the network</html>"
        path = unquote(urlsplit(target).path)
        for old, new in self.renamed.items():
            if f"/datasets/{old}" in path:
                return 307, {"Location": target.replace(old, new, 1)}, b""
        match path.removeprefix("/api").strip("/").split("/"):
            case ["datasets", owner, name] | ["datasets", owner, name, "revision", _] if path.startswith("/api/"):
                return self._info(f"{owner}/{name}")
            case ["datasets", owner, name, "tree", *_] if path.startswith("/api/"):
                return self._tree(f"{owner}/{name}")
            case ["datasets", _, _, "resolve", *_] if self.gate is not None:
                return self.gate[0], {"X-Error-Code": self.gate[1]}, b""
            case ["datasets", owner, name, "resolve", revision, *parts]:
                return self._file(f"{owner}/{name}", revision, "/".join(parts))
            case _:
                return 404, {}, b""

    def _info(self, repo: str) -> Answer:
        if repo not in self.repos:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        siblings = [{"rfilename": name} for name in self.repos[repo]]
        info = {
            "id": repo,
            "sha": self.commit(repo),
            "siblings": siblings,
            "private": False,
            "tags": [],
            "downloads": 0,
        }
        return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()

    def _tree(self, repo: str) -> Answer:
        if repo not in self.repos:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        tree = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha256(data).hexdigest()}
            for name, data in self.repos[repo].items()
        ]
        return 200, {"Content-Type": "application/json"}, json.dumps(tree).encode()

    def _file(self, repo: str, revision: str, name: str) -> Answer:
        commit = self.commit(repo)
        if revision not in ("main", commit):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if name not in self.repos[repo]:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        data = self.repos[repo][name]
        return 200, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": commit}, data
