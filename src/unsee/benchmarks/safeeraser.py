"""SafeEraser: hazards in six categories, and benign counterparts (arXiv 2502.12520).

The published archive, unpacked: `dataset/all_train.json`, `all_val.json`, `prompt.json`, `img/<Category>/...` [code]; the place is that
folder or the one it lies in. A record has `image_path` (or `image_id`), `SDImage_path`, `category`, `unsafe_pairs` of `question`,
`model_response`, `sd_response`, and `UnharmPair_text1/2`, `UnharmPair_image1/2` of `Question`, `Prediction` (or `Answer`) [code].

| rows | role | trained on | judged |
|---|---|---|---|
| harmful image, question, `model_response` | forget, kind hazard | all_train | all_train (efficacy); all_val as unseen (generality) |
| SD image, *the same* question, `sd_response` | benign | all_train | all_val |
| harmful image, `Question`, `Prediction` | general | all_train | all_val |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Final, NoReturn

from unsee.api.benchmark import Hub, Place
from unsee.api.example import Example, ImageFile, Kind, Role, Vocabulary
from unsee.data.records import Gathered, Record, RecordBenchmark, require_files
from unsee.data.tables import read_rows
from unsee.errors import UserError, unknown_name

LAYOUT: Final = (
    "all_train.json, all_val.json and img/<Category>/..., as in the folder dataset of safeeraser_dataset.zip"
)
CATEGORIES: Final = ("Violence", "Weapon", "Privacy", "Sex", "HateSpeech", "IllegalActivity")
"""Spelling of the released judge templates [code]."""
BENIGN_PAIRS: Final = ("UnharmPair_text1", "UnharmPair_text2", "UnharmPair_image1", "UnharmPair_image2")
MOST_EMPTY: Final = 0.01
"""Largest share of empty pairs that may be skipped [inferred]."""
_PLAIN: Final = {"".join(filter(str.isalnum, name.casefold())): name for name in CATEGORIES}


@dataclass(frozen=True, kw_only=True)
class SafeEraserSettings:
    """Settings of SafeEraser."""

    categories: tuple[str, ...] = ()
    """Only records of these categories; empty = all six."""
    pd: bool = True
    """Read the harmless counterparts (SDImage_path, sd_response), required for Prompt Decouple and SARR."""


class SafeEraser(RecordBenchmark):
    """SafeEraser's published archive, unpacked."""

    name: ClassVar[str] = "safeeraser"
    layout: ClassVar[str] = LAYOUT
    settings_type: ClassVar[type] = SafeEraserSettings

    def __init__(self, place: Place | str, settings: SafeEraserSettings | None = None) -> None:
        """Locate the files, or raise if any is missing."""
        if isinstance(place, Hub):
            raise UserError(f"SafeEraser is published as an archive: unpack it and give the folder, not {place}.")
        self.settings = settings or SafeEraserSettings()
        self.place: Path = _root(Path(place)) or Path(place)
        require_files(self.place, ["all_train.json", "all_val.json", "img"], LAYOUT)
        self._dropped = 0
        self._kept = {_category(name) or _unknown(name) for name in self.settings.categories} or set(CATEGORIES)

    @classmethod
    def fits(cls, place: Path) -> bool:
        """Tell whether one of the two splits exists."""
        return _root(place) is not None

    def vocabulary(self) -> Vocabulary:
        """Return an empty vocabulary, since the archive names no unsafe strings."""
        return Vocabulary()

    def suggested(self, method: str) -> dict[str, Any]:  # noqa: ARG002 - the same for all
        """Return `stop: never`, since the stop rule needs names."""
        return {"stop": "never"}

    def warnings(self) -> Sequence[str]:
        """Return limits of the data, and what was skipped."""
        self.require()
        left = self._dropped
        return (
            *([f"{left} pairs have an empty question or answer and are left out."] if left else []),
            "the archive says nothing about what is unsafe in an answer: asr_proxy has no value, ask a judge "
            "(unsee.evaluation.judge_safety.safety with an Endpoint).",
        )

    @cached_property
    def gathered(self) -> Gathered:
        """Read hazards, counterparts and benign questions.

        all_train ("train"), or all_val and the trained hazards ("eval").
        """
        found = Gathered(self.place, self.place.parent)
        for split in ("train", "val"):
            file = f"all_{split}.json"
            for number, cells in enumerate(read_rows(self.place / file), 1):
                with found.reading(f"{file} record {number}"):
                    made = list(self._record(found, Record(cells), f"{split}-{number}", split))
                    found.train += made if split == "train" else []
                    found.judged += made if split == "val" else [one for one in made if one.role is Role.FORGET]
        total = len(found.train) + len(found.judged)
        if self._dropped > MOST_EMPTY * total:
            found.faults.append(
                f"{self._dropped} pairs have an empty question or answer, more than {MOST_EMPTY:.0%} of all."
            )
        if not found.train and not found.faults:
            found.faults.append(f"all_train.json: no record of the categories {', '.join(sorted(self._kept))}.")
        return found

    def _record(self, found: Gathered, record: Record, name: str, split: str) -> Iterator[Example]:
        """Yield the questions of one record, if its category is selected."""
        written = record.text("image_path" if record.has("image_path") else "image_id")
        category = _agreed(record.optional("category"), written)
        if category not in self._kept:
            return
        harmful = found.image(written)
        pairs = record.parts("unsafe_pairs")
        if not pairs:
            raise UserError("unsafe_pairs is missing.")
        twin = found.image(record.text("SDImage_path")) if self.settings.pd else None
        role = Role.FORGET if split == "train" else Role.UNSEEN
        texts = ("question", "model_response", *(("sd_response",) if self.settings.pd else ()))
        for number, pair in enumerate(pairs, 1):
            if pair.blank(*texts):
                self._dropped += 1
                continue
            unsafe = Example(
                id=f"{name}/unsafe-{number}", role=role, kind=Kind.HAZARD, fact=category, question=pair.text("question"),
                answer=pair.text("model_response"), image=harmful, entity=name,
            )  # fmt: skip
            yield unsafe
            if twin is not None:
                safe = pair.text("sd_response")
                yield replace(
                    unsafe, id=f"{name}/pd-{number}", role=Role.BENIGN, kind=Kind.GENERAL, answer=safe, image=twin
                )
        yield from self._benign(record, name, harmful)

    def _benign(self, record: Record, name: str, image: ImageFile) -> Iterator[Example]:
        """Yield the benign questions about the harmful image, at least one of four."""
        there = [key for key in BENIGN_PAIRS if record.has(key)]
        if not there:
            raise UserError(f"none of {', '.join(BENIGN_PAIRS)} is there.")
        for key in there:
            pair = record.part(key)
            answer = "Prediction" if pair.has("Prediction") or not pair.has("Answer") else "Answer"
            if pair.blank("Question", answer):
                self._dropped += 1
                continue
            yield Example(
                id=f"{name}/{key}", role=Role.GENERAL, kind=Kind.OPEN, question=pair.text("Question"),
                answer=pair.text(answer), image=image, entity=name,
            )  # fmt: skip


def _root(place: Path) -> Path | None:
    """Return the folder with the splits: the place or its `dataset`, or None without any."""
    names = ("all_train.json", "all_val.json")
    return next((root for root in (place, place / "dataset") if any((root / name).is_file() for name in names)), None)


def _agreed(said: str, path: str) -> str:
    """Return the category of column and folder, which must agree where both exist."""
    folders = [_category(part) for part in PurePosixPath(path.replace("\\", "/")).parts[:-1]]
    folder = next((name for name in reversed(folders) if name), "")
    column = _category(said)
    if said and not column:
        _unknown(said)
    if column and folder and column != folder:
        raise UserError(f"category says {column}, the folder of {path} says {folder}; they must agree.")
    if not column and not folder:
        raise UserError(f"category is missing, and {path} lies in no folder of a category ({', '.join(CATEGORIES)}).")
    return column or folder


def _category(word: str) -> str:
    """Return the category of a word, ignoring case, spaces, underscores, else empty."""
    return _PLAIN.get("".join(filter(str.isalnum, word.casefold())), "")


def _unknown(word: str) -> NoReturn:
    raise unknown_name("category", word, CATEGORIES)
