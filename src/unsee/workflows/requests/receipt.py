"""Receipts: signed statements of what was unlearned and what the model still discloses.

A receipt names nobody. It is JSON in a fixed form, signed with Ed25519 over everything but the signature, and a page for
people beside it. Fields after the practice of erasure audits (arXiv 2606.05946, EDPB Opinion 28/2024) [inferred].
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from unsee import __version__, config
from unsee.config import RECORD
from unsee.errors import UserError, short_repr
from unsee.models.identity import bases, model_hash
from unsee.models.location import folder_of
from unsee.report.page import render_page
from unsee.report.verdict import percent
from unsee.utils.files import atomic_write_json, atomic_write_text
from unsee.utils.parsing import read_object
from unsee.workflows.requests import keys, surfaces
from unsee.workflows.requests.ledger import Entry, canonical_text
from unsee.workflows.requests.project import BATCH, ID, Project
from unsee.workflows.requests.surfaces import Surface, Word

FORMAT: Final = "unsee-receipt/1"
SUFFIX: Final = ".receipt.json"
STATEMENT: Final = (
    "This is approximate unlearning: training made answers about the person less likely. It is no proof that nothing of the "
    "person is left in the weights, and it says nothing about copies of the earlier model. It holds for the questions, "
    "pictures and attacks listed here, with access to the weights where an attack needs them."
)
UNTRIED: Final = (
    "other languages and wordings",
    "long conversations",
    "further training on data about the person",
    "model inversion and reconstruction of training pictures",
    "membership inference",
    "embeddings of the vision tower",
)
"""What no receipt covers."""
_FIELDS: Final = ("model", "ledger", "surfaces", "signature")
"""Parts that a check reads."""
_KEY: Final = "[0-9a-fA-F]{64}"
HERE: Final = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A receipt on disk."""

    file: Path
    page: Path
    signed: bool


@dataclass(frozen=True, kw_only=True)
class Verified:
    """Result of checking a receipt."""

    faults: tuple[str, ...]
    """Reasons not to trust it; none = it can be trusted."""
    checked: tuple[str, ...]
    """Checks that passed."""
    unchecked: tuple[str, ...] = ()
    """What could not be checked."""

    @property
    def good(self) -> bool:
        """Tell whether nothing is wrong."""
        return not self.faults

    def __str__(self) -> str:
        """Return a line per check."""
        lines = [f"ok: {line}" for line in self.checked] + [f"not checked: {line}" for line in self.unchecked]
        lines += [f"WRONG: {line}" for line in self.faults]
        return "\n".join([*lines, "the receipt holds" if self.good else "the receipt does NOT hold"])


def issue(
    project: Project,
    request: str,
    person_surfaces: Mapping[str, Surface],
    verdict: Word,
    retain_shares: Mapping[str, tuple[float | None, float | None]],
    batch: str,
) -> Issued:
    """Write the receipt of a request after a batch, note it in the ledger, and return it.

    An existing receipt of the same batch is kept: a receipt is written once.

    Args:
        project: Project with ledger and folder of receipts.
        request: Identifier of the request.
        person_surfaces: Surface (such as questions or an attack) -> what was measured on it.
        verdict: Verdict over all surfaces.
        retain_shares: Kind of question about what is kept -> share right before and after (None: not measured).
        batch: Identifier of the batch, part of the receipt's name.
    """
    state, ledger = project.ledger.state(request), project.ledger
    receipt_id = f"{request}-{batch}"
    file = project.receipts / f"{receipt_id}{SUFFIX}"
    page = file.with_name(f"{receipt_id}.receipt.html")
    if not file.is_file():
        content = _content(project, request, person_surfaces, verdict, retain_shares, receipt_id)
        atomic_write_json(file, {**content, "signature": _signature(content)})
    content = read_object(file)
    atomic_write_text(page, _page(content))
    signed = "key" in content["signature"]
    if not entries_of(receipt_id, state.entries):
        ledger.append("receipt", request, receipt=receipt_id, sha256=file_hash(file), signed=signed)
    return Issued(file=file, page=page, signed=signed)


