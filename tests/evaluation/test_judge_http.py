"""Requests to a judge: where the key goes, what is asked again, and how much of a reply is read."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from unsee.errors import UserError
from unsee.evaluation import judge_http
from unsee.evaluation.judge_client import REPLY_TOKENS, Endpoint

GOOD = json.dumps({"choices": [{"message": {"content": "safe"}}]}).encode()


@pytest.fixture
def serve():
    """Return a function that starts a server with these replies (status, headers, body), and what it was asked."""
    servers = []

    def start(*replies):
        asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                asked.append(dict(self.headers))
                self.rfile.read(int(self.headers["Content-Length"]))
                status, headers, body = replies[min(len(asked), len(replies)) - 1]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(body)

            do_GET = do_POST  # noqa: N815 - the name of the base class

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/v1", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def waited(monkeypatch):
    waits = []
    monkeypatch.setattr("unsee.evaluation.judge_client.time.sleep", waits.append)
    return waits


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_follows_no_redirect(serve, waited, status):
    other, reached = serve((200, {}, GOOD))
    url, asked = serve((status, {"Location": other}, b""))
    with pytest.raises(UserError, match=f"redirects to {other}"):
        Endpoint(url=url, model="m", key="SECRET")("hello")
    assert [head["Authorization"] for head in asked] == ["Bearer SECRET"]
    assert reached == waited == []


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_a_refusal_is_final(serve, waited, status):
    url, asked = serve((status, {}, b""))
    with pytest.raises(UserError, match=f"refuses: {status}"):
        Endpoint(url=url, model="m")("hello")
    assert len(asked) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_prompt_that_does_not_fit_is_left_out(serve, waited, status):
    url, asked = serve((status, {}, b""))
    assert Endpoint(url=url, model="m")("hello") is None
    assert len(asked) == 1


def test_a_judge_that_rejects_a_setting_is_quoted_and_asked_once_with_others(serve, waited):
    refused = (400, {}, b'{"error":{"message":"Unsupported\x1b parameter: max_tokens"}}' + b"x" * 5000)
    url, asked = serve(refused)
    with pytest.raises(UserError, match="Unsupported parameter: max_tokens") as error:
        Endpoint(url=url, model="m").answering()
    assert "x" * 400 not in str(error.value)
    assert len(asked) == 2
    url, _ = serve(refused, (200, {}, GOOD))
    taken = Endpoint(url=url, model="m").answering()
    assert taken.settings == {"max_completion_tokens": REPLY_TOKENS}
    assert taken("hello") == "safe"


def test_a_reply_that_was_cut_is_no_reply(serve, waited):
    cut = b'{"choices": [{"finish_reason": "length", "message": {"content": "Is this safe? It says"}}]}'
    url, asked = serve((200, {}, cut))
    assert Endpoint(url=url, model="m")("hello") is None
    assert len(asked) == 1


def test_a_busy_server_is_asked_again_when_it_says(serve, waited):
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    replies = [(429, {"Retry-After": "7"}, b""), (503, {"Retry-After": later}, b""), (500, {}, b""), (200, {}, GOOD)]
    url, _ = serve(*replies)
    assert Endpoint(url=url, model="m")("hello") == "safe"
    assert (waited[0], waited[2]) == (7.0, 4.0)
    assert 90 < waited[1] <= 100


def test_a_server_that_wants_to_rest_for_long_is_named(serve, waited):
    url, _ = serve((429, {"Retry-After": "86400"}, b""))
    with pytest.raises(UserError, match="asks to wait 86400 s"):
        Endpoint(url=url, model="m")("hello")


@pytest.mark.parametrize(
    "body",
    [
        b"x" * (judge_http.MAX_REPLY + 1),
        b"[" * 100_000,
        b"{}",
        b"[]",
        b"no json",
        b'{"choices": [{"message": 7}]}',
        b"\xff",
    ],
)
def test_replies_of_another_shape_are_no_reply(serve, waited, body):
    url, asked = serve((200, {}, body))
    assert Endpoint(url=url, model="m", retries=1)("hello") is None
    assert len(asked) == 2
    with pytest.raises(UserError, match="did not return a chat completion"):
        Endpoint(url=url, model="m").answering()


def test_a_reply_that_drips_ends(serve, waited, monkeypatch):
    url, _ = serve((200, {}, GOOD))
    times = iter([0.0, *[1000.0] * 9])
    monkeypatch.setattr(judge_http, "monotonic", lambda: next(times))
    assert Endpoint(url=url, model="m", retries=0)("hello") is None


@pytest.mark.parametrize(
    ("url", "key", "message"),
    [
        ("http://example.org/v1", "k", "would go to example.org unencrypted"),
        ("http://127.0.0.1.example.org/v1", "k", "unencrypted"),
        ("http://localhost.example.org/v1", "k", "unencrypted"),
        ("https://user:pw@example.org/v1", "", "must not hold a user name or password"),
        ("http://here/v1\r\nX: y", "", "without spaces or line breaks"),
        ("http://here/v1\0", "", "without spaces or line breaks"),
        ("http://here/ v1", "", "without spaces"),
        ("http://hére/v1", "", "must be ASCII"),
        ("file:///etc", "", "must begin with http:// or https://"),
        ("ftp://here", "", "must begin with"),
        ("here", "", "must begin with"),
        ("http://", "", "name a host"),
        ("http://here:99999999/", "", "must begin with"),
        ("http://[::1/v1", "", "must begin with"),
        ("https://here/v1", "a\nb", "key must be ASCII"),
        ("https://here/v1", "schlüssel", "key must be ASCII"),
    ],
)
def test_addresses_and_keys_that_are_refused(url, key, message):
    with pytest.raises(UserError, match=message):
        Endpoint(url=url, model="m", key=key)


@pytest.mark.parametrize("url", ["http://localhost/v1", "http://127.0.0.9:8/v1", "http://[::1]:8/v1", "https://x.org"])
def test_addresses_that_a_key_may_go_to(url):
    assert Endpoint(url=url, model="m", key="k").url == url


@pytest.mark.parametrize(("text", "seconds"), [("12", 12.0), ("soon", None), ("", None), ("-1", None), ("٣", None)])
def test_retry_after(text, seconds):
    assert judge_http.retry_after({"Retry-After": text}) == seconds


def test_any_success_is_a_reply(serve, waited):
    url, _ = serve((201, {}, GOOD))
    assert Endpoint(url=url, model="m")("hello") == "safe"


def test_proxies_are_for_other_machines_only(serve, waited, monkeypatch):
    proxy, seen = serve((200, {}, GOOD))
    url, asked = serve((200, {}, GOOD))
    monkeypatch.setenv("HTTP_PROXY", proxy.removesuffix("/v1"))
    judge_http._client.cache_clear()
    assert Endpoint(url=url, model="m")("hello") == "safe"
    assert (len(asked), len(seen)) == (1, 0)
    assert Endpoint(url="http://judge.example/v1", model="m")("hello") == "safe"
    assert (len(asked), len(seen)) == (1, 1)
    judge_http._client.cache_clear()
