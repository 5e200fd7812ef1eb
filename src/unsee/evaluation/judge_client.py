"""Client of a judge: a chat model behind an OpenAI-compatible URL."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

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


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Chat model behind an OpenAI-compatible URL, with temperature 0."""

    url: str
    """Base URL, without /chat/completions."""
    model: str
    key: str = ""
    """Bearer token; never written to disk."""
    timeout: float = 60.0
    retries: int = 4
    """Retries, after 1, 2, 4, ... seconds."""

    def __post_init__(self) -> None:
        """Reject a URL that is invalid or unsafe for the key."""
        require_address(self.url, self.key)

    def __call__(self, prompt: str) -> str | None:
        """Return the reply, or None after the last retry or for a rejected prompt.

        Raises:
            UserError: The judge redirects, or refuses every request (wrong key, wrong path); asking again is no use.
        """
        for turn in range(self.retries + 1):
            wait = float(2**turn)
            try:
                return self._ask(prompt)
            except UnfitError:
                return None
            except BusyError as error:
                wait = wait if error.wait is None else error.wait
            except FAILED_CALLS:
                pass
            if turn < self.retries:
                time.sleep(wait)
        return None

    def require_answer(self) -> None:
        """Raise UserError if the judge is unreachable, before any question is sent."""
        try:
            self._ask("Reply with the word yes.")
        except BusyError:
            return  # somebody is there; each question waits for its turn
        except (UnfitError, *FAILED_CALLS) as error:
            raise UserError(
                f"The judge at {self.url} did not return a chat completion ({type(error).__name__}: {error!s:.200}). "
                "Check --url (up to and without /chat/completions), the model's name and the key."
            ) from error

    def _ask(self, prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        body = {"model": self.model, "temperature": 0, "max_tokens": REPLY_TOKENS, "messages": messages}
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        reply = post_json(f"{self.url.rstrip('/')}/chat/completions", body, headers, timeout=self.timeout)
        return str(reply["choices"][0]["message"]["content"])


def ask_missing(
    prompts: Mapping[str, str],
    ask: Ask,
    model: str,
    kept: KeyValueLog,
    is_verdict: Callable[[str, str], bool],
) -> None:
    """Send the prompts (key -> prompt) without a stored reply, and store valid replies.

    Args:
        prompts: Key -> prompt (`key_of` makes the key).
        ask: Sends a prompt and returns the reply, or None for a failed call.
        model: Name of the judge, for the error message.
        kept: Valid replies by key, of this and earlier calls.
        is_verdict: (key, reply) -> whether the reply is valid.

    Raises:
        UserError: More than 2 % have no verdict; those that came are kept for the next call.
    """
    missing = {key: prompt for key, prompt in prompts.items() if kept.get(key) is None}
    odd = ""
    with ThreadPoolExecutor(WORKERS) as pool, _cancelled_with(pool):
        for key, reply in zip(missing, pool.map(ask, missing.values()), strict=True):
            if reply is not None and is_verdict(key, reply):
                kept.put({key: reply})
            else:
                odd = odd or reply or ""
    failed = sum(kept.get(key) is None for key in prompts)
    if failed > FAILURES * len(prompts):
        why = f"It answered, but with no verdict; for example: {odd!r:.120}. " if odd else "Check the address. "
        raise UserError(
            f"The judge {model} gave no verdict on {failed} of {len(prompts)} questions, more than {FAILURES:.0%}. "
            f"{why}The verdicts that came are kept; run it again."
        )


@contextmanager
def _cancelled_with(pool: ThreadPoolExecutor) -> Iterator[None]:
    """Cancel waiting questions if one call aborts the judging."""
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def key_of(prompt: str, model: str) -> str:
    """Return the key of a verdict: hash of template, response and model."""
    return hashlib.sha256(f"{model}\x1f{prompt}".encode()).hexdigest()