def _content(
    project: Project,
    request: str,
    person_surfaces: Mapping[str, Surface],
    verdict: Word,
    retain_shares: Mapping[str, tuple[float | None, float | None]],
    receipt_id: str,
) -> dict[str, Any]:
    """Return the receipt without its signature: codes, hashes and figures, no free text."""
    state = project.ledger.state(request)
    unlearned, received = state.last("unlearned"), state.last("received")
    number, seal = project.ledger.head()
    batch_folder = project.batch(str(unlearned["batch"]))
    run_record = config.read_mapping(batch_folder / "run" / RECORD)
    # commitments to the rows that were unlearned, which may have been edited since
    batch_facts = read_object(batch_folder / BATCH)
    root = batch_facts.get("roots", {}).get(request, state.last("approved").get("commitment"))
    approvals = [entry.content for entry in state.entries if entry.kind == "approved"]
    approved: Mapping[str, Any] = next(
        (content for content in reversed(approvals) if content.get("commitment") == root), {}
    )
    return {
        "format": FORMAT,
        "receipt": receipt_id,
        "request": request,
        "entity": state.entity,
        "issued": datetime.now(UTC).isoformat(timespec="seconds"),
        "received": state.received.isoformat(),
        "due": state.due.isoformat(),
        "act": str(received.get("act", "erase")),
        "basis": str(received.get("basis", "")),
        "scope": {
            "rows": approved.get("rows"),
            "images": approved.get("images"),
            "modalities": approved.get("modalities", received.get("modalities")),
            "attributes": received.get("attributes") or "everything",
        },
        "commitment": {
            "root": root,
            "how": "HMAC-SHA256 leaves under a key of the request, SHA-256 tree",
        },
        "verdict": verdict,
        "surfaces": {name: surface.to_json() for name, surface in person_surfaces.items()},
        "not_tested": list(UNTRIED),
        "access": "questions and answers; weights for quantisation and relearning",
        "utility": {
            name: {"before": _rounded(before), "after": _rounded(after)}
            for name, (before, after) in retain_shares.items()
        },
        "retain": "data" if batch_facts["settings"]["data"] else "self_made",
        "model": {"before": unlearned["before"], "after": unlearned["after"]},
        "method": {"name": unlearned["method"], "settings": unlearned["settings"], "seed": run_record.get("seed", 0)},
        "made_by": {"unsee": __version__, "commit": str(run_record.get("record", {}).get("commit", ""))},
        "ledger": {"entry": number, "seal": seal},
        "statement": STATEMENT,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)


def canonical(content: Mapping[str, Any]) -> bytes:
    """Return the bytes that are signed: all but the signature, in UTF-8."""
    return canonical_text({name: value for name, value in content.items() if name != "signature"}).encode()


def _signature(content: Mapping[str, Any]) -> dict[str, str]:
    key = keys.signing_key()
    if key is None:
        return {"none": keys.MISSING}
    return {
        "algorithm": "Ed25519",
        "key": keys.public_text(key.public_key()),
        "value": key.sign(canonical(content)).hex(),
    }


def verify(
    file: Path | str, *, model: str = "", trusted: str = "", project: Project | None = None, ask: bool = False
) -> Verified:
    """Check a receipt: signature and trusted key, hashes of model and base models, ledger.

    Args:
        file: The receipt.
        model: Model that it should be about; its files are hashed, and those below it if it is an adapter.
        trusted: Public key (64 hexadecimal digits, or a file with them). Default: this user's own.
        project: Project with its ledger, which must list the receipt, unchanged.
        ask: Ask the model again, with the rows of the request if they were not purged.

    Raises:
        UserError: The file is no receipt, there is no such model, key or project, the package cryptography is missing, or `ask`
            lacks the project or the model.
    """
    if ask and (project is None or not model):
        raise UserError("To ask again, give the project and --model.")
    if project is not None and not project.ledger.path.is_file():
        project.settings()  # a mistyped folder is an error, and no project without this receipt
    content, trusted_key = _read(Path(file)), _trusted_key(trusted)
    faults: list[str] = []
    checked: list[str] = []

    def note(passed: bool, pass_text: str, fail_text: str) -> None:
        (checked if passed else faults).append(pass_text if passed else fail_text)

    note(*_check_signature(content, trusted_key))
    unchecked: list[str] = []
    if model:
        folder_of(model)  # a mistyped path is an error, not another model
        expected_hash, actual_hash = str(content["model"].get("after")), model_hash(model)
        note(
            actual_hash == expected_hash,
            f"the model is the one of the receipt ({expected_hash[:16]})",
            f"the model is another one: {actual_hash[:16]}, the receipt is about {expected_hash[:16]}",
        )
        unchecked += _below(model, note)
    if project is not None:
        for passed, pass_text, fail_text in _in_ledger(content, Path(file), project):
            note(passed, pass_text, fail_text)
    if ask and project is not None:
        note(*_check_counts(content, model, project))
    return Verified(faults=tuple(faults), checked=tuple(checked), unchecked=tuple(unchecked))


