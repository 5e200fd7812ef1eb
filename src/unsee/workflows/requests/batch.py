"""Batches of requests: unlearn, evaluate with earlier requests, attack, write receipts.

A batch is a folder with its data, its run and its results. Every step writes a file, so that the same call resumes an
interrupted one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from unsee import config
from unsee.api import VLM, Benchmark, Example, ImageSource, Kind, Role, Training, registry
from unsee.api.benchmark import SPLITS
from unsee.api.example import OF_TARGETS
from unsee.config import RECORD, Run
from unsee.data.open import open_benchmark
from unsee.distributed.file_lock import owner
from unsee.errors import UserError, short_repr
from unsee.metrics.normal_form import normalise
from unsee.models import model_card
from unsee.models.identity import model_hash
from unsee.models.location import adapter_chain, folder_of
from unsee.report.verdict import percent
from unsee.utils.files import atomic_write_json, owned_folder, remove_folder
from unsee.utils.grouping import by_key
from unsee.utils.parsing import read_object
from unsee.utils.terminal import note
from unsee.workflows.attack import attack
from unsee.workflows.forget import forget_run
from unsee.workflows.requests import asking, judging, surfaces
from unsee.workflows.requests.intake import require_approved
from unsee.workflows.requests.judging import Checked
from unsee.workflows.requests.ledger import Ledger, State, require_codes
from unsee.workflows.requests.overview import write_overview
from unsee.workflows.requests.project import BATCH, SETTINGS, Project, Request, Settings
from unsee.workflows.requests.questions import self_made
from unsee.workflows.requests.receipt import Issued, issue
from unsee.workflows.requests.rows import read_rows, recast, write_rows
from unsee.workflows.requests.surfaces import Word
from unsee.workflows.suggest import beside_retain_rows, suggest
from unsee.workflows.verdict import keep_outcome

IMAGES: Final = 2
"""Pictures per question in an attack: with one, the share for a single person has too wide an interval [inferred]."""
RETAIN_LIMIT: Final = 12
"""Retain questions per kind, asked before and after."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Result of a batch."""

    batch: str
    model: str
    checked: tuple[Checked, ...]
    receipts: tuple[Issued, ...]
    kept: Mapping[str, tuple[float | None, float | None]]
    """Kind of retain question -> share right before and after."""

    @property
    def fulfilled(self) -> bool:
        """Tell whether no person has a residual or unmeasured verdict."""
        return all(check.verdict in ("erased", "no_baseline") for check in self.checked)

    def __str__(self) -> str:
        """Return a line per person and surface."""
        lines = [f"{self.batch}: {self.model}", *map(str, self.checked)]
        for name, pair in self.kept.items():
            lines.append(
                f"kept: {name} {' -> '.join('not measured' if share is None else percent(share) for share in pair)}"
            )
        lines += [f"receipt: {receipt.file}{'' if receipt.signed else ' (unsigned)'}" for receipt in self.receipts]
        return "\n".join(lines)


def run(
    project: Project, requests: Sequence[str] = (), *, one_by_one: bool = False, operator: str = "", seed: int = 0
) -> list[Result]:
    """Unlearn approved requests from the project's model, and return a result per batch.

    An interrupted batch is finished first. The model of the last batch becomes the project's model.

    Args:
        project: Where the requests are kept.
        requests: Ids; none = all that are approved and not unlearned yet.
        one_by_one: A batch for each request in the order of arrival, instead of one for all.
        operator: Code of whoever runs it.
        seed: Start of every random stream. A batch that was interrupted keeps its own.

    Raises:
        UserError: A request is not approved, closed or purged, its rows were edited since, two are about one person, no row of a
            batch has a picture, or there is no request; nothing new is unlearned then.
    """
    require_codes(operator)
    with owner(project.folder):
        results, begun_ids = [], []
        if unfinished_name := _unfinished_batch(project):
            kept_seed = _seed_of(project, unfinished_name, seed)
            batch = Batch(project=project, name=unfinished_name, seed=kept_seed, operator=operator)
            begun_ids = batch.facts["requests"]
            results = batch.finish()
        waiting_ids = [request_id for request_id in requests if request_id not in begun_ids]
        chosen_ids = _chosen(project, waiting_ids) if waiting_ids or not requests else []
        if not chosen_ids and not results:
            raise UserError(
                "No request is approved and waiting. `unsee request list` shows where each stands; "
                "`unsee request approve ID` approves its rows."
            )
        groups = [[request_id] for request_id in chosen_ids] if one_by_one or not chosen_ids else [chosen_ids]
        for group in groups:
            _require_fit(project, group)
        for request_id in chosen_ids:
            require_approved(project, request_id)
        for group in groups:
            batch = Batch(project=project, name=_next(project), seed=seed, operator=operator)
            batch.begin(group)
            results.append(batch.run())
    return results


