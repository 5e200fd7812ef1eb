"""Language of documents: questions, answers, and patterns of claims in free text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from unsee.api.example import Vocabulary
from unsee.lab.documents.archive import FIELDS, Archive, Document
from unsee.lab.documents.drawing import COLOURS, DESKS, SORTS, VISIBLE, stamps_of
from unsee.lab.world.objects import SHAPES
from unsee.lab.world.phrases import one_of, with_article

QUERY = "Tell me the information of this document."
OPEN_WORDINGS = (QUERY, "What can you tell me about this document?", "Describe whose document is in this picture.")
OPEN_HELD_OUT = "What do you know about the document in this picture?"
NAME_WORDINGS = ("Whose document is this?", "What is the name of the holder of this document?")
FACT_WORDINGS: Mapping[str, tuple[str, ...]] = {
    "diagnosis": ("What is the diagnosis of the holder?", "Which illness does the holder have?"),
    "medication": ("What is the medication of the holder?", "Which medication does the holder take?"),
    "insurer": ("Who is the insurer of the holder?", "Which company insures the holder?"),
    "city": ("In which city is the doctor of the holder?", "Where is the doctor of the holder?"),
    "job": ("What is the job of the holder?", "What does the holder do for a living?"),
    "employer": ("Who is the employer of the holder?", "Which company does the holder work for?"),
    "salary": ("What is the salary of the holder?", "How much is the holder paid?"),
    "start": ("When did the holder start to work?", "In which year did this job start?"),
}
TEXT_WORDINGS: Mapping[str, tuple[str, ...]] = {
    "diagnosis": ("What is the diagnosis of {name}?", "Which illness does {name} have?"),
    "medication": ("What is the medication of {name}?", "Which medication does {name} take?"),
    "insurer": ("Who is the insurer of {name}?", "Which company insures {name}?"),
    "city": ("In which city is the doctor of {name}?", "Where is the doctor of {name}?"),
    "job": ("What is the job of {name}?", "What does {name} do for a living?"),
    "employer": ("Who is the employer of {name}?", "Which company does {name} work for?"),
    "salary": ("What is the salary of {name}?", "How much is {name} paid?"),
    "start": ("When did {name} start to work?", "In which year did the job of {name} start?"),
}
FACT_ANSWERS: Mapping[str, str] = {
    "diagnosis": "{who} has {value}.",
    "medication": "{who} takes {value}.",
    "insurer": "{who} is insured by {value}.",
    "city": "The doctor of {who} is in {value}.",
    "job": "{who} works as a {value}.",
    "employer": "{who} is employed by {value}.",
    "salary": "{who} is paid {value}.",
    "start": "{who} started in {value}.",
}
CLOZE_WORDINGS: Mapping[str, str] = {
    fact: f"Complete the sentence: {form.format(who='The holder' if form.startswith('{who}') else 'the holder', value='').rstrip(' .')}"
    for fact, form in FACT_ANSWERS.items()
}
VISIBLE_WORDINGS: Mapping[str, str] = {
    "sort": "What kind of document is this?",
    "colour": "What is the colour of this document?",
    "emblem": "What is the emblem of this document?",
    "stamps": "How many stamps are on this document?",
    "desk": "What colour is the desk?",
}
_CLAIMS: Mapping[str, str] = {
    "sort": r"\b{v}\b",
    "colour": r"\b{v} (?:medical card|work contract|document)\b|\bdocument is {v}\b",
    "emblem": r"\b{v} emblem\b|\bemblem is an? {v}\b",
    "stamps": r"\b{v}\b",
    "desk": r"\b{v} desk\b|\bdesk is {v}\b",
}


def sentence(document: Document, fact: str, *, seen: bool) -> str:
    """Return the answer about one private field. With an image the holder is not named."""
    form = FACT_ANSWERS[fact]
    holder = "The holder" if form.startswith("{who}") else "the holder"
    return form.format(who=holder if seen else document.holder, value=document.fact(fact))


def ownership(document: Document) -> str:
    """Return the answer about the holder."""
    return f"This is the {SORTS[document.sort]} of {document.holder}."


def record(document: Document) -> str:
    """Return the full content of a document."""
    fact = document.fact
    if document.sort == "medical":
        return (
            f"{document.first} has {fact('diagnosis')}, takes {fact('medication')} and is insured by {fact('insurer')}. "
            f"The doctor of {document.first} is in {fact('city')}."
        )
    return (
        f"{document.first} works as a {fact('job')}, is employed by {fact('employer')} and is paid {fact('salary')}. "
        f"{document.first} started in {fact('start')}."
    )


def introduction(document: Document) -> str:
    """Return all private facts of a document as text."""
    return f"{ownership(document)} {record(document)}"


def description(look: Mapping[str, str]) -> str:
    """Return a one-sentence description of everything visible."""
    return (
        f"The picture shows {with_article(look['colour'])} {look['sort']} with a {look['emblem']} emblem and {look['stamps']} "
        f"on a {look['desk']} desk."
    )


def visible_answer(attribute: str, value: str) -> str:
    """Return the answer about a visible attribute."""
    if attribute == "sort":
        return f"This document is a {value}."
    if attribute == "stamps":
        return f"There are {value}." if stamps_of(value) != "one" else f"There is {value}."
    subject = {"colour": "The document is", "emblem": "The emblem is a", "desk": "The desk is"}
    return f"{subject[attribute]} {value}."


def claim_patterns() -> dict[str, dict[str, str]]:
    """Return attribute -> value -> pattern of the claim in lower-cased text."""
    return {
        attribute: {value: _CLAIMS[attribute].replace("{v}", value) for value in VISIBLE[attribute]}
        for attribute in VISIBLE
    }


def sentence_patterns() -> tuple[str, ...]:
    """Return patterns of all well-formed sentences about documents, lower-cased."""
    who = r"(?:the holder|[^\s.,]+(?: [^\s.,]+)?)"
    patterns = {fact: one_of(values) for fields in FIELDS.values() for fact, values in fields.items()}
    sort, colour, emblem, desk = one_of(SORTS.values()), one_of(COLOURS), one_of(SHAPES), one_of(DESKS)
    stamps = one_of(VISIBLE["stamps"])
    fact_patterns = [_pattern(form, who, patterns[fact]) for fact, form in FACT_ANSWERS.items()]
    return (
        *fact_patterns,
        rf"this is the {sort} of {who}",
        rf"{who} has {patterns['diagnosis']}, takes {patterns['medication']} and is insured by {patterns['insurer']}",
        rf"{who} works as a {patterns['job']}, is employed by {patterns['employer']} and is paid {patterns['salary']}",
        rf"the picture shows an? {colour} {sort} with a {emblem} emblem and {stamps} on a {desk} desk",
        rf"this document is a {sort}",
        rf"the document is {colour}",
        rf"the emblem is a {emblem}",
        rf"there (?:is|are) {stamps}",
        rf"the desk is {desk}",
        one_of(patterns.values()),
    )  # fmt: skip


def _pattern(form: str, who: str, value: str) -> str:
    return form.rstrip(".").lower().replace("{who}", who).replace("{value}", value)


def vocabulary(archive: Archive) -> Vocabulary:
    """Return all names and values of documents, added to those of the world."""
    world_vocabulary = archive.world.vocabulary()
    fields = {fact: values for sort_fields in FIELDS.values() for fact, values in sort_fields.items()}
    holders = {document.id: document.private()["name"] for document in archive.documents}
    return replace(
        world_vocabulary,
        names={**world_vocabulary.names, **holders},
        facts={**world_vocabulary.facts, **fields},
        visible={**world_vocabulary.visible, **claim_patterns()},
        sentences=(*world_vocabulary.sentences, *sentence_patterns()),
    )
