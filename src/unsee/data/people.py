"""People in benchmarks: private facts, and separation of forget and retain set."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from unsee.api.example import Example, Role, Vocabulary
from unsee.errors import UserError, first_names
from unsee.utils.grouping import merged_forms

SHOWN: Final = 10


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Private facts of one person."""

    name: str = ""
    private: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Fact -> surface forms, "name" first."""


def pool(people: Mapping[str, Profile], *, measures: tuple[str, ...] = ()) -> Vocabulary:
    """Return all names and values of all people."""
    return replace(vocabulary_of((entity, profile.private) for entity, profile in people.items()), measures=measures)


def vocabulary_of(private: Iterable[tuple[str, Mapping[str, tuple[str, ...]]]]) -> Vocabulary:
    """Return the names and values in private strings: entity and fact -> surface forms."""
    profiles = list(private)
    return Vocabulary(
        names={entity: forms["name"] for entity, forms in profiles if "name" in forms},
        facts=merged_forms((fact, values) for _, forms in profiles for fact, values in forms.items() if fact != "name"),
    )


def overlaps(forget: Collection[str], retain: Collection[str], everybody: Collection[str] | None) -> None:
    """Raise if a person is in both sets, or in neither."""
    if shared_people := sorted(set(forget) & set(retain)):
        raise UserError(f"{first_names(shared_people, SHOWN)} stand on both sides, to be forgotten and to be kept.")
    if everybody is None:
        return
    if missing_people := sorted(set(everybody) - set(forget) - set(retain)):
        raise UserError(f"{first_names(missing_people, SHOWN)} of the full set are on neither side.")
    if extra_people := sorted((set(forget) | set(retain)) - set(everybody)):
        raise UserError(f"{first_names(extra_people, SHOWN)} are not in the full set.")


def same_images(train: Sequence[Example]) -> list[str]:
    """Return a line per image that is in both forget and retain set."""
    forget_ids = {example.image.key: example.id for example in train if example.role is Role.FORGET and example.image}
    retain_ids = {example.image.key: example.id for example in train if example.role is Role.RETAIN and example.image}
    return [
        f"{forget_id} and {retain_ids[key]} have the same image."
        for key, forget_id in forget_ids.items()
        if key in retain_ids
    ]
