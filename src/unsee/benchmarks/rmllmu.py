"""RMLLMU-style data: MLLMU-Bench with reasoning chains (arXiv 2512.17911).

RMLLMU-Bench has published neither data nor schema. This layout is ours throughout [inferred]: a folder with

- `MLLMU-Bench/` (or `MLLMMU-Bench/`, or the folder itself): a clone of MLLMU-Bench, read as the benchmark mllmu reads it;
- `chains` (`.jsonl`, `.json`, `.csv`, `.parquet`), one row per chain: `ID` of the person and `question`, as in MLLMU-Bench;
  `reasoning_chain`, or `reasoning_steps` as a list; and optionally `Type` (Image_Textual or Pure_Text; without it, both), `accepted`
  (rows that a verifier has not accepted are left out), `evidence`, `generator`, `verifier` (not used here);
- `implies.json` (optional) = {"Tokyo": "Japan"}: premise -> consequence, for implicit leaks.

The chain of a question is in `Example.chain`, from which R-MUSE reads it. In addition to everything of MLLMU-Bench, the generation
questions are judged once more with a prompt for reasoning: `ril` on the forget set, `rcr` on the retain set.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from unsee.api.benchmark import Benchmark, Hub, Place
from unsee.api.example import PROBES, Example, Kind, Role, Vocabulary
from unsee.api.idle import require_effect
from unsee.data.open import open_benchmark
from unsee.data.records import Gathered, Record, RecordBenchmark, named_records, named_table, named_tables
from unsee.data.tables import SUFFIXES
from unsee.errors import UserError, short_repr, unknown_name
from unsee.metrics.matching import contains
from unsee.utils.parsing import read_object

STEP_BY_STEP: Final = "Think step by step, then answer. Write it as: Reasoning: ... Answer: ..."
"""Instruction that elicits a chain [inferred]."""
CLONES: Final = ("MLLMU-Bench", "MLLMMU-Bench")
_FIELDS: Final = ("ID", "question", "reasoning_chain", "reasoning_steps", "Type", "accepted")
"""Columns of `chains` that are read."""
_TYPES: Final = {"": None, "image_textual": True, "pure_text": False}
_YES: Final = {"true": True, "1": True, "yes": True, "": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True, kw_only=True)
class RMLLMUSettings:
    """Settings of RMLLMU-style data."""

    ratio: Literal[5, 10, 15] = 5
    """Percentage of people in the forget set."""
    prompt: str = STEP_BY_STEP
    """Appended to a question to elicit reasoning; empty = without, for comparison."""
    mllmu: Mapping[str, Any] = field(default_factory=dict)
    """Other settings of the benchmark mllmu."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Our name of a column of `chains` -> its name there, if it is not ours in another case."""

    def __post_init__(self) -> None:
        """Reject a second ratio."""
        if "ratio" in self.mllmu:
            raise UserError(
                "benchmark.mllmu.ratio has no effect: the ratio is benchmark.ratio. Set that, or leave it out."
            )


@dataclass(frozen=True, kw_only=True)
class _Chain:
    """Row of `chains`."""

    number: int
    question: str
    text: str
    with_image: bool | None

    def suits(self, example: Example) -> bool:
        """Tell whether it belongs to this question, ignoring instructions below it."""
        same_question = example.question == self.question or example.question.startswith(f"{self.question}\n")
        return same_question and self.with_image in (None, example.image is not None)