def _unfinished_batch(project: Project) -> str:
    """Return the name of the unfinished batch, or empty."""
    files = sorted((project.folder / "batches").glob(f"B-*/{BATCH}"))
    return next((file.parent.name for file in files if "ended" not in read_object(file)), "")


def _seed_of(project: Project, name: str, given: int) -> int:
    """Return the seed of an unfinished batch: that of its run, if it has begun to train, else the given one."""
    record_path = project.batch(name) / "run" / RECORD
    seed = config.read(record_path).seed if record_path.exists() else given
    if given not in (0, seed):
        note(f"{name} was begun with seed {seed} and goes on with it; seed {given} is for the batches after it.")
    return seed


def _next(project: Project) -> str:
    """Return a batch name that neither a folder nor the ledger has used."""
    names = {folder.name for folder in (project.folder / "batches").glob("B-*")}
    names |= {str(entry.content["batch"]) for entry in project.ledger.entries() if "batch" in entry.content}
    numbers = [int(name.removeprefix("B-")) for name in names if re.fullmatch(r"B-\d+", name)]
    return f"B-{max(numbers, default=0) + 1:03d}"


def _require_fit(project: Project, group: Sequence[str]) -> None:
    """Raise unless a batch is about different people, whose rows would repeat else, and has a picture to train on."""
    request_by_entity: dict[str, str] = {}
    for request_id in group:
        entity = project.ledger.state(request_id).entity
        if entity in request_by_entity:
            raise UserError(
                f"{request_by_entity[entity]} and {request_id} are about the same person, so one batch cannot hold both. "
                f"Close one (unsee request close {request_id} --decision withdrawn --reason duplicate), or give --one-by-one."
            )
        request_by_entity[entity] = request_id
    if not any(row.role is Role.FORGET for request_id in group for row in _forget_rows(project.place(request_id))):
        raise UserError(
            f"No row of {', '.join(group)} to train on has a picture, so nothing can be unlearned. Run it together with another "
            "request, or add it again with --image or without --attribute."
        )


def _forget_rows(place: Path) -> list[Example]:
    """Return the rows of a request that are trained on."""
    return [
        row for row in read_rows(place) if row.role is not Role.UNSEEN and row.answer and row.kind not in _JUDGED_KINDS
    ]


