"""Data check: problems that prevent a run, and warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from unsee.api import Benchmark, Role
from unsee.data.row_store import repeats
from unsee.data.survey import RETAINED, SHOWN, Survey, Words
from unsee.errors import UserError, first_names, list_message, short_repr
from unsee.metrics.normal_form import normalise
from unsee.utils.grouping import by_key


@dataclass(frozen=True, kw_only=True)
class Report:
    """Result of a data check."""

    data: str
    problems: tuple[str, ...]
    """Faults that make the data unusable."""
    warnings: tuple[str, ...]
    """Legal but surprising facts."""
    counts: Mapping[str, int]
    """Role -> number of evaluation examples."""

    @property
    def usable(self) -> bool:
        """Whether a run may start."""
        return not self.problems

    def __str__(self) -> str:
        """Return the report as text: verdict first, then one line per finding."""
        verdict = "usable" if self.usable else f"not usable, {_plural(len(self.problems), 'problem')}"
        roles = ", ".join(f"{count} {role}" for role, count in self.counts.items())
        lines = [f"{self.data}: {verdict}" + (f" (judged: {roles})" if roles else "")]
        lines += [f"  problem: {problem}" for problem in self.problems]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)


def examine(opened: Benchmark, data: str) -> Report:
    """Return the report on a benchmark: its own faults, then those of the data as a whole."""
    problems = list(dict.fromkeys(opened.problems()))
    if problems:
        return Report(data=data, problems=tuple(problems), warnings=(), counts={})
    survey = Survey(opened, warn=True)
    return Report(
        data=data,
        problems=tuple(_problems(survey)),
        warnings=tuple(dict.fromkeys((*opened.warnings(), *_warnings(survey)))),
        counts={role.value: survey.judged_roles[role] for role in Role if survey.judged_roles[role]},
    )


def require_usable(opened: Benchmark, data: str, *, hashed: bool = False, decoded: bool = True) -> Survey:
    """Return the survey of the data, or raise if they have problems.

    Args:
        opened: Data to look through.
        data: Their place, for the message.
        hashed: Fingerprint the data in the same pass.
        decoded: Also decode every picture, which takes the longest.

    Raises:
        UserError: The data have problems; the first are listed.
    """
    problems, survey = list(opened.problems()) if decoded else [], None
    if not problems:
        survey = Survey(opened, hashed=hashed)
        problems = list(_problems(survey))
    if problems or survey is None:
        head, hint = f"The data at {data} cannot be used:", f" (unsee check --data {data} lists all)"
        raise UserError(list_message(head, problems, 20, hint))
    return survey


def _problems(survey: Survey) -> Iterator[str]:
    if Role.FORGET not in survey.places:
        detail = "but there are text-only ones" if Role.FORGET_TEXT in survey.places else "at all"
        yield f"no image is to be forgotten: there is no training row of role forget with an image {detail}."
    for split, examples in survey.splits.items():
        repeat_counts = Counter(examples[first].id for first, _ in repeats(survey.ids[split]))
        for row_id, count in repeat_counts.items():
            yield f"id {short_repr(row_id)} occurs {count + 1} times in split {split}; ids must differ."
    if survey.empty.count:
        yield f"the answer is empty in {survey.empty}."
    for entity in sorted(survey.forgotten.keys() & survey.kept.keys()):
        yield (
            f"entity {short_repr(entity)} is to be forgotten ({survey.forgotten[entity]}) and to be kept ({survey.kept[entity]}); "
            "decide for one."
        )


def _warnings(survey: Survey) -> Iterator[str]:
    if not survey.places.keys() & {*RETAINED}:
        yield "there are no retain rows: methods with a retain term have nothing to hold on to."
    if text_count := len(survey.places.get(Role.FORGET_TEXT, ())):
        yield f"{_plural(text_count, 'forget row')} without a picture: only the methods `unsee` and `rmuse` act on them."
    if not survey.judged_roles[Role.UNSEEN]:
        yield "there are no unseen rows: forgetting is judged only on images that the unlearning has seen."
    if survey.bare.count:
        yield f"no private strings are given for {survey.bare}: no leak can be found there."
    if survey.revealing.count:
        yield f"the question itself says a private string in {survey.revealing}: that string does not count as a leak there."
    yield from _word_warnings(survey.words)
    if survey.blanks.count:
        yield f"the answer is a word that programs write for an empty cell in {survey.blanks}: is it meant?"
    yield from _picture_warnings(survey)
    yield from _secret_warnings(survey)
    yield from _entity_warnings(survey)
    shared_names = {name: entities for name, entities in sorted(survey.names.items()) if len(entities) > 1}
    reason = "one cannot be told from the other in text"
    yield from _first_lines(
        f"{first_names(sorted(entities))} have the same name {short_repr(name)}: {reason}."
        for name, entities in shared_names.items()
    )
    answers = sorted(survey.shared_answers().items())
    yield from _first_lines(
        f"{first_names(sorted(entities))} have the same answer {short_repr(answer, 60)}."
        for answer, entities in answers
        if answer
    )


def _word_warnings(words: Words) -> Iterator[str]:
    """Yield what judging by rules cannot read."""
    if words.everyday:
        yield (
            f"{first_names(list(words.everyday))}: names that are everyday words, so an answer has to write them with a capital "
            "to count as a leak. Give a longer form too, such as the full name."
        )
    if words.short:
        yield f"{first_names(list(words.short))}: private strings of one character are found in many answers; give longer ones."
    if words.hidden.count:
        yield (
            f"the answer is in a script in which a private string is not given, in {words.hidden}. Leaks in that script are "
            "missing from the scores; add the strings in it."
        )
    if words.languages.count:
        yield (
            f"the answer is not in English in {words.languages}. Refusals are told in English only, so refusal, uninformative "
            "and clean are missing where the model answers in another language; leaks are judged."
        )


def _entity_warnings(survey: Survey) -> Iterator[str]:
    """Yield entities that are easily confused, and strangers that are to be retained too."""
    entities_by_form = by_key(
        (normalise(entity), entity) for entity in sorted(survey.forgotten.keys() | survey.kept.keys())
    )
    yield from _first_lines(
        f"entities {', '.join(map(short_repr, entities[:SHOWN]))} differ only in capitals, accents or punctuation: are they one?"
        for form, entities in entities_by_form.items()
        if len(entities) > 1 and form != " "
    )
    yield from _first_lines(
        f"entity {short_repr(entity)} is a stranger ({survey.strangers[entity]}) and to be retained ({survey.retained[entity]}); decide for one."
        for entity in sorted(survey.strangers.keys() & survey.retained.keys())
    )


def _picture_warnings(survey: Survey) -> Iterator[str]:
    unseen_ids, kept_ids, known_ids = survey.overlaps.unseen, survey.overlaps.kept, survey.overlaps.known
    if unseen_ids.count:
        yield f"unseen rows have a picture that the unlearning sees in a forget row, so it is not new: {unseen_ids}."
    if kept_ids.count:
        yield f"a picture is to be forgotten and to be kept: {kept_ids} have the picture of a forget row."
    if known_ids.count:
        yield f"unseen or stranger rows have a picture of another row that is trained on, so it is not new: {known_ids}."


def _secret_warnings(survey: Survey) -> Iterator[str]:
    leaking_ids = survey.overlaps.leaking
    if leaking_ids.count:
        yield f"answers that are to be kept hold a private string of somebody who is to be forgotten: {leaking_ids}."
    silent_entities = sorted(entity for entity, has_leak in survey.secrets.leaks_by_entity.items() if not has_leak)
    if silent_entities:
        yield (
            f"no answer about {first_names(silent_entities)} holds one of their private strings, so no leak may ever be found; look for "
            "a typing error in private."
        )
    wordless_forms = [f"{short_repr(form, 40)} ({entity})" for form, entity in sorted(survey.secrets.wordless.items())]
    if wordless_forms:
        yield f"private strings without a letter or digit can never be found in an answer: {first_names(wordless_forms)}."


def _first_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yield the first few lines, and the number of others."""
    messages = list(lines)
    yield from messages[:SHOWN]
    if len(messages) > SHOWN:
        yield f"... and {len(messages) - SHOWN} more like the last one."


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")
