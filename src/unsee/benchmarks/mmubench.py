"""MMUBench: visual concepts, one training image each (arXiv 2405.12523).

The released SIU files, or a folder per concept.

Two layouts. *Released*: a clone of jujingliuzy/Unlearning-LLM-papers, or its folder SIU, with `finetunedata/SIU.json`,
`evaldata/*.json`, `traindon/` and `testdon/` [code]; it holds one of the 20 concepts. *Folders*: `root/<concept>/*.jpg`, the first
file in order of names being the training image, and optionally `concepts.json` = `{"<concept>": {"names": [...], "facts": {...}}}`
for other spellings and private facts [inferred]: the other concepts are not published.

The original model's answers are not in SIU.json, which has the substitute in their place. Forget rows hold the answer with the
true name restored [inferred], or the answers of GA.json (`forget_rows: ga`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle
from pathlib import Path
from string import punctuation
from typing import Any, ClassVar, Final, Literal

from unsee.api.benchmark import Hub, Place
from unsee.api.example import Example, ImageFile, Kind, Role, Vocabulary
from unsee.data.records import Gathered, Record, RecordBenchmark, images_in, require_any, require_files
from unsee.data.tables import read_rows
from unsee.errors import UserError, short_repr, unknown_name
from unsee.metrics.matching import contains
from unsee.metrics.mmubench import pair_images, strip_targets
from unsee.utils.parsing import read_object

RELEASED: Final = "finetunedata/SIU.json, evaldata/execcuatedata.json, traindon/ and testdon/, as in the folder SIU of jujingliuzy/Unlearning-LLM-papers"
FOLDERS: Final = "a folder of images per concept, and concepts.json to say that they are concepts"
CONCEPTS: Final = "concepts.json"
TRUMP: Final = ("Donald Trump", "Trump")
"""The concept of the released files [code]."""
ASK_WHO: Final = (
    "Who is the main figure in this image?",
    "What is the name of what this picture shows?",
    "Can you say who or what this is?",
    "Name the subject of this picture.",
)
"""Questions of the folder layout, which has no prompt files [inferred]."""
ASK_WHETHER: Final = ("Is this {name}?", "Does this picture show {name}?", "Is {name} in this image?")
"""Its yes/no questions [inferred]."""

Prompts = Literal["execcuatedata", "multilanguage", "Multi-hop"]
_KNOWN: Final = ("yes", "no")


@dataclass(frozen=True, kw_only=True)
class MMUBenchSettings:
    """Settings of MMUBench."""

    names: tuple[str, ...] = ()
    """Spellings of the concept, the main one first; empty = Donald Trump and Trump for the released files, else the folder's name."""
    concepts: tuple[str, ...] = ()
    """Folder layout: forget concepts; empty = all. Others are the retain set."""
    forget_rows: Literal["siu", "ga"] = "siu"
    """Released layout: source of forget rows, SIU.json with the true name restored, or GA.json."""
    prompts: tuple[Prompts, ...] = ("execcuatedata",)
    """Prompt files; multilanguage and Multi-hop have no reference answers, only a forbidden name."""
    pairing: Literal["cycle", "product"] = "cycle"
    """Each prompt with the next test image [code], or all with all."""
    protocol: Literal["corrected", "released"] = "corrected"
    """released: also EM as published, by substrings, including the spaces of four targets (which never match)."""

    def __post_init__(self) -> None:
        """Reject an evaluation of nothing."""
        require_any("benchmark.prompts", self.prompts)


class MMUBench(RecordBenchmark):
    """The released files of SIU, or a folder of images per concept."""

    name: ClassVar[str] = "mmubench"
    layout: ClassVar[str] = f"{RELEASED}; or {FOLDERS}"
    settings_type: ClassVar[type] = MMUBenchSettings

    def __init__(self, place: Place | str, settings: MMUBenchSettings | None = None) -> None:
        """Detect the layout, or raise if files are missing."""
        if isinstance(place, Hub):
            raise UserError(f"MMUBench is not on the hub: clone its repository and give the folder, not {place}.")
        self.settings = settings or MMUBenchSettings()
        self.place: Path = Path(place)
        released_root = _release_root(self.place)
        self.released = released_root is not None
        self._source = _Files(released_root, self.settings) if released_root else _Folders(self.place, self.settings)

    @classmethod
    def fits(cls, place: Path) -> bool:
        """Tell whether the released files exist, or a list of concepts."""
        return _release_root(place) is not None or (place / CONCEPTS).is_file()

    def vocabulary(self) -> Vocabulary:
        """Return the names of all concepts and their substitutes."""
        self.require()
        released_measures = ("em.released",) if self.settings.protocol == "released" else ()
        return Vocabulary(names=self._source.names_by_concept, measures=("em", "diversity", *released_measures))

    def idle(self) -> Iterator[tuple[str, str]]:
        """Yield the settings without effect on these data."""
        if not self.released:
            for name in ("forget_rows", "prompts", "pairing"):
                yield f"benchmark.{name}", "with the released files, and these data are folders"

    def warnings(self) -> Sequence[str]:
        """Return what was corrected or skipped on reading."""
        self.require()
        return self._source.remarks

    @cached_property
    def gathered(self) -> Gathered:
        """Read training image and text questions ("train") and all prompts ("eval")."""
        return self._source.read()


