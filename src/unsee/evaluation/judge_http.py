"""HTTP for judges: no redirects, no key in clear text to other machines, bounded replies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from ipaddress import ip_address
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from unsee.errors import UserError

if TYPE_CHECKING:
    from httpx2 import Client, Response

MAX_REPLY: Final = 2**20
"""Most bytes of a reply that are read."""
_REASON: Final = 300
"""Most bytes of a refusal that are shown."""
LONGEST_WAIT: Final = 600.0
"""Longest Retry-After in seconds that is obeyed; beyond it an error is raised."""
FAILURES: Final = (OSError, ValueError, KeyError, IndexError, TypeError, RecursionError)
"""Exceptions of broken connections and malformed replies."""
_BUSY: Final = (408, 409, 425, 429)
_UNFIT: Final = (400, 413, 422)
"""Status codes about one prompt (such as too long), not about the judge."""


class BusyError(Exception):
    """The server asks to retry later."""

    def __init__(self, status: int, wait: float | None) -> None:
        """Store `wait`, the requested seconds, if any."""
        super().__init__(f"status {status}")
        self.wait = wait


class UnfitError(Exception):
    """The server rejects this prompt."""


def require_address(url: str, key: str) -> None:
    """Raise unless `url` is valid and `key` (which may be empty) can be sent to it."""
    parts = _split(url)
    if parts.username or parts.password:
        raise UserError("--url must not hold a user name or password: they would be shown. Use --key-env.")
    if (key and not key.isascii()) or any(ord(char) < 33 for char in key):
        raise UserError("The judge's key must be ASCII without spaces or line breaks. Check the environment variable.")
    if key and parts.scheme == "http" and not is_local(url):
        raise UserError(f"The key would go to {parts.hostname} unencrypted. Use https://, or leave --key-env out.")


def _split(url: str) -> Any:
    if not url.isascii() or any(ord(char) < 33 or ord(char) == 127 for char in url):
        raise UserError(f"The judge's address must be ASCII without spaces or line breaks, got {url!r:.200}.")
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise UserError(f"The judge's address must begin with http:// or https:// and name a host, got {url!r:.200}.")
    return parts


def is_local(url: str) -> bool:
    """Tell whether the URL is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def post_json(url: str, body: Any, headers: Mapping[str, str], *, timeout: float) -> Any:
    """Post JSON and return the JSON of the reply.

    Args:
        url: Full address, on this machine or elsewhere.
        body: Content of the request, sent as JSON.
        headers: Further HTTP headers, such as the bearer token.
        timeout: Seconds without any byte before the call fails; the whole reply may take twice as long.

    Raises:
        UserError: The server redirects, or refuses every request (wrong key, wrong path).
        BusyError: The server asks to retry later.
        UnfitError: The server rejects this body.
    """
    import httpx2

    # Bytes are counted as they arrive, so nothing may be compressed.
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **headers}
    deadline = monotonic() + 2 * timeout
    try:
        with _client(local=is_local(url)).stream(
            "POST", url, content=json.dumps(body).encode(), headers=headers, timeout=timeout
        ) as reply:
            if not reply.is_success:
                raise _meaning(url, reply, deadline)
            return json.loads(_read(reply.iter_raw(), deadline))
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


@cache
def _client(*, local: bool) -> Client:
    """Return the client of all calls: no redirects, proxies for other machines only."""
    import httpx2

    return httpx2.Client(follow_redirects=False, trust_env=not local)


def _read(chunks: Iterable[bytes], deadline: float) -> bytes:
    received, size = [], 0
    for chunk in chunks:
        received.append(chunk)
        size += len(chunk)
        if size > MAX_REPLY:
            raise ValueError(f"the reply is longer than {MAX_REPLY} bytes")
        if monotonic() > deadline:
            raise TimeoutError("the reply takes too long")
    return b"".join(received)


def _beginning(chunks: Iterable[bytes], deadline: float) -> str:
    """Return the first printable characters of a refusal: it is untrusted text."""
    beginning = b""
    for chunk in chunks:
        beginning += chunk
        if len(beginning) > _REASON or monotonic() > deadline:
            break
    text = beginning[:_REASON].decode(errors="replace")
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _meaning(url: str, reply: Response, deadline: float) -> Exception:
    """Return the exception to raise for an HTTP status."""
    status = reply.status_code
    if reply.is_redirect:
        target = reply.headers.get("Location", "nowhere")
        return UserError(
            f"The judge at {url} redirects to {target:.200}. Redirects are not followed, for the key would go along. "
            "Give the final address as --url."
        )
    if status in _UNFIT:
        message = _beginning(reply.iter_raw(), deadline)
        return UnfitError(f"status {status}: {message}" if message else f"status {status}")
    if status in _BUSY or status >= 500:
        return _busy(url, reply)
    return UserError(
        f"The judge at {url} refuses: {status} {reply.reason_phrase}. Check --url (up to and without /chat/completions), "
        "the model's name and the key."
    )


def _busy(url: str, reply: Response) -> Exception:
    wait = retry_after(reply.headers)
    if wait is not None and wait > LONGEST_WAIT:
        return UserError(f"The judge at {url} asks to wait {wait:.0f} s. Run the command again then; replies are kept.")
    return BusyError(reply.status_code, wait)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of Retry-After (RFC 9110, 10.2.3), or None if missing or unreadable."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        retry_date = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    retry_date = retry_date if retry_date.tzinfo else retry_date.replace(tzinfo=UTC)
    return max(0.0, (retry_date - datetime.now(UTC)).total_seconds())
