"""The board served on this machine only: read again at every request, so that running runs are shown live."""

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bundle.errors import BundleError, UsageError
from bundle.reports.board.board import Reader
from bundle.reports.board.page import board_data, render_board
from bundle.reports.comparison import compare
from bundle.reports.comparison.page import render_page as render_comparison
from bundle.reports.formats import Language
from bundle.reports.html.page import live_data
from bundle.reports.html.page import render_page as render_report
from bundle.runs.finding import runs_in
from bundle.runs.recorded_run import RecordedRun, read_recorded_run

_HOST = "127.0.0.1"
_HTML, _JSON = "text/html; charset=utf-8", "application/json"


class BoardServer(ThreadingHTTPServer):
    """Serves the board, the page of every run, and comparisons of two. Raises UsageError if the port cannot be used.

    ``port``: 0 for any that is free.
    """

    daemon_threads = True

    def __init__(self, reader: Reader, out: Path, *, port: int = 0, language: Language | None = None) -> None:
        try:
            super().__init__((_HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or "not a port"
            raise UsageError(f"Port {port} cannot be used: {why}.", remedy="Choose another with --port.") from None
        self.out = out
        self._reader = reader
        self._language = language
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Its address, for a browser on this machine."""
        return f"http://{_HOST}:{self.server_port}/"

    @property
    def own_names(self) -> frozenset[str]:
        """What a browser on this machine calls it; any other name is another site's, led here."""
        return frozenset(f"{name}:{self.server_port}" for name in (_HOST, "localhost"))

    def page(self, parts: list[str]) -> tuple[str, str] | None:
        """Content and type of what has an address; None where there is nothing.

        Raises BundleError if it cannot be read.
        """
        match parts:
            case [""]:
                with self._lock:
                    return render_board(self._reader.read(), language=self._language), _HTML
            case ["board.json"]:
                with self._lock:
                    return json.dumps(board_data(self._reader.read())), _JSON
            case ["runs", name] if (run := self._run(name)) is not None:
                return render_report(run, language=self._language, live=run.is_running), _HTML
            case ["runs", name, "now.json"] if (run := self._run(name)) is not None:
                return json.dumps(live_data(run)), _JSON
            case ["compare", base, new] if (before := self._run(base)) and (now := self._run(new)):
                return render_comparison([compare(before, now)], language=self._language), _HTML
        return None

    def _run(self, name: str) -> RecordedRun | None:
        """A run by its full name: nothing outside the directory can be asked for."""
        directory = next((one for one in runs_in(self.out) if one.name == name), None)
        return None if directory is None else read_recorded_run(directory)


class _Handler(BaseHTTPRequestHandler):
    server: BoardServer

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self.server.own_names:
            self._send(HTTPStatus.FORBIDDEN, "This is served on this machine only.", "text/plain; charset=utf-8")
            return
        try:
            found = self.server.page([unquote(part) for part in urlsplit(self.path).path[1:].split("/")])
        except BundleError as error:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, str(error), "text/plain; charset=utf-8")
            return
        if found is None:
            self._send(HTTPStatus.NOT_FOUND, "There is nothing here.", "text/plain; charset=utf-8")
        else:
            self._send(HTTPStatus.OK, *found)

    def _send(self, status: HTTPStatus, text: str, kind: str) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Say nothing: the terminal is the user's."""