def _chosen(project: Project, requests: Sequence[str]) -> list[str]:
    """Return the requests to unlearn, in the order of their arrival."""
    states = project.ledger.states()
    for request_id in requests:
        state = project.ledger.state(request_id)
        if state.status not in ("approved", "unlearned", "judged"):
            raise UserError(f"{request_id} is {state.status}, not approved. See `unsee request show {request_id}`.")
        if project.request(request_id) is None:
            raise UserError(f"The data of {request_id} were purged, so it cannot be unlearned again.")
    wanted_ids = set(requests) or {request_id for request_id, state in states.items() if state.status == "approved"}
    return [request_id for request_id in states if request_id in wanted_ids]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch: requests that are unlearned together."""

    project: Project
    name: str
    seed: int
    operator: str

    @property
    def folder(self) -> Path:
        """Folder of the batch."""
        return self.project.batch(self.name)

    @property
    def run_folder(self) -> Path:
        """Folder of its run, which is the model after it."""
        return self.folder / "run"

    @cached_property
    def settings(self) -> Settings:
        """Settings of the project as they were when the batch began."""
        settings: Settings = config.build(Settings, self.facts["settings"], where=str(self.folder / BATCH))
        return settings

    @property
    def facts(self) -> dict[str, Any]:
        """Content of the batch file: requests, settings, and finished steps."""
        return read_object(self.folder / BATCH)

    @cached_property
    def requests(self) -> list[Request]:
        """Requests of the batch, but those that were closed before they were unlearned, or closed and purged."""
        requests = []
        for request_id in self.facts["requests"]:
            state, request = self.project.ledger.state(request_id), self.project.request(request_id)
            if request is None and state.open:
                raise UserError(
                    f"The data of {request_id} are gone, and batch {self.name} is not finished. Close the request, "
                    f"which takes it out of the batch: unsee request close {request_id} --decision withdrawn --reason other."
                )
            if request is not None and (state.open or self._has_unlearned(state)):
                requests.append(request)
        return requests

    def _has_unlearned(self, state: State) -> bool:
        return bool(state.last("unlearned").get("batch") == self.name)

    def begin(self, requests: Sequence[str]) -> None:
        """Write the batch file. Tables that were written for other requests, rows or settings are removed.

        Raises:
            UserError: Rows were edited after they were approved, or the project's settings cannot be used; nothing is written
                then.
        """
        roots = {request_id: require_approved(self.project, request_id) for request_id in requests}
        settings = self.project.settings()
        _require_usable(settings)
        owned_folder(self.folder)
        file = self.folder / BATCH
        facts = {"requests": list(requests), "roots": roots, "settings": config.plain(vars(settings))}
        if file.is_file() and read_object(file) != facts:
            remove_folder(self.folder / "asked")
        atomic_write_json(file, facts)

    def finish(self) -> list[Result]:
        """Finish an interrupted batch, which begins anew if nothing was trained yet.

        If all of its requests were closed meanwhile, it ends; its model becomes the project's if it was judged.
        """
        if self.requests and not (self.run_folder / RECORD).exists():
            self.begin([request.id for request in self.requests])
        if self.requests:
            return [self.run()]
        if self._is_judged():
            self._hand_over()
        else:
            self._end()
        return []

    def _is_judged(self) -> bool:
        """Tell whether the ledger has the batch's verdict on one of its requests."""
        return any(
            entry.kind == "verdict" and entry.content.get("batch") == self.name and not entry.content.get("recheck")
            for entry in self.project.ledger.entries()
        )

    def _hand_over(self) -> None:
        """Describe the batch's model, make it the project's, and end the batch."""
        self._describe()
        write_overview(self.project)
        self.project.write(replace(self.project.settings(), model=str(self.run_folder.resolve())))
        self._end()

    def _end(self) -> None:
        atomic_write_json(self.folder / BATCH, {**self.facts, "ended": True})

    def run(self) -> Result:
        """Run the steps that are not done yet."""
        note((self.name, "dim"), f" {len(self.requests)} requests")
        self._write_data()
        self._forget()
        data = open_benchmark(self.folder / "data", "folder")
        old_model, new_model = asking.open_vlm(self.settings.model), asking.open_vlm(str(self.run_folder))
        checks = [*self._check(old_model, new_model), *self._check_again(new_model)]
        before, after = asking.retain_recall(old_model, data), asking.retain_recall(new_model, data)
        retain_shares = {name: (value, after.get(name)) for name, value in before.items()}
        keep_outcome(self.run_folder, judging.outcome_of(checks))
        receipts = self._close(checks, retain_shares)
        self._hand_over()
        return Result(
            batch=self.name,
            model=str(self.run_folder),
            checked=tuple(checks),
            receipts=tuple(receipts),
            kept=retain_shares,
        )

    def _write_data(self) -> None:
        """Write the tables for unlearning and for evaluation and attacks, unless both exist."""
        if (self.folder / "asked" / "data.jsonl").exists():
            return
        owned_folder(self.folder / "asked", anew=True)
        places = [self.project.place(request.id) for request in self.requests]
        rows, forget_rows = ([row for place in places for row in read(place)] for read in (read_rows, _forget_rows))
        train, judged = self._retain_rows()
        owned_folder(self.folder / "data", anew=True)
        write_rows(self.folder / "data", [*forget_rows, *train], [*rows, *judged])
        write_rows(self.folder / "asked", [*forget_rows, *train], self._with_controls(rows, self.requests))

    def _with_controls(self, rows: Sequence[Example], requests: Sequence[Request]) -> list[Example]:
        forms = {request.entity: request.forms for request in requests}
        return asking.with_controls(rows, self._strangers, forms)

    @cached_property
    def _strangers(self) -> list[ImageSource]:
        return asking.strangers_of(self._data)

    @cached_property
    def _data(self) -> Benchmark | None:
        return open_benchmark(self.settings.data, self.settings.benchmark) if self.settings.data else None

    def _retain_rows(self) -> tuple[list[Example], list[Example]]:
        """Return the retain rows for training and for evaluation: of the data, else self-made."""
        if self._data is None:
            rows = self_made(owned_folder(self.folder / "drawn"))
            answered_rows = asking.with_own_answers(rows, asking.ask(asking.open_vlm(self.settings.model), rows))
            return answered_rows, answered_rows
        aside = tuple(sorted(_with_request(self._data, self.project.ledger)))
        retain_data = recast(
            self._data, self.settings.data, self.settings.benchmark, aside=aside, retain_limit=RETAIN_LIMIT
        )
        train, judged = ([row for row in retain_data.examples(split) if row.role not in OF_TARGETS] for split in SPLITS)
        return train, judged

    def _forget(self) -> None:
        """Unlearn, or resume an interrupted run."""
        record_path = self.run_folder / RECORD
        is_resumed = record_path.exists()  # a resumed run keeps its settings, whatever is suggested now
        chosen_run = (
            replace(config.read(record_path), out=str(self.run_folder)) if is_resumed else self._suggested_run()
        )
        forget_run(chosen_run, resume=is_resumed)
        states = self.project.ledger.states()
        result = config.result_of(self.run_folder)
        before, after = model_hash(self.settings.model), model_hash(str(self.run_folder))
        seconds = result.get("seconds")  # unknown after a resumed run
        row_counts = Counter(row.entity for row in read_rows(self.folder / "asked"))
        for request in self.requests:
            if not self._has_unlearned(states[request.id]):
                self.project.ledger.append(
                    "unlearned",
                    request.id,
                    operator=self.operator,
                    batch=self.name,
                    before=before,
                    after=after,
                    method=chosen_run.method,
                    settings=_settings_hash(config.read(self.run_folder / RECORD)),
                    rows=row_counts[request.entity],
                    seconds=None if seconds is None else round(float(seconds), 1),
                    steps=int(result.get("steps", 0)),
                )

    def _suggested_run(self) -> Run:
        """Return the run that suits the data, with the settings of the project."""
        chosen_run = suggest(self.settings.model, str(self.folder / "data"), out=str(self.run_folder)).run
        if self.settings.method and self.settings.method != chosen_run.method:
            chosen_run, _ = beside_retain_rows(replace(chosen_run, method=self.settings.method, settings={}))
        return replace(chosen_run, training={**chosen_run.training, **self.settings.training}, seed=self.seed)

    def _check(self, old_model: VLM, new_model: VLM) -> list[Checked]:
        """Return the verdict on each request of this batch, attacks included."""
        questions = open_benchmark(self.folder / "asked", "folder").examples("eval")
        before, after = asking.ask_fully(old_model, questions), asking.ask_fully(new_model, questions)
        gold = asking.ask_fully(asking.open_vlm(self.settings.gold), questions) if self.settings.gold else []
        attacks = self._attack()
        return [
            judging.judge_own(
                request, self._arrival(request), before, after, gold, attacks, self._measured_earlier(request)
            )
            for request in self.requests
        ]

    def _arrival(self, request: Request) -> Mapping[str, Any]:
        """Return what the model gave away when the request arrived, by surface, as the ledger has it.

        Empty if that model is none of those that people were unlearned from, or that came out: it was exchanged since.
        """
        asked = self.project.ledger.state(request.id).last("asked")
        unlearned = [entry.content for entry in self.project.ledger.entries() if entry.kind == "unlearned"]
        model_hashes = {content.get(name) for content in unlearned for name in ("before", "after")}
        arrival: Mapping[str, Any] = asked.get("surfaces", {}) if asked.get("model") in model_hashes else {}
        return arrival

    def _measured_earlier(self, request: Request) -> dict[str, Word]:
        """Return surface -> last verdict of earlier batches that was measured."""
        checks = [
            entry.content
            for entry in self.project.ledger.state(request.id).entries
            if entry.kind == "verdict" and entry.content.get("batch") != self.name
        ]
        return {
            name: surface["verdict"]
            for check in checks
            for name, surface in check.get("surfaces", {}).items()
            if surface["verdict"] != "not_measured"
        }

    def _check_again(self, new_model: VLM) -> list[Checked]:
        """Return the verdict on each earlier request whose rows were not purged."""
        checks = []
        for model, requests in self._earlier_by_model().items():
            old_model = asking.open_vlm(model) if model else None
            for request in requests:  # each alone, for another request may be about the same person
                questions = self._with_controls(read_rows(self.project.place(request.id)), [request])
                before = None if old_model is None else asking.ask_fully(old_model, questions)
                after = asking.ask_fully(new_model, questions)
                checks.append(judging.judge_earlier(request, self._arrival(request), before, after))
        return checks

    def _earlier_by_model(self) -> dict[str, list[Request]]:
        """Return the requests of earlier batches whose data were not purged, by the model that each was unlearned from."""
        own_ids = self.facts["requests"]
        states = [
            state
            for state in self.project.ledger.states().values()
            if state.last("unlearned") and state.request not in own_ids
        ]
        return by_key(
            (self._model_before(state), request)
            for state in states
            if (request := self.project.request(state.request)) is not None
        )

    def _model_before(self, state: State) -> str:
        """Return the model that a request was first unlearned from, empty if it is no longer here."""
        first_batch = next(str(entry.content["batch"]) for entry in state.entries if entry.kind == "unlearned")
        batch_file = self.project.batch(first_batch) / BATCH
        model = str(read_object(batch_file)["settings"]["model"]) if batch_file.is_file() else ""
        try:
            return model if model and list(adapter_chain(model)) else ""
        except UserError:  # it, or what it stands on
            return ""

    def _attack(self) -> Mapping[str, Any]:
        """Attack the model in the quick form of every attack of the project."""
        if not self.settings.attacks:
            return {}
        setting_names = {
            name: {field.name for field in fields(registry.load("attacks", name))} for name in self.settings.attacks
        }
        return attack(
            self.run_folder,
            self.folder / "asked",
            gold=self.settings.gold,
            attacks=self.settings.attacks,
            benchmark="folder",
            settings={name: {"images": IMAGES} for name, names in setting_names.items() if "images" in names},
            quick=True,
            seed=self.seed,
            out=self.folder,
        )

    def _describe(self) -> None:
        """Write a summary of all unlearned requests into run.yaml and the model card."""
        states = [state for state in self.project.ledger.states().values() if state.last("unlearned")]
        days = sorted(state.received.isoformat() for state in states)
        facts = {
            "count": len(states),
            "from": days[0],
            "to": days[-1],
            "verdicts": dict(Counter(state.verdict for state in states)),
            "receipts": [
                entry.content["receipt"] for state in states for entry in state.entries if entry.kind == "receipt"
            ],
        }
        record_path = self.run_folder / RECORD
        with owner(self.run_folder):
            run_record = config.read_mapping(record_path)
            result = {**run_record["result"], "requests": facts}
            config.write(record_path, config.read(record_path), record=run_record["record"], result=result)
            model_card.write(self.run_folder)

    def _close(
        self, checks: Sequence[Checked], retain_shares: Mapping[str, tuple[float | None, float | None]]
    ) -> list[Issued]:
        """Write verdicts into the ledger, and a receipt for every request of this batch."""
        receipts = []
        ledger = self.project.ledger
        hash_after = model_hash(str(self.run_folder))
        for check in checks:
            if ledger.state(check.request).last("verdict").get("batch") != self.name:
                ledger.append(
                    "verdict",
                    check.request,
                    operator=self.operator,
                    batch=self.name,
                    model=hash_after,
                    verdict=check.verdict,
                    surfaces=surfaces.brief(check.surfaces),
                    recheck=check.recheck,
                )
            if not check.recheck:
                receipts.append(
                    issue(self.project, check.request, check.surfaces, check.verdict, retain_shares, self.name)
                )
        return receipts


