"""Page of a project: status and verdict of each request after each batch, without names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from unsee.report.page import render_page
from unsee.utils.files import atomic_write_text
from unsee.workflows.requests import surfaces
from unsee.workflows.requests.ledger import Entry, State
from unsee.workflows.requests.project import Project
from unsee.workflows.requests.receipt import HERE

PAGE: Final = "index.html"


def write_overview(project: Project) -> None:
    """Write the page of a project."""
    states = list(project.ledger.states().values())
    batches = sorted(
        {str(entry.content["batch"]) for state in states for entry in _entries(state, "verdict", "batch", "surfaces")}
    )
    rows = [_row(project, state, batches) for state in states]
    text = render_page("overview.html", ("receipt.css",), "", {"batches": batches, "rows": rows}, here=HERE)
    atomic_write_text(project.folder / PAGE, text)


def _row(project: Project, state: State, batches: list[str]) -> dict[str, Any]:
    """Return what the page shows of a request."""
    surfaces_by_batch = {
        str(entry.content["batch"]): entry.content["surfaces"]
        for entry in _entries(state, "verdict", "batch", "surfaces")
    }
    receipts = [str(entry.content["receipt"]) for entry in _entries(state, "receipt", "receipt")]
    verdict = state.verdict or ("no_baseline" if state.last("asked").get("found") is False else "")
    return {
        "id": state.request,
        "received": state.received.isoformat(),
        "due": state.due.isoformat(),
        "status": str(state.last("closed").get("decision", state.status)).replace("_", " "),
        "verdict": verdict,
        "word": verdict.replace("_", " ") or "-",
        "purged": project.request(state.request) is None,
        "before": _cell(state.last("asked").get("surfaces", {}), "before"),
        "cells": [_cell(surfaces_by_batch[batch], "") if batch in surfaces_by_batch else None for batch in batches],
        "receipts": receipts,
    }


def _entries(state: State, kind: str, *fields: str) -> list[Entry]:
    """Return the entries of a kind, without those that were edited so that they lack a field."""
    return [entry for entry in state.entries if entry.kind == kind and set(fields) <= entry.content.keys()]


def _cell(surface_results: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """Return the answers on all asked surfaces together: as text, and as a share (0..1) for the colour."""
    counts = [
        surface_result.get(key) if key else surface_result
        for name, surface_result in surface_results.items()
        if name in surfaces.ASKED
    ]
    known_counts = [count for count in counts if count and "n" in count]
    if not known_counts:
        return None
    hits, n = sum(count["hits"] for count in known_counts), sum(count["n"] for count in known_counts)
    return {"text": f"{hits} of {n}", "share": hits / n}