def _read(file: Path) -> Mapping[str, Any]:
    """Read a receipt, or raise if the file is none."""
    content = read_object(file)
    if content.get("format") != FORMAT:
        raise UserError(f"{file} is no receipt of this form ({FORMAT}).")
    if missing_parts := [name for name in _FIELDS if not isinstance(content.get(name), Mapping)]:
        raise UserError(f"{file} is no whole receipt: its part {', '.join(missing_parts)} is missing.")
    return content


def _below(model: str, note: Callable[[bool, str, str], None]) -> Iterator[str]:
    """Check the hashes of an adapter's base models, and yield what cannot be checked.

    The hash of the base is stored in the adapter's folder, so the signed hash of the adapter covers it.
    """
    try:
        for base in bases(model):
            if not base.made_from:
                yield f"{base.place}, below {base.adapter}: its hash was not noted when the adapter was made"
                continue
            note(
                base.made_from == base.hash,
                f"{base.place}, below {base.adapter}, is what the adapter was made from ({base.hash[:16]})",
                f"{base.place}, below {base.adapter}, is not what the adapter was made from",
            )
    except UserError as error:
        note(False, "", f"what the model stands on cannot be checked: {error}")


def _trusted_key(key_or_path: str) -> str:
    """Return a public key from 64 digits or a file with them, by default the user's own, empty if there is none."""
    path = Path(key_or_path) if key_or_path else keys.folder() / keys.PUBLIC
    is_key = re.fullmatch(_KEY, key_or_path) is not None
    text = path.read_text(encoding="ascii", errors="replace").strip() if not is_key and path.is_file() else key_or_path
    if re.fullmatch(_KEY, text):
        return text.lower()
    if key_or_path:
        raise UserError(
            f"--key is a public key of 64 hexadecimal digits, or a file that holds one; got {short_repr(key_or_path)}."
        )
    return ""


def _check_signature(content: Mapping[str, Any], trusted: str) -> tuple[bool, str, str]:
    """Check the signature, and that the key is the trusted one."""
    signature = content["signature"]
    if "key" not in signature:
        return False, "", "it is not signed"
    signer = str(signature["key"])
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ModuleNotFoundError as error:
        raise UserError(keys.MISSING) from error
    if not trusted:
        return False, "", f"it is signed by {signer[:16]}, and no key to trust was given: --key"
    if signer != trusted:
        return False, "", f"it is signed by another key: {signer[:16]}, trusted is {trusted[:16]}"
    try:
        public_key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(trusted))
        public_key.verify(bytes.fromhex(str(signature.get("value", ""))), canonical(content))
    except (InvalidSignature, ValueError):
        return False, "", "its content is not what was signed"
    return True, f"signed by {trusted[:16]}, content unchanged", ""


def _in_ledger(content: Mapping[str, Any], file: Path, project: Project) -> list[tuple[bool, str, str]]:
    """Check the ledger's chain of seals, its entry for the receipt, and the entry before it."""
    faults = project.ledger.verify()
    entries = project.ledger.entries()
    ledger_position = content["ledger"]
    return [
        (not faults, f"the ledger's {len(entries)} entries are unchanged", "; ".join(faults[:3])),
        (
            any(
                entry.content.get("sha256") == file_hash(file) for entry in entries_of(content.get("receipt"), entries)
            ),
            "the ledger has this receipt, with this content",
            "the ledger does not have this receipt with this content",
        ),
        (
            is_present(ledger_position, entries),
            f"the ledger has the entry it was written after ({ledger_position.get('entry')})",
            "the ledger lacks the entry before",
        ),
    ]


def entries_of(receipt_id: object, entries: Sequence[Entry]) -> list[Entry]:
    """Return the ledger entries of a receipt."""
    return [entry for entry in entries if entry.kind == "receipt" and entry.content.get("receipt") == receipt_id]


