"""Suppression list: keyed fingerprints that find forgotten people in new training data.

New training data can teach a forgotten person again. A fingerprint reveals that without storing a name or a picture,
and only to a holder of the key: an unkeyed hash of a name could be guessed from a list of names.

What a fingerprint still reveals without the key: how many names, facts and pictures there are, how many words names and
facts have, and how much two stored pictures resemble each other. [inferred] All of the design is ours.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unsee.api import Benchmark, Example, ImageSource
from unsee.errors import UserError, first_names, list_message
from unsee.metrics.matching import in_two_letters, without_particles
from unsee.metrics.normal_form import normalise
from unsee.scoring.conditions import FORGOTTEN
from unsee.utils.grouping import by_key
from unsee.utils.parsing import read_object
from unsee.workflows.requests.keys import require_key, seal_of
from unsee.workflows.requests.ledger import Entry, Ledger

SIMILAR: Final = 22
"""Most of 256 bits in which a changed copy of a picture differs from the stored one.

Measured on 600 portraits of the lab, 64 pixels wide (50 people, 12 each), which resemble each other more than photographs
do; a test repeats it on fewer. Largest distance of a copy: 7 at double, 9 at 0.7 and 17 at half size, 17 as JPEG of quality
75, 21 of quality 40, 19 cut by 2 % at any sides, 22 cut, at 0.7 size and as JPEG together. Smallest distance of other
people's pictures: 24 in 352,800 pairs (median 89). Other pictures of the same person: 15 to 200, 15 of 6,600 pairs are
found. Of pictures cut by 4 % only 4 % are found, of mirrored ones 8 %, of ones a fifth brighter 98 %.
"""
_CUT: Final = 0.02
"""Share of width or height that is cut off at each set of sides; one hash is stored for each of the 16 sets."""
_MARGIN: Final = 1
"""Difference of brightness (0 to 255) from which a neighbour counts as brighter: noise of JPEG on plain ground does not."""
_DETAIL: Final = 32
"""Fewest set bits of a picture that has a perceptual hash: plain ones resemble all other plain ones."""
_WIDE, _HIGH = 16, 16

_SHOWN: Final = 20
"""Most hits listed in a message."""
_PRIVATE: Final = "private strings"

Bits = NDArray[np.uint8]
Picture = ImageSource | Image.Image


@dataclass(frozen=True, kw_only=True)
class Fingerprints:
    """Names, pictures and facts of one request, as keyed hashes in hexadecimal."""

    names: tuple[str, ...] = ()
    """HMAC of the words of a name in alphabetical order, so that "Lovell, Ada" is found too."""
    lengths: tuple[int, ...] = ()
    """Numbers of words of the names."""
    images: tuple[str, ...] = ()
    """HMAC of the decoded pixels."""
    similar: tuple[str, ...] = ()
    """Masked perceptual hashes (256 bits) of the pictures and of their cut forms."""
    facts: tuple[str, ...] = ()
    """HMAC of the words of what had to go, if that is less than everything; other rows about the person are welcome then."""
    fact_lengths: tuple[int, ...] = ()
    """Numbers of words of the facts."""

    def to_json(self) -> dict[str, Any]:
        """Return the fingerprints as JSON values."""
        return {name: list(value) for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any], *, where: str = "the fingerprints") -> Fingerprints:
        """Return fingerprints from JSON values, or raise if they are none."""
        try:
            prints = cls(**{name: tuple(value) for name, value in row.items()})
            texts = [*prints.names, *prints.images, *prints.similar, *prints.facts]
            lengths = [*prints.lengths, *prints.fact_lengths]
            if not all(len(bytes.fromhex(text)) == 32 for text in texts) or not all(length > 0 for length in lengths):
                raise ValueError("expected hashes of 64 hexadecimal digits, and lengths above 0")
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{where} are damaged ({error!s:.100}). Restore them from a backup.") from error
        return prints


@dataclass(frozen=True, kw_only=True)
class Hit:
    """Row of new data in which a forgotten person was found."""

    row: int
    """Row number in the examples, from 1."""
    request: str
    """Id of the request that the person made."""
    why: str
    """Part of the row that matched; never the name itself."""


def fingerprints(
    key: bytes, names: Iterable[str], pictures: Iterable[Picture], facts: Iterable[str] = ()
) -> Fingerprints:
    """Return the fingerprints of a person's names and pictures, and of the facts that had to go.

    Of names with several words those of one word (a first or a last name) are left out: others have them too.

    Args:
        key: Key of the hashes.
        names: Forms of the name.
        pictures: Pictures of the person.
        facts: Texts that alone had to go, in all their forms; none = everything about the person.
    """
    word_tuples = {tuple(sorted(words)) for name in names for words in _spellings(name)}
    word_tuples = {
        words
        for words in word_tuples
        if words and (len(words) > 1 or all(len(other_words) <= 1 for other_words in word_tuples))
    }
    fact_words = {words for fact in facts for words in _spellings(fact) if words}
    image_hashes: dict[str, None] = {}
    perceptual_hashes: dict[str, None] = {}
    for picture in pictures:
        image = _rgb_image(picture)
        image_hashes[_pixels(key, image)] = None
        perceptual_hashes.update((_masked(key, bits).tobytes().hex(), None) for bits in _perceptual_hashes(image))
    return Fingerprints(
        names=tuple(sorted(_name(key, words) for words in word_tuples)),
        lengths=tuple(sorted({len(words) for words in word_tuples})),
        images=tuple(image_hashes),
        similar=tuple(perceptual_hashes),
        facts=tuple(sorted(_fact(key, words) for words in fact_words)),
        fact_lengths=tuple(sorted({len(words) for words in fact_words})),
    )


def search(examples: Iterable[Example], fingerprints_by_request: Mapping[str, Fingerprints], key: bytes) -> list[Hit]:
    """Return the rows that hold a name or a picture of a forgotten person, with a fact if only facts had to go.

    One hit per row, request and kind of match.

    Args:
        examples: Rows of new data. Every name in question, answer, options, reasoning and private strings is compared,
            and every picture.
        fingerprints_by_request: Request -> its fingerprints.
        key: The key they were made with; another one finds nothing.
    """
    index = _Index(key, fingerprints_by_request)
    hits: dict[Hit, None] = {}
    for row_number, example in enumerate(examples, start=1):
        hits.update(
            (Hit(row=row_number, request=request, why=reason), None) for request, reason in index.about(example)
        )
    return list(hits)


def search_data(data: Benchmark, path: Path | str) -> list[str]:
    """Return a line for every row outside the forget set that holds somebody of a ledger.

    Rows of the forget set are left out, since they are to be forgotten again. Rows are counted per split.

    Args:
        data: The data.
        path: A ledger, the project folder that holds it, or a JSON file (see `read`).
    """
    fingerprints_by_request, key = read(path)
    trained_ids: set[str] = set()
    lines: list[str] = []
    for split in ("train", "eval"):
        rows = data.examples(split)
        indices = [index for index, row in enumerate(rows) if row.role not in FORGOTTEN and row.id not in trained_ids]
        hits = search((rows[index] for index in indices), fingerprints_by_request, key)
        lines += [f"{split} {line}" for line in _lines(replace(hit, row=indices[hit.row - 1] + 1) for hit in hits)]
        trained_ids |= {row.id for row in rows} if split == "train" else set()
    return lines


def require_none(examples: Iterable[Example], path: Path | str, subject: str) -> None:
    """Raise if rows hold somebody of a ledger, before they are trained on."""
    if lines := _lines(search(examples, *read(path))):
        raise UserError(list_message(f"{subject} would teach what was to be forgotten:", lines, _SHOWN))


def _lines(hits: Iterable[Hit]) -> list[str]:
    """Return a line for every row and request."""
    reasons_by_row = by_key(((hit.row, hit.request), hit.why) for hit in hits)
    return [
        f"row {row} holds somebody who was to be forgotten (request {request}): {', '.join(reasons)}"
        for (row, request), reasons in reasons_by_row.items()
    ]


def read(path: Path | str) -> tuple[dict[str, Fingerprints], bytes]:
    """Return request -> fingerprints, and the key they were made with.

    A JSON file is `{"key": ID, "requests": {REQUEST: FINGERPRINTS}}`, with the id of the key as the ledger's first entry has it.

    Raises:
        UserError: There is no such ledger or file, it is damaged, or was made with another key than this user's, which would
            find nobody.
    """
    path = Path(path)
    if path.suffix == ".json":
        rows, key = _listed(path)
    else:
        ledger = Ledger(path)
        if not ledger.path.is_file():
            raise UserError(
                f"There is no ledger at {ledger.path}. Give its project folder, or a JSON file of fingerprints."
            )
        rows, key = ledger.fingerprints(), ledger.key
    return {
        request: Fingerprints.from_json(row, where=f"{path}, request {request}") for request, row in rows.items()
    }, key


def _listed(file: Path) -> tuple[Mapping[str, Any], bytes]:
    """Return the fingerprints that a JSON file lists by request, and the key they were made with."""
    content = read_object(file)
    expected_id, rows = content.get("key"), content.get("requests")
    if not isinstance(expected_id, str) or not isinstance(rows, dict):
        raise UserError(
            f'{file} does not say which key its fingerprints were made with. Expected {{"key": ID, "requests": {{REQUEST: '
            f"FINGERPRINTS}}}}, got the fields {first_names(sorted(content)) or 'none'}. Take ID and fingerprints from the entries "
            "`opened` and `suppressed` of `unsee request export`, or give the ledger itself."
        )
    return rows, require_key(expected_id, file)


def suppress(
    ledger: Ledger,
    request: str,
    names: Iterable[str],
    pictures: Iterable[Picture],
    facts: Iterable[str] = (),
    *,
    operator: str = "",
) -> Entry:
    """Append the fingerprints of a person to a ledger, and return the entry.

    Args:
        ledger: Ledger, whose key the fingerprints are made with.
        request: Identifier of the person's request.
        names: Forms of the name.
        pictures: Pictures of the person.
        facts: Texts that alone had to go; none = everything about the person.
        operator: Code of who did it. Empty: not noted.
    """
    prints = fingerprints(ledger.key, names, pictures, facts)
    return ledger.append("suppressed", request, operator=operator, fingerprints=prints.to_json())


class _Index:
    """Fingerprints of all requests, arranged for search."""

    def __init__(self, key: bytes, fingerprints_by_request: Mapping[str, Fingerprints]) -> None:
        """Arrange the fingerprints by what they are compared with."""
        self.key = key
        self.lengths = sorted({length for prints in fingerprints_by_request.values() for length in prints.lengths})
        self.names = _inverted({request: prints.names for request, prints in fingerprints_by_request.items()})
        self.images = _inverted({request: prints.images for request, prints in fingerprints_by_request.items()})
        self.similar = [
            (request, text) for request, prints in fingerprints_by_request.items() for text in prints.similar
        ]
        packed_hashes = [np.frombuffer(bytes.fromhex(text), dtype=np.uint8) for _, text in self.similar]
        self.hashes = (
            np.unpackbits(np.stack(packed_hashes), axis=1)
            if packed_hashes
            else np.zeros((0, _WIDE * _HIGH), dtype=np.uint8)
        )
        self.facts = {request: frozenset(prints.facts) for request, prints in fingerprints_by_request.items()}
        self.fact_lengths = sorted(
            {length for prints in fingerprints_by_request.values() for length in prints.fact_lengths}
        )
        self.named = lru_cache(maxsize=1 << 16)(self._requests_named)
        self.pictures_by_key: dict[str, list[tuple[str, str]]] = {}
        """Content of an image -> requests and reasons, since many rows show one image."""

    def about(self, example: Example) -> Iterator[tuple[str, str]]:
        """Yield request and reason for every match in a row."""
        matches = list(self._person_matches(example))
        told_facts = self._fact_hashes(example) if any(self.facts[request] for request, _ in matches) else set()
        for request, reason in matches:
            if not self.facts[request]:
                yield request, reason
            elif self.facts[request] & told_facts:
                yield request, f"{reason}, beside a fact that had to go"

    def _person_matches(self, example: Example) -> Iterator[tuple[str, str]]:
        """Yield request and reason for every name and picture of a person in a row."""
        for part, texts in _texts(example) if self.lengths else ():
            for text in texts:
                for words in _word_runs(text, self.lengths):
                    for request in self.named(tuple(sorted(words))):
                        yield request, f"the name in the {part}"
        if example.image is not None and self.images:
            image_key = example.image.key
            if image_key not in self.pictures_by_key:
                self.pictures_by_key[image_key] = list(self._showing(_rgb_image(example.image)))
            yield from self.pictures_by_key[image_key]

    def _fact_hashes(self, example: Example) -> set[str]:
        """Return the hashes of all runs of words in what a row teaches, which its private strings are no part of."""
        texts = [text for part, texts in _texts(example) if part != _PRIVATE for text in texts]
        return {_fact(self.key, words) for text in texts for words in _word_runs(text, self.fact_lengths)}

    def _requests_named(self, words: tuple[str, ...]) -> Sequence[str]:
        return self.names.get(_name(self.key, words), ())

    def _showing(self, image: Image.Image) -> Iterator[tuple[str, str]]:
        """Yield request and reason for an equal picture, else for the nearest similar one."""
        exact_requests = self.images.get(_pixels(self.key, image), ())
        yield from ((request, "a picture") for request in exact_requests)
        distances = (self.hashes != np.unpackbits(_masked(self.key, _bits(image)))).sum(axis=1)
        nearest_distances: dict[str, int] = {}
        for index in np.flatnonzero(distances <= SIMILAR):
            request, distance = self.similar[index][0], int(distances[index])
            nearest_distances[request] = min(distance, nearest_distances.get(request, distance))
        for request, distance in nearest_distances.items():
            if request not in exact_requests:
                yield request, f"a changed copy of a picture ({distance} of 256 bits differ)"


def _inverted(values_by_key: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return value -> the keys that have it."""
    return by_key((value, key) for key, values in values_by_key.items() for value in values)


