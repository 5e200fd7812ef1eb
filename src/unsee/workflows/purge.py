"""Workflow of `purge`: remove what runs keep about the people that were to be forgotten.

Only folders that unsee made are touched, and of these only files of the table in `private_files`; everything else is listed
as staying. Removed files are gone for programs; disks, snapshots and backups may keep copies.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, Literal

from unsee import config
from unsee.benchmarks.request import SUFFIX
from unsee.config import RECORD, paths
from unsee.config.paths import PURGES
from unsee.config.retention import UNTIL_VERIFIED
from unsee.data import shared_cache
from unsee.distributed import processes
from unsee.distributed.file_lock import is_claimed, owner, require_free
from unsee.errors import InUseError, UserError, first_names, unknown_name
from unsee.utils.files import (
    LOCK,
    atomic_write_json,
    atomic_write_text,
    foreign,
    is_own,
    is_temporary,
    read_jsonl,
    remove_folder,
    remove_listed,
)
from unsee.utils.grouping import by_key
from unsee.utils.parsing import read_object
from unsee.utils.terminal import note
from unsee.workflows.own_folders import (
    DEEP,
    OF_PROJECT,
    beside,
    children_of,
    files_of,
    is_project,
    is_unit,
    units_below,
    units_of,
)
from unsee.workflows.private_files import DEFAULT, FILES, LEVELS, Level, Private

_FREE: Final = ("checkpoints", "weights")
"""Levels that may be removed inside a project of deletion requests: no open request needs them."""
_FEW: Final = 4
"""Number of files of one folder from which they are counted instead of named."""
_UNKNOWN: Final = "no file that is known to hold private data, or not written by unsee"
_PICTURE: Final = re.compile(r"[0-9a-f]{16}\.png")
_PICTURES: Final = Private("", "answers", "a picture that was asked about; no run beside it needs it")
_ORIGINAL: Final = Private("", "weights", "the original model of a run, which still knows the forgotten")
_PARTS: Final = Private("", "answers", "half-written by a process that was killed")
_STAYING: Final = {
    **{f"{name}.json": "figures, without ids" for name in ("scores", "attacks", "safety", "factuality", "concepts")},
    **dict.fromkeys(("summary.json", "table.md"), "figures, and names of runs"),
    "leaderboard.json": "figures, and names of runs, without messages",
    "index.json": "states of the cells of a sweep, without messages",
    "step.json": "cost and routing",
    "steering.json": "gate scores",
    RECORD: "settings and hashes, without the path of the data",
    "judged.json": "hashes of weights",
    "continual.json": "figures, without ids",
    "log.jsonl": "losses",
    "trackers.json": "settings of the training, and ids of the run in trackers",
    "ledger.sqlite": "steps of requests, without names",
    "project.yaml": "settings",
    "batch.json": "ids of requests, and settings",
    "index.html": "figures by request, without names",
    PURGES: "what was purged, and when",
}
"""Files of unsee that stay -> what they hold then."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """File that a purge removes, rewrites, or leaves."""

    path: Path
    shown: str
    """Path as it is printed: relative to the place that was given."""
    bytes: int
    """What is freed. Of a file that stays, its size."""
    level: Level | Literal[""] = ""
    why: str = ""
    """What it holds, or why it stays."""
    left: str | None = None
    """New text of a file that is rewritten."""
    stays: bool = False


@dataclass(frozen=True, kw_only=True)
class Purged:
    """What a purge removed, or would remove."""

    levels: tuple[Level, ...]
    removed: tuple[Item, ...]
    """Removed and rewritten files."""
    kept: tuple[Item, ...]
    notes: tuple[str, ...]
    """What could not be told, and what lies elsewhere."""
    applied: bool
    time: str
    """UTC, ISO 8601."""

    @property
    def bytes(self) -> int:
        """Bytes freed."""
        return sum(item.bytes for item in self.removed)

    def within(self, folder: Path) -> Purged:
        """Return the part that lies in a folder."""
        removed, kept = (
            tuple(item for item in items if item.path.is_relative_to(folder)) for items in (self.removed, self.kept)
        )
        return replace(self, removed=removed, kept=kept)

    def record(self) -> dict[str, Any]:
        """Return counts and bytes by level and the time, without any name, as JSON values."""
        sizes = by_key((item.level, item.bytes) for item in self.removed)
        return {
            "time": self.time,
            "levels": list(self.levels),
            "files": len(self.removed),
            "bytes": self.bytes,
            "by_level": {
                level: {"files": len(sizes.get(level, ())), "bytes": sum(sizes.get(level, ()))} for level in self.levels
            },
            "kept": {"files": len(self.kept), "bytes": sum(item.bytes for item in self.kept)},
        }

    def __str__(self) -> str:
        """Return the list of files, the totals, and what stays."""
        verb = "removed" if self.applied else "would be removed"
        lines = list(_item_lines(self.removed))
        parts = [f"{level} {counts['files']}" for level, counts in self.record()["by_level"].items()]
        lines += [f"{len(self.removed)} files ({', '.join(parts)}), {self.bytes:,} bytes {verb}."]
        lines += _item_lines(self.kept)
        lines += [f"note: {note}" for note in self.notes]
        lines += [] if self.applied else ["Nothing was changed. Give --yes to remove these files."]
        return "\n".join(lines)


def purge(
    places: Sequence[Path | str],
    *,
    levels: Collection[str] | None = None,
    apply: bool = False,
    due: bool = False,
    shared: bool | None = None,
) -> Purged:
    """Remove what run folders keep about the forgotten, or list it unless `apply`.

    A purge that was interrupted is finished by the same call.

    Args:
        places: Run folders, sequences, demos, sweeps, comparisons, or folders of such.
        levels: What goes, of `LEVELS`. None: all but weights.
        apply: Remove. Otherwise nothing changes.
        due: Only runs whose `retention: days:N` has passed.
        shared: Also remove a cache that runs beside may need. None: if `levels` names caches.

    Raises:
        UserError: A place was not made by unsee, is a link or holds one that leads out, or is in use, or there are several
            processes. Nothing has been removed then.
    """
    processes.require_single("unsee purge")
    chosen_levels = _chosen(levels)
    found = dict.fromkeys(root for path in places for root in _roots(Path(path), due=due))
    roots = [root for root in found if not _is_part(root, found)]
    shared = levels is not None and "caches" in chosen_levels if shared is None else shared
    plan = _Plan(roots=roots, levels=chosen_levels, shared=shared, due=due)
    plan.require_free()
    if not apply:
        return plan.outcome(applied=False)
    if "answers" in chosen_levels:
        _keep_verdicts(unit for root in roots for unit in units_of(root))
    with ExitStack() as locks:
        for folder in plan.folders_to_lock():
            locks.enter_context(owner(folder))
        purged = plan.outcome(applied=True)
        for root in roots:
            _note(root, {"begun": purged.time, "levels": list(chosen_levels)})
        for item in purged.removed:
            _carry_out(item)
        for root in roots:
            _note(root, purged.within(root).record())
    _remove_empty(purged, roots)
    return purged


def _keep_verdicts(units: Iterable[Path]) -> None:
    """Keep in run.yaml what evaluations found, where the answers that tell it are to go."""
    for unit in units:
        if (unit / "responses.jsonl").is_file() and (unit / RECORD).is_file():
            from unsee.workflows.verdict import keep_evaluation

            try:
                keep_evaluation(unit)
            except UserError as error:
                note(f"{unit}: its evaluation cannot be read, so its verdict goes with the answers: {error}")


def purge_verified(folder: Path | str, *, forgotten: bool) -> Purged | None:
    """Purge caches and checkpoints of an `until_verified` run that was judged forgotten.

    Several processes remove nothing, and say so.

    Returns:
        What was removed, or None where the run keeps its files, or is not judged forgotten.
    """
    record = Path(folder) / RECORD
    if not forgotten or not record.is_file() or config.read(record).retention != UNTIL_VERIFIED:
        return None
    if processes.world() > 1:
        if processes.is_main():
            note(
                f"retention {UNTIL_VERIFIED}: several processes remove nothing. Run `unsee purge {folder} --level caches,checkpoints --yes`."
            )
        return None
    return purge([folder], levels=("caches", "checkpoints"), apply=True, shared=False)


def _chosen(levels: Collection[str] | None) -> tuple[Level, ...]:
    """Return the levels in their order, or raise for an unknown one."""
    for name in levels or ():
        if name not in LEVELS:
            raise unknown_name("level", name, LEVELS)
    if levels is not None and not levels:
        raise UserError(f"No level is given. Known: {', '.join(LEVELS)}.")
    return DEFAULT if levels is None else tuple(level for level in LEVELS if level in levels)


def _roots(folder: Path, *, due: bool) -> list[Path]:
    """Return the outermost folders of unsee in a folder.

    With `due`: the runs whose retention has passed. A sweep or sequence is returned itself once that of all its runs has.
    """
    if folder.is_symlink():
        raise UserError(f"{folder} is a link. Give the folder that it leads to.")
    paths.require_run(folder)
    folder = folder.resolve()
    if is_project(folder):
        raise UserError(f"{folder} is a project of deletion requests. {OF_PROJECT.format(folder)}")
    roots = [folder] if is_unit(folder) else units_below(folder, DEEP)
    if not roots:
        raise UserError(
            f"{folder} was not made by unsee, and holds no run: nothing in it is removed. Give the --out of a command, or "
            "the folder that holds such folders."
        )
    if not due:
        return roots
    today = datetime.now(UTC).date()
    return [folder for root in roots for folder in _due_in(root, today)]


def _due_in(root: Path, today: date) -> list[Path]:
    """Return a folder of unsee if all of its runs are finished and due, else those that are."""
    units = units_of(root)
    due_dates = [_due_of(unit) for unit in units if (unit / config.RECORD).is_file()]
    if len(units) > 1 and due_dates and all(due and due <= today.isoformat() for due in due_dates):
        has_answers = any((unit / "responses.jsonl").is_file() for unit in units)
        return [] if is_done(root, DEFAULT) and not has_answers else [root]
    return [unit for unit in units if _is_due(unit, today)]


def _is_part(root: Path, roots: Collection[Path]) -> bool:
    """Tell whether a folder goes with another one: it lies inside, or is the original model beside a run."""
    return any(parent in roots for parent in root.parents) or (paths.is_base(root) and paths.run_of_base(root) in roots)


def require_outside(path: Path | str, levels: Collection[str] | None) -> None:
    """Raise if a path lies in a project of deletion requests whose data would be removed.

    Raises:
        UserError: Only `unsee request purge` knows which requests are open, and notes in the ledger what went.
    """
    refused_levels = [level for level in _chosen(levels) if level not in _FREE]
    for folder in Path(path).resolve().parents:
        if refused_levels and is_project(folder):
            raise UserError(
                f"{path} is part of {folder}, a project of deletion requests, where only --level {' and '.join(_FREE)} can be "
                f"named; got {', '.join(refused_levels)}. {OF_PROJECT.format(folder)}"
            )


def _is_due(unit: Path, today: date) -> bool:
    """Tell whether the retention of a finished run has passed, and it was not purged since, or was asked again."""
    due = _due_of(unit)
    is_purged = is_done(unit, DEFAULT) and not (unit / "responses.jsonl").is_file()
    return bool(due) and due <= today.isoformat() and not is_purged


def _due_of(unit: Path) -> str:
    """Return the date from which a finished run is to be purged, or empty if it has none."""
    return str(config.result_of(unit).get("retention", {}).get("due", ""))


def is_done(unit: Path, levels: Collection[str]) -> bool:
    """Tell whether a finished purge of a folder took these levels."""
    finished_purges = [row for row in _noted_purges(unit) if "files" in row]
    return set(levels) <= {level for row in finished_purges for level in row["levels"]}


def _noted_purges(unit: Path) -> list[dict[str, Any]]:
    """Return the purges that a folder notes."""
    file = unit / PURGES
    return list(read_object(file).get("purges", ())) if file.is_file() else []


def _note(root: Path, record: Mapping[str, Any]) -> None:
    """Append a purge to a folder's note, in place of one that was begun."""
    finished_purges = [row for row in _noted_purges(root) if "begun" not in row]
    atomic_write_json(root / PURGES, {"purges": [*finished_purges, record]})


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Plan of a purge, whose files are looked up at each call."""

    roots: Sequence[Path]
    """Folders of unsee."""
    levels: tuple[Level, ...]
    shared: bool
    due: bool = False

    def folders_to_lock(self) -> list[Path]:
        """Return the folders that are to be locked, outermost first."""
        return [unit for root in self.roots for unit in units_of(root) if unit == root or (unit / LOCK).is_file()]

    def require_free(self) -> None:
        """Raise InUseError if another process works in a folder, below it or above it."""
        for root in self.roots:
            for folder in (*root.parents[:DEEP], *units_of(root)):
                require_free(folder)
            for claim in sorted(root.glob("**/claims/*")):
                if is_claimed(claim):
                    raise InUseError(f"A process works at {claim}. Wait for it to end.")

    def outcome(self, *, applied: bool) -> Purged:
        """Return what is removed and what stays."""
        items = [item for root in self.roots for item in self._items(root)]
        removed = [item for item in items if not item.stays]
        notes: list[str] = []
        for folder in dict.fromkeys(root.parent for root in self.roots):
            removed += self._cache_beside(folder, notes)
            notes += self._quoting(folder)
        for folder in dict.fromkeys(_picture_folders(self.roots)):
            removed += self._pictures_beside(folder, notes)
        notes += self._left_around()
        location = os.environ.get(shared_cache.VARIABLE, "")
        if location not in ("", "off"):
            notes.append(f"the shared cache {location} ({shared_cache.VARIABLE}) is not touched; it may hold answers.")
        return Purged(
            levels=self.levels,
            removed=tuple(removed),
            kept=tuple(item for item in items if item.stays),
            notes=tuple(notes),
            applied=applied,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _items(self, root: Path) -> Iterator[Item]:
        """Yield every file of a folder and of its original model, with what happens to it."""
        base = root if paths.is_base(root) else paths.base_of_run(root)
        if paths.is_base(base):
            items = [self._item(path, base, _ORIGINAL) for path in files_of(base) if not is_own(path)]
            user_run = self._user_of(base)
            yield from (
                replace(item, level="", stays=True, why=f"{user_run} was made from it") if user_run else item
                for item in items
            )
        if base != root:
            yield from self._own_items(root)
        rows = root.parent / f"{root.name}{SUFFIX}"  # beside an adapter that sequences share
        if rows.is_file() and not self._takes(rows):
            yield self._item(rows, root, *(kind for kind in FILES if kind.fits(Path(rows.name))))

    def _user_of(self, base: Path) -> str:
        """Return the name of a remaining run that was made from a base, or empty if there is none."""
        runs = [unit for unit in children_of(base.parent) if unit not in self.roots and (unit / RECORD).is_file()]
        models = {run.name: str(config.read_mapping(run / RECORD).get("model", "")) for run in runs}
        return next((name for name, model in models.items() if Path(model).resolve() == base), "")

    def _own_items(self, root: Path) -> Iterator[Item]:
        """Yield every file of a folder with what happens to it."""
        units = set(units_of(root))
        bases = units | {unit.parent for unit in units if unit != root}
        for path in files_of(root):
            if is_temporary(path):
                yield self._item(path, root, _PARTS)
            elif not is_own(path):
                kinds = [
                    kind
                    for base in path.parents
                    if base in bases
                    for kind in FILES
                    if kind.fits(path.relative_to(base))
                ]
                yield self._item(path, root, *kinds)

    def _item(self, path: Path, root: Path, *kinds: Private) -> Item:
        """Return what happens to one file: removal wins over rewriting, and either over staying."""
        name, size = path.relative_to(root.parent).as_posix(), path.lstat().st_size
        chosen_kinds = [kind for kind in kinds if kind.level in self.levels]
        if kind := min(chosen_kinds, key=lambda kind: kind.rewrite is not None, default=None):
            item = Item(path=path, shown=name, bytes=size, level=kind.level, why=kind.why)
            if kind.rewrite is None:
                return item
            before, after = _rewritten(path, kind.rewrite)
            if after != before:
                return replace(item, bytes=max(0, size - len(after.encode())), left=after)
        other_kinds = [kind for kind in kinds if kind.level not in self.levels]
        usual_name = re.sub(r"^attacks-[0-9a-f]+\.json$", "attacks.json", path.name)
        why = (
            f"{other_kinds[0].why}; --level {other_kinds[0].level} takes it"
            if other_kinds
            else _STAYING.get(usual_name, _UNKNOWN)
        )
        return Item(path=path, shown=name, bytes=size, why=why, stays=True)

    def _cache_beside(self, folder: Path, notes: list[str]) -> list[Item]:
        """Return the shared cache of the runs in a folder, if none that stays may need it.

        Its entries are named by hashes of weights and prompts, which no run keeps, so nobody can tell whose an entry is.
        """
        cache = folder / "cache"
        if "caches" not in self.levels or not cache.is_dir() or self._takes(folder):
            return []
        units = [
            unit for unit in children_of(folder) if any((unit / name).is_file() for name in (RECORD, "judged.json"))
        ]
        units = [unit for unit in units if unit not in self.roots and not is_done(unit, ["caches"])]
        if busy_names := [unit.name for unit in units if is_claimed(unit / LOCK)]:
            notes.append(f"{cache} stays: {busy_names[0]} is in use and may need it.")
            return []
        if units and not self.shared:
            notes.append(
                f"{cache} stays: nobody can tell which of its entries belong to which run, and {first_names([unit.name for unit in units], 3)} may need them "
                "(runs are only slower without). Name `--level caches` to remove all of it."
            )
            return []
        cached_files = [
            (path, [kind for kind in FILES if kind.fits(path.relative_to(folder))]) for path in files_of(cache)
        ]
        return [self._item(path, folder, *kinds) for path, kinds in cached_files if kinds]

    def _pictures_beside(self, folder: Path, notes: list[str]) -> list[Item]:
        """Return the shared pictures that no answer of another run refers to."""
        if "answers" not in self.levels or not folder.is_dir():
            return []
        pictures = [path for path in files_of(folder) if _PICTURE.fullmatch(path.name)]
        neighbours = list(beside(folder.parent, folder.parent, DEEP)) if pictures else []
        if project_names := [path.name for path in neighbours if is_project(path)]:
            notes.append(
                f"{folder} stays: {project_names[0]} is a project of deletion requests, whose open ones may need its pictures."
            )
            return []
        units = [unit for neighbour in neighbours for unit in units_of(neighbour) if not self._takes(unit)]
        if busy_names := [unit.name for unit in units if is_claimed(unit / LOCK)]:
            notes.append(f"{folder} stays: {busy_names[0]} is in use and may need its pictures.")
            return []
        needed_names = {Path(row.get("image") or "").name for unit in units for row in _answers(unit)}
        return [self._item(path, folder.parent, _PICTURES) for path in pictures if path.name not in needed_names]

    def _takes(self, unit: Path) -> bool:
        return any(unit.is_relative_to(root) for root in self.roots)

    def _left_around(self) -> Iterator[str]:
        """Yield the folders around the runs that hold the same questions and names, and stay."""
        for root in self.roots if {"answers", "requests"} & {*self.levels} else ():
            for suffix, content in (("-tries", "the tries of its --budget"), ("-gold", "answers of its gold model")):
                folder = root.with_name(f"{root.name}{suffix}")
                if folder.is_dir() and not self._takes(folder):
                    yield f"{folder} stays, {content}; give {folder.name} too."
        wholes = [next((part for part in root.parents[:DEEP] if is_unit(part)), None) for root in self.roots]
        for whole in dict.fromkeys(part for part in wholes if self.due and part is not None):
            yield f"{whole} has reports, logs or requests of these runs, and stays until all of its runs are due. To remove it now, give {whole.name}."

    def _quoting(self, folder: Path) -> Iterator[str]:
        """Yield the reports beside the runs, which may quote their answers."""
        for unit in children_of(folder) if "answers" in self.levels else ():
            for name in ("report.html", "answers.html", "leaderboard.html"):
                if unit not in self.roots and (unit / name).is_file():
                    yield f"{unit / name} may quote answers of these runs; give {unit.name} too."


def _picture_folders(roots: Sequence[Path]) -> Iterator[Path]:
    """Yield the folders of pictures that runs share with those beside them."""
    for root in roots:
        yield root.parent / paths.PICTURES
        for whole in root.parents[:2]:  # rows of a demo, cells of a sweep, models of a sequence
            if is_unit(whole):
                yield whole / "images"


def _answers(unit: Path) -> list[Any]:
    """Return the answers of a run, none where there are none."""
    file = unit / "responses.jsonl"
    return read_jsonl(file) if file.is_file() else []


def _rewritten(path: Path, rewrite: Callable[[str], str]) -> tuple[str, str]:
    """Return a file's text before and after its private parts are removed.

    Raises UserError for a damaged file, before anything is removed.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return text, rewrite(text)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({error!s:.100}), so nobody can tell what it holds. Nothing was removed; remove it by hand."
        ) from error


