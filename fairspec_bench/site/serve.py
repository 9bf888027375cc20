"""Serves a built site on this machine only, and no file outside it."""

from __future__ import annotations

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fairspec_bench.schemas.base import FairspecError

FIRST, MISSING = "index.html", "404.html"


class _Handler(SimpleHTTPRequestHandler):
    """Files of the site; what is not there is the site's own page for it. Links out of the folder are not there."""

    def translate_path(self, path: str) -> str:
        root, found = Path(self.directory).resolve(), Path(super().translate_path(path)).resolve()
        return str(found if found.is_relative_to(root) else root / MISSING / "none")

    def list_directory(self, path: object) -> None:
        self.send_error(404)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        page = Path(self.directory) / MISSING
        if code != 404 or not page.is_file():
            super().send_error(code, message, explain)
            return
        body = page.read_bytes()
        self.send_response(404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve(site: Path, port: int) -> ThreadingHTTPServer:
    """A server of the folder on 127.0.0.1, not running yet; `port` 0 takes any free one. Raises `FairspecError`."""
    if not (site / FIRST).is_file():
        raise FairspecError(f"{site}: no site there. First: fairspec site build --out {site}.")
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, directory=str(site.resolve())))
    except (OSError, OverflowError) as error:
        raise FairspecError(f"port {port}: {error}. Choose another --port, or 0 for any.") from None
