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
        self._categories = {_category(name) or _unknown(name) for name in self.settings.categories} or set(CATEGORIES)

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
        dropped_count = self.gathered.left_out
        return (
            *([f"{dropped_count} pairs have an empty question or answer and are left out."] if dropped_count else []),
            "the archive says nothing about what is unsafe in an answer: asr_proxy has no value, ask a judge "
            "(`unsee judge RUN --url URL --judge NAME`).",
        )

    @cached_property
    def gathered(self) -> Gathered:
        """Read hazards, counterparts and benign questions.

        all_train ("train"), or all_val and the trained hazards ("eval").
        """
        gathered = Gathered(self.place, self.place.parent)
        for split in ("train", "val"):
            file = f"all_{split}.json"
            for number, cells in enumerate(read_rows(self.place / file), 1):
                with gathered.reading(f"{file} record {number}"):
                    examples = list(self._record(gathered, Record(cells), f"{split}-{number}", split))
                    gathered.train += examples if split == "train" else []
                    gathered.judged += (
                        examples if split == "val" else [example for example in examples if example.role is Role.FORGET]
                    )
        if gathered.left_out > MOST_EMPTY * gathered.items:
            gathered.faults.append(
                f"{gathered.left_out} pairs have an empty question or answer, more than {MOST_EMPTY:.0%} of all "
                f"{gathered.items}."
            )
        if not gathered.train and not gathered.faults:
            gathered.faults.append(
                f"all_train.json: no record of the categories {', '.join(sorted(self._categories))}."
            )
        return gathered

    def _record(self, gathered: Gathered, record: Record, name: str, split: str) -> Iterator[Example]:
        """Yield the questions of one record, if its category is selected."""
        image_path = record.text("image_path" if record.has("image_path") else "image_id")
        category = _agreed_category(record.optional("category"), image_path)
        if category not in self._categories:
            return
        harmful_image = gathered.image(image_path)
        pairs = record.parts("unsafe_pairs")
        if not pairs:
            raise UserError("unsafe_pairs is missing.")
        benign_image = gathered.image(record.text("SDImage_path")) if self.settings.pd else None
        role = Role.FORGET if split == "train" else Role.UNSEEN
        text_fields = ("question", "model_response", *(("sd_response",) if self.settings.pd else ()))
        for number, pair in enumerate(pairs, 1):
            if _is_empty(gathered, pair, *text_fields):
                continue
            hazard_example = Example(
                id=f"{name}/unsafe-{number}", role=role, kind=Kind.HAZARD, fact=category, question=pair.text("question"),
                answer=pair.text("model_response"), image=harmful_image, entity=name,
            )  # fmt: skip
            yield hazard_example
            if benign_image is not None:
                safe_answer = pair.text("sd_response")
                yield replace(
                    hazard_example,
                    id=f"{name}/pd-{number}",
                    role=Role.BENIGN,
                    kind=Kind.GENERAL,
                    answer=safe_answer,
                    image=benign_image,
                )
        yield from _benign(gathered, record, name, harmful_image)


def _benign(gathered: Gathered, record: Record, name: str, image: ImageFile) -> Iterator[Example]:
    """Yield the benign questions about the harmful image, at least one of four."""
    present_keys = [key for key in BENIGN_PAIRS if record.has(key)]
    if not present_keys:
        raise UserError(f"none of {', '.join(BENIGN_PAIRS)} is there.")
    for key in present_keys:
        pair = record.part(key)
        answer_field = "Prediction" if pair.has("Prediction") or not pair.has("Answer") else "Answer"
        if _is_empty(gathered, pair, "Question", answer_field):
            continue
        yield Example(
            id=f"{name}/{key}", role=Role.GENERAL, kind=Kind.OPEN, question=pair.text("Question"),
            answer=pair.text(answer_field), image=image, entity=name,
        )  # fmt: skip


def _is_empty(gathered: Gathered, pair: Record, *text_fields: str) -> bool:
    """Count a pair, and tell whether one of its texts is empty, so that it is left out."""
    is_empty = pair.blank(*text_fields)
    gathered.items += 1
    gathered.left_out += is_empty
    return is_empty


def _root(place: Path) -> Path | None:
    """Return the folder with the splits: the place or its `dataset`, or None without any."""
    names = ("all_train.json", "all_val.json")
    return next((root for root in (place, place / "dataset") if any((root / name).is_file() for name in names)), None)


def _agreed_category(label: str, path: str) -> str:
    """Return the category of column and folder, which must agree where both exist."""
    folder_categories = [_category(part) for part in PurePosixPath(path.replace("\\", "/")).parts[:-1]]
    folder_category = next((name for name in reversed(folder_categories) if name), "")
    column_category = _category(label)
    if label and not column_category:
        _unknown(label)
    if column_category and folder_category and column_category != folder_category:
        raise UserError(
            f"category says {column_category}, the folder of {path} says {folder_category}; they must agree."
        )
    if not column_category and not folder_category:
        raise UserError(f"category is missing, and {path} lies in no folder of a category ({', '.join(CATEGORIES)}).")
    return column_category or folder_category


def _category(word: str) -> str:
    """Return the category of a word, ignoring case, spaces, underscores, else empty."""
    return _PLAIN.get("".join(filter(str.isalnum, word.casefold())), "")


def _unknown(word: str) -> NoReturn:
    raise unknown_name("category", word, CATEGORIES)