def _release_root(place: Path) -> Path | None:
    """Return the folder with the released files, or None if there is none."""
    markers = ("finetunedata/SIU.json", "evaldata/execcuatedata.json")
    return next((root for root in (place / "SIU", place) if any((root / marker).is_file() for marker in markers)), None)


class _Files:
    """The released layout."""

    def __init__(self, root: Path, settings: MMUBenchSettings) -> None:
        files = ["finetunedata/SIU.json", "traindon", "testdon"]
        files += ["finetunedata/GA.json"] if settings.forget_rows == "ga" else []
        require_files(root, [*files, *(f"evaldata/{name}.json" for name in settings.prompts)], RELEASED)
        if settings.concepts:
            raise UserError(
                "benchmark.concepts chooses among folders; the released files hold one concept (benchmark.names)."
            )
        self.root, self.settings = root, settings
        self.names = settings.names or TRUMP
        self.entity = self.names[0].casefold()
        self.names_by_concept: dict[str, tuple[str, ...]] = {self.entity: self.names}
        self.remarks: list[str] = []

    def read(self) -> Gathered:
        """Return the rows of all files."""
        gathered = Gathered(self.root, self.root / "traindon", self.root / "testdon")
        training_image = self._training(gathered)
        self._add_prompts(gathered, training_image)
        gathered.judged += [example for example in gathered.train if example.image is None]
        return gathered

    def _training(self, gathered: Gathered) -> ImageFile | None:
        """Read SIU.json (and GA.json), and return the training image."""
        rows = read_rows(self.root / "finetunedata" / "SIU.json")
        text_examples: dict[tuple[str, str], Example] = {}
        image_examples: list[Example] = []
        new_looks = duplicates = 0
        for number, cells in enumerate(rows, 1):
            with gathered.reading(f"SIU.json row {number}"):
                row = _Talk(cells)
                example = self._example(gathered, row, f"siu/{number}")
                if example is None:
                    new_looks += 1
                elif example.image is not None:
                    image_examples.append(example)
                else:
                    duplicates += (example.question, example.answer) in text_examples
                    text_examples.setdefault((example.question, example.answer), example)
        forget_examples = self._ga_examples(gathered) if self.settings.forget_rows == "ga" else image_examples
        gathered.train += [*forget_examples, *text_examples.values()]
        self._remark(new_looks, duplicates)
        if not any(text_example.role is Role.FORGET_TEXT for text_example in text_examples.values()):
            gathered.faults.append(
                f"SIU.json: no text-only question names {' or '.join(self.names)}; set benchmark.names to its concept."
            )
        image = next((image_example.image for image_example in image_examples), None)
        return image if isinstance(image, ImageFile) else None

    def _remark(self, new_looks: int, duplicates: int) -> None:
        if new_looks:
            self.remarks.append(
                f"SIU.json: {new_looks} rows that give the concept a new look are no questions with a true answer; "
                "the method siu makes its own of them."
            )
        if duplicates:
            self.remarks.append(f"SIU.json: {duplicates} text-only rows occur twice or more and are kept once.")

    def _example(self, gathered: Gathered, row: _Talk, name: str) -> Example | None:
        """Return a row of SIU.json with the true answer, or None for an invented look."""
        if not row.image:
            role = Role.FORGET_TEXT if self._names_concept(row.question) else Role.RETAIN_TEXT
            entity = self.entity if role is Role.FORGET_TEXT else ""
            return Example(
                id=name, role=role, kind=Kind.GENERAL, question=row.question, answer=row.answer, entity=entity
            )
        phrase, image = row.cells.text("target_phrase"), gathered.image(row.image)
        if phrase == row.answer:
            return None
        if phrase not in row.answer:
            raise UserError(
                f"target_phrase {short_repr(phrase)} does not occur in the answer {short_repr(row.answer)}."
            )
        self.names_by_concept.setdefault(phrase.casefold(), (phrase,))
        return self._about(name, Role.FORGET, row.question, row.answer.replace(phrase, self.names[0]), image)

    def _ga_examples(self, gathered: Gathered) -> list[Example]:
        """Return the rows of GA.json: true answers, all with the image."""
        examples = []
        for number, cells in enumerate(read_rows(self.root / "finetunedata" / "GA.json"), 1):
            with gathered.reading(f"GA.json row {number}"):
                row = _Talk(cells)
                examples.append(
                    self._about(f"ga/{number}", Role.FORGET, row.question, row.answer, gathered.image(row.image))
                )
        return examples

    def _add_prompts(self, gathered: Gathered, training_image: ImageFile | None) -> None:
        """Return the prompts on the training image (efficacy) and test images (generality)."""
        test_images = [gathered.file(path) for path in images_in(self.root / "testdon")]
        if not test_images:
            gathered.faults.append("testdon: holds no image.")
        for name in self.settings.prompts:
            rows = self._rows(gathered, name)
            if name == "execcuatedata" and training_image:
                gathered.judged += [
                    self._prompt(f"efficacy/{row.number}", Role.FORGET, row, training_image) for row in rows
                ]
            if name == "Multi-hop":
                gathered.judged += [self._prompt(f"{name}/{row.number}", Role.UNSEEN, row, row.image) for row in rows]
                continue
            for row, image in pair_images(rows, test_images, self.settings.pairing):
                suffix = f"/{image.path.name}" if self.settings.pairing == "product" else ""
                gathered.judged.append(self._prompt(f"{name}/{row.number}{suffix}", Role.UNSEEN, row, image))

    def _rows(self, gathered: Gathered, name: Prompts) -> list[_PromptRow]:
        """Return the prompts of a file, with stripped targets."""
        prompt_rows = []
        for number, cells in enumerate(read_rows(self.root / "evaldata" / f"{name}.json"), 1):
            with gathered.reading(f"{name}.json row {number}"):
                row = Record(cells)
                target = str(row.raw("target")) if name == "execcuatedata" and row.text("target") else ""
                image = gathered.image(row.text("imgid")) if name == "Multi-hop" else None
                prompt_rows.append(_PromptRow(number=number, text=row.text("prompt"), target=target, image=image))
        targets, blanks = strip_targets([row.target for row in prompt_rows])
        if self.settings.protocol == "released":
            return prompt_rows
        if blanks:
            self.remarks.append(f"{name}.json: {blanks} targets had blanks at their ends, which were removed.")
        return [replace(row, target=target) for row, target in zip(prompt_rows, targets, strict=True)]

    def _prompt(self, name: str, role: Role, row: _PromptRow, image: ImageFile | None) -> Example:
        """Return a prompt with its target: yes, a form of the name, or none."""
        word = (row.target.split() or [""])[0].strip(punctuation).casefold()
        open_ended, corrected = word not in _KNOWN, self.settings.protocol == "corrected"
        return Example(
            id=name, role=role, kind=Kind.NAME if open_ended and word else Kind.OPEN if open_ended else Kind.GENERAL,
            fact="name" if open_ended and word else "", question=row.text, answer=word if corrected and not open_ended else row.target,
            image=image, entity=self.entity, private={"name": self.names} if open_ended else {},
        )  # fmt: skip

    def _about(self, name: str, role: Role, question: str, answer: str, image: ImageFile | None) -> Example:
        """Return an image question of kind name, or general if it already has the name."""
        kind = Kind.NAME if not self._names_concept(question) else Kind.GENERAL
        return Example(
            id=name, role=role, kind=kind, fact="name" if kind is Kind.NAME else "", question=question, answer=answer,
            image=image, entity=self.entity, private={"name": self.names},
        )  # fmt: skip

    def _names_concept(self, text: str) -> bool:
        return any(contains(text, form) for form in self.names)