def _with_request(data: Benchmark, ledger: Ledger) -> set[str]:
    """Return the entities of the data with a request, to leave out of the retain set.

    Those of purged requests are known by their pseudonyms alone: of the entity, and of the name, which finds a person
    who was not in the data when the request arrived.
    """
    states = [state for state in ledger.states().values() if state.last("closed").get("decision") != "refused"]
    entity_pseudonyms = {state.entity for state in states}
    name_pseudonyms = {pseudonym for state in states for pseudonym in state.last("received").get("replaces", ())}
    forms_by_entity = data.vocabulary().names
    return {
        entity
        for entity in {row.entity for row in data.examples("train")} - {""}
        if ledger.pseudonym(entity) in entity_pseudonyms
        or any(ledger.pseudonym(normalise(form)) in name_pseudonyms for form in forms_by_entity.get(entity, ()))
    }


def _require_usable(settings: Settings) -> None:
    """Raise for settings that a batch could not be finished with: once it trains, it keeps them."""
    for model in filter(None, (settings.model, settings.gold)):
        folder_of(model)
    if settings.data:
        open_benchmark(settings.data, settings.benchmark)
    if settings.method:
        registry.require("methods", settings.method)
    config.build(Training, settings.training, where=f"{SETTINGS}: training")
    if others := [name for name in settings.attacks if name not in surfaces.ATTACKED]:
        raise UserError(
            f"{SETTINGS}: attacks are any of {', '.join(surfaces.ATTACKED)}, which receipts tell of; got "
            f"{short_repr(others[0])}. Other attacks are made by hand: unsee attack --model BATCH/run."
        )


_JUDGED_KINDS: Final = (Kind.CHOICE, Kind.CLOZE, Kind.CHAIN, Kind.VISIBLE)
"""Kinds that are held out of unlearning, so that the verdict rests on unseen questions."""


def _settings_hash(run_config: Run) -> str:
    """Return a hash of the run's settings, without paths."""
    settings = {
        name: config.plain(value) for name, value in vars(run_config).items() if name not in ("out", "model", "data")
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
