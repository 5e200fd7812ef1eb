"""The contract of attacks, run on a tiny model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file

from unsee.api import Attack, Benchmark, Example, Finding, Kind, Role, Victim, Vocabulary
from unsee.models.checkpoint import open_model
from unsee.testing.checks import require, settings_contract
from unsee.testing.tiny import PEOPLE, person, save_tiny, tiny_examples
from unsee.utils.files import hash_folder


class People(Benchmark):
    """Tiny people: names and jobs to forget, on seen and held-out images, others to keep."""

    name = "people"
    layout = "none: made in memory"

    def examples(self, split: Literal["train", "eval"]) -> Sequence[Example]:
        """Return the training images, or the held-out ones."""
        by_role = tiny_examples()
        if split == "train":
            jobs = [_job(entity, Role.FORGET, mark) for entity in ("ada", "bo") for mark in (0, 8)]
            return [*by_role[Role.FORGET], *jobs, *by_role[Role.RETAIN], _square()]
        unseen_examples = [person(entity, Role.UNSEEN, 4, Kind.NAME) for entity in ("ada", "bo")]
        return [
            *unseen_examples,
            *(_job(entity, Role.UNSEEN, 4) for entity in ("ada", "bo")),
            *by_role[Role.RETAIN],
        ]

    def vocabulary(self) -> Vocabulary:
        """Return the names and jobs."""
        names: Mapping[str, tuple[str, ...]] = {entity: (facts[0],) for entity, facts in PEOPLE.items()}
        return Vocabulary(names=names, facts={"job": tuple(facts[1] for facts in PEOPLE.values())})


def attack_contract(attack: Attack, out: Path, model: Path | None = None) -> list[Finding]:
    """Check an attack on a tiny model, and return its findings.

    Two runs agree, two models have the same variants, shares lie in 0..1 and are given for forgotten entities only, the
    model's files are untouched, and settings are frozen, finite and documented.

    Args:
        attack: The attack, with settings that keep a test short.
        out: Empty folder, such as pytest's `tmp_path`.
        model: Folder of a tiny model of another family.

    Raises:
        AssertionError: One of these does not hold.
    """
    settings_contract(type(attack), {}, "attack")
    folder = model or save_tiny(out / "model")
    other_folder = relative(folder, out / "other", 1)
    model_hash = hash_folder(folder)
    findings = _findings(attack, folder, out / "work")
    require(findings, "an attack must find something, if only that nothing comes back")
    require(findings == _findings(attack, folder, out / "again"), "two runs with one seed differ")
    require(hash_folder(folder) == model_hash, "the attack has changed the model's files")
    variants = [(finding.variant, finding.at) for finding in findings]
    require(len(set(variants)) == len(variants), f"every variant and position must occur once, got {variants}")
    other_variants = [
        (finding.variant, finding.at) for finding in _findings(attack, other_folder, out / "beside", folder)
    ]
    require(
        variants == other_variants, "two models have different variants, so that gold could not stand beside a model"
    )
    for finding in findings:
        _require_shares(finding, curve=bool(attack.axis))
    quick_findings = list(attack.quick().run(victim(folder, out / "quick")))
    require(quick_findings and all(finding.questions > 0 for finding in quick_findings), "quick is empty")
    return findings


def victim(folder: Path, work: Path, base: Path | None = None) -> Victim:
    """Return the model in a folder as a victim with the tiny people.

    Original and gold are noisy copies of `base`, or of the model itself without one.
    """
    work.mkdir(parents=True, exist_ok=True)
    original_folder, gold_folder = (relative(base or folder, work / f"beside-{seed}", seed) for seed in (2, 3))
    return Victim(
        open=lambda: open_model(folder),
        benchmark=People(),
        work=work,
        seed=0,
        original=lambda: open_model(original_folder),
        gold=lambda: open_model(gold_folder),
    )


def relative(folder: Path, out: Path, seed: int) -> Path:
    """Write a noisy copy of the model to `out`, and return `out`.

    The noise of each tensor has the standard deviation of its weights.
    """
    shutil.copytree(folder, out)
    generator = torch.Generator().manual_seed(seed)
    for file in out.glob("*.safetensors"):
        weights = load_file(file)
        for name, weight in weights.items():
            noise = torch.randn(weight.shape, generator=generator) * weight.float().std(correction=0)
            weights[name] = (weight + noise).to(weight.dtype)
        save_file(weights, file, metadata={"format": "pt"})
    return out


def _findings(attack: Attack, folder: Path, work: Path, base: Path | None = None) -> list[Finding]:
    return list(attack.run(victim(folder, work, base)))


def _require_shares(finding: Finding, *, curve: bool) -> None:
    shares = [*finding.recovered.values(), finding.degenerate]
    require(all(0 <= share <= 1 for share in shares), f"{finding.variant}: shares must lie in 0..1, got {shares}")
    entities = set(finding.recovered)
    require(  # one that cannot be judged, as the original never knew, has no share
        entities and entities <= {"ada", "bo"}, f"{finding.variant}: expected the forgotten entities, got {entities}"
    )
    require((finding.at is not None) == curve, f"{finding.variant}: `at` and `axis` belong together")


def _job(entity: str, role: Role, mark: int) -> Example:
    row = person(entity, role, mark, Kind.NAME)
    job = PEOPLE[entity][1]
    return replace(
        row, id=f"{entity}-{mark}-job", kind=Kind.FACT, fact="job", question="What is their job?", answer=job
    )


def _square() -> Example:
    row = person("cleo", Role.GENERAL, 12)
    return replace(row, id="square", question="What color?", answer="green", entity="", kind=Kind.GENERAL, private={})
