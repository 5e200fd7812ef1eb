"""Search for private strings and ids in files before they are published."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from unsee import config
from unsee.api.benchmark import SPLITS
from unsee.config.plugins import naming_plugins
from unsee.data.open import open_benchmark
from unsee.errors import NoDataError, UserError
from unsee.metrics.matching import contains
from unsee.metrics.scripts import is_spaced
from unsee.utils.parsing import parse_json, read_object
from unsee.utils.terminal import note

SHORTEST: Final = 3
"""Fewest characters of a searched string; shorter ones occur by chance. Han and the like count twice."""
_DIGITS: Final = 6
"""The same for digit strings, which occur in scores and hashes by chance."""
_EXEMPT: Final = re.compile(
    r"(tokenizer|vocab|added_tokens|special_tokens_map)\.json|merges\.txt|vocab\.txt|.*\.model|responses\.jsonl|.*\.png"
)
"""Vocabularies, which hold single words of the base model's language and which unlearning does not change; answers and
images, which are about the forget set and are uploaded only on request."""


def strings_of(run: Path) -> set[str]:
    """Return private strings, entity ids and row ids of a run's data.

    If the data are gone, which a remark says: those of its responses, and the names of everybody in the data.

    Raises:
        UserError: The data are there and cannot be opened, or neither can be read in full, so the search would be incomplete.
    """
    run_record = config.read(run / "run.yaml")
    strings: set[str] = set()
    problem = ""
    try:
        with naming_plugins(run_record):
            data = open_benchmark(run_record.data, run_record.benchmark)
        for split in SPLITS:
            strings.update(_strings(data.examples(split)))
    except NoDataError as error:
        problem = str(error) if run_record.data else "run.yaml no longer names them, as after unsee purge"
        config.require_judged(run)  # incomplete responses give incomplete strings
        strings.update(_names(run / "vocabulary.json"))  # some may have been asked about in the training alone
    if (run / "responses.jsonl").is_file():
        strings.update(_strings(config.read_responses(run / "responses.jsonl")))
    elif problem:
        raise UserError(
            f"{run} cannot be searched for private strings before it goes: its data are gone ({problem:.200}), "
            f"and it has no responses.jsonl. Put the data back, or judge the run again: unsee eval --model {run} --data DATA."
        )
    if problem:
        note(
            f"The data of {run} are gone ({problem:.200}): the upload is searched only for the private strings of its answers "
            "and the names of everybody in the evaluation."
        )
    return {text for text in strings if _is_telling(text)}


def _names(file: Path) -> Iterator[str]:
    """Yield ids and names of everybody in the data of an evaluation, nothing if it wrote none."""
    if file.is_file():
        for entity, forms in read_object(file)["names"].items():
            yield from (entity, *forms)


def _strings(rows: Iterable[Any]) -> Iterator[str]:
    for row in rows:
        yield from (row.id, row.entity)
        for forms in row.private.values():
            yield from forms


def _is_telling(text: str) -> bool:
    text = text.strip()
    characters = len(text) + sum(not is_spaced(char) for char in text)  # 张伟 is a whole name
    return characters >= (_DIGITS if re.fullmatch(r"[\d\W]*", text) else SHORTEST)


def require_none(folder: Path, strings: Collection[str], *, allowed: Collection[str] = ()) -> None:
    """Raise if a file of the folder contains one of the strings as whole words.

    Case, accents and line breaks are ignored.

    Weights are searched in their header only.
    """
    allowed_texts = {text.casefold() for text in allowed}
    searched_texts = [text for text in strings if text.casefold() not in allowed_texts]
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or _EXEMPT.fullmatch(path.name):
            continue
        content = _text(path)
        hits = sorted(text for text in searched_texts if contains(content, text))
        if hits:
            listing = ", ".join(f"{text!r:.60}" for text in hits[:3])
            raise UserError(
                f"{path.relative_to(folder).as_posix()} holds what the data call private or an id: {listing}"
                f"{' and more' if len(hits) > 3 else ''}. Nothing was uploaded. A text that steers the model cannot go "
                "without it; for a word that means nothing here, give --allow."
            )


def _text(path: Path) -> str:
    """Return the text of a file, with JSON and HTML escapes decoded."""
    if path.suffix == ".safetensors":
        return _header(path)
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".json":
        text = "\n".join(_leaves(parse_json(text, path.name)))
    return html.unescape(text)


def _header(path: Path) -> str:
    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise UserError(f"{path.name} is damaged or cut off ({error}). Nothing was uploaded.") from error
    with path.open("rb") as file:
        return file.read(int.from_bytes(file.read(8), "little")).decode("utf-8", errors="replace")


def _leaves(value: Any) -> Iterator[str]:
    """Yield every key and value of a JSON document."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield str(value)