def is_present(ledger_position: Mapping[str, Any], entries: Sequence[Entry]) -> bool:
    """Tell whether the ledger has the entry that a receipt was written after."""
    number_and_seal = (ledger_position.get("entry"), ledger_position.get("seal"))
    return any((entry.number, entry.seal) == number_and_seal for entry in entries)


def _check_counts(content: Mapping[str, Any], model: str, project: Project) -> tuple[bool, str, str]:
    """Ask the model again, and compare the counts per surface with those of the receipt."""
    from unsee.workflows.requests import asking
    from unsee.workflows.requests.rows import read_rows

    request_id = str(content.get("request"))
    if not ID.fullmatch(request_id):
        return False, "", f"it names no request that could be asked about: {short_repr(request_id)}"
    request = project.request(request_id)
    if request is None:
        return False, "", "the rows of the request were purged, so the model cannot be asked again"
    responses = asking.ask_fully(asking.open_vlm(model), read_rows(project.place(request.id)))
    shares = {name: share for name, share in surfaces.shares(responses).items() if share.n}
    receipt_counts = {name: _counts_text(content["surfaces"].get(name)) for name in surfaces.ASKED}
    new_counts = {
        name: f"{shares[name].hits}/{shares[name].n}" if name in shares else "no answers" for name in surfaces.ASKED
    }
    differences = [
        f"{name} {new_counts[name]}, not {receipt_counts[name]}"
        for name in surfaces.ASKED
        if new_counts[name] != receipt_counts[name]
    ]
    return (
        not differences,
        f"asked again: the same figures on {len(shares)} surfaces",
        f"asked again: {', '.join(differences)}",
    )


def _counts_text(surface: object) -> str:
    """Return the counts of a surface in a receipt as text, whatever the receipt holds there."""
    share = surface.get("after") if isinstance(surface, Mapping) else surface
    if isinstance(share, Mapping):
        return f"{share.get('hits')}/{share.get('n')}"
    return "no answers" if share is None else short_repr(share)


def file_hash(file: Path) -> str:
    """Return the hash under which the ledger notes a receipt."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _page(content: Mapping[str, Any]) -> str:
    """Return the page for human readers: one printed sheet, no scripts, no external resources."""
    values = {
        "receipt": content,
        "meaning": surfaces.WORDS,
        "headline": _headline(content),
        "kept": {
            _kept_words(name): {key: "-" if share is None else percent(share) for key, share in value.items()}
            for name, value in content["utility"].items()
        },
        "shares": {
            name: {key: _share(value.get(key)) for key in ("before", "after", "reference")}
            for name, value in content["surfaces"].items()
        },
    }
    return render_page("receipt.html", ("receipt.css",), "", values, here=HERE)


def _headline(content: Mapping[str, Any]) -> str:
    """Return the verdict as a sentence."""
    residual_names = [name for name, surface in content["surfaces"].items() if surface["verdict"] == "residual"]
    descriptions = "; ".join(surfaces.WORDS[name] for name in residual_names)
    asked_words = {surface["verdict"] for name, surface in content["surfaces"].items() if name in surfaces.ASKED}
    if content["verdict"] == "residual" and "residual" not in asked_words and asked_words - {"not_measured"}:
        return f"Hidden, not gone: no answer gives the person away, but it comes back: {descriptions}"
    return {
        "erased": "Erased: nothing comes back above what comes by chance",
        "residual": f"Residual: something of the person is still given away: {descriptions}",
        "no_baseline": "No baseline: nothing that was measured shows that the model knew the person",
    }.get(content["verdict"], "Not measured")


def _kept_words(name: str) -> str:
    """Return a readable name for a score on the retain set."""
    role, _, measure = name.partition(".")
    measure_words = {"name": "names", "fact": "facts", "visible": "what is seen", "accuracy": "right answers"}
    role_words = {"retain": "of others", "retain_text": "of others, by name", "general": "on unrelated questions"}
    return f"{measure_words.get(measure, measure.removesuffix('.answer'))} {role_words.get(role, role)}"


def _share(share: Mapping[str, Any] | None) -> str:
    return "-" if share is None else f"{share['hits']} of {share['n']}"
