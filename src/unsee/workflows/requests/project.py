"""Project folder of deletion requests: its paths, and the settings of all requests."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

from unsee import config
from unsee.data.open import open_benchmark
from unsee.errors import UserError, short_repr
from unsee.models import builtin
from unsee.models.identity import model_hash
from unsee.models.location import folder_of
from unsee.utils.files import atomic_write_text, owned_folder
from unsee.utils.terminal import note
from unsee.workflows.requests.ledger import Ledger

SETTINGS: Final = "project.yaml"
REQUEST: Final = "request.yaml"
BATCH: Final = "batch.json"
"""File of a batch: its requests, the settings it began with, and whether it has ended."""
ID: Final = re.compile(r"R-[0-9a-f]{8}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of all requests of a project: `project.yaml`, for the operator to edit."""

    model: str
    """Model that the next batch starts from: at first the original, then the last batch's."""
    data: str = ""
    """Data of the model's training, as far as they are at hand: the rows of a person are found there, the others are kept."""
    benchmark: str | Mapping[str, Any] = ""
    """How the data are laid out; empty = recognise it."""
    gold: str = ""
    """Model that never saw the people asked for, if there is one."""
    method: str = ""
    """Unlearning method; empty = what `unsee suggest` says."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Training` that differ from what is suggested."""
    attacks: tuple[str, ...] = ("sampling", "quantisation", "relearning")
    """Attacks on every batch (quick forms): any of `surfaces.ATTACKED`; the others stand in the receipt as not measured."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Private part of a request: `request.yaml` in its folder, until purged."""

    id: str
    entity: str
    """Identifier in the rows: the entity of the data, or the request's id where the data do not have the person."""
    name: str
    forms: tuple[str, ...]
    """Surface forms of the name."""
    attributes: tuple[str, ...] = ()
    """Facts that are to go; none = everything about the person."""
    in_data: bool = False
    """Whether the rows come from the project's data."""
    received: str
    """Date of arrival, ISO 8601."""


@dataclass(frozen=True, kw_only=True)
class Project:
    """A folder of deletion requests."""

    folder: Path

    @property
    def ledger(self) -> Ledger:
        """The ledger."""
        return Ledger(self.folder)

    @property
    def receipts(self) -> Path:
        """Folder of the receipts."""
        return self.folder / "receipts"

    def place(self, request: str) -> Path:
        """Return the folder of a request's private data."""
        if not ID.fullmatch(request):
            raise UserError(f"Request ids look like R-1a2b3c4d, got {short_repr(request)}. See `unsee request list`.")
        return self.folder / "requests" / request

    def batch(self, name: str) -> Path:
        """Return the folder of a batch."""
        return self.folder / "batches" / name

    def settings(self, changes: Mapping[str, Any] | None = None) -> Settings:
        """Read the settings, and return them with these changes (as `changed_settings` returns them)."""
        file = self.folder / SETTINGS
        if not file.is_file() and not changes:
            raise UserError(
                f"{self.folder} holds no deletion requests. Begin with `unsee request add --project {self.folder} --model M`."
            )
        stored_settings = config.read_mapping(file) if file.is_file() else {}
        settings: Settings = config.build(Settings, {**stored_settings, **(changes or {})}, where=str(file))
        return settings

    def write(self, settings: Settings) -> None:
        """Write the settings."""
        owned_folder(self.folder)
        atomic_write_text(self.folder / SETTINGS, config.dump_yaml(config.plain(asdict(settings))))

    def request(self, name: str) -> Request | None:
        """Return the private part of a request, or None once it is purged."""
        file = self.place(name) / REQUEST
        if not file.is_file():
            return None
        request: Request = config.build(Request, config.read_mapping(file), where=str(file))
        return request

    def keep(self, request: Request) -> None:
        """Write the private part of a request into its folder."""
        atomic_write_text(self.place(request.id) / REQUEST, config.dump_yaml(config.plain(asdict(request))))


def changed_settings(project: Project, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes to a project's settings as they are stored, after checking them. Nothing is written.

    Args:
        project: Where the requests are kept; its folder need not exist yet.
        changes: Setting -> value. Empty values change nothing, nor does `model` once a batch has set it, if it names the model
            before the first batch.

    Raises:
        UserError: There is no such model or data, the model is another than that of the last batch, or the folder holds files of
            somebody else.
    """
    folder, new_settings = project.folder, {name: value for name, value in changes.items() if value}
    if (folder / SETTINGS).is_file():
        stored_settings = asdict(project.settings())
    else:
        stored_settings = {}
        if not new_settings.get("model"):
            raise UserError(f"{folder} holds no deletion requests yet: give --model, the model that is to forget.")
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty and no project of deletion requests. Give another --project.")
    lasting_settings = _lasting({**stored_settings, **new_settings}, new_settings)
    config.build(Settings, lasting_settings, where="the project")
    new_settings = {name: lasting_settings[name] for name in new_settings}
    if stored_settings and "model" in new_settings and _is_set_by_batch(project, new_settings["model"]):
        del new_settings["model"]
    return new_settings


def _is_set_by_batch(project: Project, model: str) -> bool:
    """Tell whether a batch has set the model, which stays then, or raise if the given one is not that before the first batch."""
    last_model = project.settings().model
    hashes_before = [entry.content.get("before") for entry in project.ledger.entries() if entry.kind == "unlearned"]
    if not hashes_before or model == builtin.absolute_or_name(last_model):
        return False
    if model_hash(model) != hashes_before[0]:
        raise UserError(
            f"--model is {model}, but people were unlearned in {project.folder}, and its model is now {last_model}. Leave --model "
            f"out; where another model is meant to stand in, write it into {project.folder / SETTINGS}."
        )
    note(f"--model {model} is the model before the first batch; the project goes on with {last_model}.")
    return True


def _lasting(settings: Mapping[str, Any], changed: Collection[str]) -> dict[str, Any]:
    """Return the settings with absolute paths, or raise if a changed one cannot be used with the others."""
    absolute_settings = dict(settings)
    for name in ("model", "gold"):
        if name in changed:
            folder_of(settings[name])
            absolute_settings[name] = builtin.absolute_or_name(str(settings[name]))
    if settings.get("data") and not {"data", "benchmark"}.isdisjoint(changed):
        open_benchmark(settings["data"], settings.get("benchmark", ""))
        absolute_settings["data"] = builtin.absolute_or_name(str(settings["data"]))
    return absolute_settings


def day(text: str, option: str) -> date:
    """Parse the date of a command-line option."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UserError(f"{option} must be a date like 2027-01-31, got {short_repr(text)}.") from error
