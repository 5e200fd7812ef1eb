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
from unsee.models.location import folder_of
from unsee.utils.files import atomic_write_text, owned_folder
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

    def settings(self) -> Settings:
        """Read the settings."""
        file = self.folder / SETTINGS
        if not file.is_file():
            raise UserError(
                f"{self.folder} holds no deletion requests. Begin with `unsee request add --project {self.folder} --model M`."
            )
        settings: Settings = config.build(Settings, config.read_mapping(file), where=str(file))
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


def open_project(folder: Path | str, changes: Mapping[str, Any]) -> Project:
    """Return a project with these changes to its settings, created by the first call.

    Raises:
        UserError: There is no such model or data, or the folder holds files of somebody else.
    """
    project = Project(folder=Path(folder))
    new_settings = {name: value for name, value in changes.items() if value}
    stored_settings: dict[str, Any] = {}
    if (project.folder / SETTINGS).is_file():
        stored_settings = asdict(project.settings())
    else:
        if not new_settings.get("model"):
            raise UserError(f"{folder} holds no deletion requests yet: give --model, the model that is to forget.")
        if project.folder.is_dir() and any(project.folder.iterdir()):
            raise UserError(f"{folder} is not empty and no project of deletion requests. Give another --project.")
    if new_settings:
        settings = _lasting({**stored_settings, **new_settings}, new_settings)
        project.write(config.build(Settings, settings, where="the project"))
    return project


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
