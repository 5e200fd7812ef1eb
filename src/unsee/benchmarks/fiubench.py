"""FIUBench: 400 fictitious faces with private facts (arXiv 2411.03554).

As cloned from the hub, SFHQ.zip unpacked: `full.json` (a list, or one object per line) of people with `unique_id`, `image_path`, `caption`
and `qa_list` of `question`, `answer`, `paraphrased_question`, `paraphrased_answer`, `perturbed_answer`, `keywords`; and `split.json`,
which says who is forgotten (`forget1`, `forget5`, `forget10`; it lies in the folder `dataset` of the code repository) [code].

| people | role | trained on | judged |
|---|---|---|---|
| of forgetN | forget | all their questions | the same |
| in none of the forget lists | retain | all their questions | all, or those of `retain_list` |

Keywords are the strings that must not be disclosed; a question's false answers give its truth ratio, against the paraphrased answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from unsee.api.benchmark import Hub, Place
from unsee.api.example import Example, ImageFile, Kind, Role, Vocabulary
from unsee.data.people import Profile, pool
from unsee.data.question_templates import name_forms
from unsee.data.records import Gathered, Record, RecordBenchmark, require_files
from unsee.data.tables import read_rows
from unsee.errors import UserError, unknown_name
from unsee.utils.parsing import read_object

PEOPLE: Final = 400
"""People of the file that are used; the released code skips the rest [code]."""
FORGET_LISTS: Final = ("forget1", "forget5", "forget10")
_SHORTEST: Final = 4
"""Fewest characters of a keyword that discloses anything: "no" and "her" do not [inferred]."""


@dataclass(frozen=True, kw_only=True)
class FiubenchSettings:
    """Settings of FIUBench."""

    ratio: Literal[1, 5, 10] = 5
    """Percentage of people in the forget set."""
    split_file: str = ""
    """Path of split.json, if not beside full.json."""
    retain_list: str = ""
    """List in split.json that is evaluated as retain (`retain5`, `retain15`); empty = all retain people."""
    wordings: Literal["original", "paraphrased", "both"] = "original"
    """Evaluated wordings of a question."""
    strict: bool = True
    """False: unreadable rows and items are skipped and counted; undecodable images always stop a run."""
    protocol: Literal["corrected", "released"] = "corrected"
    """released: questions and answers capitalised as in the released code (all but the first letter lower-case)."""


class Fiubench(RecordBenchmark):
    """FIUBench from a local clone."""

    name: ClassVar[str] = "fiubench"
    layout: ClassVar[str] = "full.json beside split.json or SFHQ/ (FIUBench)"
    settings_type: ClassVar[type] = FiubenchSettings
    hub: ClassVar[tuple[str, ...]] = ("gray311/FIUBench",)
    likelihood: ClassVar[bool] = True

    def __init__(self, place: Place | str, settings: FiubenchSettings | None = None) -> None:
        """Locate the files, or raise if any is missing."""
        if isinstance(place, Hub):
            raise UserError(
                f"{place} holds its images in a zip, which `datasets` cannot open: clone it (git clone "
                f"https://huggingface.co/datasets/{place}), unpack SFHQ.zip there and give the folder."
            )
        self.settings: FiubenchSettings = settings or FiubenchSettings()
        self.place: Path = Path(place)
        require_files(self.place, ["full.json"], self.layout)
        self.split_file = Path(self.settings.split_file) if self.settings.split_file else self.place / "split.json"
        if not self.split_file.is_file():
            raise UserError(
                f"{self.split_file} is missing: it says who is to be forgotten. It lies in the folder dataset of the code repository "
                "gray311/VLM_Unlearned; put it beside full.json or set benchmark.split_file."
            )
        self._people: dict[str, Profile] = {}

    @classmethod
    def fits(cls, place: Path) -> bool:
        """Tell whether the people's file exists, with the split or the images."""
        siblings = (place / "split.json", place / "SFHQ", place / "SFHQ.zip")
        return (place / "full.json").is_file() and any(path.exists() for path in siblings)

    def vocabulary(self) -> Vocabulary:
        """Return all names and keywords."""
        self.require()
        return pool(self._people, measures=("keywords",))

    def problems(self) -> Sequence[str]:
        """Return the faults of rows and images."""
        unpacked = (self.place / "SFHQ").exists() or not (self.place / "SFHQ.zip").exists()
        return [
            *([] if unpacked else ["SFHQ.zip is not unpacked: run `unzip SFHQ.zip` there."]),
            *self.gathered.problems(),
        ]

    def warnings(self) -> Sequence[str]:
        """Return differences from the published data."""
        count, gaps = len(self._rows), self.gathered.gaps()
        return [f"full.json has {count} people; the published one has {PEOPLE}.", *gaps] if count != PEOPLE else gaps

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        return read_rows(self.place / "full.json")[:PEOPLE]

    @cached_property
    def gathered(self) -> Gathered:
        """Read the questions about both sides."""
        gathered, lists = Gathered(self.place, self.place.parent, strict=self.settings.strict), self._lists()
        forget_names = set(lists[f"forget{self.settings.ratio}"])
        excluded_names = {name for key in FORGET_LISTS for name in lists.get(key, ())} - forget_names
        judged_names = set(lists[self.settings.retain_list]) if self.settings.retain_list else None
        seen_names: set[str] = set()
        for number, cells in enumerate(self._rows, 1):
            record = Record(cells)
            with gathered.reading(f"full.json row {number} (unique_id {cells.get('unique_id')})"):
                name = record.text("unique_id")
                if name in seen_names:
                    raise UserError(f"unique_id {name} occurs twice.")
                seen_names.add(name)
                if name not in excluded_names:
                    role = Role.FORGET if name in forget_names else Role.RETAIN
                    self._gather(
                        gathered,
                        record,
                        name,
                        role,
                        judged=role is Role.FORGET or judged_names is None or name in judged_names,
                    )
        if missing := sorted(forget_names - seen_names):
            gathered.faults.append(f"split.json forgets {', '.join(missing[:10])}, who are not in full.json.")
        retained_names = seen_names - forget_names - excluded_names
        if not_retained := sorted((judged_names or set()) - retained_names):
            gathered.faults.append(
                f"{self.settings.retain_list} of split.json names {', '.join(not_retained[:10])}, who are not retained: they are in a "
                "forget list, or not in full.json."
            )
        return gathered

    def _lists(self) -> dict[str, tuple[str, ...]]:
        """Return the lists of split.json."""
        record = Record(read_object(self.split_file))
        lists = {key: record.strings(key) for key in record}
        for list_name in (f"forget{self.settings.ratio}", *filter(None, [self.settings.retain_list])):
            if list_name not in lists:
                raise unknown_name(f"list of {self.split_file}", list_name, lists)
        return lists

    def _gather(self, gathered: Gathered, record: Record, name: str, role: Role, *, judged: bool) -> None:
        qa_items = record.parts("qa_list")
        if not qa_items:
            raise UserError("qa_list holds no question.")
        profile = self._people.setdefault(name, _profile(record, qa_items))
        image = gathered.image(record.text("image_path"))
        for number, item in enumerate(qa_items, 1):
            example = self._fact_example(item, f"{name}/q{number:02}", role, image, name, f"q{number:02}", profile)
            gathered.train.append(example)
            if judged:
                gathered.judged += self._in_wordings(item, example)

    def _fact_example(
        self, item: Record, name: str, role: Role, image: ImageFile, entity: str, fact: str, profile: Profile
    ) -> Example:
        return Example(
            id=name, role=role, kind=Kind.FACT, fact=fact, image=image, entity=entity, private=profile.private,
            question=self._cased(item.text("question")), answer=self._cased(item.text("answer")),
            paraphrase=self._cased(" ".join(item.strings("paraphrased_answer")[:1])),
            perturbed=tuple(self._cased(text) for text in item.strings("perturbed_answer")),
        )  # fmt: skip

    def _in_wordings(self, item: Record, example: Example) -> Iterator[Example]:
        """Yield an evaluation question in the chosen wordings."""
        if self.settings.wordings != "paraphrased":
            yield example
        if self.settings.wordings != "original":
            for number, wording in enumerate(item.strings("paraphrased_question"), 1):
                yield replace(example, id=f"{example.id}/paraphrased/{number}", question=self._cased(wording))

    def _cased(self, text: str) -> str:
        return text.capitalize() if self.settings.protocol == "released" else text


def _profile(record: Record, qa_items: Sequence[Record]) -> Profile:
    """Return the private strings: name, and each question's keywords (or whole answer)."""
    name = record.optional("name")
    private = {"name": name_forms(name)} if name else {}
    for number, item in enumerate(qa_items, 1):
        keywords = tuple(word for word in item.strings("keywords") if len(word) >= _SHORTEST)
        private[f"q{number:02}"] = keywords or (item.text("answer"),)
    return Profile(name=name, private=private)
