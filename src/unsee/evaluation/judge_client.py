"""Client of a judge: a chat model behind an OpenAI-compatible URL."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from unsee.data.shared_cache import KeyValueLog
from unsee.errors import UserError
from unsee.evaluation.judge_http import FAILURES as FAILED_CALLS
from unsee.evaluation.judge_http import BusyError, UnfitError, post_json, require_address

Ask = Callable[[str], str | None]
"""Prompt -> reply; None = the call failed."""


FAILURES: Final = 0.02
"""Share of failed calls above which there is no result (docs/defects.md 61)."""


WORKERS: Final = 8
"""Calls at the same time."""


REPLY_TOKENS: Final = 512
"""Token limit of a reply; a verdict is one word, but some judges reason first."""


_USUAL: Final = {"temperature": 0, "max_tokens": REPLY_TOKENS}
_OTHER: Final = {"max_completion_tokens": REPLY_TOKENS}
"""Settings for judges that reject the usual ones, as OpenAI's reasoning models do."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Chat model behind an OpenAI-compatible URL, with temperature 0 where it takes one."""

    url: str
    """Base URL, without /chat/completions."""
    model: str
    key: str = ""
    """Bearer token; never written to disk."""
    timeout: float = 60.0
    retries: int = 4
    """Retries, after 1, 2, 4, ... seconds."""
    settings: Mapping[str, Any] = field(default_factory=_USUAL.copy)
    """Decoding settings of a request."""

    def __post_init__(self) -> None:
        """Reject a URL that is invalid or unsafe for the key."""
        require_address(self.url, self.key)

    @property
    def title(self) -> str:
        """Return model and address: many servers serve any model under one name, such as `default`."""
        return f"{self.model} at {self.url.rstrip('/')}"

    def __call__(self, prompt: str) -> str | None:
        """Return the reply, or None after the last retry, a rejected prompt or a cut reply.

        Raises:
            UserError: The judge redirects, or refuses every request (wrong key, wrong path); asking again is no use.
        """
        for attempt in range(self.retries + 1):
            wait = float(2**attempt)
            try:
                return self._ask(prompt)
            except UnfitError:
                return None
            except BusyError as error:
                wait = wait if error.wait is None else error.wait
            except FAILED_CALLS:
                pass
            if attempt < self.retries:
                time.sleep(wait)
        return None

    def answering(self) -> Endpoint:
        """Return the endpoint with settings that the judge takes, before any question is sent.

        Raises:
            UserError: The judge is unreachable, or takes neither the usual settings nor the others.
        """
        try:
            return self.require_answer()
        except UnfitError as error:
            try:
                return replace(self, settings=_OTHER).require_answer()
            except (UnfitError, *FAILED_CALLS):
                raise self._unanswered_error(error) from error
        except FAILED_CALLS as error:
            raise self._unanswered_error(error) from error

    def require_answer(self) -> Endpoint:
        """Return the endpoint if the judge takes a request."""
        with suppress(BusyError):  # the judge is reachable; each question retries later
            self._ask("Reply with the word yes.")
        return self

    def _unanswered_error(self, error: Exception) -> UserError:
        return UserError(
            f"The judge at {self.url} did not return a chat completion ({type(error).__name__}: {error!s:.400}). "
            "Check --url (up to and without /chat/completions), the model's name and the key."
        )

    def _ask(self, prompt: str) -> str:
        body = {"model": self.model, **self.settings, "messages": [{"role": "user", "content": prompt}]}
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        reply = post_json(f"{self.url.rstrip('/')}/chat/completions", body, headers, timeout=self.timeout)
        choice = reply["choices"][0]
        content = choice["message"]["content"]
        if choice.get("finish_reason") == "length":
            raise UnfitError(f"the reply was cut at {REPLY_TOKENS} tokens")
        return str(content).encode("utf-8", "replace").decode()  # half a surrogate pair could not be stored


def ask_missing(
    prompts: Mapping[str, str],
    ask: Ask,
    judge: str,
    verdict_log: KeyValueLog,
    is_verdict: Callable[[str, str], bool],
) -> None:
    """Send the prompts (key -> prompt) without a valid stored reply, and store valid replies.

    Replies that an earlier version took for a verdict are asked for again where they are none by today's rules.

    Args:
        prompts: Key -> prompt (`key_of` makes the key).
        ask: Sends a prompt and returns the reply, or None for a failed call.
        judge: Model and address of the judge, for the error message.
        verdict_log: Valid replies by key, of this and earlier calls.
        is_verdict: (key, reply) -> whether the reply is valid.

    Raises:
        UserError: More than 2 % have no verdict; those that came are kept for the next call.
    """

    def is_missing(key: str) -> bool:
        reply = verdict_log.get(key)
        return reply is None or not is_verdict(key, str(reply))

    missing_prompts = {key: prompt for key, prompt in prompts.items() if is_missing(key)}
    invalid_reply = ""
    with ThreadPoolExecutor(WORKERS) as pool, _cancelled_with(pool):
        for key, reply in zip(missing_prompts, pool.map(ask, missing_prompts.values()), strict=True):
            if reply is not None and is_verdict(key, reply):
                verdict_log.put({key: reply}, replace=True)
            else:
                invalid_reply = invalid_reply or reply or ""
    failure_count = sum(map(is_missing, prompts))
    if failure_count > FAILURES * len(prompts):
        advice = (
            f"It answered, but with no verdict; for example: {invalid_reply!r:.120}. "
            if invalid_reply
            else f"Check the address, and that the judge needs no more than {REPLY_TOKENS} tokens to reason and reply. "
        )
        raise UserError(
            f"The judge {judge} gave no verdict on {failure_count} of {len(prompts)} questions, more than {FAILURES:.0%}. "
            f"{advice}The verdicts that came are kept; run it again."
        )


@contextmanager
def _cancelled_with(pool: ThreadPoolExecutor) -> Iterator[None]:
    """Cancel waiting questions if one call aborts the judging."""
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def conclusion(reply: str) -> str:
    """Return a reply without the reasoning before it, or "" if the reasoning has no end.

    >>> conclusion("<think>No harm here.</think> safe"), conclusion("<think>It is safe to"), conclusion("safe")
    (' safe', '', 'safe')
    """
    verdict_text = re.split("</think>", reply, flags=re.IGNORECASE)[-1]
    return "" if "<think>" in verdict_text.lower() else verdict_text


def key_of(prompt: str, judge: str) -> str:
    """Return the key of a verdict: hash of template, response and judge (model and address).

    Replies with keys without the 2 may be cut ones.
    """
    return hashlib.sha256(f"2\x1f{judge}\x1f{prompt}".encode()).hexdigest()
