"""HTTP server of the page, on the standard library: access, requests and responses.

Every request must name this machine in its Host header, so that no other name can be pointed at it (DNS rebinding). What
belongs to the run needs the token as well, in an Authorization header, which no other page can send.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import socket
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, ClassVar, Final
from urllib.parse import quote

from unsee.errors import UserError, short_repr
from unsee.report.page import HERE
from unsee.workflows.serve.app import App
from unsee.workflows.serve.uploads import MOST_BYTES

MOST_BODY: Final = MOST_BYTES * 4 // 3 + 2**16
"""Most bytes of a request: a picture in base64 and the words around it."""
CONNECTIONS: Final = 64
"""Most connections at a time; further ones wait until one is closed."""
PATIENCE: Final = 30
"""Seconds after which a connection that neither sends nor takes anything is closed."""
SHORTEST: Final = 16
"""Fewest characters of a token."""
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every response."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Address of the page, and what is needed to use it."""

    host: str = "127.0.0.1"
    port: int = 7860
    """0 = any free one."""
    token: str = ""
    """Empty = a random one, on loopback only."""

    def __post_init__(self) -> None:
        """Reject a reachable address without a token, and a token that can be guessed."""
        if not 0 <= self.port < 2**16:
            raise UserError(f"--port must be between 0 and 65535, got {self.port}.")
        if not self.token and not self.loopback:
            raise UserError(
                f"--host {self.host} can be reached from other machines, so the page needs a --token that only its users know. "
                "Or leave --host out and go through ssh -L."
            )
        if self.token and (len(self.token) < SHORTEST or not self.token.isascii() or not self.token.isprintable()):
            raise UserError(f"--token must have at least {SHORTEST} characters, printable ASCII only.")
        if self.token != self.token.strip():
            raise UserError("--token must not begin or end with a blank: browsers cut it off.")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return _is_loopback(self.host)

    def is_own_host(self, host: str) -> bool:
        """Tell whether the Host header of a request names this machine.

        An IP address cannot be pointed elsewhere; so on an address that others reach, any is taken.
        """
        name = _name(host)
        if name in ("localhost", self.host.lower()) or _is_loopback(name):
            return True
        own_names = (socket.gethostname().lower(), socket.getfqdn().lower())
        return not self.loopback and (_ip(name) is not None or name in own_names)


def _name(host: str) -> str:
    """Return the name in a Host header, without port and brackets."""
    name = host.strip().lower()
    return name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]


def _ip(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _is_loopback(name: str) -> bool:
    address = _ip(name)
    return name == "localhost" if address is None else address.is_loopback


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """Request that is answered with an error."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        """Store status and message."""
        super().__init__(why)
        self.status = status


class PageServer(ThreadingHTTPServer):
    """Server of one page."""

    daemon_threads = True

    def __init__(self, app: App, access: Access) -> None:
        """Bind the address. Connections are taken by `serve_forever`.

        Raises:
            UserError: The address cannot be used.
        """
        self.app = app
        self.access = access
        self.token = access.token or secrets.token_urlsafe(24)
        self.free = threading.BoundedSemaphore(CONNECTIONS)
        self.address_family = socket.AF_INET6 if ":" in access.host else socket.AF_INET
        try:
            super().__init__((access.host, access.port), Handler)
        except (OSError, OverflowError) as error:
            raise UserError(
                f"Cannot listen at {access.host}, port {access.port}: {error}. Give another --port, or 0 for any free one."
            ) from error

    @property
    def url(self) -> str:
        """Address for the browser. The token stands behind #, which browsers send to nobody."""
        host = f"[{self.access.host}]" if ":" in self.access.host else self.access.host
        return f"http://{host}:{self.server_address[1]}/#{quote(self.token, safe='')}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection, once fewer than `CONNECTIONS` are open."""
        self.free.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handle a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the library's call
        """Print what went wrong, unless somebody has closed the page."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            traceback.print_exc(file=sys.stderr)


@cache
def _page_files() -> Mapping[str, tuple[bytes, str]]:
    """Return path -> (bytes, media type) of the page itself, which holds nothing of the run."""
    package = files("unsee.workflows.serve")
    css = (HERE / "report.css").read_bytes() + (HERE / "answers.css").read_bytes()
    return {
        "/": ((package / "page.html").read_bytes(), "text/html; charset=utf-8"),
        "/page.js": ((package / "page.js").read_bytes(), "text/javascript; charset=utf-8"),
        "/page.css": (css + (package / "page.css").read_bytes(), "text/css; charset=utf-8"),
    }


class Handler(BaseHTTPRequestHandler):
    """One connection, which is closed after one request."""

    server: PageServer
    server_version: ClassVar[str] = "unsee"  # type: ignore[misc]
    sys_version: ClassVar[str] = ""  # type: ignore[misc]
    timeout = PATIENCE

    def do_GET(self) -> None:
        """Send the page, what can be asked, or a picture."""
        self._respond(self._get)

    def do_POST(self) -> None:
        """Answer a question, or receive a deletion request."""
        self._respond(self._post)

    def _respond(self, handler: Any) -> None:
        try:
            self._require_known_host()
            handler()
        except Refused as refused:
            self._json({"error": str(refused)}, refused.status)
        except UserError as error:
            self._json({"error": str(error)}, HTTPStatus.BAD_REQUEST)

    def _get(self) -> None:
        if self.path in _page_files():
            self._send(HTTPStatus.OK, *_page_files()[self.path])
            return
        self._require_token()
        if self.path == "/api/content":
            self._json(self.server.app.content())
        elif self.path.startswith("/api/picture/") and self.path[13:].isdecimal() and len(self.path) < 24:
            self._send(HTTPStatus.OK, *self.server.app.picture(int(self.path[13:])))
        else:
            raise Refused(HTTPStatus.NOT_FOUND, f"There is no page {short_repr(self.path)}.")

    def _post(self) -> None:
        self._require_token()
        values = self._body()
        handler = {"/api/ask": self.server.app.ask, "/api/request": self.server.app.file}.get(self.path)
        if handler is None:
            raise Refused(HTTPStatus.NOT_FOUND, f"There is no page {short_repr(self.path)}.")
        self._head(HTTPStatus.OK, {"Content-Type": "application/x-ndjson"})
        handler(values, self._event)

    def _event(self, values: Mapping[str, Any]) -> None:
        """Send one line of a stream at once."""
        self.wfile.write(json.dumps(values).encode() + b"\n")

    def _require_known_host(self) -> None:
        if not self.server.access.is_own_host(self.headers.get("Host", "")):
            raise Refused(HTTPStatus.MISDIRECTED_REQUEST, "This page is not reached by that name.")

    def _require_token(self) -> None:
        """Refuse a request without the token, or from another site's page."""
        if self.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            raise Refused(HTTPStatus.FORBIDDEN, "Requests from other sites are not answered.")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(HTTPStatus.UNAUTHORIZED, "The token is missing or wrong.")

    def _body(self) -> dict[str, Any]:
        """Return the JSON object that was sent, after checking its size and type."""
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Expected application/json.")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > 12:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "Expected a Content-Length.")
        if int(length) > MOST_BODY:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"At most {MOST_BODY} bytes are taken.")
        try:
            values = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "Expected JSON.") from error
        if not isinstance(values, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "Expected a JSON object.")
        return values

    def _json(self, values: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, json.dumps(values).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self._head(status, {"Content-Type": kind, "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _head(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 - the library's call
        """Answer what is no proper request, without repeating any of it."""
        status = HTTPStatus(code)
        self._json({"error": status.phrase}, status)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing, so that no trace of who asked when is kept."""
