"""ICU-style documents: profiles with reports or contracts, and an order of requests.

ICU-Bench (arXiv 2605.05938) has published neither data nor schema: this layout is ours throughout [inferred], named after its
protocol, and never to be reported as ICU-Bench. A folder with (each `.jsonl`, `.json`, `.csv` or `.parquet`)

- `profiles`: `id`, `domain`, `fields` = {"name": ..., "diagnosis": ...} (private values; a list = several spellings);
- `qa`: `id`, `profile`, `image` (path, list of pages, or nothing: text only), `view`, `question`, `answer` (of mcq: the text of an option,
  else its letter), `type` (mcq, cloze, short, open), `options`, `field`, `split` (train: not judged, test: not trained on, or nothing);
- `requests.json` = {"requests": [{"id": "r1", "entities": ["p1", "p2"]}, ...], "retain": ["p9", ...]}, as `unsee continual` reads it;
  without it the profiles are cut into requests;
- `general` (optional): `id`, `image`, `question`, `answer`.

`view: header` shows the document with its values cropped out: those questions test memory. `view: page` shows them: answering is
reading, so they are an OCR control of role general, judged and never trained on.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Final, Literal

from PIL import Image

from unsee.api.benchmark import Hub, Place
from unsee.api.example import Example, ImageFile, ImageSource, Kind, Role, Vocabulary
from unsee.data.cells import options_of, require_choice, require_plain, with_options
from unsee.data.people import vocabulary_of
from unsee.data.question_templates import right_letter
from unsee.data.records import Gathered, Record, RecordBenchmark, named_records, named_table, named_tables
from unsee.data.tables import SUFFIXES
from unsee.errors import UserError, unknown_name
from unsee.utils.parsing import read_object

REQUESTS: Final = "requests.json"
"""Request file, also read by `unsee continual --requests`."""
LAYOUT: Final = f"profiles and qa ({', '.join(SUFFIXES)}), and {REQUESTS} for the order"
_KINDS: Final = {"mcq": Kind.CHOICE, "cloze": Kind.CLOZE, "short": Kind.FACT, "open": Kind.OPEN}
_VIEWS: Final = ("", "header", "page")
_SPLITS: Final = ("", "train", "test")
_FIELDS: Final = {
    "profiles": ("id", "fields"),
    "qa": ("id", "profile", "image", "view", "question", "answer", "type", "options", "field", "split"),
    "general": ("id", "image", "question", "answer"),
}
"""Table -> the columns that are read."""


@dataclass(frozen=True, kw_only=True)
class ICUSettings:
    """Settings of ICU-style data."""

    task: int = 0
    """Task of the sequence to be unlearned, counted from 1; 0 = all at once."""
    order_seed: int = 0
    """Order of the tasks; 0 = as listed."""
    requests_per_task: int = 10
    """Profiles per task, without a requests.json."""
    retain_share: float = 0.5
    """Share of last profiles that are never requested, without a requests.json."""
    pages: Literal["joined", "first", "each"] = "joined"
    """Questions about several pages: stack them, show the first, or ask once per page."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Our name of a column -> its name in these files, if it is not ours in another case."""

    def __post_init__(self) -> None:
        """Reject impossible values."""
        if self.requests_per_task < 1:
            raise UserError(f"benchmark.requests_per_task must be at least 1, got {self.requests_per_task}.")
        if not 0 <= self.retain_share < 1:
            raise UserError(f"benchmark.retain_share must be in [0, 1), got {self.retain_share}.")


@dataclass(frozen=True)
class Pages:
    """Several pages stacked into one image of the largest width."""

    files: tuple[ImageFile, ...]

    @property
    def key(self) -> str:
        """SHA-256 of the keys of the pages."""
        return hashlib.sha256("".join(file.key for file in self.files).encode()).hexdigest()

    def load(self) -> Image.Image:
        """Decode and stack the pages."""
        pages = [file.load() for file in self.files]
        width = max(page.width for page in pages)
        pages = [page.resize((width, max(1, round(page.height * width / page.width)))) for page in pages]
        canvas = Image.new("RGB", (width, sum(page.height for page in pages)), "white")
        top = 0
        for page in pages:
            canvas.paste(page, (0, top))
            top += page.height
        return canvas