def _texts(example: Example) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the parts of a row that may contain a name, and their texts."""
    yield "question", (example.question,)
    yield "answer", (example.answer, example.paraphrase, *example.perturbed, *example.accepted, example.chain)
    yield "options", example.options
    yield "entity", (example.entity,)
    yield _PRIVATE, [form for forms in example.private.values() for form in forms]


def _word_runs(text: str, lengths: Iterable[int]) -> Iterator[tuple[str, ...]]:
    """Yield all runs of so many neighbouring words, also without particles that are joined to the first one."""
    for words, length in product(_spellings(text), lengths):
        for start in range(len(words) - length + 1):
            first, *others = words[start : start + length]
            yield from ((form, *others) for form in (first, *without_particles(first)))


def _spellings(text: str) -> set[tuple[str, ...]]:
    """Return the words of a text, as they are and with umlauts in two letters."""
    return {tuple(normalise(spelling).split()) for spelling in (text, in_two_letters(text))}


def _name(key: bytes, words: Sequence[str]) -> str:
    return seal_of(key, "suppressed name", *words)


def _fact(key: bytes, words: Sequence[str]) -> str:
    return seal_of(key, "suppressed fact", *words)


def _pixels(key: bytes, image: Image.Image) -> str:
    digest = hmac.new(key, f"suppressed image {image.width}x{image.height} ".encode(), hashlib.sha256)
    digest.update(image.tobytes())
    return digest.hexdigest()


def _rgb_image(picture: Picture) -> Image.Image:
    """Return the decoded picture in RGB."""
    return picture.convert("RGB") if isinstance(picture, Image.Image) else picture.load()


def _perceptual_hashes(image: Image.Image) -> Iterator[Bits]:
    """Yield the perceptual hashes of a picture and its cut forms, none without detail."""
    if _bits(image).sum() < _DETAIL:
        return
    for left, upper, right, lower in product((0.0, _CUT), repeat=4):
        box = (left * image.width, upper * image.height, (1 - right) * image.width, (1 - lower) * image.height)
        yield _bits(image, box)


def _bits(image: Image.Image, box: tuple[float, float, float, float] | None = None) -> Bits:
    """Return the difference hash of a picture or a part of it: 256 times 0 or 1.

    Each of 16 x 16 cells says whether its right neighbour is brighter (dHash; Krawetz 2013,
    https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html). [inferred] Here by a margin.
    """
    small = image.convert("L").resize((_WIDE + 1, _HIGH), Image.Resampling.LANCZOS, box=box)
    grey = np.asarray(small, dtype=np.int16)
    return (np.diff(grey, axis=1) > _MARGIN).astype(np.uint8).ravel()


def _masked(key: bytes, bits: Bits) -> Bits:
    """Return the bits, permuted and masked by the key, as 32 bytes. Distances are preserved."""
    order, mask = _disguise(key)
    return np.packbits(bits[order] ^ mask)


@lru_cache(maxsize=8)
def _disguise(key: bytes) -> tuple[NDArray[np.intp], Bits]:
    """Return the permutation and mask that a key gives the bits of perceptual hashes."""
    order = sorted(range(_WIDE * _HIGH), key=lambda bit: seal_of(key, "suppressed order", str(bit)))
    mask = np.frombuffer(bytes.fromhex(seal_of(key, "suppressed mask")), dtype=np.uint8)
    return np.array(order), np.unpackbits(mask)