class RMLLMU(RecordBenchmark):
    """Clone of MLLMU-Bench with chains for its questions."""

    name: ClassVar[str] = "rmllmu"
    layout: ClassVar[str] = f"chains ({', '.join(SUFFIXES)}) beside a clone of MLLMU-Bench in a folder of that name"
    settings_type: ClassVar[type] = RMLLMUSettings
    likelihood: ClassVar[bool] = True

    def __init__(
        self, place: Place | str, settings: RMLLMUSettings | None = None, *, base: Benchmark | None = None
    ) -> None:
        """Open MLLMU-Bench and find the chains, or raise if they are missing."""
        if isinstance(place, Hub):
            raise UserError(f"RMLLMU-style data are files here, not a data set on the hub ({place}).")
        self.place: Path = Path(place)
        self.settings = settings or RMLLMUSettings()
        file = named_table(self.place, "chains")
        if file is None:
            raise UserError(f"{self.place} has no chains. Expected {self.layout}.")
        self._file = file
        mllmu_settings = {"name": "mllmu", **self.settings.mllmu, "ratio": self.settings.ratio}
        self.base = base or open_benchmark(_clone(self.place), mllmu_settings)
        here = "benchmark.mllmu"
        idle = (
            (path.replace("benchmark", here), needed.replace("benchmark", here)) for path, needed in self.base.idle()
        )
        require_effect({here: self.base.settings}, idle)

    @classmethod
    def fits(cls, place: Path) -> bool:
        """Tell whether there are chains with a clone beside them."""
        return any((place / name).is_dir() for name in CLONES) and bool(named_tables(place, "chains"))

    def vocabulary(self) -> Vocabulary:
        """Return MLLMU-Bench's vocabulary with implications."""
        return replace(self.base.vocabulary(), implies=_implications(self.place / "implies.json"))

    def suggested(self, method: str) -> Mapping[str, Any]:
        """Return the suggestions of MLLMU-Bench."""
        return self.base.suggested(method)

    def about(self, entities: Sequence[str]) -> RMLLMU:
        """Return the same data with these people as forget set."""
        return RMLLMU(self.place, self.settings, base=self.base.about(entities))

    def problems(self) -> Sequence[str]:
        """Return the faults of MLLMU-Bench, or else of the chains."""
        return self.base.problems() or self.gathered.problems()

    def warnings(self) -> Sequence[str]:
        """Return MLLMU-Bench's warnings, and the number of questions without a chain."""
        self.require()
        return [*self.base.warnings(), *self._remarks]

    @cached_property
    def gathered(self) -> Gathered:
        """Read MLLMU-Bench's questions with chains, and those that elicit reasoning ("eval")."""
        gathered = Gathered()
        with gathered.reading("implies.json"):
            _implications(self.place / "implies.json")
        chains, rejected_count = self._read(gathered)
        used_numbers: set[int] = set()
        gathered.train += [_with_chain(example, chains, used_numbers) for example in self.base.examples("train")]
        for example in self.base.examples("eval"):
            gathered.judged.append(_with_chain(example, chains, used_numbers))
            gathered.judged += _chain_question(gathered.judged[-1], chains, self.settings.prompt)
        self._remark(gathered, chains, used_numbers, rejected_count)
        return gathered

    @cached_property
    def _remarks(self) -> list[str]:
        return []

    def _read(self, gathered: Gathered) -> tuple[dict[str, list[_Chain]], int]:
        """Return person -> accepted chains, and the number of rejected ones."""
        chains: dict[str, list[_Chain]] = defaultdict(list)
        row_by_question: dict[tuple[str, str, bool | None], int] = {}
        rejected_count = 0
        records = named_records({self._file: _FIELDS}, self.settings.columns)[self._file]
        for number, row in enumerate(records, 1):
            with gathered.reading(f"{self._file.name} row {number}"):
                person, chain = row.text("ID"), _chain(row, number)
                if not _word(row, "accepted", _YES):
                    rejected_count += 1
                    continue
                first_row = row_by_question.setdefault((person, chain.question, chain.with_image), number)
                if first_row != number:
                    raise UserError(f"person {person} has a chain for this question in row {first_row} already.")
                chains[person].append(chain)
        return chains, rejected_count

    def _remark(
        self, gathered: Gathered, chains: Mapping[str, Sequence[_Chain]], used_numbers: set[int], rejected_count: int
    ) -> None:
        chain_rows = [(person, chain) for person, rows in chains.items() for chain in rows]
        unused_rows = [
            f"row {chain.number} (ID {person})" for person, chain in chain_rows if chain.number not in used_numbers
        ]
        if unused_rows and len(unused_rows) == len(chain_rows):
            gathered.faults.append(
                f"{self._file.name}: no chain belongs to a question that is read, the first is {unused_rows[0]}: ID and question "
                "must be those of MLLMU-Bench, word by word."
            )
        elif unused_rows:
            self._remarks.append(
                f"{len(unused_rows)} chains belong to no question that is read: {', '.join(unused_rows[:5])}."
            )
        probes = [probe for probe in gathered.judged if probe.kind in PROBES]
        without_chain = sum(not probe.chain for probe in probes)
        if without_chain:
            self._remarks.append(
                f"{without_chain} of {len(probes)} generation questions have no chain, so no reasoning is asked there."
            )
        if rejected_count:
            self._remarks.append(f"{rejected_count} chains were not accepted by their verifier and are left out.")


