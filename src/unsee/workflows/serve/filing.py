"""Deletion requests from the page, received as by `unsee request add`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unsee.api import ImageSource
from unsee.workflows.requests import intake
from unsee.workflows.requests.project import SETTINGS, Project, changed_settings


@dataclass(frozen=True, kw_only=True)
class Filing:
    """Where requests go."""

    folder: Path
    """Project of deletion requests; begun by the first one."""
    model: str
    """Model that a new project is about."""
    data: str = ""
    """Data of a new project."""
    benchmark: str | Mapping[str, Any] = ""
    """How they are laid out."""

    def file(self, name: str, images: Sequence[ImageSource]) -> str:
        """Receive a request, and return its summary without questions and answers.

        Raises:
            UserError: As `unsee.workflows.requests.intake.add`; nothing is kept then.
        """
        project = Project(folder=self.folder)
        has_project = (self.folder / SETTINGS).is_file()
        settings = {} if has_project else {"model": self.model, "data": self.data, "benchmark": self.benchmark}
        changes = changed_settings(project, settings)
        with tempfile.TemporaryDirectory() as folder:  # readable by its owner only
            files = [Path(folder) / f"{number}.png" for number in range(len(images))]
            for file, image in zip(files, images, strict=True):
                image.load().save(file)
            report = intake.add(project, name, files, changes=changes)
        return f"{replace(report, quotes=())}\nproject: {self.folder}"