class ICU(RecordBenchmark):
    """Documents of profiles, and a sequence of deletion requests."""

    name: ClassVar[str] = "icu"
    layout: ClassVar[str] = LAYOUT
    settings_type: ClassVar[type] = ICUSettings

    def __init__(self, place: Place | str, settings: ICUSettings | None = None, *, asked: Sequence[str] = ()) -> None:
        """Read profiles and order. `asked` replaces the forget profiles of the task."""
        if isinstance(place, Hub):
            raise UserError(f"ICU-style data are files here, not a data set on the hub ({place}).")
        self.place: Path = Path(place)
        self.settings = settings or ICUSettings()
        self._tables = {stem: self._table(stem) for stem in ("profiles", "qa")}
        if general_table := named_table(self.place, "general"):
            self._tables["general"] = general_table
        fields_by_table = {path: _FIELDS[stem] for stem, path in self._tables.items()}
        self._records = named_records(fields_by_table, self.settings.columns)
        self._profiles = self._read_profiles()
        self._tasks, self._retain = self._order()
        if not 0 <= self.settings.task <= len(self._tasks):
            raise UserError(f"benchmark.task must be between 0 (all) and {len(self._tasks)}, got {self.settings.task}.")
        chosen_tasks = self._tasks[self.settings.task - 1 : self.settings.task] if self.settings.task else self._tasks
        self._forget = frozenset(asked or (profile for task in chosen_tasks for profile in task))

    @classmethod
    def fits(cls, place: Path) -> bool:
        """Tell whether profiles and questions exist."""
        return place.is_dir() and all(named_tables(place, stem) for stem in ("profiles", "qa"))

    def idle(self) -> Iterator[tuple[str, str]]:
        """Yield the settings without effect on these data."""
        if (self.place / REQUESTS).is_file():
            for name in ("requests_per_task", "retain_share"):
                yield f"benchmark.{name}", f"without {REQUESTS}"
        if not self.settings.task:
            yield "benchmark.order_seed", "with benchmark.task above 0, as all tasks are unlearned at once"

    def tasks(self) -> list[tuple[str, ...]]:
        """Return the profiles of each request, in order."""
        return list(self._tasks)

    def about(self, entities: Sequence[str]) -> ICU:
        """Return the same documents with these forget profiles. Itself if some are unknown."""
        if not entities or not set(entities) <= self._profiles.keys():
            return self
        return ICU(self.place, self.settings, asked=entities)

    def vocabulary(self) -> Vocabulary:
        """Return all names and values of all profiles."""
        return vocabulary_of(self._profiles.items())

    def _read_profiles(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Return profile -> private values, the name first."""
        profiles: dict[str, dict[str, tuple[str, ...]]] = {}
        path = self._tables["profiles"]
        for number, row in enumerate(self._records[path], 1):
            try:
                private = {name: row.part("fields").strings(name) for name in row.part("fields")}
                if not private.get("name"):
                    raise UserError("fields.name is missing: what is the profile called?")
                if profiles.setdefault(row.text("id"), {}):
                    raise UserError(f"id {row.text('id')!r} occurs twice.")
                profiles[row.text("id")] = {
                    "name": private.pop("name"),
                    **{fact: values for fact, values in private.items() if values},
                }
            except UserError as error:
                raise UserError(f"{path.name} row {number}: {error}") from error
        return profiles

    def _order(self) -> tuple[list[tuple[str, ...]], frozenset[str]]:
        """Return the tasks and the retain profiles."""
        path = self.place / REQUESTS
        order = Record(read_object(path)) if path.is_file() else self._cut()
        tasks = [request.strings("entities") for request in order.parts("requests")]
        if not all(tasks) or not tasks:
            raise UserError(f"{REQUESTS}: requests must be a list, each with the profiles it names in entities.")
        retain = order.strings("retain")
        seen_profiles: set[str] = set()
        for profile in (*(profile for task in tasks for profile in task), *retain):
            if profile not in self._profiles:
                raise unknown_name(f"profile in {REQUESTS}", profile, self._profiles)
            if profile in seen_profiles:
                raise UserError(f"{REQUESTS}: {profile!r} is in two tasks, or in a task and in retain.")
            seen_profiles.add(profile)
        if self.settings.order_seed:
            random.Random(f"icu/{self.settings.order_seed}").shuffle(tasks)
        return tasks, frozenset(retain)

    def _cut(self) -> Record:
        """Return the order without a file: profiles as listed, equal tasks, last share retained."""
        profiles, size = list(self._profiles), self.settings.requests_per_task
        requested_profiles = profiles[: len(profiles) - int(len(profiles) * self.settings.retain_share)]
        tasks = [requested_profiles[start : start + size] for start in range(0, len(requested_profiles), size)]
        return Record(
            {"requests": [{"entities": task} for task in tasks], "retain": profiles[len(requested_profiles) :]}
        )

    def _table(self, stem: str) -> Path:
        path = named_table(self.place, stem)
        if path is None:
            file_names = (
                ", ".join(sorted(file.name for file in self.place.iterdir())) if self.place.is_dir() else "no folder"
            )
            raise UserError(f"{self.place} has no {stem}. Expected {LAYOUT}; found {file_names or 'nothing'}.")
        return path

    @cached_property
    def gathered(self) -> Gathered:
        """Read the questions about requested and never requested profiles. Others have no role."""
        gathered = Gathered(self.place)
        path = self._tables["qa"]
        for number, row in enumerate(self._records[path], 1):
            with gathered.reading(f"{path.name} row {number}"):
                split = _allowed_value(row, "split", _SPLITS)
                for example in self._row(gathered, row, split):
                    if example.role not in (Role.UNSEEN, Role.GENERAL) and split != "test":
                        gathered.train.append(example)
                    if split != "train":
                        gathered.judged.append(example)
        if "general" in self._tables:
            self._general(gathered, self._tables["general"])
        return gathered

    def _row(self, gathered: Gathered, row: Record, split: str) -> Iterator[Example]:
        """Yield the questions of a row in its profile's role, or none without a role."""
        profile = row.text("profile")
        if profile not in self._profiles:
            raise unknown_name("profile", profile, self._profiles)
        view = _allowed_value(row, "view", _VIEWS)
        if view == "page" and split == "train":
            raise UserError("questions of view page are never trained on; leave split empty or write test.")
        kind = _KINDS[_allowed_value(row, "type", tuple(_KINDS))]
        options = options_of({"options": row.raw("options")}) if kind is Kind.CHOICE else row.strings("options")
        if kind is Kind.CHOICE and len(options) < 2:
            raise UserError(f"a question of type mcq needs options, got {options!r}.")
        example = Example(
            id=row.text("id"), role=Role.RETAIN, question=row.text("question"), entity=profile, kind=kind, options=options,
            answer=right_letter(row.text("answer"), options) if kind is Kind.CHOICE else row.text("answer"),
            fact=row.optional("field"), private=self._profiles[profile],
        )  # fmt: skip
        require_plain(example)
        if kind is Kind.CHOICE:
            require_choice(example)
        example = with_options(example)
        if kind is Kind.FACT and (not example.fact or example.fact == "name"):
            example = replace(example, kind=Kind.NAME if example.fact else Kind.OPEN)
        if profile not in self._forget | self._retain:
            return
        for number, image in enumerate(self._images(gathered, row)):
            variant = replace(example, image=image, id=example.id + (f"/page-{number + 1}" if number else ""))
            yield _read_off(variant) if view == "page" else replace(variant, role=self._role(variant, split))

    def _role(self, example: Example, split: str) -> Role:
        is_forgotten = example.entity in self._forget
        if example.image is None:
            return Role.FORGET_TEXT if is_forgotten else Role.RETAIN_TEXT
        return (Role.UNSEEN if split == "test" else Role.FORGET) if is_forgotten else Role.RETAIN

    def _images(self, gathered: Gathered, row: Record) -> list[ImageSource | None]:
        """Return the images of a row: none, one, or its pages by the settings."""
        files = [gathered.image(path) for path in row.strings("image")]
        if not files:
            return [None]
        if len(files) == 1 or self.settings.pages == "first":
            return [files[0]]
        return [*files] if self.settings.pages == "each" else [Pages(tuple(files))]

    def _general(self, gathered: Gathered, path: Path) -> None:
        for number, row in enumerate(self._records[path], 1):
            with gathered.reading(f"{path.name} row {number}"):
                image = gathered.image(row.text("image")) if row.has("image") else None
                example = Example(
                    id=row.text("id"), role=Role.GENERAL, kind=Kind.GENERAL, question=row.text("question"), answer=row.text("answer"),
                    image=image, fact="general",
                )  # fmt: skip
                gathered.train.append(example)
                gathered.judged.append(example)


def _read_off(example: Example) -> Example:
    """Return the question as an OCR control, since the page shows its answer."""
    kind = Kind.CHOICE if example.kind is Kind.CHOICE else Kind.GENERAL
    return replace(example, role=Role.GENERAL, kind=kind, fact="ocr", private={}, entity="")


def _allowed_value(row: Record, name: str, allowed_words: Sequence[str]) -> str:
    word = row.optional(name).casefold()
    if word not in allowed_words:
        raise unknown_name(
            row.field_label(name), word, [allowed_word for allowed_word in allowed_words if allowed_word]
        )
    return word