def _carry_out(item: Item) -> None:
    """Remove or rewrite one file. A missing one is no error."""
    if item.left is not None:
        atomic_write_text(item.path, item.left)
    else:
        remove_listed(item.path)


def _remove_empty(purged: Purged, roots: Sequence[Path]) -> None:
    """Remove the folders that a purge has emptied."""
    kept_folders = {folder for root in roots for folder in (root, *root.parents)}
    for item in purged.removed:
        folder = item.path.parent
        while folder not in kept_folders and folder.is_dir() and not foreign(folder) and not is_claimed(folder / LOCK):
            remove_folder(folder)
            folder = folder.parent


def _item_lines(items: Sequence[Item]) -> Iterator[str]:
    """Yield the lines of files, those of one folder and kind in one."""
    groups: dict[tuple[str, str, str], list[Item]] = {}
    for item in items:
        action = "stays" if item.stays else f"{'rewrite' if item.left is not None else 'remove'} {item.level}"
        groups.setdefault((action, item.shown.rpartition("/")[0], item.why), []).append(item)
    for (action, folder, why), group in groups.items():
        names = ", ".join(item.shown for item in group)
        name = names if len(group) < _FEW else f"{folder}/ ({len(group)} files)"
        yield f"{action:<19} {sum(item.bytes for item in group):>12,}  {name}: {why}"
