"""A hub of models on a real socket, with the few addresses that huggingface_hub asks."""

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

__all__ = ["FakeHub"]


@dataclass
class _Repository:
    revisions: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    closed: str = ""


class FakeHub:
    """Serves what `push` was given, all of one `owner`.

    `fetched` are the files whose contents were asked for, `tokens` what each asker showed. While `failing` is set
    it answers nothing well.
    """

    def __init__(self) -> None:
        self._repositories: dict[str, _Repository] = {}
        self.fetched: list[str] = []
        self.tokens: list[str] = []
        self.failing = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def push(self, name: str, folder: Path, revision: str = "main") -> str:
        """Have the files of `folder` as `name` at `revision`; gives the commit."""
        files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        commit = hashlib.sha1(repr(sorted(files.items())).encode(), usedforsecurity=False).hexdigest()
        repository = self._repositories.setdefault(name, _Repository())
        repository.commits[commit] = files
        repository.revisions |= {revision: commit, commit: commit}
        return commit

    def close(self, name: str, code: str) -> None:
        """Answer all that is asked of `name` with this error code, as for a stranger."""
        self._repositories.setdefault(name, _Repository()).closed = code

    def _answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        parts = [unquote(part) for part in urlsplit(path).path.strip("/").split("/")]
        asked = parts[2:] if parts[:2] == ["api", "models"] else parts
        repository = self._repositories.get("/".join(asked[:2]))
        if self.failing:
            return 500, {}, b""
        if repository is None or repository.closed:
            code = repository.closed if repository else "RepoNotFound"
            return 403 if code == "GatedRepo" else 401, {"X-Error-Code": code}, b""
        what, revision = asked[2:4] or ("revision", "main")
        commit = repository.revisions.get(revision)
        if commit is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files = repository.commits[commit]
        if asked is parts:
            return self._file(commit, files, "/".join(asked[4:]))
        sizes = [(name, len(content)) for name, content in files.items()]
        if what == "tree":
            return _json(
                [{"type": "file", "path": name, "size": size, "oid": _oid(files[name])} for name, size in sizes]
            )
        siblings = [{"rfilename": name, "size": size, "blobId": _oid(files[name])} for name, size in sizes]
        return _json({"id": "/".join(asked[:2]), "sha": commit, "siblings": siblings, "tags": [], "private": False})

    @staticmethod
    def _file(commit: str, files: Mapping[str, bytes], name: str) -> tuple[int, dict[str, str], bytes]:
        if name not in files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        return 200, {"X-Repo-Commit": commit, "ETag": f'"{_oid(files[name])}"'}, files[name]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._reply(body=False)

            def do_GET(self) -> None:
                self._reply(body=True)

            def _reply(self, body: bool) -> None:
                if "owner/" in self.path:
                    hub.tokens.append(self.headers.get("Authorization", ""))
                status, headers, content = hub._answer(self.path)
                if body and "/resolve/" in self.path:
                    hub.fetched.append(unquote(urlsplit(self.path).path).split("/", 5)[5])
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(content))}).items():
                    self.send_header(name, value)
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Not onto the tests' standard error."""

        return Handler


def _json(content: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def _oid(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