def _implications(file: Path) -> dict[str, str]:
    """Return premise -> consequence, or empty without the file."""
    implies = read_object(file) if file.is_file() else {}
    for premise, consequence in implies.items():
        if not (isinstance(consequence, str) and premise.strip() and consequence.strip()):
            raise UserError(
                f'the consequence of {short_repr(premise)} must be text, as in {{"Tokyo": "Japan"}}, got {short_repr(consequence)}.'
            )
    return implies


def _clone(place: Path) -> Path:
    return next((place / name for name in CLONES if (place / name).is_dir()), place)


def _chain(row: Record, number: int) -> _Chain:
    steps = row.strings("reasoning_steps")
    if not row.has("reasoning_chain") and not steps:
        raise UserError(
            f"{row.field_label('reasoning_chain')} is missing, and so is {row.field_label('reasoning_steps')}."
        )
    text = row.text("reasoning_chain") if row.has("reasoning_chain") else " ".join(steps)
    return _Chain(number=number, question=row.text("question"), text=text, with_image=_word(row, "Type", _TYPES))


def _word(row: Record, name: str, meanings: Mapping[str, Any]) -> Any:
    """Return the meaning of a word in a column, or raise with the known words."""
    value = row.raw(name)
    word = str(value).casefold() if isinstance(value, bool) else row.optional(name).casefold()
    if word not in meanings:
        raise unknown_name(row.field_label(name), word, [allowed_word for allowed_word in meanings if allowed_word])
    return meanings[word]


def _with_chain(example: Example, chains: Mapping[str, Sequence[_Chain]], used_numbers: set[int]) -> Example:
    """Return the example with its chain, if it has one."""
    chain = next((candidate for candidate in chains.get(_person(example), ()) if candidate.suits(example)), None)
    if chain is None:
        return example
    used_numbers.add(chain.number)
    return replace(example, chain=chain.text)


def _chain_question(example: Example, chains: Mapping[str, Sequence[_Chain]], prompt: str) -> Iterator[Example]:
    """Yield the open question again, eliciting reasoning, with a chain as reference."""
    if not example.chain or example.kind not in PROBES:
        return
    question = next(chain.question for chain in chains[_person(example)] if chain.suits(example))
    yield replace(
        example,
        id=f"{example.id}/chain",
        kind=Kind.CHAIN,
        fact=example.fact or _fact_of(example),
        question="\n".join(part for part in (question, prompt) if part),
        answer=f"Reasoning: {example.chain} Answer: {example.answer}",
    )


def _fact_of(example: Example) -> str:
    """Return the private fact in the reference answer but not in the question, else empty."""
    disclosed_facts = (
        fact
        for fact, forms in sorted(example.private.items(), key=lambda item: item[0] == "name")
        if any(contains(example.answer, form) and not contains(example.question, form) for form in forms)
    )
    return next(disclosed_facts, "")


def _person(example: Example) -> str:
    """Return the ID in MLLMU-Bench, prefixed by the set for celebrities."""
    return example.entity.rpartition("/")[2] if example.role is Role.GENERAL else example.entity