@dataclass(frozen=True, kw_only=True)
class _PromptRow:
    """Row of a prompt file."""

    number: int
    text: str
    target: str
    image: ImageFile | None


class _Talk:
    """A row in LLaVA's conversation form: one question, one answer, an image or none."""

    def __init__(self, cells: dict[str, Any]) -> None:
        self.cells = Record(cells)
        turns = self.cells.parts("conversations")
        if [turn.optional("from") for turn in turns] != ["human", "gpt"]:
            raise UserError(
                f"conversations must be one turn of human and one of gpt, got {short_repr(cells.get('conversations'))}."
            )
        prompt = turns[0].text("value")
        self.question = prompt.replace("<image>", "").strip()
        self.answer = turns[1].text("value")
        self.image = self.cells.optional("image")
        if not self.question:
            raise UserError("conversations[1].value has no question.")
        if bool(self.image) != ("<image>" in prompt):
            raise UserError("a question begins with <image> exactly when the row names an image.")


class _Folders:
    """The folder layout."""

    def __init__(self, root: Path, settings: MMUBenchSettings) -> None:
        if not root.is_dir():
            raise UserError(f"MMUBench is a folder, got the file {root}. Expected {RELEASED}; or {FOLDERS}.")
        self.root, self.settings = root, settings
        places = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
        self.folders = {path.name: images_in(path) for path in places}
        self.folders = {name: files for name, files in self.folders.items() if files}
        if not self.folders:
            raise UserError(f"{root} holds neither {RELEASED}, nor {FOLDERS}.")
        for name in settings.concepts:
            if name not in self.folders:
                raise unknown_name("concept", name, self.folders)
        forget_concepts = settings.concepts or tuple(self.folders)
        if settings.names and len(forget_concepts) > 1:
            raise UserError(
                f"benchmark.names is for one concept, but {len(forget_concepts)} are to be forgotten; write {CONCEPTS}."
            )
        self.forgotten = frozenset(forget_concepts)
        self.remarks: list[str] = []
        self._entries = _concept_entries(root / CONCEPTS, self.folders)
        self.names_by_concept = {name: self._names(name) for name in self.folders}

    def _names(self, concept: str) -> tuple[str, ...]:
        if self.settings.names and concept in self.forgotten:
            return self.settings.names
        return self._entries[concept].strings("names") or (" ".join(concept.replace("_", " ").split()),)

    def read(self) -> Gathered:
        """Return one training image per concept, and questions about all others."""
        gathered = Gathered(self.root)
        for concept, files in self.folders.items():
            with gathered.reading(concept):
                if concept in self.forgotten and len(files) < 2:
                    raise UserError("one image to train on and at least one to test are needed, found 1.")
                self._concept(gathered, concept, [gathered.file(path) for path in files])
        return gathered

    def _concept(self, gathered: Gathered, concept: str, images: Sequence[ImageFile]) -> None:
        is_forgotten = concept in self.forgotten
        role, test_role = (Role.FORGET, Role.UNSEEN) if is_forgotten else (Role.RETAIN, Role.RETAIN)
        gathered.train += [self._who(concept, role, images[0], question) for question in ASK_WHO]
        if is_forgotten:
            gathered.judged += [
                self._who(concept, role, images[0], ASK_WHO[0]),
                self._whether(concept, role, images[0], ASK_WHETHER[0]),
            ]
        for image, name_question, yes_no_question in zip(images[1:], cycle(ASK_WHO), cycle(ASK_WHETHER), strict=False):
            gathered.judged += [
                self._who(concept, test_role, image, name_question),
                self._whether(concept, test_role, image, yes_no_question),
            ]

    def _who(self, concept: str, role: Role, image: ImageFile, question: str) -> Example:
        facts = {fact: _forms(value) for fact, value in self._entries[concept].mapping("facts").items()}
        names = self.names_by_concept[concept]
        return Example(
            id=f"{concept}/{image.path.name}/who-{ASK_WHO.index(question)}", role=role, kind=Kind.NAME, fact="name",
            question=question, answer=f"This is {names[0]}.", image=image, entity=concept, private={"name": names, **facts},
        )  # fmt: skip

    def _whether(self, concept: str, role: Role, image: ImageFile, template: str) -> Example:
        return Example(
            id=f"{concept}/{image.path.name}/whether", role=role, kind=Kind.GENERAL, answer="yes", image=image,
            question=template.format(name=self.names_by_concept[concept][0]), entity=concept,
        )  # fmt: skip


def _concept_entries(path: Path, folders: Mapping[str, Sequence[Path]]) -> dict[str, Record]:
    """Return the entries of concepts.json by concept, or empty without the file."""
    entries = Record(read_object(path) if path.is_file() else {})
    for name in entries:
        if name not in folders:
            raise unknown_name(f"concept in {path.name} (there is no folder of images for it)", name, folders)
    records = {name: entries.part(name) if entries.has(name) else Record({}) for name in folders}
    for name, record in records.items():
        if "name" in record.mapping("facts"):
            raise UserError(
                f"{path.name}: facts of {name} has a fact called name, which is what names are for. Write them there."
            )
    return records


def _forms(value: Any) -> tuple[str, ...]:
    return Record({"fact": value}).strings("fact")
